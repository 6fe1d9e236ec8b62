"""The OpenAI API as vLLM speaks it, without the server: request bodies checked, answers and stream chunks built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.simulator import text


class ApiError(Exception):
    """An answer in vLLM's error form: `status`, and a body with message, type, param and code."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, param: str | None = None, value: object = None) -> ApiError:
    """A request that cannot be served as it is; vLLM repeats parameter and value at the end of the message."""
    if param is not None:
        message += f" (parameter={param})" if value is None else f" (parameter={param}, value={value})"
    return ApiError(400, message, "BadRequestError", param)


def internal_error(message: str) -> ApiError:
    return ApiError(500, message, "InternalServerError")


def overloaded(what: str) -> ApiError:
    """The answer of an engine whose queue is full."""
    return ApiError(503, f"{what} Please try again later or on a different instance.", "Service Unavailable")


ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(frozen=True)
class GenerationRequest:
    """A request that passed every check."""

    chat: bool
    model: str
    prompt: tuple[int, ...]
    prompt_text: str
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    ignore_eos: bool
    stop: tuple[str, ...]
    echo: bool
    seed: int | None


def parse_request(body: bytes, *, chat: bool, models: Sequence[str], max_model_len: int) -> GenerationRequest:
    """Check a `/v1/completions` or `/v1/chat/completions` body; ApiError as vLLM would answer."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid("body", "JSON decode error", "<dict of 0 items>", kind="json_invalid") from error
    if not isinstance(data, dict):
        raise _invalid("body", "Input should be a valid dictionary", data)
    model = _optional(data, "model", str, "a valid string") or models[0]
    if model not in models:
        raise ApiError(
            404,
            f"The model `{model}` does not exist. Valid aliases: {', '.join(models)}.",
            "NotFoundError",
            "model",
        )
    if (n := _optional(data, "n", int, "a valid integer")) not in (None, 1):
        raise bad_request(f"n={n} is not supported here: this simulated engine gives one choice.", "n")
    if data.get("logprobs") not in (None, False) or data.get("top_logprobs"):
        raise bad_request("Log probabilities are not supported here: this engine is simulated.", "logprobs")
    stream = bool(_optional(data, "stream", bool, "a valid boolean"))
    options = _optional(data, "stream_options", dict, "a valid dictionary") or {}
    if options and not stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    prompt, prompt_text = _chat_prompt(data) if chat else _prompt(data)
    room = max_model_len - len(prompt)
    if room < 1:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains "
            f"{len(prompt)} input tokens, which leaves no room for any output. Please reduce the length of the prompt.",
            "input_tokens",
            len(prompt),
        )
    name = "max_completion_tokens" if chat and data.get("max_completion_tokens") is not None else "max_tokens"
    wanted = _optional(data, name, int, "a valid integer")
    if wanted is not None and wanted < 1:
        raise bad_request(f"{name} must be at least 1, got {wanted}.", name, wanted)
    if wanted is not None and wanted > max_model_len:
        raise bad_request(
            f"{name}={wanted} cannot be greater than max_model_len={max_model_len}. Please request fewer output tokens.",
            name,
            wanted,
        )
    if wanted is not None and wanted > room:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, you requested {wanted} output "
            f"tokens and your prompt contains {len(prompt)} input tokens, for a total of {len(prompt) + wanted} tokens. "
            "Please reduce the length of the input prompt or the number of requested output tokens.",
            "input_tokens",
            len(prompt),
        )
    default = room if chat else min(16, room)
    return GenerationRequest(
        chat=chat,
        model=model,
        prompt=tuple(prompt),
        prompt_text=prompt_text,
        max_tokens=default if wanted is None else wanted,
        stream=stream,
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        ignore_eos=bool(_optional(data, "ignore_eos", bool, "a valid boolean")),
        stop=_stop(data.get("stop")),
        echo=not chat and bool(_optional(data, "echo", bool, "a valid boolean")),
        seed=_optional(data, "seed", int, "a valid integer"),
    )


def _prompt(data: Mapping[str, Any]) -> tuple[list[int], str]:
    prompt = data.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return text.tokenize(prompt), prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        if not all(0 <= token < text.VOCABULARY_SIZE for token in prompt):
            raise bad_request("Token id is out of vocabulary", "prompt")
        return prompt, ""
    if isinstance(prompt, list) and len(prompt) > 1 and all(isinstance(p, str | list) for p in prompt):
        raise bad_request(
            "Several prompts in one request are not supported here: this engine is simulated.", "prompt"
        )
    if prompt is None:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if prompt in ("", []):
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    raise _invalid("prompt", "Input should be a valid string", prompt)


def _chat_prompt(data: Mapping[str, Any]) -> tuple[list[int], str]:
    messages = data.get("messages")
    if messages is None:
        raise _invalid("messages", "Field required", None, kind="missing")
    if messages == []:
        raise bad_request(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
    if not isinstance(messages, list):
        raise _invalid("messages", "Input should be a valid list", messages)
    turns: list[dict[str, str]] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid("messages", "Input should be a message with a role", message)
        content = message.get("content") or ""
        if isinstance(content, list):
            parts = (part.get("text") for part in content if isinstance(part, dict))
            content = "".join(part for part in parts if isinstance(part, str))
        if not isinstance(content, str):
            raise _invalid("messages", "Input should be a valid string", content)
        turns.append({"role": message["role"], "content": content})
    return text.chat_tokens(turns), turns[-1]["content"]


def _stop(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value or []
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise _invalid("stop", "Input should be a valid string or list of strings", value)
    if not all(values):
        raise bad_request("stop cannot contain an empty string.")
    return tuple(values)


def _optional(data: Mapping[str, Any], name: str, kind: type[Any], expected: str) -> Any:
    value = data.get(name)
    if value is None or type(value) is kind:
        return value
    raise _invalid(name, f"Input should be {expected}", value)


def _invalid(name: str, message: str, value: object, kind: str = "value_error") -> ApiError:
    where = name if name == "body" else f"body.{name}"
    detail = {"type": kind, "loc": where, "msg": message, "input": str(value)[:200]}
    return ApiError(400, f"1 validation error:\n  {detail}", "Bad Request", where)


class StopText:
    """Watches a reply for stop strings; holds back what may yet become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the reply."""

    def feed(self, piece: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string was found (it is not shown, nor anything after it)."""
        if not self._stop:
            return piece, False
        self._held += piece
        found = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.found = min(found)
            shown, self._held = self._held[:at], ""
            return shown, True
        keep = max(
            (n for stop in self._stop for n in range(1, len(stop)) if self._held.endswith(stop[:n])),
            default=0,
        )
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def flush(self) -> str:
        """What was held back, when the reply ended without a stop string."""
        shown, self._held = self._held, ""
        return shown


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": None,
    }


