"""What is kept for each open page: its photo and what the network said of it."""

import ctypes
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from eomt_mm.errors import UserError

from .line import Ticket
from .outputs import Outputs
from .photo import Photo
from .settings import Run

MOST_SESSIONS = 200
_TOKEN = re.compile(r'[A-Za-z0-9_-]{16,64}')


@dataclass
class Session:
    """One open page.

    Attributes:
        photo (Photo, optional): The last one.
        number (int): Number of that photo.
        outputs (dict[Run, Outputs]): What is known of it.
        pending (dict[Run, Ticket]): What is awaited of it.
        used (float): When it was last asked for.
    """

    photo: Photo | None = None
    number: int = 0
    outputs: dict[Run, Outputs] = field(default_factory=dict)
    pending: dict[Run, Ticket] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        photo = 0 if self.photo is None else self.photo.pixels.nbytes
        return photo + sum(outputs.nbytes for outputs in self.outputs.values())

    def clear(self) -> list[Ticket]:
        """Forget photo and outputs; return the tickets that nobody needs any more."""
        tickets = list(self.pending.values())
        self.photo = None
        self.outputs, self.pending = {}, {}
        return tickets


class Sessions:
    """All open pages, the least recently used first.

    Args:
        megabytes (float): Memory for photos and outputs in all.
        minutes (float): Time after which a page that asks for nothing is forgotten.
    """

    def __init__(self, megabytes: float, minutes: float) -> None:
        self.most_bytes, self.seconds = megabytes * 1e6, 60 * minutes
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def open(self, token: str) -> Session:
        """Return the session of a page, a new one if need be.

        Raises:
            UserError: The token is none that the page makes.
        """
        if not _TOKEN.fullmatch(token):
            raise UserError('the address names no page: load the page again')
        session = self._sessions.setdefault(token, Session())
        self._sessions.move_to_end(token)
        session.used = time.monotonic()
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.pop(self._least_missed(session))
        return session

    def _least_missed(self, opened: Session) -> str:
        """Return the token of the oldest without a photo, else of the oldest."""
        others = [token for token, s in self._sessions.items() if s is not opened]
        bare = (token for token in others if self._sessions[token].photo is None)
        return next(bare, others[0])

    @property
    def nbytes(self) -> int:
        """Memory that is held for all."""
        return sum(session.nbytes for session in self._sessions.values())

    def trim(self, keep: Session) -> None:
        """Forget those that were used least recently, until the rest fits.

        Args:
            keep (Session): The one that is in use; of it, older outputs go.

        Raises:
            UserError: It alone does not fit.
        """
        while self.nbytes > self.most_bytes:
            oldest = next((s for s in self._sessions.values() if s.nbytes), keep)
            if oldest is not keep:
                oldest.clear()
            elif len(keep.outputs) > 1:
                del keep.outputs[next(iter(keep.outputs))]
            else:
                needed = keep.nbytes / 1e6
                keep.clear()
                raise UserError(
                    f'this takes {needed:.0f} MB, and the page holds '
                    f'{self.most_bytes / 1e6:.0f} MB: take a smaller photo, or start '
                    'the page with a larger --max-held'
                )

    def expire(self) -> list[Ticket]:
        """Forget the pages that ask for nothing any more; return their tickets."""
        limit = time.monotonic() - self.seconds
        old = [token for token, s in self._sessions.items() if s.used < limit]
        tickets = [t for token in old for t in self._sessions.pop(token).clear()]
        if old:
            give_back()
        return tickets


def give_back() -> None:
    """Hand freed memory back to the system; glibc keeps it for later otherwise."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        pass  # another C library
