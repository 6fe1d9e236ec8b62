"""rate, increase and delta: what a series grew by in each window, carried on to the window's ends.

Only the first and the last sample of each window and the rise between them are looked at, so a window of three days
costs what one of five minutes does. The rules of carrying on are Prometheus' (extrapolatedRate in
https://github.com/prometheus/prometheus/blob/main/promql/functions.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import window
from exporter.promql.functions.naming import all_or, without_name
from exporter.promql.model import Argument, CallSite, Vector

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64, Edges

CLOSE = 1.1
"""A window's end this many average intervals from the nearest sample, or farther, is not reached: the series ends."""


def rate(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Growth of a counter per second."""
    return _growth(call, arguments, counter=True, per_second=True)


def increase(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Growth of a counter over the window."""
    return _growth(call, arguments, counter=True, per_second=False)


def delta(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Change of a gauge over the window."""
    return _growth(call, arguments, counter=False, per_second=False)


def _growth(call: CallSite, arguments: Sequence[Argument], *, counter: bool, per_second: bool) -> Vector:
    asked = window(arguments)
    labels = asked.selection.labels
    call.budget.spend(len(labels) * len(asked.hi))
    edges = asked.selection.edges(asked.lo, asked.hi)
    with np.errstate(all="ignore"):
        growth = extrapolated(edges, asked.lo, asked.hi, counter=counter, per_second=per_second)
    return without_name(call, labels, growth, all_or(edges.counts >= 2))


def extrapolated(edges: Edges, lo: I64, hi: I64, *, counter: bool, per_second: bool) -> F64:
    """The growth in each window `(lo, hi]`, [n, s]; where a window has fewer than two samples it means nothing.

    A sample close to the window's end stands for that end. Otherwise the series is taken to begin or end half an
    average interval away, and a counter no earlier than where its slope meets zero.
    """
    growth = edges.rise if counter else edges.last - edges.first
    sampled = (edges.last_time - edges.first_time) / 1000.0
    average = sampled / (edges.counts - 1)
    close = average * CLOSE
    half = average / 2.0
    before = (edges.first_time - lo) / 1000.0
    before = np.where(before >= close, half, before)
    if counter:
        to_zero = sampled * (edges.first / growth)
        nearer = (to_zero < before) & (growth > 0.0) & (edges.first >= 0.0)
        before = np.where(nearer, to_zero, before)
    after = (hi - edges.last_time) / 1000.0
    after = np.where(after >= close, half, after)
    factor = (sampled + before + after) / sampled
    if per_second:
        factor /= (hi - lo) / 1000.0
    carried: F64 = growth * factor
    return carried
