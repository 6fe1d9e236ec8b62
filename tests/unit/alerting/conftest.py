"""A store and groups over it, driven by hand: time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter import promql
from exporter.alerting.assembly import assemble
from exporter.alerting.conditions import Conditions
from exporter.alerting.group import Evaluated, LiveGroup
from exporter.alerting.rulefile import load_rules
from exporter.promql.model import Budget, Vector
from exporter.storage.head import Head, Layout
from exporter.storage.model import Labels
from exporter.storage.retention import Retention

T0 = 1_700_000_000_000


def labels(text: str) -> Labels:
    """`name{a="b"}` as a label set."""
    name, _, rest = text.partition("{")
    pairs = [part.split("=", 1) for part in rest.rstrip("}").split(",") if part]
    own = {key: value.strip('"') for key, value in pairs}
    return tuple(sorted((own | ({"__name__": name} if name else {})).items()))


class Bench:
    """A head that is fed by hand, and what rules make of it. Times in seconds after T0."""

    def __init__(self) -> None:
        self.head = Head(retention=Retention(3_600_000), memory_limit=64 << 20)
        self.groups: tuple[LiveGroup, ...] = ()
        self.conditions = Conditions(head=self.head, external_url="http://box:9108")
        self._layouts: dict[Any, Layout] = {}

    def feed(self, second: float, stream: str = "engine", **samples: float) -> None:
        """One row of a stream: `up=1`, or by a dict for names with labels."""
        self.put(second, samples, stream)

    def put(self, second: float, samples: dict[str, float], stream: str = "engine") -> None:
        key = tuple(samples)
        layout = self._layouts.setdefault(key, Layout([labels(text) for text in samples]))
        self.head.stream(stream).append(T0 + round(second * 1000), layout, list(samples.values()))

    def load(self, text: str, *, restored: bool = True, interval: float = 5.0) -> LiveGroup:
        """Groups of a rule file, in place of those before, of which they go on; gives the first."""
        assembly = assemble(
            load_rules(text, "test.yml"),
            self.head,
            interval=interval,
            restored=restored,
            previous=self.groups,
        )
        self.assembly = assembly
        self.groups = assembly.groups
        return assembly.groups[0]

    def set(self, **changes: Any) -> None:
        self.conditions = replace(self.conditions, **changes)

    def run(self, second: float) -> Evaluated:
        """Evaluate all groups; what the last one came to."""
        evaluated = None
        for group in self.groups:
            evaluated = group.evaluate(T0 + round(second * 1000), self.conditions)
        assert evaluated is not None
        return evaluated

    def ask(self, expression: str, second: float) -> dict[str, float]:
        """What an expression gives, by label sets written out, sorted by name."""
        query = promql.compile(expression)
        at = T0 + round(second * 1000)
        value = query.instant(self.head, at, Budget(samples=10_000_000, timeout=30))
        assert isinstance(value, Vector)
        here = np.ones(len(value.labels), bool) if value.present is None else value.present[:, 0]
        return {
            written(one): float(number)
            for one, number, present in zip(value.labels, value.values[:, 0], here, strict=True)
            if present
        }


def written(one: Sequence[tuple[str, str]]) -> str:
    own = dict(one)
    name = own.pop("__name__", "")
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in own.items()) + "}"


@pytest.fixture
def bench() -> Bench:
    return Bench()
