"""The values of PromQL, over all steps of an evaluation at once: an instant query is a range of one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from exporter.storage.model import Labels, Matcher, Selection

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64, Bool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Vector:
    """An instant vector at each step: n label sets by s steps.

    `labels` is the same object in two evaluations as long as the series are the same, so that what is made of labels
    (grouping, matching, renaming) can be kept between evaluations, by identity. `present` None: all are present; where
    it is false, `values` mean nothing.
    """

    labels: Sequence[Labels]
    values: F64  # [n, s]
    present: Bool | None = None  # [n, s]

    @property
    def empty(self) -> bool:
        """Whether there is no sample at any step."""
        return not self.labels or (self.present is not None and not self.present.any())


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number at each step."""

    values: F64  # [s]


@dataclass(frozen=True, slots=True)
class String:
    """A string literal: the same at each step."""

    value: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """What an instant query of a bare range selector or subquery gives: each series with its own samples."""

    labels: Sequence[Labels]
    times: Sequence[I64]  # n arrays
    values: Sequence[F64]  # n arrays, as long as their times


Value = Vector | Scalar | String


@dataclass(frozen=True, slots=True)
class Steps:
    """The evaluation's times, in milliseconds: one for an instant query."""

    times: I64  # [s], rising by `interval`; a subquery's leave out those that nothing reads
    start: int
    """What `@ start()` means."""
    end: int
    """What `@ end()` means."""
    interval: int
    """Milliseconds between steps; 0 for an instant query."""


@dataclass(frozen=True, slots=True)
class RangeVector:
    """What a range function reads at each step: the samples of a selection in the window `(lo[i], hi[i]]`."""

    selection: Selection
    lo: I64  # [s]
    hi: I64  # [s]


Argument = Value | RangeVector


class Memo:
    """What one place in an expression made of a labels object, kept as long as it is given the same object again.

    This is what makes the second evaluation of a rule cheap: names are dropped, groups formed and partners found once
    per set of series, not once per evaluation.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[object, ...], Any]] = {}

    def of(self, what: str, sources: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` gives; made again only when one of the sources is another object than the last time."""
        kept = self._kept.get(what)
        if kept is not None and len(kept[0]) == len(sources) and all(map(is_, kept[0], sources)):
            return cast("T", kept[1])
        made = make()
        self._kept[what] = (sources, made)
        return made


class Budget:
    """What one evaluation may cost: asked before work is done, and raises when it is used up.

    `deadline` is in monotonic seconds.
    """

    __slots__ = ("_clock", "_deadline", "_left", "_limit", "_timeout")

    def __init__(self, *, samples: int, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = self._left = samples
        self._timeout = timeout
        self._clock = clock
        self._deadline = clock() + timeout

    def spend(self, samples: int) -> None:
        """Count samples that are about to be touched; QueryError when there are too many, or when it takes too long."""
        self._left -= samples
        if self._left < 0:
            raise QueryError(
                "execution",
                f"query processing would load too many samples into memory (more than {self._limit})",
            )
        if self._clock() > self._deadline:
            raise QueryError("timeout", f"query timed out after {self._timeout:g} s in expression evaluation")


@dataclass(frozen=True, slots=True)
class CallSite:
    """One call in an expression, as a function sees it."""

    name: str
    steps: Steps
    memo: Memo
    budget: Budget
    matchers: tuple[Matcher, ...] | None = None
    """Of the first argument where that is a selector, for `absent` and `absent_over_time`."""


Function = Callable[[CallSite, Sequence[Argument]], Value]
"""A PromQL function over already evaluated arguments."""


class QueryError(Exception):
    """A query that cannot be parsed or evaluated; `kind` is the API's `errorType`, `position` counts characters from 0."""

    def __init__(
        self, kind: Literal["bad_data", "execution", "timeout"], message: str, position: int | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.position = position
