"""Why the relay itself turns requests away: broken HTTP, limits of size and time, engines that fail."""

from __future__ import annotations

from typing import Final

from exporter.gateway.model import Outcome, Refusal


def bad_request(message: str, *, status: int = 400, code: str = "bad_request") -> Refusal:
    """The refusal of a request that breaks HTTP: nothing that follows on its connection can be trusted."""
    return Refusal(status, "invalid_request_error", code, message, Outcome.CLIENT_ERROR, close=True)


def body_too_large(limit: int) -> Refusal:
    """The body is larger than it may be; what comes of it is not read."""
    return bad_request(f"The request's body is larger than {limit} bytes.", status=413, code="body_too_large")


class BadHeadError(Exception):
    """A head that no proxy may pass on; `refusal` is the answer to it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


HEAD_TOO_LONG: Final = bad_request("The request's head is too long.", status=431, code="head_too_long")
SLOW: Final = bad_request("The request took too long to arrive.", status=408, code="request_timeout")
BODIES_FULL: Final = Refusal(
    503,
    "service_unavailable",
    "bodies_full",
    "Too many bytes of requests are waiting here.",
    Outcome.REJECTED,
    retry_after=1.0,
)

ENGINE_UNREACHABLE: Final = Refusal(
    502,
    "service_unavailable",
    "engine_unreachable",
    "The connection to the engine was lost before it answered.",
    Outcome.ENGINE_UNREACHABLE,
)
ENGINE_BROKE_HTTP: Final = Refusal(
    502, "server_error", "engine_broke_http", "The engine's answer was not valid HTTP.", Outcome.ENGINE_ERROR
)
ENGINE_TIMEOUT: Final = Refusal(
    504, "timeout_error", "engine_timeout", "The engine did not answer in time.", Outcome.TIMEOUT
)
ENGINE_LOST: Final = Refusal(
    502,
    "server_error",
    "engine_lost",
    "The connection to the engine was lost in mid-answer.",
    Outcome.TRUNCATED,
)
