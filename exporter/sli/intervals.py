"""What one scrape interval says: every failed request its outcome, one error ratio, one output speed per model."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.sli.models import NO_GAINS, Gains, ModelView
from exporter.sli.outcomes import FailurePairing


class Interval:
    """The gains of one interval, and what failed in it by model."""

    __slots__ = ("failures", "gains")

    def __init__(self, gains: Mapping[str, Gains], failures: Mapping[str, float]) -> None:
        self.gains = gains
        self.failures = failures

    @property
    def served(self) -> bool:
        """Whether any request succeeded."""
        return any(gain.success > 0 for gain in self.gains.values())


_QUIET = Interval({}, {})


def settle(models: Mapping[str, ModelView], values: list[float], pairing: FailurePairing) -> Interval:
    """Count what each model gained; failures that stand in two of vLLM's counters count once.

    Pairing is over all models together, because a 5xx does not say which model it was.
    """
    gains = {}
    for name, model in models.items():
        gain = model.gains(values)
        if gain is not NO_GAINS:
            gains[name] = gain
    own = http = 0.0
    for gain in gains.values():
        own += gain.errored + gain.rejected
        http += gain.server_errors
    own_counted, http_counted = pairing.settle(own, http)
    if not gains:
        return _QUIET
    own_share = own_counted / own if own > 0 else 0.0
    http_share = http_counted / http if http > 0 else 0.0
    failures = {}
    for name, gain in gains.items():
        rejected = gain.rejected * own_share
        errors = gain.errored * own_share + gain.server_errors * http_share
        models[name].count(rejected, errors)
        failures[name] = rejected + errors
    return Interval(gains, failures)


def error_ratios(interval: Interval, models: Mapping[str, ModelView], on_page: list[str]) -> dict[str, float]:
    """The error ratio of each model with traffic.

    With several models on the page, failures of an unknown one stand under the empty name: the models share them by
    their traffic, or all have them when there is no other.
    """
    failures = dict(interval.failures)
    unknown = failures.pop("", 0.0) if len(on_page) > 1 else 0.0
    traffic = {name: interval.gains[name].success + failed for name, failed in failures.items()}
    everything = sum(traffic.values())
    if unknown > 0 and everything <= 0:
        return dict.fromkeys(on_page, 1.0)
    ratios = {}
    for name, served in traffic.items():
        if served > 0 and models[name].error_ratio is not None:
            share = unknown * served / everything
            ratios[name] = (failures[name] + share) / (served + share)
    return ratios
