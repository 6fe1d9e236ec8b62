"""The API on aiohttp: requests into calls, answers into responses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter.exposition.page import negotiate
from exporter.web.api.api import ENDPOINTS, Api, Call, Handler
from exporter.web.api.envelope import PIECE_BYTES, Answer, failure
from exporter.web.api.model import ApiError
from exporter.web.api.parameters import Form
from exporter.web.limits import FORM_BYTES, REQUEST_SECONDS

log = structlog.get_logger(__name__)

RELOAD = "/-/reload"
SENDING_BYTES = 128 << 20
"""Large answers that wait for slow readers, all together; one more is refused rather than held in memory."""
_INTERNAL = "internal error; the daemon's log says more"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "vllm-exporter",
    "Vary": "Accept-Encoding",
}


def add_routes(application: web.Application, api: Api, page: Callable[[], bytes]) -> None:
    """Every endpoint; `page` gives the metrics page in text 0.0.4."""
    sending = _Sending()
    for path, (handler, methods) in ENDPOINTS.items():
        respond = _responder(api, handler, page, sending)
        for method in methods:
            application.router.add_route(method, path, respond)
            if method == "GET":
                application.router.add_route("HEAD", path, respond)

    async def reload(request: web.Request) -> web.StreamResponse:
        try:
            problems = await api.reload()
        except Exception as error:
            log.exception("reload_failed", error=f"{type(error).__name__}: {error}")
            problems = [_INTERNAL]
        if not problems:
            return web.Response(headers=_HEADERS)
        text = "failed to reload config: " + "\n".join(problems) + "\n"
        if "application/json" in request.headers.get("Accept", "").lower():
            body = {"status": "error", "errorType": "internal", "error": text.rstrip(), "problems": problems}
            return web.json_response(body, status=500, headers=_HEADERS)
        return web.Response(status=500, text=text, headers=_HEADERS)

    application.router.add_route("POST", RELOAD, reload)
    application.router.add_route("PUT", RELOAD, reload)


class _Sending:
    """How many bytes of large answers are on their way."""

    def __init__(self) -> None:
        self._bytes = 0

    @contextlib.contextmanager
    def room_for(self, answer: Answer) -> Iterator[bool]:
        """Whether there is room for an answer, which it then takes for the time of the block."""
        if answer.size <= PIECE_BYTES:
            yield True
        elif self._bytes and self._bytes + answer.size > SENDING_BYTES:
            yield False
        else:
            self._bytes += answer.size
            try:
                yield True
            finally:
                self._bytes -= answer.size


def _responder(
    api: Api, handler: Handler, page: Callable[[], bytes], sending: _Sending
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(request: web.Request) -> web.StreamResponse:
        try:
            form = Form(request.rel_url.raw_query_string, await _body(request))
            encoding = ", ".join(request.headers.getall("Accept-Encoding", ()))
            label = request.match_info.get("name", "")
            answer = await handler(api, Call(form, negotiate(None, encoding).gzip, label, page))
        except ApiError as error:
            answer = failure(error)
        except Exception as error:
            log.exception("api_failed", path=request.path, error=f"{type(error).__name__}: {error}")
            answer = failure(ApiError("internal", _INTERNAL))
        with sending.room_for(answer) as room:
            if not room:
                answer = failure(ApiError("unavailable", "too many large answers wait for their readers"))
            return await _send(request, answer)

    return respond


async def _body(request: web.Request) -> str:
    """The form in the body of a POST, which has its limits."""
    if request.method != "POST" or not request.body_exists:
        return ""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError("bad_data", "a request body is taken as it is, without a Content-Encoding")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for part in request.content.iter_any():
                size += len(part)
                if size > FORM_BYTES:
                    raise ApiError("bad_data", f"the request body is longer than {FORM_BYTES} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise ApiError("bad_data", "the request body did not arrive in time") from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise ApiError("bad_data", "the request body cannot be read") from error
    if request.content_type != "application/x-www-form-urlencoded":
        return ""
    return b"".join(parts).decode("utf-8", "replace")


async def _send(request: web.Request, answer: Answer) -> web.StreamResponse:
    headers = dict(_HEADERS)
    if answer.gzip:
        headers["Content-Encoding"] = "gzip"
    if answer.size <= PIECE_BYTES:
        return web.Response(
            status=answer.status,
            body=b"".join(answer.pieces),
            content_type=answer.content_type,
            headers=headers,
        )
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_type = answer.content_type
    response.content_length = answer.size
    await response.prepare(request)
    if request.method != "HEAD":
        for piece in answer.pieces:
            await response.write(piece)
    await response.write_eof()
    return response
