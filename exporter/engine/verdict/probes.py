"""The daemon's own requests to an engine: is it up, what does it serve, does it still produce a token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import SecretStr

from exporter.engine.output.diagnosis import Failure
from exporter.engine.verdict.hang import CanaryOutcome
from exporter.engine.verdict.health import Health
from exporter.engine.verdict.refusals import refusal

_BODY_LIMIT = 1 << 20
_NO_ANSWER = (aiohttp.ClientError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """One probe of `/health`: what it met, in words for the log, and the seconds it took."""

    health: Health
    detail: str
    took: float
    refusal: Failure | None = None
    """What an answer other than 200 means."""


@dataclass(frozen=True, slots=True)
class ModelsAnswer:
    """What `/v1/models` lists, and when that is nothing, why."""

    models: tuple[str, ...]
    refusal: Failure | None = None


class EngineClient:
    """Requests to one engine, each with its own deadline; a bad answer is a value, not an exception."""

    def __init__(
        self,
        base_url: str,
        api_key: SecretStr | None,
        http: Callable[[], aiohttp.ClientSession],
        *,
        tls_verify: bool = True,
    ) -> None:
        self._http = http
        self._ssl = tls_verify
        self._headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self.turn_to(base_url)

    def turn_to(self, base_url: str) -> None:
        """From now on ask the engine there."""
        self.base_url = base_url.rstrip("/")
        parts = urlsplit(self.base_url)
        self.scheme = parts.scheme
        self.address = (
            parts.hostname or "127.0.0.1",
            parts.port or (443 if parts.scheme == "https" else 80),
        )

    async def listens(self, timeout: float) -> bool:  # noqa: ASYNC109 - the deadline is part of the question
        """Whether somebody accepts a connection; far cheaper than a refused HTTP request."""
        try:
            async with asyncio.timeout(timeout):
                _, writer = await asyncio.open_connection(*self.address)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    async def health(self, timeout: float) -> HealthAnswer:  # noqa: ASYNC109
        """Ask `/health`."""
        begun = time.monotonic()

        def answer(health: Health, detail: str) -> HealthAnswer:
            return HealthAnswer(health, detail, time.monotonic() - begun)

        try:
            async with (
                asyncio.timeout(timeout),
                self._http().get(
                    f"{self.base_url}/health", headers=self._headers, allow_redirects=False, ssl=self._ssl
                ) as response,
            ):
                status = response.status
        except TimeoutError:
            return answer(Health.SILENT, f"no answer within {timeout:g} s")
        except _NO_ANSWER as error:
            return answer(Health.REFUSED, _words(error))
        if status == 200:
            return answer(Health.OK, "")
        took = time.monotonic() - begun
        return HealthAnswer(Health.ERROR, f"status {status}", took, self._refusal("/health", status))

    async def healthy_at(self, base_url: str, timeout: float) -> bool:  # noqa: ASYNC109
        """Whether `/health` answers 200 at another address; the key is not sent there."""
        try:
            async with (
                asyncio.timeout(timeout),
                self._http().get(f"{base_url}/health", allow_redirects=False, ssl=self._ssl) as response,
            ):
                return response.status == 200
        except (TimeoutError, *_NO_ANSWER):
            return False

    def _refusal(self, path: str, status: int | None) -> Failure:
        return refusal(self.base_url, path, status, has_key=bool(self._headers))

    async def models(self, timeout: float) -> ModelsAnswer:  # noqa: ASYNC109
        """The ids in `/v1/models`."""
        status = None
        models: tuple[str, ...] = ()
        try:
            async with (
                asyncio.timeout(timeout),
                self._http().get(
                    f"{self.base_url}/v1/models", headers=self._headers, allow_redirects=False, ssl=self._ssl
                ) as response,
            ):
                body = await response.content.read(_BODY_LIMIT)
                while len(body) < _BODY_LIMIT and (
                    more := await response.content.read(_BODY_LIMIT - len(body))
                ):
                    body += more
                if response.status == 200:
                    models = _model_ids(body)
                status = response.status
        except (TimeoutError, *_NO_ANSWER):
            pass
        return ModelsAnswer(models, None if models else self._refusal("/v1/models", status))

    async def canary(self, model: str, timeout: float) -> tuple[CanaryOutcome, float]:  # noqa: ASYNC109
        """Ask `model` for one token; the outcome, and the seconds it took.

        An answer of 400 to 499, 502 and 503 came from the API server or something before it: the engine was not asked.
        """
        begun = time.monotonic()
        request = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        try:
            async with (
                asyncio.timeout(timeout),
                self._http().post(
                    f"{self.base_url}/v1/completions",
                    json=request,
                    headers=self._headers,
                    allow_redirects=False,
                    ssl=self._ssl,
                ) as response,
            ):
                await response.content.read(1)
                status = response.status
        except (TimeoutError, *_NO_ANSWER):
            return CanaryOutcome.FAILED, time.monotonic() - begun
        if status == 200:
            outcome = CanaryOutcome.ANSWERED
        elif status < 500 or status in (502, 503):
            outcome = CanaryOutcome.INCONCLUSIVE
        else:
            outcome = CanaryOutcome.FAILED
        return outcome, time.monotonic() - begun


def _model_ids(body: bytes) -> tuple[str, ...]:
    import json

    document: Any = json.loads(body)
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(
        entry["id"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    )


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
