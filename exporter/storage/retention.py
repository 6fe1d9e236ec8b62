"""How long each series is kept: what the loaded rules look back to, and no less than the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.storage.matching import Condition, condition_of
from exporter.storage.model import NAME, Labels, Matcher

_NAMES = 4096
"""Metrics of which is remembered which rules read them."""


class Kept(NamedTuple):
    """The verdict on one series."""

    ms: int
    read: bool
    """Whether a rule reads it, or it is a rule's result: under memory pressure the others go first."""


class Retention:
    """What is kept, and for how long, in milliseconds; never changed.

    `rules`: selectors, and how far back something looks at them. `streams`: beginnings of stream names, and how long
    their series are kept, such as the results of recording rules. The longest that applies counts, at least `base_ms`.
    """

    def __init__(
        self,
        base_ms: int,
        rules: Iterable[tuple[Sequence[Matcher], int]] = (),
        streams: Iterable[tuple[str, int]] = (),
    ) -> None:
        self.base_ms = base_ms
        self.rules = tuple((tuple(matchers), keep) for matchers, keep in rules)
        self.streams = tuple(streams)
        self._of_name: dict[str, list[tuple[int, list[tuple[str, Condition]]]]] = {}

    def keep(self, labels: Labels, stream: str) -> int:
        """How long the samples of a series are kept, in milliseconds."""
        return self.verdict(labels, stream).ms

    def verdict(self, labels: Labels, stream: str) -> Kept:
        """How long a series is kept, and whether anything needs it."""
        values = dict(labels)
        ms, read = self.base_ms, False
        for prefix, keep in self.streams:
            if stream.startswith(prefix):
                ms, read = max(ms, keep), True
        for keep, conditions in self._rules_of(values.get(NAME, "")):
            if all(condition.matches(values.get(name, "")) for name, condition in conditions):
                return Kept(max(ms, keep), True)
        return Kept(ms, read)

    def _rules_of(self, name: str) -> list[tuple[int, list[tuple[str, Condition]]]]:
        """The rules that may select a metric, the longest first, and what they ask of its other labels."""
        found = self._of_name.get(name)
        if found is None:
            if len(self._of_name) >= _NAMES:
                self._of_name.clear()
            found = []
            for matchers, keep in dict.fromkeys(self.rules):
                if all(condition_of(one).matches(name) for one in matchers if one.name == NAME):
                    rest = [(one.name, condition_of(one)) for one in matchers if one.name != NAME]
                    found.append((keep, rest))
            found.sort(key=lambda rule: -rule[0])
            self._of_name[name] = found
        return found
