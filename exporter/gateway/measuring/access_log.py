"""A line in the log for each request that is over: who asked for what, how long it took, how it ended; never what was said."""

from __future__ import annotations

import logging
from typing import Literal

import structlog

from exporter.gateway.model import Exchange, Outcome

log = structlog.get_logger(__name__)

_QUIET = frozenset({Outcome.SUCCESS, Outcome.ABORTED})


def line(exchange: Exchange) -> dict[str, object]:
    """What is written of a request: only what is known of it. Seconds."""
    began, ended = exchange.began, exchange.ended
    assert ended is not None, "only a request that is over is written down"
    told: dict[str, object] = {
        "request_id": exchange.request_id,
        "client": exchange.client,
        "route": exchange.endpoint.path or "unknown",
        "status": exchange.status,
        "outcome": None if exchange.outcome is None else exchange.outcome.value,
        "seconds": round(ended - began, 4),
    }
    if exchange.reason:
        told["reason"] = exchange.reason
    if exchange.key is not None:
        told["key"] = exchange.key
    if exchange.model:
        told["model"] = exchange.model
    if exchange.backend:
        told["engine"] = exchange.backend
    if exchange.tries > 1:
        told["tries"] = exchange.tries
    if exchange.first_token is not None:
        told["ttft"] = round(exchange.first_token - began, 4)
    if exchange.received is not None and exchange.sent_at is not None:
        told["queued"] = round(exchange.sent_at - exchange.received, 4)
    if exchange.input_tokens is not None:
        told["input_tokens"] = exchange.input_tokens
    if exchange.output_tokens is not None:
        told["output_tokens"] = exchange.output_tokens
    return told


class AccessLog:
    """Writes the lines; `which` as the setting `gateway.access_log`. `/health` and its like are written only when they fail."""

    def __init__(self, which: Literal["all", "errors", "off"]) -> None:
        self._log = log.bind()
        self._which = which if self._log.is_enabled_for(logging.INFO) else "off"

    def wants(self, exchange: Exchange) -> bool:
        """Whether a request gets a line."""
        if self._which == "off":
            return False
        if self._which == "all" and exchange.endpoint.counted:
            return True
        return exchange.outcome not in _QUIET

    def ended(self, exchange: Exchange) -> None:
        """A request is over."""
        if self.wants(exchange):
            self._log.info("request", **line(exchange))
