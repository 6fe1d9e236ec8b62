"""What the probes found, as series that go on over restarts of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from exporter.engine.verdict.question import TokenAnswer, TokenOutcome
from exporter.exposition.block import Block
from exporter.gateway.measuring.distribution import Distribution
from exporter.gateway.probe import families as f
from exporter.settings import SliSettings

log = structlog.get_logger(__name__)


class _Model:
    """One model's counts."""

    def __init__(self, name: str, block: Block, settings: SliSettings) -> None:
        self.name = name
        self.outcomes = {outcome: block.counter(f.REQUESTS, name, outcome.value) for outcome in TokenOutcome}
        for slot in self.outcomes.values():
            slot.set(0)
        self.distributions = {
            family: Distribution(bounds)
            for family, bounds in (
                (f.TIME_TO_FIRST_TOKEN, settings.time_to_first_token_buckets),
                (f.DURATION, settings.request_duration_buckets),
            )
        }
        self._block = block
        self.show()

    def show(self) -> None:
        """Bring the histograms up to date."""
        for family, distribution in self.distributions.items():
            distribution.show(self._block.histogram(family, distribution.bounds, self.name))

    def state(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "outcomes": {outcome.value: slot.value for outcome, slot in self.outcomes.items()},
            "distributions": {
                family.name: distribution.state() for family, distribution in self.distributions.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what no `state` said."""
        outcomes = {outcome: int(state["outcomes"].get(outcome.value) or 0) for outcome in TokenOutcome}
        if min(outcomes.values()) < 0:
            raise ValueError("no count is negative")
        for family, distribution in self.distributions.items():
            distribution.restore(state["distributions"][family.name])
        for outcome, count in outcomes.items():
            self.outcomes[outcome].set(count)
        self.show()


class ProbeMeasures:
    """Counts of every model that was probed; event loop only."""

    def __init__(self, block: Block, settings: SliSettings) -> None:
        self._block = block
        self._settings = settings
        self._models: dict[str, _Model] = {}
        self.version = 0
        """Rises whenever a total changes."""

    def expect(self, model: str) -> None:
        """Show the series of a model at 0, so that a rate sees its first probe."""
        if model not in self._models:
            self._models[model] = _Model(model, self._block, self._settings)

    def take(self, model: str, answer: TokenAnswer) -> None:
        """A probe is over. One that was refused before the engine says nothing of it: no verdict, neither 1 nor 0."""
        self.version += 1
        self.expect(model)
        measures = self._models[model]
        measures.outcomes[answer.outcome].inc()
        waited = answer.took if answer.outcome is TokenOutcome.TIMEOUT else None
        first = answer.first_token if answer.first_token is not None else waited
        if first is not None:
            measures.distributions[f.TIME_TO_FIRST_TOKEN].observe(first)
        if answer.outcome is TokenOutcome.SUCCESS:
            measures.distributions[f.DURATION].observe(answer.took)
        measures.show()
        if answer.outcome is TokenOutcome.SUCCESS or answer.outcome.went_unanswered:
            self._block.gauge(f.SUCCESS, model).set(int(answer.outcome is TokenOutcome.SUCCESS))
        else:
            self.fade()

    def fade(self) -> None:
        """There is no verdict: the last probe says nothing about now."""
        self._block.clear(f.SUCCESS)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {"models": [model.state() for model in self._models.values()]}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state; an empty one is none, a broken one is left alone."""
        try:
            for entry in saved.get("models", ()):
                name = str(entry["name"])
                self.expect(name)
                self._models[name].restore(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("probe_state_unusable", error=f"{type(error).__name__}: {error}")
