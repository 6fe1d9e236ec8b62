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
from exporter.engine.verdict.question import (
    ELSEWHERE,
    Surface,
    TokenAnswer,
    TokenOutcome,
    TokenStream,
    refused,
)
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
        has_priorities: bool = False,
    ) -> None:
        """`has_priorities`: the engine takes a `priority` (`--scheduling-policy priority`), and gets one with each question."""
        self._http = http
        self._first = has_priorities
        self._surface: Surface | None = None
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

        An answer of 400 to 499, 501 to 503 came from the API server or something before it: the engine was not asked.
        """
        answer = await self.ask(model, "1", timeout)
        if answer.outcome is TokenOutcome.SUCCESS:
            return CanaryOutcome.ANSWERED, answer.took
        failed = answer.outcome.went_unanswered
        return CanaryOutcome.FAILED if failed else CanaryOutcome.INCONCLUSIVE, answer.took

    async def ask(self, model: str, prompt: str, timeout: float) -> TokenAnswer:  # noqa: ASYNC109
        """Ask `model` for one token after `prompt`, the way that it takes; `timeout` is for all that it needs."""
        begun = time.monotonic()
        ways = sorted(Surface, key=lambda surface: surface is not self._surface)
        answer = TokenAnswer(TokenOutcome.TIMEOUT, 0.0)
        for surface in ways:
            left = max(0.0, begun + timeout - time.monotonic())
            answer = await self._ask(surface, model, prompt, left)
            if answer.status not in ELSEWHERE:
                self._surface = surface if answer.status == 200 else self._surface
                break
        return answer

    async def _ask(
        self,
        surface: Surface,
        model: str,
        prompt: str,
        timeout: float,  # noqa: ASYNC109
        *,
        again: bool = True,
    ) -> TokenAnswer:
        begun = time.monotonic()
        status: int | None = None
        first_token: float | None = None
        stream = TokenStream()

        def answer(outcome: TokenOutcome, detail: str = "") -> TokenAnswer:
            took = time.monotonic() - begun
            return TokenAnswer(
                outcome, took, first_token, stream.input_tokens, stream.output_tokens, status, detail
            )

        try:
            async with (
                asyncio.timeout(timeout),
                self._http().post(
                    f"{self.base_url}{surface.value}",
                    json=surface.question(model, prompt, first=self._first),
                    headers=self._headers,
                    allow_redirects=False,
                    ssl=self._ssl,
                ) as response,
            ):
                status = response.status
                if status != 200:
                    return answer(refused(status), f"status {status}")
                if not response.content_type.startswith("text/event-stream"):
                    await _take_whole(response, stream)
                    return answer(TokenOutcome.SUCCESS)
                read = 0
                async for data in response.content.iter_any():
                    read += len(data)
                    stream.feed(data)
                    if stream.has_token and first_token is None:
                        first_token = time.monotonic() - begun
                    if stream.failed or stream.finished or read > _BODY_LIMIT:
                        break
        except TimeoutError:
            return answer(TokenOutcome.TIMEOUT, f"no token within {timeout:g} s")
        except _NO_ANSWER as error:
            if again and status is None and _was_lost(error):
                left = max(0.0, begun + timeout - time.monotonic())
                return await self._ask(surface, model, prompt, left, again=False)
            lost = TokenOutcome.ENGINE_UNREACHABLE if status is None else TokenOutcome.TRUNCATED
            return answer(lost, _words(error))
        if stream.failed:
            return answer(TokenOutcome.ENGINE_ERROR, "an error in the stream")
        if not (stream.finished and stream.has_token):
            return answer(TokenOutcome.TRUNCATED, "the stream did not end properly")
        return answer(TokenOutcome.SUCCESS)


def _was_lost(error: BaseException) -> bool:
    """Whether a connection broke before an answer: an idle one that the server closed (uvicorn: after 5 s) says nothing."""
    return isinstance(
        error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError
    ) and not isinstance(error, aiohttp.ClientConnectorError)


async def _take_whole(response: aiohttp.ClientResponse, stream: TokenStream) -> None:
    """The answer of a server that does not stream, as embeddings are; its usage, where it says so."""
    import json

    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > _BODY_LIMIT:
            return
    try:
        document = json.loads(body)
    except ValueError:
        return
    if isinstance(document, dict):
        stream.take_usage(document)


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
