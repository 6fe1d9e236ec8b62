"""What the store speaks of: label sets, matchers, and selections of series with their samples.

Times are int64 milliseconds since 1970, values float64. A window is open on the left and closed on the right, as in
Prometheus 3: `lo < t <= hi`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]
    I64 = NDArray[np.int64]
    Bool = NDArray[np.bool_]

Labels = tuple[tuple[str, str], ...]
"""A label set: pairs sorted by name, `__name__` among them, no empty values. Equal sets are equal tuples."""

NAME = "__name__"
STALE_BITS = 0x7FF0000000000002
"""Prometheus' staleness marker: the NaN that ends a series (model/value in prometheus/prometheus)."""


class Matcher(NamedTuple):
    """One condition of a selector; an absent label counts as the empty string, a regular expression is anchored."""

    name: str
    op: Literal["=", "!=", "=~", "!~"]
    value: str


class Latest(NamedTuple):
    """The newest sample of each series (n) at each time (s); where `present` is false the others mean nothing."""

    values: F64  # [n, s]
    times: I64  # [n, s] or [1, s] where all series share them
    present: Bool  # [n, s]


class Edges(NamedTuple):
    """The ends of each series' samples (n) in each window (s); with `counts` 0 the others mean nothing.

    `rise` is what the counter grew by between the first and the last sample, resets taken out: the sum over
    neighbours of `b - a`, or `b` where `b < a`.
    """

    counts: I64  # [n, s] samples in the window
    first_time: I64  # [n, s]
    first: F64  # [n, s]
    last_time: I64  # [n, s]
    last: F64  # [n, s]
    rise: F64  # [n, s]


class Samples(NamedTuple):
    """The samples of some series in one window, without holes: every series of the group has one at each time."""

    rows: Sequence[int] | I64  # k places in the selection's `labels`
    times: I64  # [T], rising
    values: F64  # [k, T]; do not change


class Selection(Protocol):
    """Some series and their samples, for reading; made by `Head.select`, and by a subquery.

    What is asked for is answered from the samples that stood when it was asked; staleness markers end a series in
    `latest` and are no samples elsewhere.
    """

    @property
    def labels(self) -> Sequence[Labels]:
        """One label set per series; the same object as long as the selected series stay the same."""

    def latest(self, times: I64, lookback: int) -> Latest:
        """For each time t the newest sample in `(t - lookback, t]`; a series whose newest entry is stale has none."""

    def edges(self, lo: I64, hi: I64) -> Edges:
        """For each window `(lo[i], hi[i]]` its first and last samples, and the rise between them."""

    def samples(self, lo: int, hi: int) -> list[Samples]:
        """Everything in the window `(lo, hi]`: groups of series that share their times; series without any are left out."""


class Storage(Protocol):
    """Where PromQL reads."""

    def select(self, matchers: Sequence[Matcher]) -> Selection:
        """Every series that fits all the matchers, whenever it had samples; at least one does not match the empty string."""
