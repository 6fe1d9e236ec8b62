"""The API on aiohttp: requests into calls, answers into responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from exporter.exposition.page import negotiate
from exporter.web.api.api import ENDPOINTS, Api, Call, Handler
from exporter.web.api.envelope import failure
from exporter.web.api.model import ApiError
from exporter.web.api.parameters import Form
from exporter.web.exchange import HEADERS, BodyRefused, Sending, read_body

log = structlog.get_logger(__name__)

RELOAD = "/-/reload"
_INTERNAL = "internal error; the daemon's log says more"
_TOO_MANY = failure(ApiError("unavailable", "too many large answers wait for their readers"))


def add_routes(application: web.Application, api: Api, page: Callable[[], bytes]) -> None:
    """Every endpoint; `page` gives the metrics page in text 0.0.4."""
    sending = Sending()
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
            return web.Response(headers=HEADERS)
        text = "failed to reload config: " + "\n".join(problems) + "\n"
        if "application/json" in request.headers.get("Accept", "").lower():
            body = {"status": "error", "errorType": "internal", "error": text.rstrip(), "problems": problems}
            return web.json_response(body, status=500, headers=HEADERS)
        return web.Response(status=500, text=text, headers=HEADERS)

    application.router.add_route("POST", RELOAD, reload)
    application.router.add_route("PUT", RELOAD, reload)


def _responder(
    api: Api, handler: Handler, page: Callable[[], bytes], sending: Sending
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
        return await sending.send(request, answer, _TOO_MANY)

    return respond


async def _body(request: web.Request) -> str:
    """The form in the body of a POST."""
    if request.method != "POST" or not request.body_exists:
        return ""
    try:
        body = await read_body(request)
    except BodyRefused as error:
        raise ApiError("bad_data", str(error)) from error
    if request.content_type != "application/x-www-form-urlencoded":
        return ""
    return body.decode("utf-8", "replace")
