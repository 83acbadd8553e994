"""Addresses and answers of the page."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from eomt_mm.errors import UserError

from .examples import Examples
from .service import DOWNLOADS, Gone, Service
from .settings import THRESHOLDS, parse

PAGE = Path(__file__).parent / 'page'
SCRIPTS = ('page', 'controls', 'server', 'viewer', 'tables', 'inside')
# The page has no other files: a name in an address is never a path.
FILES = {
    '': ('index.html', 'text/html; charset=utf-8'),
    'page.css': ('page.css', 'text/css; charset=utf-8'),
    **{
        name: (name, 'text/javascript; charset=utf-8')
        for name in (f'{part}.js' for part in SCRIPTS)
    },
}
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}
MOST_SETTINGS = 10_000  # bytes of JSON
MOST_SECONDS = 120  # of an upload; a place among the uploads is free again after it
UNEXPECTED = 'something went wrong on the server: its terminal says what'
log = logging.getLogger('eomt_mm.page')


def build_app(service: Service, hosts: list[str]) -> Starlette:
    """Build the application.

    Args:
        service (Service): What it answers with.
        hosts (list[str]): Names under which it may be asked, against pages elsewhere
            whose names are turned to this machine; '*' for any.
    """
    app = Starlette(
        routes=[
            Route('/api/about', about),
            Route('/api/examples/{number:int}', example),
            Route('/api/{token}/photo', upload, methods=['POST']),
            Route('/api/{token}/photo', photo),
            Route('/api/{token}/photo/{number:int}.jpg', jpeg),
            Route('/api/{token}/forget', forget, methods=['POST']),
            Route('/api/{token}/result', result, methods=['POST']),
            Route('/api/{token}/inside', inside, methods=['POST']),
            Route('/api/{token}/query', query, methods=['POST']),
            Route('/api/{token}/download/{kind}', download),
            Route('/{name}', page_file),
            Route('/', page_file),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(SameOrigin),
        ],
        exception_handlers={UserError: _refused, Exception: _refused},
        lifespan=_lifespan,
    )
    app.state.service, app.state.examples = service, Examples()
    return app


class SameOrigin:
    """Refuses what pages of other sites ask for; adds headers to every answer.

    Args:
        app: The application.
    """

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        """Answer one request."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = {k.decode(): v.decode('latin-1') for k, v in scope['headers']}
        if _is_foreign(headers):
            refusal = _sentence('pages of other sites may not ask here', 403)
            await refusal(scope, receive, send)
            return

        async def with_headers(message) -> None:
            if message['type'] == 'http.response.start':
                more = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message['headers'] = [*message['headers'], *more]
            await send(message)

        await self.app(scope, receive, with_headers)


def _is_foreign(headers: dict[str, str]) -> bool:
    """Return whether a page of another site asks.

    A picture or a frame there sends no Origin, but browsers tell where it comes from. A
    link that is followed to this page is welcome.
    """
    origin, site = headers.get('origin'), headers.get('sec-fetch-site')
    if origin is not None and origin.partition('://')[2] != headers.get('host'):
        return True
    followed = headers.get('sec-fetch-dest') == 'document'
    return site in ('cross-site', 'same-site') and not followed


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    sweep = asyncio.create_task(_sweep(app.state.service))
    yield
    sweep.cancel()
    app.state.service.close()


async def _sweep(service: Service) -> None:
    """Forget pages that are not used any more."""
    while True:
        await asyncio.sleep(min(60, service.sessions.seconds / 2))
        for ticket in service.sessions.expire():
            service.line.leave(ticket)


# --- answers -----------------------------------------------------------------


async def page_file(request: Request) -> Response:
    """The page itself."""
    name = request.path_params.get('name', '')
    if name not in FILES:
        return _sentence('there is nothing at this address', 404)
    file, kind = FILES[name]
    return Response((PAGE / file).read_bytes(), media_type=kind)


async def about(request: Request) -> Response:
    """What the page needs to know at first, and counters."""
    service, examples = request.app.state.service, request.app.state.examples
    limits = service.limits
    return JSONResponse(
        dict(
            models=[model.about() for model in service.models],
            thresholds=THRESHOLDS,
            examples=len(examples),
            megapixels=limits.megapixels,
            megabytes=limits.megabytes,
            passes=service.passes,
            waiting=len(service.line.tickets),
            held=service.sessions.nbytes,
        )
    )


async def example(request: Request) -> Response:
    """An example photo."""
    examples, number = request.app.state.examples, request.path_params['number']
    if not 0 <= number < len(examples):
        return _sentence(f'there is no example {number}', 404)
    return Response(examples[number], media_type='image/png')


