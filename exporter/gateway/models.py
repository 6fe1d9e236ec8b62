"""What the gateway answers itself: one list of the models of all engines, and OpenAI's `/v1/models/{model}`, which vLLM lacks.

Each engine's own entries are kept byte for byte, so that whatever vLLM tells of a model (`max_model_len`, `root`, the parent
of an adapter) is told here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from exporter.gateway.admission.refusals import no_such_model
from exporter.gateway.model import Exchange, Outcome, Refusal
from exporter.gateway.routes import MODEL, MODELS

if TYPE_CHECKING:
    import aiohttp
    from pydantic import SecretStr

    from exporter.gateway.keys.key import Key

DOCUMENT_BYTES = 4 << 20
"""Largest `/v1/models` of an engine that is read: some thousand adapters."""

_NOT_YET = Refusal(
    503,
    "service_unavailable",
    "models_unknown",
    "No engine has said yet which models it serves. Please try again in 5s.",
    Outcome.REJECTED,
    retry_after=5.0,
)


class _Document(msgspec.Struct):
    data: list[msgspec.Raw]


class _Card(msgspec.Struct):
    id: str


_DOCUMENTS = msgspec.json.Decoder(_Document)
_CARDS = msgspec.json.Decoder(_Card)


def read_cards(document: bytes) -> dict[str, bytes]:
    """The entries of an engine's `/v1/models` by their id, each as its JSON. Raises ValueError for another document."""
    cards: dict[str, bytes] = {}
    try:
        for raw in _DOCUMENTS.decode(document).data:
            name = _CARDS.decode(raw).id
            if name:
                cards.setdefault(name, bytes(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no list of models: {error}") from error
    return cards


class Models:
    """The models of all engines. `engines`: their names, in the order in which their models are listed."""

    def __init__(
        self, engines: Sequence[str], keyed: Callable[[str | None], Key | None] | None = None
    ) -> None:
        """`keyed` gives the API key of a name, where the gateway checks keys: a key sees the models that it may use."""
        self._engines = tuple(engines)
        self._keyed = keyed if keyed is not None else lambda name: None
        self._documents: dict[str, Mapping[str, bytes]] = {}
        self._cards: Mapping[str, bytes] = MappingProxyType({})

    @property
    def names(self) -> tuple[str, ...]:
        """Every model, once."""
        return tuple(self._cards)

    def learn(self, engine: str, document: bytes) -> tuple[str, ...]:
        """Take in what an engine answers to `GET /v1/models`; the ids in it. Raises ValueError for another document."""
        cards = read_cards(document)
        self._documents[engine] = cards
        self._merge()
        return tuple(cards)

    def forget(self, engine: str) -> None:
        """An engine serves nothing any more, and is not about to."""
        if self._documents.pop(engine, None) is not None:
            self._merge()

    def answer(self, exchange: Exchange, target: str) -> bytes | Refusal | None:
        """The body that answers a request of ours to answer, or why there is none; None for one that an engine answers.

        `target`: the request's, with or without a query. A single engine lists its models itself, byte for byte, unless the
        request's key may use only some of them.
        """
        path = exchange.endpoint.path
        if path == MODELS:
            return self._all(self._keyed(exchange.key))
        if path == MODEL and exchange.method != "OPTIONS":
            asked = unquote(target.partition("?")[0].removeprefix(MODELS + "/"))
            return self._one(asked, self._keyed(exchange.key))
        return None

    def _all(self, key: Key | None) -> bytes | None:
        if not self._cards or (len(self._engines) == 1 and (key is None or key.models is None)):
            return None
        cards = [card for name, card in self._cards.items() if key is None or key.may_use(name)]
        return b'{"object":"list","data":[%b]}' % b",".join(cards)

    def _one(self, name: str, key: Key | None) -> bytes | Refusal:
        if not self._cards:
            return _NOT_YET
        card = self._cards.get(name)
        if card is None or (key is not None and not key.may_use(name)):
            return no_such_model(name)
        return card

    def _merge(self) -> None:
        """Of replicas the first one's entry stands."""
        merged: dict[str, bytes] = {}
        for engine in self._engines:
            for name, card in self._documents.get(engine, {}).items():
                merged.setdefault(name, card)
        self._cards = MappingProxyType(merged)


async def fetch_models(
    session: aiohttp.ClientSession,
    base_url: str,
    api_key: SecretStr | None,
    *,
    timeout: float,  # noqa: ASYNC109  the deadline is part of the question
    tls_verify: bool = True,
) -> bytes | None:
    """An engine's own answer to `GET /v1/models`; None where there is no good one within `timeout` seconds."""
    import asyncio

    import aiohttp

    headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key is not None else {}
    url = f"{base_url.rstrip('/')}{MODELS}"
    try:
        async with (
            asyncio.timeout(timeout),
            session.get(url, headers=headers, allow_redirects=False, ssl=tls_verify) as response,
        ):
            body = bytearray()
            async for part in response.content.iter_chunked(1 << 16):
                body += part
                if len(body) > DOCUMENT_BYTES:
                    return None
            return bytes(body) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None
