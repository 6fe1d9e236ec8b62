"""A store over plain rows, slow and obvious."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exporter.promql.subquery import MatrixSelection
from exporter.storage.matching import condition_of
from exporter.storage.model import Labels, Matcher


def labels(name: str, **others: str) -> Labels:
    return tuple(sorted({"__name__": name, **others}.items()))


class StoreOfRows:
    """Series whose samples share their times, in milliseconds."""

    def __init__(self, times: Sequence[int], rows: Mapping[Labels, Sequence[float]]) -> None:
        self.times = np.array(times, np.int64)
        self.rows = {key: np.array(values, np.float64) for key, values in rows.items()}

    def select(self, matchers: Sequence[Matcher]) -> MatrixSelection:
        found = self._fitting(matchers)
        values = np.array([self.rows[key] for key in found]).reshape(len(found), len(self.times))
        return MatrixSelection(found, self.times, values, None)

    def series(self, matchers: Sequence[Matcher], lo: int, hi: int) -> list[Labels]:
        return self._fitting(matchers) if ((self.times > lo) & (self.times <= hi)).any() else []

    def label_names(self, matchers: Sequence[Matcher], lo: int, hi: int) -> list[str]:
        return sorted({name for key in self.series(matchers, lo, hi) for name, _ in key})

    def label_values(self, name: str, matchers: Sequence[Matcher], lo: int, hi: int) -> list[str]:
        return sorted({value for key in self.series(matchers, lo, hi) for n, value in key if n == name})

    def _fitting(self, matchers: Sequence[Matcher]) -> list[Labels]:
        return [
            key
            for key in self.rows
            if all(condition_of(matcher).matches(dict(key).get(matcher.name, "")) for matcher in matchers)
        ]
