"""What clients saw of one model."""

from __future__ import annotations

from array import array
from typing import Any, Final

from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.gateway.measuring import families as g
from exporter.gateway.measuring.distribution import Distribution
from exporter.gateway.model import Exchange, Outcome
from exporter.settings import SliSettings
from exporter.sli import families as f

SOURCE = "gateway"
"""Label `source` of what the gateway measured."""
FAILURES = frozenset(
    {
        Outcome.REJECTED,
        Outcome.ENGINE_ERROR,
        Outcome.ENGINE_UNREACHABLE,
        Outcome.TIMEOUT,
        Outcome.TRUNCATED,
    }
)
"""Outcomes that are the service's fault; a client's mistakes and departures are not."""
_SUCCESS: Final = Outcome.SUCCESS  # an enum's members cost more to look up than a figure to count


class ModelMeasures:
    """Counters and distributions of one model; `observe_gap` is on the way of every token, `end` on that of every request."""

    __slots__ = (
        "_abandoned",
        "_abandoned_waits",
        "_block",
        "_distributions",
        "_errors_before",
        "_new_gaps",
        "_output_before",
        "_requests_before",
        "_settings",
        "duration",
        "error_ratio",
        "gaps",
        "input_tokens",
        "name",
        "observe_gap",
        "outcomes",
        "output_tokens",
        "queue",
        "speed",
        "ttft",
    )

    def __init__(self, name: str, block: Block, settings: SliSettings) -> None:
        self.name = name
        self._block = block
        self._settings = settings
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.input_tokens = 0
        self.output_tokens = 0
        self.ttft = Distribution(settings.time_to_first_token_buckets)
        self.gaps = Distribution(settings.inter_token_latency_buckets)
        self._new_gaps = array("d")
        self.observe_gap = self._new_gaps.append
        """A content event came, so many seconds after the one before. They are counted when somebody looks: in a second there are
        more of them than of all else.
        """
        self.duration = Distribution(settings.request_duration_buckets)
        self.queue = Distribution(settings.queue_duration_buckets)
        self.speed = Distribution(settings.output_tokens_per_second_buckets)
        self.error_ratio = Distribution(settings.error_ratio_buckets)
        self._abandoned = 0.0
        self._abandoned_waits = 0
        self._distributions: dict[Family, Distribution] = {
            f.TIME_TO_FIRST_TOKEN: self.ttft,
            f.INTER_TOKEN_LATENCY: self.gaps,
            f.REQUEST_DURATION: self.duration,
            f.QUEUE_DURATION: self.queue,
            f.OUTPUT_TOKENS_PER_SECOND: self.speed,
            f.ERROR_RATIO: self.error_ratio,
        }
        self._output_before = 0
        self._requests_before = 0
        self._errors_before = 0

    def end(self, exchange: Exchange, ttft: float | None) -> None:
        """A request is over. `ttft`: what it says of the time to first token, if anything."""
        outcome = exchange.outcome
        assert outcome is not None, "who ends a request says how it ended"
        assert exchange.ended is not None, "who ends a request says when"
        self.outcomes[outcome] += 1
        if exchange.input_tokens:
            self.input_tokens += exchange.input_tokens
        # The engine's own count decides; the gaps were counted as they came.
        seen = exchange.tokens_seen
        output = seen if exchange.output_tokens is None else exchange.output_tokens
        if output > (told := seen - 1 if seen else 0):
            self.output_tokens += output - told
        if ttft is not None:
            self.ttft.observe(ttft)
        waited = exchange.ended - exchange.began
        if outcome is _SUCCESS:
            self.duration.observe(waited)
        elif outcome is Outcome.ABORTED and exchange.first_token is None:
            self._abandoned += waited
            if ttft is not None:
                self._abandoned_waits += 1
        if exchange.received is not None:
            let_in = exchange.ended if exchange.sent_at is None else exchange.sent_at
            self.queue.observe(let_in - exchange.received)

    def interval(self, elapsed: float) -> int:
        """A scrape interval of so many seconds is over: observe its speed and its share of errors; 0 where that is not known.
        Returns how many tokens were counted by that.
        """
        tokens = self._count_gaps()
        failed = sum([self.outcomes[outcome] for outcome in FAILURES])
        judged = failed + self.outcomes[Outcome.SUCCESS]
        if judged > self._requests_before:
            self.error_ratio.observe((failed - self._errors_before) / (judged - self._requests_before))
        if elapsed > 0 and self.output_tokens > self._output_before:
            self.speed.observe((self.output_tokens - self._output_before) / elapsed)
        self._settle()
        return tokens

    def show(self) -> int:
        """Bring the block up to date; returns how many tokens were counted by that."""
        tokens = self._count_gaps()
        block, name = self._block, self.name
        for outcome, count in self.outcomes.items():
            block.counter(f.REQUESTS, name, SOURCE, outcome.value).set(count)
        block.counter(f.TOKENS, name, SOURCE, "input").set(self.input_tokens)
        block.counter(f.TOKENS, name, SOURCE, "output").set(self.output_tokens)
        block.counter(g.ABANDONED_WAITS, name).set(self._abandoned_waits)
        block.counter(g.ABANDONED, name).set(self._abandoned)
        for family, distribution in self._distributions.items():
            distribution.show(block.histogram(family, distribution.bounds, name, SOURCE))
        return tokens

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        self._count_gaps()
        return {
            "name": self.name,
            "outcomes": {outcome.value: count for outcome, count in self.outcomes.items()},
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "abandoned": self._abandoned,
            "abandoned_waits": self._abandoned_waits,
            "distributions": {
                family.name: distribution.state() for family, distribution in self._distributions.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. Raises KeyError, TypeError, ValueError or AttributeError for what no `state` said."""
        self.outcomes = {outcome: int(state["outcomes"].get(outcome.value, 0)) for outcome in Outcome}
        self.input_tokens = int(state["input_tokens"])
        self.output_tokens = int(state["output_tokens"])
        self._abandoned = float(state["abandoned"])
        self._abandoned_waits = int(state.get("abandoned_waits", 0))
        for family, distribution in self._distributions.items():
            distribution.restore(state["distributions"][family.name])
        self._settle()

    def _count_gaps(self) -> int:
        """Each is a token of output besides, seen while its request still runs. Returns how many there were."""
        gaps = self._new_gaps
        count = len(gaps)
        if count:
            self.gaps.observe_all(gaps)
            self.output_tokens += count
            del gaps[:]
        return count

    def _settle(self) -> None:
        """What the next interval counts from."""
        self._errors_before = sum([self.outcomes[outcome] for outcome in FAILURES])
        self._requests_before = self._errors_before + self.outcomes[Outcome.SUCCESS]
        self._output_before = self.output_tokens
