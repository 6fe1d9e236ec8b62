"""Alertmanager's API v2 and `/api/v1/notifications` on aiohttp: requests into calls, answers into responses."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import structlog
from aiohttp import web

from exporter.exposition.page import negotiate
from exporter.web.alertmanager.api import Api, Call, refusal
from exporter.web.alertmanager.model import Alerting, ApiRefused
from exporter.web.api.envelope import Answer, failure
from exporter.web.api.model import ApiError
from exporter.web.exchange import BodyRefused, Sending, read_body

log = structlog.get_logger(__name__)

Handler = Callable[[Api, Call], Awaitable[Answer]]
ENDPOINTS: Mapping[tuple[str, str], Handler] = MappingProxyType(
    {
        ("GET", "/api/v2/alerts"): Api.alerts,
        ("POST", "/api/v2/alerts"): Api.post_alerts,
        ("GET", "/api/v2/alerts/groups"): Api.groups,
        ("GET", "/api/v2/silences"): Api.silences,
        ("POST", "/api/v2/silences"): Api.post_silence,
        ("GET", "/api/v2/silence/{id}"): Api.silence,
        ("DELETE", "/api/v2/silence/{id}"): Api.delete_silence,
        ("GET", "/api/v2/receivers"): Api.receivers,
        ("GET", "/api/v2/status"): Api.status,
        ("GET", "/api/v1/notifications"): Api.notifications,
        ("POST", "/api/v1/notifications/{id:[0-9]{1,18}}/resend"): Api.resend,
    }
)
_INTERNAL = refusal(ApiRefused(500, "internal error; the daemon's log says more"))
_TOO_MANY = refusal(ApiRefused(503, "too many large answers wait for their readers"))


def add_routes(
    application: web.Application, alerting: Alerting, *, clock: Callable[[], float] = time.time
) -> None:
    """Every endpoint; who may ask is the application's business. `clock` in unix seconds."""
    api, sending = Api(alerting, clock), Sending()
    for (method, path), handler in ENDPOINTS.items():
        respond = _responder(api, handler, sending)
        application.router.add_route(method, path, respond)
        if method == "GET":
            application.router.add_route("HEAD", path, respond)


def _responder(
    api: Api, handler: Handler, sending: Sending
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(request: web.Request) -> web.StreamResponse:
        try:
            answer = await handler(api, await _call(request))
        except ApiRefused as error:
            answer = refusal(error)
        except ApiError as error:
            answer = failure(error)
        except Exception as error:
            log.exception("api_failed", path=request.path, error=f"{type(error).__name__}: {error}")
            answer = _INTERNAL
        return await sending.send(request, answer, _TOO_MANY)

    return respond


async def _call(request: web.Request) -> Call:
    encoding = ", ".join(request.headers.getall("Accept-Encoding", ()))
    return Call(
        request.query,
        await _body(request) if request.method == "POST" else b"",
        request.match_info.get("id", ""),
        negotiate(None, encoding).gzip,
    )


async def _body(request: web.Request) -> bytes:
    """The JSON of a POST. A page of another site can have a browser send text and forms, but no JSON unasked."""
    if request.content_type != "application/json":
        raise ApiRefused(415, "expected a body with Content-Type: application/json")
    try:
        return await read_body(request)
    except BodyRefused as error:
        raise ApiRefused(400, str(error)) from error
