"""What the clients of one API key saw of one model: few figures, for there may be many keys."""

from __future__ import annotations

from typing import Any

from exporter.exposition.block import Block
from exporter.gateway.measuring import families as g
from exporter.gateway.measuring.distribution import Distribution
from exporter.gateway.model import Exchange, Outcome

TTFT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
DURATION_BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds; coarser than the models' own, which tell how fast the engine is. These tell a team how it is served."""


class KeyMeasures:
    """Counters and distributions of one key and one model."""

    __slots__ = ("_duration", "_input", "_outcomes", "_output", "_ttft", "key", "model")

    def __init__(self, key: str, model: str) -> None:
        self.key = key
        self.model = model
        self._outcomes: dict[Outcome, int] = {}
        self._input = 0
        self._output = 0
        self._ttft = Distribution(TTFT_BUCKETS)
        self._duration = Distribution(DURATION_BUCKETS)

    def end(self, exchange: Exchange, ttft: float | None) -> None:
        """A request is over."""
        outcome = exchange.outcome
        assert outcome is not None, "who ends a request says how it ended"
        assert exchange.ended is not None, "who ends a request says when"
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        self._input += exchange.input_tokens or 0
        self._output += exchange.tokens_seen if exchange.output_tokens is None else exchange.output_tokens
        if ttft is not None:
            self._ttft.observe(ttft)
        if outcome is Outcome.SUCCESS:
            self._duration.observe(exchange.ended - exchange.began)

    def show(self, block: Block) -> None:
        """Bring the block up to date."""
        for outcome, count in self._outcomes.items():
            block.counter(g.KEY_REQUESTS, self.key, self.model, outcome.value).set(count)
        block.counter(g.KEY_TOKENS, self.key, self.model, "input").set(self._input)
        block.counter(g.KEY_TOKENS, self.key, self.model, "output").set(self._output)
        for family, distribution in (
            (g.KEY_TIME_TO_FIRST_TOKEN, self._ttft),
            (g.KEY_DURATION, self._duration),
        ):
            distribution.show(block.histogram(family, distribution.bounds, self.key, self.model))

    def state(self) -> dict[str, Any]:
        """All that `restored` needs, JSON-able."""
        return {
            "key": self.key,
            "model": self.model,
            "outcomes": {outcome.value: count for outcome, count in self._outcomes.items()},
            "input": self._input,
            "output": self._output,
            "ttft": self._ttft.state(),
            "duration": self._duration.state(),
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> KeyMeasures:
        """From a saved state. Raises KeyError, TypeError, ValueError or AttributeError for what no `state` said."""
        made = cls(str(state["key"]), str(state["model"]))
        made._outcomes = {Outcome(name): int(count) for name, count in state["outcomes"].items()}
        made._input, made._output = int(state["input"]), int(state["output"])
        made._ttft.restore(state["ttft"])
        made._duration.restore(state["duration"])
        return made
