"""The smallest question that an engine can be asked: one token. What is sent, what its answer says; pure.

vLLM serves what its model can do, so the question goes to the first of these paths that takes it: completions, which
every model that generates has, chat for servers in front of one that have nothing else, embeddings for models that
generate nothing (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

BEFORE_EVERYONE = -(2**63)
"""`priority` that nobody comes before: the least that vLLM takes, and smaller is earlier.

Only an engine with `--scheduling-policy priority` is sent one; others may answer 400
(`priority` in https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html).
"""


class Surface(StrEnum):
    """Where one token is asked for: the path."""

    COMPLETIONS = "/v1/completions"
    CHAT = "/v1/chat/completions"
    EMBEDDINGS = "/v1/embeddings"

    def question(self, model: str, prompt: str, *, first: bool) -> dict[str, Any]:
        """The body. `first`: ask to be served before everybody."""
        body: dict[str, Any] = {"model": model}
        if self is Surface.EMBEDDINGS:
            body["input"] = prompt
        else:
            if self is Surface.CHAT:
                body["messages"] = [{"role": "user", "content": prompt}]
            else:
                body["prompt"] = prompt
            body |= {
                "max_tokens": 1,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        if first:
            body["priority"] = BEFORE_EVERYONE
        return body


class TokenOutcome(StrEnum):
    """What became of the question; the words are those of users' requests at the gateway."""

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    """Refused by a 4xx: the model is not asked that way, or the key is wrong."""
    REJECTED = "rejected"
    """No room, or not now: 429, 503, or a 502 of something before the engine."""
    ENGINE_ERROR = "engine_error"
    """A 5xx, an error in mid-stream, or what is no answer of this API."""
    ENGINE_UNREACHABLE = "engine_unreachable"
    """No connection, or one that broke before an answer."""
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    """The stream never came to its proper end."""

    @property
    def went_unanswered(self) -> bool:
        """Whether the engine owed an answer and gave none; a refusal by the server before it says nothing about it."""
        return self in _UNANSWERED


_UNANSWERED = frozenset(
    {
        TokenOutcome.ENGINE_ERROR,
        TokenOutcome.ENGINE_UNREACHABLE,
        TokenOutcome.TIMEOUT,
        TokenOutcome.TRUNCATED,
    }
)
ELSEWHERE = frozenset({400, 404, 405, 422, 501})
"""Statuses that say that a model is not asked this way, so that another path is worth a try."""


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What came of one question; seconds from its first byte on, None where that never happened."""

    outcome: TokenOutcome
    took: float
    first_token: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    status: int | None = None
    detail: str = ""
    """In words, for the log: never what the engine wrote."""

    @property
    def unsupported(self) -> bool:
        """Whether there is no way to ask this model for a token."""
        return self.status in ELSEWHERE


def refused(status: int) -> TokenOutcome:
    """What a status other than 200 says."""
    if status in (429, 502, 503):
        return TokenOutcome.REJECTED
    return TokenOutcome.CLIENT_ERROR if status < 500 or status == 501 else TokenOutcome.ENGINE_ERROR


class TokenStream:
    """Reads a streamed answer; `feed` takes its bytes as they come, in any pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self.has_token = False
        """Whether a token came. One that shows no text is one all the same: it ends the reply."""
        self.finished = False
        self.failed = False
        """The engine said in mid-stream that it failed, or wrote what cannot be read."""
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    def feed(self, data: bytes) -> None:
        """More of the answer."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.finished = True
            return
        try:
            document = json.loads(data)
        except ValueError:
            self.failed = True
            return
        if not isinstance(document, dict) or "error" in document:
            self.failed = True
            return
        self.take_usage(document)
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self.has_token = self.has_token or (isinstance(choice, dict) and _is_token(choice))

    def take_usage(self, document: dict[str, Any]) -> None:
        """What an answer, or its last event, says of its tokens."""
        usage = document.get("usage")
        if isinstance(usage, dict):
            given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self.input_tokens = given if isinstance(given, int) else None
            self.output_tokens = made if isinstance(made, int) else 0


def _is_token(choice: dict[str, Any]) -> bool:
    """Whether a choice carries a token: a chat's first event has a role only."""
    if choice.get("finish_reason") is not None or "text" in choice:
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(
        delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls")
    )