def frame(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Answer:
    """Builds what goes back for one request: stream chunks, or one whole body."""

    def __init__(self, request: GenerationRequest, request_id: str, created: int) -> None:
        self.request = request
        self.id = f"chatcmpl-{request_id}" if request.chat else f"cmpl-{request_id}"
        self._created = created

    def role_chunk(self) -> dict[str, Any]:
        """What opens a chat stream."""
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._envelope("chat.completion.chunk", [choice], self._running_usage(0))

    def token_chunk(
        self, piece: str, tokens: int, finish_reason: str | None, stop: str | None
    ) -> dict[str, Any]:
        """One token; `tokens` is the reply's length so far."""
        choice: dict[str, Any] = {"index": 0}
        if self.request.chat:
            choice |= {"delta": {"content": piece}, "logprobs": None, "finish_reason": finish_reason}
            if finish_reason is not None:
                choice["stop_reason"] = stop
            choice["token_ids"] = None
        else:
            choice |= {"text": piece, "logprobs": None, "finish_reason": finish_reason, "stop_reason": stop}
        kind = "chat.completion.chunk" if self.request.chat else "text_completion"
        return self._envelope(kind, [choice], self._running_usage(tokens))

    def usage_chunk(self, tokens: int) -> dict[str, Any]:
        """What closes a stream that asked for its usage."""
        kind = "chat.completion.chunk" if self.request.chat else "text_completion"
        return self._envelope(kind, [], usage(len(self.request.prompt), tokens))

    def whole(self, content: str, tokens: int, finish_reason: str, stop: str | None) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0}
        if self.request.chat:
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": [], "reasoning": None}  # fmt: skip
            choice |= {"message": message, "logprobs": None}
        else:
            choice |= {"text": content, "logprobs": None}
        choice |= {"finish_reason": finish_reason, "stop_reason": stop, "token_ids": None}
        kind = "chat.completion" if self.request.chat else "text_completion"
        body = self._envelope(kind, [choice], usage(len(self.request.prompt), tokens))
        return {**body, "service_tier": None, "system_fingerprint": "vllm-sim", "kv_transfer_params": None}

    def _running_usage(self, tokens: int) -> dict[str, Any] | None:
        return usage(len(self.request.prompt), tokens) if self.request.continuous_usage else None

    def _envelope(
        self, kind: str, choices: list[dict[str, Any]], spent: dict[str, Any] | None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self.request.model,
            "choices": choices,
        }
        if spent is not None:
            body["usage"] = spent
        return body


def model_list(models: Sequence[str], root: str, created: int, max_model_len: int) -> dict[str, Any]:
    """The body of `/v1/models`."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "vllm",
                "root": root,
                "parent": None,
                "max_model_len": max_model_len,
                "permission": [],
            }
            for name in models
        ],
    }