async def upload(request: Request) -> Response:
    """Take a photo: the body is the file as it is."""
    service, session = _session(request)
    if service.uploads >= service.limits.waiting:
        return _sentence('too many photos are arriving: try again in a minute', 503)
    service.uploads += 1
    try:
        body = _body(request, service.limits.megabytes)
        content = await asyncio.wait_for(body, MOST_SECONDS)
        name = request.query_params.get('name', 'photo')[-100:]
        return JSONResponse(await service.receive(session, name, content))
    except asyncio.TimeoutError:
        told = f'the photo did not arrive within {MOST_SECONDS} seconds: try again'
        return _sentence(told, 408)
    except ClientDisconnect:
        return Response(status_code=499)
    finally:
        service.uploads -= 1


async def _body(request: Request, megabytes: float) -> bytes:
    """Read a bounded body; what is too much is received, and dropped.

    A browser shows no answer that arrives before it has sent everything.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= megabytes * 1e6:
            parts.append(part)
        elif size > 20 * megabytes * 1e6:
            break
        else:
            parts.clear()
    if size > megabytes * 1e6:
        raise UserError(
            f'the file has {size / 1e6:.0f} MB, and at most {megabytes:g} are taken: '
            'make it smaller, or start the page with a larger --max-megabytes'
        )
    return b''.join(parts)


async def photo(request: Request) -> Response:
    """What is held: asked for after a reload."""
    service, session = _session(request)
    return JSONResponse(service.photo_of(session))


async def jpeg(request: Request) -> Response:
    """The photo for the browser."""
    service, session = _session(request)
    number = request.path_params['number']
    return Response(await service.jpeg(session, number), media_type='image/jpeg')


async def forget(request: Request) -> Response:
    """Forget the photo."""
    service, session = _session(request)
    service.forget(session)
    return JSONResponse({})


async def result(request: Request) -> Response:
    """The result, after lines that tell the place in the queue."""
    service, session = _session(request)
    run, view = parse(await _json(request), service.models)
    service.held_photo(session)
    return _stream(partial(service.result, session, run, view))


async def inside(request: Request) -> Response:
    """The masks of queries before each of the last blocks, in the same way."""
    service, session = _session(request)
    asked = await _json(request)
    run, _ = parse({**asked, 'inside': True}, service.models)
    service.held_photo(session)
    return _stream(partial(service.inside, session, run))


async def query(request: Request) -> Response:
    """One of these masks, large."""
    service, session = _session(request)
    asked = await _json(request)
    run, view = parse({**asked, 'inside': True}, service.models)
    number = asked.get('query')
    if not isinstance(number, int):
        raise UserError(f'query is {number!r}: expected a whole number')
    return JSONResponse(await service.query(session, run, view, number))


async def download(request: Request) -> Response:
    """A file of the result."""
    service, session = _session(request)
    kind = request.path_params['kind']
    if kind not in DOWNLOADS:
        return _sentence(f'downloads are {", ".join(DOWNLOADS)}', 404)
    asked = _parsed(request.query_params.get('settings', '{}').encode())
    run, view = parse(asked, service.models)
    content = await service.download(session, run, view, kind)
    return Response(content, media_type=DOWNLOADS[kind])


# --- what they share ---------------------------------------------------------


def _session(request: Request):
    service = request.app.state.service
    return service, service.sessions.open(request.path_params['token'])


async def _json(request: Request) -> dict:
    content = b''
    async for part in request.stream():
        content += part
        if len(content) > MOST_SETTINGS:
            raise UserError(f'settings have more than {MOST_SETTINGS} bytes')
    return _parsed(content)


def _parsed(content: bytes) -> dict:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError('settings are expected in JSON') from error
    if not isinstance(found, dict):
        raise UserError('settings are expected as a JSON object')
    return found


def _stream(steps) -> StreamingResponse:
    """Send one JSON text a line; an error is the last one."""

    async def lines() -> AsyncIterator[bytes]:
        with suppress(asyncio.CancelledError):
            try:
                async for step in steps():
                    yield json.dumps(step).encode() + b'\n'
            except Exception as error:
                refusal = dict(error=_words(error), status=_status(error))
                yield json.dumps(refusal).encode() + b'\n'

    return StreamingResponse(lines(), media_type='application/x-ndjson')


def _words(error: Exception) -> str:
    """Say an error in one sentence; what is unexpected goes to the terminal."""
    if isinstance(error, UserError):
        return ' '.join(str(error).split())
    if isinstance(error, MemoryError) or 'out of memory' in str(error):
        return 'the memory does not suffice for this photo: take a smaller one'
    log.error('while answering the page', exc_info=error)
    return UNEXPECTED


def _status(error: Exception) -> int:
    if isinstance(error, Gone):
        return 410
    return 400 if isinstance(error, UserError) else 500


def _sentence(words: str, status: int) -> JSONResponse:
    return JSONResponse(dict(error=words), status)


async def _refused(request: Request, error: Exception) -> Response:
    return _sentence(_words(error), _status(error))
