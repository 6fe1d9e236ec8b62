"""Which series of one vector meet which of another: `on`, `ignoring`, `group_left` and `group_right`.

What follows from labels alone is found once, in a `Pairing`; what depends on which samples are there at a step is
checked per step, and only where several series share a signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from exporter.promql.arithmetic import ARITHMETIC, COMPARISONS, calculate
from exporter.promql.labels import drop, drop_name, get, keep, merged, show
from exporter.promql.model import Budget, Memo, QueryError, Vector
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.promql.unique import unique
from exporter.storage.model import NAME, Labels

if TYPE_CHECKING:
    from exporter.storage.model import I64, Bool

Cardinality = Literal["one-to-one", "many-to-one", "one-to-many"]


@dataclass(frozen=True, slots=True)
class Matching:
    """How two sides meet: on some labels, or on all but some (the metric name never counts then)."""

    on: bool = False
    names: tuple[str, ...] = ()
    cardinality: Cardinality = "one-to-one"
    include: tuple[str, ...] = ()
    """Labels that the "one" side gives to the result."""

    def signature(self, labels: Labels) -> Labels:
        """What two series that meet have in common."""
        return keep(labels, self.names) if self.on else drop(labels, (*self.names, NAME))

    def result(self, many: Labels, one: Labels, *, nameless: bool) -> Labels:
        """The labels of a result: those of the "many" (or left) side, less what does not match, plus `include`."""
        labels = drop_name(many) if nameless else many
        if self.cardinality == "one-to-one":
            labels = keep(labels, self.names) if self.on else drop(labels, self.names)
        return merged(labels, [(name, get(one, name)) for name in self.include]) if self.include else labels


class Crowds(NamedTuple):
    """Rows of which at most one may be there at a step: k crowds, one after the other."""

    rows: I64
    starts: I64  # [k] places in `rows`

    def crowded(self, present: Bool) -> Bool:
        """Where [k, s] more than one of a crowd is there."""
        result: Bool = np.add.reduceat(present[self.rows], self.starts, axis=0, dtype=np.int64) > 1
        return result


def crowds(groups: Iterable[Sequence[int]]) -> Crowds | None:
    """The groups of more than one row; None where there are none."""
    large = [rows for rows in groups if len(rows) > 1]
    if not large:
        return None
    sizes = np.array([len(rows) for rows in large], np.int64)
    return Crowds(np.array([row for rows in large for row in rows], np.int64), np.cumsum(sizes) - sizes)


@dataclass(frozen=True, slots=True)
class Side:
    """The "one" side, by signature."""

    rows: dict[Labels, list[int]]
    crowds: Crowds | None


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of rows that have the same signature."""

    many: I64  # [p] rows of the many (or left) side
    one: I64  # [p] rows of the other side
    labels: tuple[Labels, ...]  # p results
    crowds: Crowds | None
    """Pairs that must not both be there: of one signature, or, in many-to-one, with the same result besides."""
    whole: bool
    """Whether `many` is every row of its side, in order."""


def one_side(labels: Sequence[Labels], matching: Matching) -> Side:
    """The rows of each signature."""
    rows: dict[Labels, list[int]] = {}
    for row, one in enumerate(labels):
        rows.setdefault(matching.signature(one), []).append(row)
    return Side(rows, crowds(rows.values()))


def pairing(
    many: Sequence[Labels],
    one: Sequence[Labels],
    side: Side,
    matching: Matching,
    budget: Budget,
    *,
    nameless: bool,
) -> Pairing:
    """All pairs, in the order of the many side; QueryError where the budget ends first."""
    first: list[int] = []
    second: list[int] = []
    labels: list[Labels] = []
    together: dict[tuple[Labels, Labels | None], list[int]] = {}
    for row, mine in enumerate(many):
        signature = matching.signature(mine)
        partners = side.rows.get(signature, ())
        if len(partners) > 1:
            budget.spend(len(partners))
        for other in partners:
            result = matching.result(mine, one[other], nameless=nameless)
            clash = None if matching.cardinality == "one-to-one" else result
            together.setdefault((signature, clash), []).append(len(first))
            first.append(row)
            second.append(other)
            labels.append(result)
    return Pairing(
        np.array(first, np.int64),
        np.array(second, np.int64),
        tuple(labels),
        crowds(together.values()),
        first == list(range(len(many))),
    )


def everywhere(vector: Vector) -> Bool:
    """Where the vector has samples, spelled out."""
    return np.ones(vector.values.shape, np.bool_) if vector.present is None else vector.present


def refuse_duplicates(side: Crowds, many: Vector, one: Vector, matching: Matching) -> None:
    """QueryError where, at some step, two samples of the "one" side have the same signature."""
    there = everywhere(one)
    crowded = side.crowded(there) & everywhere(many).any(axis=0)
    if not crowded.any():
        return
    which, step = (int(one) for one in np.argwhere(crowded)[0])
    end = side.starts[which + 1] if which + 1 < len(side.starts) else len(side.rows)
    rows = [row for row in side.rows[side.starts[which] : end].tolist() if there[row, step]]
    first, second = (one.labels[row] for row in rows[:2])
    shown = ", ".join(sorted((show(first), show(second))))
    hand = "left" if matching.cardinality == "one-to-many" else "right"
    raise QueryError(
        "execution",
        f"found duplicate series for the match group {show(matching.signature(first))} on the {hand} hand-side of the "
        f"operation: [{shown}];many-to-many matching not allowed: matching labels must be unique on one side",
    )


def refuse_many_matches(pairs: Pairing, many: Vector, one: Vector, matching: Matching) -> None:
    """QueryError where, at some step, several pairs give one result."""
    assert pairs.crowds is not None
    held = everywhere(many)[pairs.many] & everywhere(one)[pairs.one]
    if pairs.crowds.crowded(held).any():
        raise QueryError(
            "execution",
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            if matching.cardinality == "one-to-one"
            else "multiple matches for labels: grouping labels must ensure unique matches",
        )


@dataclass(slots=True)
class VectorOperation:
    """Arithmetic or a comparison between two vectors."""

    operator: str
    left: Node
    right: Node
    matching: Matching
    as_bool: bool
    memo: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.left.invariant and self.right.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        left, right = self.left.evaluate(run), self.right.evaluate(run)
        assert isinstance(left, Vector) and isinstance(right, Vector)
        swapped = self.matching.cardinality == "one-to-many"
        many, one = (right, left) if swapped else (left, right)
        nameless = self.as_bool or self.operator in ARITHMETIC
        side = self.memo.of("side", (one.labels,), lambda: one_side(one.labels, self.matching))
        if side.crowds is not None:
            refuse_duplicates(side.crowds, many, one, self.matching)
        pairs = self.memo.of(
            "pairs",
            (many.labels, one.labels),
            lambda: pairing(many.labels, one.labels, side, self.matching, run.budget, nameless=nameless),
        )
        if pairs.crowds is not None:
            refuse_many_matches(pairs, many, one, self.matching)
        run.budget.spend(pairs.many.size * len(run.steps.times))
        first = many.values if pairs.whole else many.values[pairs.many]
        second = one.values[pairs.one]
        if swapped:
            first, second = second, first
        present = None
        if many.present is not None:
            present = many.present if pairs.whole else many.present[pairs.many]
        if one.present is not None:
            there = one.present[pairs.one]
            present = there if present is None else present & there
        if nameless:
            values = calculate(self.operator, first, second)
        else:
            values = first
            with np.errstate(invalid="ignore"):
                holds = COMPARISONS[self.operator](first, second)
            present = holds if present is None else present & holds
        return unique(Vector(pairs.labels, values, present), self.memo)
