"""Everything that is not a plain scrape: routing, refusals, health, on aiohttp."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from exporter.exposition.page import negotiate
from exporter.web import runbook
from exporter.web.auth import OPEN_PATHS, BearerToken
from exporter.web.landing import landing_page
from exporter.web.limits import (
    BODY_BYTES,
    FORM_BYTES,
    HEAD_BYTES,
    HEADERS,
    LINGER_SECONDS,
    REQUEST_SECONDS,
)
from exporter.web.metrics import HttpMetrics
from exporter.web.readiness import EngineGroup, Readiness, readiness
from exporter.web.snapshot import Snapshot, page_headers

if TYPE_CHECKING:
    from exporter.engine.status import EngineStatus
    from exporter.web.alertmanager.model import Alerting
    from exporter.web.api import Api

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_COMMON = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "vllm-exporter"}
_LANDING = _COMMON | {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_ADVICE = {
    400: "this speaks HTTP/1.1 and HTTP/1.0",
    401: "this needs `Authorization: Bearer TOKEN` with the token in web.bearer_token",
    404: "there is no such path; see /metrics, /-/ready, /-/healthy",
    405: "this path does not take this method",
    413: f"no request body over {FORM_BYTES} bytes is taken, and over {BODY_BYTES} only by the API",
}
_ERROR_TYPES = {401: "unauthorized", 404: "not_found", 500: "internal"}
"""Prometheus' `errorType` of the refusals below `/api`; `bad_data` for the others."""


class _Routes:
    """The handlers, and what they need."""

    def __init__(
        self, snapshot: Snapshot, token: BearerToken, engine_status: Callable[[], EngineStatus | EngineGroup]
    ) -> None:
        self._snapshot = snapshot
        self._token = token
        self._engine_status = engine_status

    async def metrics(self, request: web.Request) -> web.Response:
        shape = negotiate(_header(request, "Accept"), _header(request, "Accept-Encoding"))
        return web.Response(body=self._snapshot.body(shape), headers=page_headers(shape))

    async def healthy(self, request: web.Request) -> web.Response:
        return _reply(request, 200, {"status": "healthy"}, "the daemon is alive")

    async def ready(self, request: web.Request) -> web.Response:
        answer = self._readiness(request)
        return _reply(request, answer.code, answer.body, answer.line)

    async def runbook(self, _request: web.Request) -> web.Response:
        from exporter.alerting.files import shipped_folder

        page = await asyncio.to_thread(runbook.runbook_page, shipped_folder())
        if page is None:
            raise web.HTTPNotFound
        return web.Response(text=page, content_type="text/html", headers=_LANDING)

    async def landing(self, request: web.Request) -> web.Response:
        page = landing_page(self._readiness(request))
        return web.Response(text=page, content_type="text/html", headers=_LANDING)

    def _readiness(self, request: web.Request) -> Readiness:
        details = self._token.accepts(request.headers.get("Authorization"))
        return readiness(self._engine_status(), now=time.time(), details=details)


