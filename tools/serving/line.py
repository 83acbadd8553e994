"""The line: one network run at a time, in order, and everyone knows their place."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eomt_mm.errors import UserError

# Seconds that a place is held for someone who reloads the page.
PATIENCE = 30


class Ticket:
    """A place in the line.

    Attributes:
        work (Callable): What is to be done, without arguments.
        future (asyncio.Future): Its result.
        listeners (int): Who waits for it.
        left (float): When the last of them left.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future = asyncio.get_running_loop().create_future()
        self.listeners, self.left = 0, time.monotonic()

    @property
    def is_wanted(self) -> bool:
        """Whether someone waits, or left a moment ago."""
        return self.listeners > 0 or time.monotonic() - self.left < PATIENCE


class Line:
    """Work that is done one after the other, in one thread.

    Args:
        most (int): Tickets at a time, that under way included.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.tickets: list[Ticket] = []
        self._thread = ThreadPoolExecutor(1, 'network')
        self._news = asyncio.Event()
        self._runner: asyncio.Task | None = None

    def enter(self, work: Callable[[], Any]) -> Ticket:
        """Join the line.

        Raises:
            UserError: It is full.
        """
        if len(self.tickets) >= self.most:
            raise UserError(
                f'{len(self.tickets)} others are waiting already, and that is all the '
                'page takes: try again in a minute'
            )
        ticket = Ticket(work)
        self.tickets.append(ticket)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a place up; work under way is finished, and forgotten."""
        if ticket in self.tickets[1:]:
            self.tickets.remove(ticket)
            self._announce()
        ticket.future.cancel()

    async def places(self, ticket: Ticket) -> AsyncIterator[int]:
        """Yield how many are in front, at once and after every change, until done."""
        ticket.listeners += 1
        try:
            shown = None
            while not ticket.future.done():
                news = self._news
                place = self.tickets.index(ticket) if ticket in self.tickets else 0
                if place != shown:
                    yield place
                    shown = place
                    continue  # what happened meanwhile is not missed
                await news.wait()
        finally:
            ticket.listeners -= 1
            ticket.left = time.monotonic()

    def close(self) -> None:
        """Stop after the work under way."""
        for ticket in self.tickets:
            ticket.future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.tickets:
            ticket = self.tickets[0]
            if ticket.is_wanted and not ticket.future.done():
                try:
                    result = await loop.run_in_executor(self._thread, ticket.work)
                except Exception as error:
                    if not ticket.future.done():
                        ticket.future.set_exception(error)
                        ticket.future.exception()  # it may be that no one asks
                else:
                    if not ticket.future.done():
                        ticket.future.set_result(result)
            ticket.future.cancel()  # of work that nobody wants
            self.tickets.remove(ticket)
            self._announce()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
