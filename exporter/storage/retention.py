"""How long each series is kept: what the loaded rules look back to, and no less than the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.storage.matching import condition_of
from exporter.storage.model import NAME, Labels, Matcher


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
        self._named: dict[str, list[tuple[tuple[Matcher, ...], int]]] = {}
        self._others: list[tuple[tuple[Matcher, ...], int]] = []
        for matchers, keep in dict.fromkeys(self.rules):
            name = next((one.value for one in matchers if one.name == NAME and one.op == "="), None)
            rest = tuple(one for one in matchers if one != Matcher(NAME, "=", name or ""))
            (self._others if name is None else self._named.setdefault(name, [])).append((rest, keep))

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
        for rules in (self._named.get(values.get(NAME, ""), ()), self._others):
            for matchers, keep in rules:
                if (keep > ms or not read) and all(
                    condition_of(one).matches(values.get(one.name, "")) for one in matchers
                ):
                    ms, read = max(ms, keep), True
        return Kept(ms, read)
