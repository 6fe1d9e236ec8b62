"""Functions that look at every sample of a window: one window at a time, all series that share their times at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import window
from exporter.promql.functions.naming import all_or, without_name
from exporter.promql.model import Argument, CallSite, Function, RangeVector, Vector
from exporter.storage.model import Samples

if TYPE_CHECKING:
    from exporter.storage.model import F64

AT_ONCE = 1 << 14
"""Samples that are worked on in one go: what is made of them on the way fits in the processor's cache."""

OfSamples = Callable[[int, Samples], "F64"]
"""What a step's window comes to: the step and a group of k series with their samples in, k values out."""


def over_windows(
    call: CallSite, asked: RangeVector, of: OfSamples, *, least: int = 1, at_once: int | None = None
) -> Vector:
    """`of` each window; a series with fewer than `least` samples in it has no value there.

    `at_once`: about how many samples `of` gets in one call, instead of AT_ONCE; a series is never cut.
    """
    labels = asked.selection.labels
    values = np.zeros((len(labels), len(asked.hi)))
    present = np.zeros(values.shape, dtype=np.bool_)
    with np.errstate(all="ignore"):
        for step, (lo, hi) in enumerate(zip(asked.lo.tolist(), asked.hi.tolist(), strict=True)):
            for group in asked.selection.samples(lo, hi):
                for part in parts(group, at_once or AT_ONCE):
                    call.budget.spend(part.values.size)
                    if len(group.times) < least:
                        continue
                    values[part.rows, step] = of(step, part)
                    present[part.rows, step] = True
    return without_name(call, labels, values, all_or(present))


def parts(group: Samples, at_once: int) -> Iterator[Samples]:
    """The group, cut between series where it is large."""
    rows = max(1, at_once // len(group.times))
    if len(group.rows) <= rows:
        yield group
        return
    for start in range(0, len(group.rows), rows):
        cut = slice(start, start + rows)
        yield Samples(group.rows[cut], group.times, group.values[cut])


def over_time(of: Callable[[F64], F64], *, least: int = 1) -> Function:
    """The PromQL function that gives `of(values)`, [k, T] to [k], for each window."""

    def function(call: CallSite, arguments: Sequence[Argument]) -> Vector:
        return over_windows(call, window(arguments), lambda _step, group: of(group.values), least=least)

    return function
