"""What the parts of the gateway tell each other: one request's story, how it ended, and why one is turned away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Outcome(StrEnum):
    """How a request ended, as its client saw it; each request has exactly one. Label `outcome` of `vllm_slo_requests_total`."""

    SUCCESS = "success"
    """A whole answer below 400: its stream, if it was one, came to its proper end."""
    CLIENT_ERROR = "client_error"
    """The client's own fault: a 4xx of the engine or the gateway, rate limits of its key included."""
    REJECTED = "rejected"
    """No room, or not now: the gateway's queue is full, the engine loads or drains, or the engine itself refused (503)."""
    ENGINE_ERROR = "engine_error"
    """The engine answered 5xx, broke HTTP, or said in mid-stream that it failed."""
    ENGINE_UNREACHABLE = "engine_unreachable"
    """No connection to the engine, or it is down and nobody asked it to be."""
    TIMEOUT = "timeout"
    """The engine was silent for longer than `gateway.read_timeout`."""
    TRUNCATED = "truncated"
    """The answer had begun, and its stream never came to its proper end."""
    ABORTED = "aborted"
    """The client left before the answer was whole."""


class Priority(IntEnum):
    """Who goes first where requests wait at the gateway: the smaller number."""

    INTERACTIVE = 0
    BATCH = 1


_INTERACTIVE: Final = Priority.INTERACTIVE  # an enum's members cost more to look up than a name


class Dialect(StrEnum):
    """What a path's bodies look like, which decides what can be measured in them."""

    CHAT = "chat"
    """`/v1/chat/completions`: `choices[].delta`, ends in `data: [DONE]`."""
    COMPLETION = "completion"
    """`/v1/completions`: `choices[].text`, ends in `data: [DONE]`."""
    RESPONSES = "responses"
    """`/v1/responses`: typed events, ends in `response.completed`, `.incomplete` or `.failed`."""
    MESSAGES = "messages"
    """`/v1/messages`, Anthropic's API in vLLM: typed events, ends in `message_stop`."""
    JSON = "json"
    """A JSON body that names a model, an answer without tokens to time: embeddings, scores, `/tokenize`, …"""
    OPAQUE = "opaque"
    """Passed through unread: `/health`, `/metrics`, audio uploads, what was opened by name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path that the gateway lets through. `path` is the label `route`: a name from our list, never a client's text."""

    path: str
    dialect: Dialect
    methods: frozenset[str]
    counted: bool = True
    """Whether requests to it are among the users' (`vllm_slo_`): `/health` and `/metrics` are not, and are not queued."""
    open: bool = False
    """Whether it needs no API key where the gateway checks keys: health, load and metrics, as in vLLM, and `OPTIONS`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away, for OpenAI's error JSON: `{"error": {"message", "type", "param": null, "code"}}`."""

    status: int
    kind: str
    """`type` in the answer: `invalid_request_error`, `authentication_error`, `rate_limit_error`, `service_unavailable`, …"""
    code: str
    """`code` in the answer and label `reason` of `vllm_exporter_gateway_refusals_total`; a fixed word of ours."""
    message: str
    outcome: Outcome
    retry_after: float | None = None
    """Seconds until another try makes sense; `Retry-After` rounds them up."""
    close: bool = False
    """Whether the connection cannot go on: what follows on it cannot be told apart."""
    allow: frozenset[str] = frozenset()
    """`Allow` of a 405: the path's methods."""


class Exchange:
    """One request, from its head to its end; the relay fills it in, everybody reads it when it is over.

    Times are seconds of one monotonic clock (`time.monotonic`), None where that never happened. Token counts are None
    where the engine did not say.
    """

    __slots__ = (
        "asked_priority",
        "backend",
        "began",
        "client",
        "ended",
        "endpoint",
        "first_token",
        "input_tokens",
        "key",
        "last_token",
        "method",
        "model",
        "outcome",
        "output_tokens",
        "priority",
        "reason",
        "received",
        "request_bytes",
        "request_id",
        "response_bytes",
        "sent_at",
        "status",
        "stream",
        "tokens_seen",
        "tried",
        "tries",
    )

    def __init__(self, endpoint: Endpoint, method: str, request_id: str, client: str, began: float) -> None:
        self.endpoint = endpoint
        self.method = method
        self.request_id = request_id
        self.client = client
        """The client's address, for the access log."""
        self.began = began
        """When the request's first byte was read."""
        self.received: float | None = None
        """When its body was whole, or had arrived as far as the gateway waits for it: queueing begins."""
        self.sent_at: float | None = None
        """When it was let in and its first byte left for the engine. Queue time: `sent_at - received`."""
        self.first_token: float | None = None
        """When the first content token went to the client: not a head, not a chunk with a role only."""
        self.last_token: float | None = None
        self.ended: float | None = None
        self.tokens_seen = 0
        """Events with content."""
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.key: str | None = None
        """Name of the API key where the gateway checks keys."""
        self.model: str = ""
        """Model as an engine lists it; empty where the request names none that is known: clients' text makes no series."""
        self.stream = False
        self.priority = _INTERACTIVE
        self.asked_priority: Priority | None = None
        self.backend: str = ""
        """Name of the engine that got it."""
        self.tries = 0
        self.tried: tuple[str, ...] = ()
        """Names of the engines whose connection failed before the client had a byte."""
        self.status: int | None = None
        """Status that went to the client; None when none did."""
        self.outcome: Outcome | None = None
        self.reason: str = ""
        """One word more about an outcome that is not success, for the log: a refusal's code, `connect`, `reset`, …"""
        self.request_bytes = 0
        self.response_bytes = 0

    def forget_answer(self) -> None:
        """Of an answer that broke off, its client has had nothing: another engine is asked."""
        self.status = self.first_token = self.last_token = None
        self.input_tokens = self.output_tokens = None
        self.tokens_seen = 0
