"""What the answers of a server mean that is there and yet cannot be used: who has to set what."""

from __future__ import annotations

from exporter.engine.output.diagnosis import Failure


def refusal(base_url: str, path: str, status: int | None, *, has_key: bool) -> Failure:
    """The meaning of `status` at `path` (None: no usable answer; 200: an answer that names no model)."""
    said = f"{path} answered {status}"
    where = f"{base_url}: "
    if status in (401, 403):
        advice = (
            "set engine.api_key" if not has_key else "engine.api_key is not a key of this server; correct it"
        )
        return Failure("unauthorized", where + said, advice, retryable=False)
    if status == 404:
        why = "no OpenAI API there" if path == "/v1/models" else "no vLLM there"
        return Failure(
            "not_vllm", f"{where}{said}: {why}", "is it a vLLM server? correct engine.url", retryable=False
        )
    if status is not None and 300 <= status < 400:
        return Failure(
            "redirected",
            f"{where}{said}, a redirect",
            "set engine.url to the address that it leads to",
            retryable=False,
        )
    if status == 200:
        return Failure("no_model", f"{where}{path} lists no model yet", "", retryable=True)
    if status is None:
        return Failure("no_model", f"{where}{path} gave no usable answer", "", retryable=True)
    return Failure("health", where + said, "", retryable=True)