def build_application(
    snapshot: Snapshot,
    token: BearerToken,
    engine_status: Callable[[], EngineStatus | EngineGroup],
    api: Api | None = None,
    alerting: Alerting | None = None,
) -> web.Application:
    """All routes, behind one guard; without an API, its paths say that it is still to come."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS and not token.accepts(request.headers.get("Authorization")):
            return _refuse(request, 401, {"WWW-Authenticate": 'Bearer realm="vllm-exporter"'})
        if request.version < HttpVersion10:
            return _refuse(request, 400)
        length = request.content_length
        if request.body_exists:
            takes_form = api is not None and is_api(request.path)
            if (length or 0) > (FORM_BYTES if takes_form else BODY_BYTES) or (
                length is None and not takes_form
            ):
                return _refuse(request, 413)
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            return _refuse(request, error.status, {"Allow": ", ".join(sorted(error.allowed_methods))})
        except web.HTTPException as error:
            return _refuse(request, error.status)

    routes = _Routes(snapshot, token, engine_status)
    application = web.Application(middlewares=[guard], client_max_size=BODY_BYTES)
    application.router.add_get("/metrics", routes.metrics)
    application.router.add_get("/metrics/prometheus", routes.metrics)
    application.router.add_get("/-/healthy", routes.healthy)
    application.router.add_get("/-/ready", routes.ready)
    application.router.add_get("/health", routes.ready)
    application.router.add_get("/", routes.landing)
    application.router.add_get(runbook.PATH, routes.runbook)
    if api is not None:
        from exporter.web.api.routes import add_routes

        plain = negotiate(None, None)
        if alerting is not None:
            from exporter.web.alertmanager.routes import add_routes as add_alertmanager_routes

            add_alertmanager_routes(application, alerting)
        add_routes(application, api, lambda: snapshot.body(plain))
    else:
        application.router.add_route("*", "/api/{path:.*}", _not_yet)
        application.router.add_route("*", "/-/reload", _not_yet)
    return application


async def _not_yet(_request: web.Request) -> web.Response:
    """The daemon has just started; the next connection may find the API."""
    body = {"status": "error", "errorType": "unavailable", "error": "the samples and rules are being loaded"}
    response = _json(503, body)
    response.headers["Retry-After"] = "1"
    response.force_close()
    return response


def is_api(path: str) -> bool:
    """Whether this path belongs to the API: its errors are told as Prometheus does, and forms may be posted."""
    return path.startswith("/api/") or path == "/-/reload"


def build_runner(application: web.Application, metrics: HttpMetrics) -> web.AppRunner:
    """The runner whose `server` makes aiohttp's protocol objects, with our limits and our counts."""

    class CountingLog(AbstractAccessLogger):
        """Called for each answer, malformed requests' too, hence the place to count them."""

        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            malformed = request.method == "UNKNOWN"
            metrics.count("other" if malformed else request.path, response.status, time)

    logger = logging.getLogger(f"{__name__}.protocol")
    logger.addFilter(_not_the_clients_fault)
    return web.AppRunner(
        application,
        handle_signals=False,
        handler_cancellation=True,  # a client that goes away gives its place among the queries to another
        access_log_class=CountingLog,
        access_log=logger,
        logger=logger,
        auto_decompress=False,  # nobody packs a form; who does may mean harm
        keepalive_timeout=REQUEST_SECONDS,
        lingering_time=LINGER_SECONDS,
        max_line_size=HEAD_BYTES,
        max_field_size=HEAD_BYTES,
        max_headers=HEADERS,
        shutdown_timeout=1.0,
    )


def _not_the_clients_fault(record: logging.LogRecord) -> bool:
    """Malformed requests are answered and counted; in the log they would only be a way to fill the disk."""
    faults = (HttpProcessingError, web.RequestPayloadError)
    return not (record.exc_info and isinstance(record.exc_info[1], faults))


def _header(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def _refuse(request: web.Request, status: int, headers: dict[str, str] | None = None) -> web.Response:
    phrase = HTTPStatus(status).phrase
    message = f"{phrase}: {_ADVICE[status]}" if status in _ADVICE else phrase
    body = {"status": "error", "error": message}
    if is_api(request.path):
        body = {"status": "error", "errorType": _ERROR_TYPES.get(status, "bad_data"), "error": message}
        response = _json(status, body)
    else:
        response = _reply(request, status, body, f"{status} {message}")
    response.headers.update(headers or {})
    if status in (400, 413):
        response.force_close()
    return response


def _reply(request: web.Request, status: int, body: dict[str, Any], line: str) -> web.Response:
    """JSON when the client asks for it, else one line of text."""
    if "application/json" in (_header(request, "Accept") or "").lower():
        return _json(status, body)
    return web.Response(status=status, text=f"{line}\n", content_type="text/plain", headers=_COMMON)


def _json(status: int, body: dict[str, Any]) -> web.Response:
    text = json.dumps(body, ensure_ascii=False)
    return web.Response(status=status, text=f"{text}\n", content_type="application/json", headers=_COMMON)
