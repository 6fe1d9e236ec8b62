"""Which alerts hold which others back, found by the labels in which they must agree.

Source: `inhibit/inhibit.go` of https://github.com/prometheus/alertmanager. An alert that fits both sides of a rule is held
back only by one that does not: otherwise it would hold back itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.notify.config.model import Inhibition
from exporter.notify.matchers import fits

_Agreed = tuple[str, ...]


class _Rule:
    """One rule, and the firing alerts of its source side by the values of the `equal` labels."""

    def __init__(self, rule: Inhibition) -> None:
        self._rule = rule
        self._one_sided: dict[_Agreed, dict[int, None]] = {}
        self._two_sided: dict[_Agreed, dict[int, None]] = {}

    def fires(self, fingerprint: int, values: Mapping[str, str]) -> None:
        if fits(self._rule.source, values):
            side = self._two_sided if fits(self._rule.target, values) else self._one_sided
            side.setdefault(self._agreed(values), {})[fingerprint] = None

    def ends(self, fingerprint: int, values: Mapping[str, str]) -> None:
        agreed = self._agreed(values)
        for side in (self._one_sided, self._two_sided):
            sources = side.get(agreed)
            if sources is not None:
                sources.pop(fingerprint, None)
                if not sources:
                    del side[agreed]

    def inhibitor(self, values: Mapping[str, str]) -> int | None:
        if not self._one_sided and not self._two_sided:
            return None
        if not fits(self._rule.target, values):
            return None
        agreed = self._agreed(values)
        sources = self._one_sided.get(agreed)
        if not sources and not fits(self._rule.source, values):
            sources = self._two_sided.get(agreed)
        return next(iter(sources)) if sources else None

    def _agreed(self, values: Mapping[str, str]) -> _Agreed:
        return tuple(values.get(name, "") for name in self._rule.equal)


class Inhibitor:
    """All rules of the configuration, and the alerts that fire now."""

    def __init__(self, rules: Sequence[Inhibition]) -> None:
        self._rules = [_Rule(rule) for rule in rules]

    def fires(self, fingerprint: int, values: Mapping[str, str]) -> None:
        """An alert with these labels fires."""
        for rule in self._rules:
            rule.fires(fingerprint, values)

    def ends(self, fingerprint: int, values: Mapping[str, str]) -> None:
        """It does not any more."""
        for rule in self._rules:
            rule.ends(fingerprint, values)

    def inhibitor(self, values: Mapping[str, str]) -> int | None:
        """The fingerprint of an alert that holds back one with these labels; None where none does."""
        for rule in self._rules:
            source = rule.inhibitor(values)
            if source is not None:
                return source
        return None
