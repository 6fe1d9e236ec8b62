"""Every request that the gateway had, counted once: the series with `source="gateway"`, and what the gateway is at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from exporter.exposition.block import Block
from exporter.gateway.measuring import families as g
from exporter.gateway.measuring.key import KeyMeasures
from exporter.gateway.measuring.model import ModelMeasures
from exporter.gateway.model import Exchange
from exporter.gateway.reading.outcome import counts_for_ttft
from exporter.settings import SliSettings

log = structlog.get_logger(__name__)

KEY_SERIES_LIMIT = 1000
"""Pairs of key and model with series of their own; what comes after counts under the key `other`."""
NO_ROOM = ("queue_full", "queue_timeout", "bodies_full")
"""Reasons of refusals that stand at zero before the first one, so that a rate sees it: rules/gateway.rules.yml reads them."""
COUNTED_TOGETHER = 32
"""Requests that are counted in one go: cheaper than one by one, and off the way of those that are being answered."""
_STATE_VERSION = 1


class Recorder:
    """Takes in the end of each request; event loop only. `block` holds the indicators, `daemon` what the gateway is at.

    `engines`: blocks of engines whose series bear their own `instance`; what is told of others stands in `daemon`.
    `model_limit` bounds the models with series of their own; further ones count under an empty name. `ended` is called
    with each request that is over, when all is counted.
    """

    def __init__(
        self,
        block: Block,
        daemon: Block,
        settings: SliSettings,
        *,
        model_limit: int,
        patience: float,
        ended: Callable[[Exchange], None] = lambda exchange: None,
        engines: Mapping[str, Block] | None = None,
    ) -> None:
        self._block = block
        self._daemon = daemon
        self._engines = engines or {}
        self._sent: dict[str, int] = {}
        self._settings = settings
        self._model_limit = model_limit
        self._patience = patience
        self._ended = ended
        self._models: dict[str, ModelMeasures] = {}
        self._keys: dict[tuple[str, str], KeyMeasures] = {}
        self._refusals: dict[str, int] = dict.fromkeys(NO_ROOM, 0)
        self._retries = 0
        self._version = 0
        self._over: list[Exchange] = []
        """Requests that are over and not yet counted."""
        self._intervals_from: float | None = None
        self.running = 0
        """Requests that have begun and are not over, those that wait included."""

    @property
    def version(self) -> int:
        """Rises whenever a total changes."""
        return self._version + len(self._over)

    def know(self, models: Iterable[str]) -> None:
        """Models that the engines list: their series stand at zero before the first request, so that a rate sees it."""
        for name in models:
            self._model(name)

    def begin(self, exchange: Exchange) -> None:
        """A request has come."""
        if exchange.endpoint.counted:
            self.running += 1

    def gap(self, model: str) -> Callable[[float], None]:
        """Where the gaps between a stream's tokens are counted: called with the seconds of each."""
        return (self._models.get(model) or self._model(model)).observe_gap

    def refused(self, reason: str) -> None:
        """The gateway answered a request itself, with an error."""
        self._version += 1
        self._refusals[reason] = self._refusals.get(reason, 0) + 1

    def end(self, exchange: Exchange) -> None:
        """A request is over: it has its outcome and its times, and changes no more."""
        if exchange.endpoint.counted:
            self.running -= 1
        over = self._over
        over.append(exchange)
        if len(over) >= COUNTED_TOGETHER:
            self._count()
        self._ended(exchange)

    def _count(self) -> None:
        """Count what is over."""
        over = self._over
        self._over = []
        self._version += len(over)
        sent = self._sent
        patience = self._patience
        for exchange in over:
            if exchange.tries > 1:
                self._retries += exchange.tries - 1
            if exchange.endpoint.counted:
                if backend := exchange.backend:
                    sent[backend] = sent.get(backend, 0) + 1
                ttft = counts_for_ttft(exchange, patience) if exchange.stream else None
                (self._models.get(exchange.model) or self._model(exchange.model)).end(exchange, ttft)
                if exchange.key is not None:
                    self._key(exchange.key, exchange.model).end(exchange, ttft)

    def interval(self, now: float) -> None:
        """A scrape interval is over; `now` in monotonic seconds."""
        self._count()
        elapsed = 0.0 if self._intervals_from is None else now - self._intervals_from
        self._intervals_from = now
        self._version += 1
        for model in self._models.values():
            self._version += model.interval(elapsed)

    def publish(self, *, connections: int, running: Mapping[str, int], queued: int, takes: bool) -> None:
        """Bring the blocks up to date: the totals, and what the gateway is at. `running`: requests by engine."""
        self._count()
        for model in self._models.values():
            self._version += model.show()
        for key in self._keys.values():
            key.show(self._block)
        daemon = self._daemon
        for reason, count in self._refusals.items():
            daemon.counter(g.REFUSALS, reason).set(count)
        daemon.counter(g.RETRIES).set(self._retries)
        daemon.gauge(g.UP).set(int(takes))
        daemon.gauge(g.CONNECTIONS).set(connections)
        daemon.gauge(g.QUEUED).set(queued)
        for name, count in running.items():
            block = self._engines.get(name, daemon)
            block.gauge(g.RUNNING, name).set(count)
            block.counter(g.SENT, name).set(self._sent.get(name, 0))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        self._count()
        return {
            "version": _STATE_VERSION,
            "models": [model.state() for model in self._models.values()],
            "keys": [key.state() for key in self._keys.values()],
            "refusals": dict(self._refusals),
            "retries": self._retries,
            "sent": dict(self._sent),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; an empty one is none, a broken one is left alone."""
        self._count()
        if not state:
            return
        try:
            if state["version"] != _STATE_VERSION:
                raise ValueError(f"version {state['version']}, expected {_STATE_VERSION}")
            models = {}
            for entry in state["models"]:
                model = models[entry["name"]] = ModelMeasures(str(entry["name"]), self._block, self._settings)
                model.restore(entry)
            keys = [KeyMeasures.restored(entry) for entry in state["keys"]]
            refusals = {str(reason): int(count) for reason, count in state["refusals"].items()}
            sent = {str(name): int(count) for name, count in state.get("sent", {}).items()}
            self._retries = int(state["retries"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("gateway_state_unusable", error=f"{type(error).__name__}: {error}")
            return
        self._models = models
        self._sent = sent
        self._keys = {(key.key, key.model): key for key in keys}
        self._refusals = dict.fromkeys(NO_ROOM, 0) | refusals

    def _model(self, name: str) -> ModelMeasures:
        model = self._models.get(name)
        if model is None:
            if name and len(self._models) >= self._model_limit:
                return self._model("")
            model = self._models[name] = ModelMeasures(name, self._block, self._settings)
        return model

    def _key(self, key: str, model: str) -> KeyMeasures:
        measures = self._keys.get((key, model))
        if measures is None:
            if len(self._keys) >= KEY_SERIES_LIMIT and key != "other":
                return self._key("other", model)
            measures = self._keys[key, model] = KeyMeasures(key, model)
        return measures
