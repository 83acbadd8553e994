"""What the page can ask for, without the web: photos in, results out.

Networks run in a line, one at a time. Everything else (reading, post-processing,
drawing, downloads) has a thread of its own, so that a threshold moves while the network
works for someone else.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from eomt_mm.deploy.postprocess import softmax
from eomt_mm.errors import UserError

from .line import Line, Ticket
from .outputs import Model, Outputs
from .photo import Photo, read_photo
from .saving import coco_json, panoptic_png, png
from .segments import describe, packed
from .sessions import Session, Sessions, give_back
from .settings import Run, View

THUMB_SIDE = 96  # px, of a mask in the table of queries
MOST_QUERIES = 24
DOWNLOADS = {
    'painted.png': 'image/png',
    'coco.json': 'application/json',
    'panoptic.png': 'image/png',
}


class Gone(UserError):
    """The photo is not held any more."""


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        megapixels (float): Of a photo.
        megabytes (float): Of its file.
        waiting (int): Uploads and network runs at a time.
        held (float): Megabytes of photos and outputs that are kept.
        minutes (float): Time after which an unused page is forgotten.
    """

    megapixels: float = 50
    megabytes: float = 32
    waiting: int = 20
    held: float = 1000
    minutes: float = 30


class Service:
    """Models, open pages and the line.

    Args:
        models (list[Model]): One or more.
        limits (Limits): What the page takes.

    Attributes:
        passes (int): Network runs so far.
        uploads (int): Photos that are being received.
    """

    def __init__(self, models: list[Model], limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.sessions = Sessions(limits.held, limits.minutes)
        self.line = Line(limits.waiting)
        self.passes = self.uploads = 0
        self._light = ThreadPoolExecutor(1, 'light')

    def close(self) -> None:
        """End the threads."""
        self.line.close()
        self._light.shutdown(wait=False, cancel_futures=True)

    async def receive(self, session: Session, name: str, content: bytes) -> dict:
        """Take a photo; what the page was waiting for is given up."""
        start = time.perf_counter()
        read = partial(read_photo, content, self.limits.megapixels)
        pixels, note = await self._aside(read)
        photo = Photo(name, pixels, time.perf_counter() - start, note)
        self.forget(session)
        session.photo, session.number = photo, session.number + 1
        self.sessions.trim(session)
        return self.photo_of(session)

    def photo_of(self, session: Session) -> dict:
        """Describe the photo that is held; empty if there is none."""
        if session.photo is None:
            return {}
        photo = session.photo
        (height, width), shown = photo.size, photo.shown_size
        return dict(
            number=session.number,
            name=photo.name,
            note=photo.note,
            width=width,
            height=height,
            shown=[shown[1], shown[0]],
        )

    def held_photo(self, session: Session) -> Photo:
        """Return the photo of a page.

        Raises:
            Gone: There is none.
        """
        if session.photo is None:
            raise Gone('the photo is no longer held here: choose it again')
        return session.photo

    def forget(self, session: Session) -> None:
        """Forget photo and outputs of a page, and its places in the line."""
        for ticket in session.clear():
            self.line.leave(ticket)
        give_back()

    async def jpeg(self, session: Session, number: int) -> bytes:
        """Return the photo of a number for the browser.

        Raises:
            Gone: It is not held any more.
        """
        photo = self.held_photo(session)
        if number != session.number:
            raise Gone('another photo has taken the place of this one')
        return await self._aside(lambda: photo.jpeg)

    async def result(
        self, session: Session, run: Run, view: View
    ) -> AsyncIterator[dict]:
        """Yield places in the line, then the result.

        Args:
            session (Session): Of the page.
            run (Run): What the network has to run for.
            view (View): What is made of its outputs.

        Yields:
            dict: `waiting`, how many are in front; at last the result.
        """
        photo = self.held_photo(session)
        async for place in self._outputs(session, run):
            if isinstance(place, int):
                yield dict(waiting=place)
            else:
                outputs = place
        model = self.models[run.model]
        found = await self._aside(partial(self._show, model, photo, outputs, view))
        found['passes'] = self.passes
        yield found

    async def _outputs(
        self, session: Session, run: Run
    ) -> AsyncIterator[int | Outputs]:
        """Yield places in the line, then the outputs; kept ones come at once."""
        number, outputs = session.number, session.outputs.get(run)
        if outputs is None:
            photo = self.held_photo(session)
            ticket = session.pending.get(run)
            if ticket is None:
                self.sessions.trim(session)  # of results that nobody waited for
                ticket = self.line.enter(partial(self._look, photo, run))
                session.pending[run] = ticket
                ticket.future.add_done_callback(partial(_keep, session, run, ticket))
            async for place in self.line.places(ticket):
                yield place
            if ticket.future.cancelled() or session.number != number:
                raise UserError('another photo has taken the place of this one')
            outputs = ticket.future.result()
            self.sessions.trim(session)
        yield outputs

    def _look(self, photo: Photo, run: Run) -> Outputs:
        self.passes += 1
        return self.models[run.model].look(photo.pixels, run)

    def _show(self, model: Model, photo: Photo, outputs: Outputs, view: View) -> dict:
        """Post-process and draw at the size of the page."""
        start = time.perf_counter()
        segments = model.finish(outputs, view, photo.shown_size)
        confidence = None
        if view.confidence:
            confidence = model.confidence(outputs, view, photo.shown_size)
        done = time.perf_counter()
        found = describe(segments, model.classes, model.palette)
        if confidence is not None:
            found['confidence'] = packed((255 * confidence).round(), 'u1')
        seconds = outputs.seconds
        found['seconds'] = dict(
            read=photo.seconds + seconds['fit'],
            network=seconds['network'],
            post=done - start,
            draw=time.perf_counter() - done,
        )
        return found

    async def inside(self, session: Session, run: Run) -> AsyncIterator[dict]:
        """Yield places in the line, then the masks of queries in every prediction."""
        photo = self.held_photo(session)
        async for place in self._outputs(session, run):
            if isinstance(place, int):
                yield dict(waiting=place)
            else:
                outputs = place
        model = self.models[run.model]
        yield await self._aside(partial(_thumbnails, model, photo, outputs))

    async def query(self, session: Session, run: Run, view: View, query: int) -> dict:
        """Return the mask of one query in one prediction, at the size of the page."""
        photo, outputs = self.held_photo(session), session.outputs.get(run)
        if outputs is None:
            raise Gone('this prediction is no longer held: ask for it again')
        if not 0 <= query < outputs.steps[-1].classes.shape[1]:
            raise UserError(f'there is no query {query}')
        model, size = self.models[run.model], photo.shown_size
        masks = await self._aside(partial(model.query_masks, outputs, [query], size))
        return dict(mask=packed(masks[view.step, 0], 'u1'))

    async def download(
        self, session: Session, run: Run, view: View, kind: str
    ) -> bytes:
        """Return a file of the result, at the size of the photo.

        Raises:
            Gone: Photo or outputs are not held any more.
        """
        photo, outputs = self.held_photo(session), session.outputs.get(run)
        if outputs is None:
            raise Gone('this result is no longer held: ask for it again')
        model = self.models[run.model]
        return await self._aside(partial(_file, model, photo, outputs, view, kind))

    async def _aside(self, work: Callable[[], Any]) -> Any:
        """Do what needs no network, in its own thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._light, work)


def _keep(session: Session, run: Run, ticket: Ticket, future: asyncio.Future) -> None:
    """Hold what a ticket brings, counted as such, even if its listeners have left."""
    if session.pending.get(run) is not ticket:
        return  # it is of another photo
    del session.pending[run]
    if not future.cancelled() and future.exception() is None:
        session.outputs[run] = future.result()


def _file(model: Model, photo: Photo, outputs: Outputs, view: View, kind: str) -> bytes:
    if kind == 'painted.png':
        return png(model.picture(photo.pixels, outputs, view))
    segments = model.finish(outputs, view, photo.size)
    if kind == 'coco.json':
        return coco_json(photo, segments, model)
    return panoptic_png(segments)


def _thumbnails(model: Model, photo: Photo, outputs: Outputs) -> dict:
    """Make small masks of the queries that the final prediction is surest of."""
    shares = [softmax(_array(step.classes)).mean(0) for step in outputs.steps]
    void = len(model.classes)
    surest = shares[-1][:, :void].max(-1)
    queries = np.argsort(-surest, kind='stable')[:MOST_QUERIES].tolist()
    scale = THUMB_SIDE / max(photo.size)
    height, width = (max(1, round(side * scale)) for side in photo.size)
    masks = model.query_masks(outputs, queries, (height, width))
    names = [*model.classes, 'no object']
    return dict(
        steps=model.steps,
        queries=queries,
        width=width,
        height=height,
        labels=[
            [
                dict(name=names[s[q].argmax()], score=round(float(s[q].max()), 3))
                for q in queries
            ]
            for s in shares
        ],
        masks=packed(masks, 'u1'),
    )


def _array(values) -> np.ndarray:
    """Return an array of a tensor or an array."""
    return values if isinstance(values, np.ndarray) else values.float().cpu().numpy()
