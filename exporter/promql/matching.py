"""Which series of one vector meet which of another: `on`, `ignoring`, `group_left` and `group_right`.

What follows from labels alone is found once, in a `Pairing`; what depends on which samples are there at a step is
checked per step, and only where several series share a signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporter.promql.arithmetic import ARITHMETIC, COMPARISONS, calculate
from exporter.promql.labels import drop, drop_name, get, keep, merged, show
from exporter.promql.model import Memo, QueryError, Vector
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


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of rows that have the same signature, and where more than one row has it."""

    many: I64  # [p] rows of the many (or left) side
    one: I64  # [p] rows of the other side
    labels: tuple[Labels, ...]  # p results
    signatures: I64  # [p]
    crowded_one: tuple[I64, ...]  # rows of the "one" side that share a signature, for each such signature
    crowded_pairs: tuple[I64, ...]
    """Pairs that must not both be there: of one signature, or, in many-to-one, with the same result besides."""
    whole: bool
    """Whether `many` is every row of its side, in order."""


def pairing(many: Sequence[Labels], one: Sequence[Labels], matching: Matching, *, nameless: bool) -> Pairing:
    """All pairs, in the order of the many side."""
    rows: dict[Labels, list[int]] = {}
    for row, labels in enumerate(one):
        rows.setdefault(matching.signature(labels), []).append(row)
    pairs: list[tuple[int, int, Labels]] = []
    together: dict[tuple[Labels, Labels | None], list[int]] = {}
    places: dict[Labels, int] = {}
    signatures: list[int] = []
    for row, labels in enumerate(many):
        signature = matching.signature(labels)
        for other in rows.get(signature, ()):
            result = matching.result(labels, one[other], nameless=nameless)
            clash = None if matching.cardinality == "one-to-one" else result
            together.setdefault((signature, clash), []).append(len(pairs))
            signatures.append(places.setdefault(signature, len(places)))
            pairs.append((row, other, result))
    return Pairing(
        np.array([row for row, _, _ in pairs], np.int64),
        np.array([other for _, other, _ in pairs], np.int64),
        tuple(result for _, _, result in pairs),
        np.array(signatures, np.int64),
        tuple(np.array(shared) for shared in rows.values() if len(shared) > 1),
        tuple(np.array(shared) for shared in together.values() if len(shared) > 1),
        [row for row, _, _ in pairs] == list(range(len(many))),
    )


def everywhere(vector: Vector) -> Bool:
    """Where the vector has samples, spelled out."""
    return np.ones(vector.values.shape, np.bool_) if vector.present is None else vector.present


def refuse_crowds(pairs: Pairing, many: Vector, one: Vector, matching: Matching) -> None:
    """QueryError where, at some step, several samples of the "one" side match, or several pairs give one result."""
    here, there = everywhere(many), everywhere(one)
    both = here.any(axis=0) & there.any(axis=0)
    for rows in pairs.crowded_one:
        crowded = (there[rows].sum(axis=0) > 1) & both
        if crowded.any():
            step = int(np.argmax(crowded))
            first, second = [one.labels[row] for row in rows[there[rows, step]]][:2]
            signature = matching.signature(first)
            side = "left" if matching.cardinality == "one-to-many" else "right"
            shown = ", ".join(sorted((show(first), show(second))))
            raise QueryError(
                "execution",
                f"found duplicate series for the match group {show(signature)} on the {side} hand-side of the "
                f"operation: [{shown}];many-to-many matching not allowed: matching labels must be unique on one side",
            )
    for places in pairs.crowded_pairs:
        held = here[pairs.many[places]] & there[pairs.one[places]]
        if (held.sum(axis=0) > 1).any():
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

    @property
    def invariant(self) -> bool:
        return self.left.invariant and self.right.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        left, right = self.left.evaluate(run), self.right.evaluate(run)
        assert isinstance(left, Vector) and isinstance(right, Vector)
        swapped = self.matching.cardinality == "one-to-many"
        many, one = (right, left) if swapped else (left, right)
        nameless = self.as_bool or self.operator in ARITHMETIC
        pairs = self.memo.of(
            "pairs",
            (many.labels, one.labels),
            lambda: pairing(many.labels, one.labels, self.matching, nameless=nameless),
        )
        if pairs.crowded_one or pairs.crowded_pairs:
            refuse_crowds(pairs, many, one, self.matching)
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
