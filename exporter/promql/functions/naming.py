"""What a function's series are called; the evaluator sees to it that labels stay unique (`promql/unique.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.promql.labels import drop_name, mapped
from exporter.promql.model import CallSite, Vector
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.model import F64, Bool

NO_LABELS: Sequence[Labels] = ((),)
"""The labels of a vector of one series without any."""


def without_name(call: CallSite, labels: Sequence[Labels], values: F64, present: Bool | None) -> Vector:
    """The vector without its metric names; its labels are the same object as long as those given are."""
    return Vector(call.memo.of("nameless", (labels,), lambda: mapped(labels, drop_name)), values, present)


def all_or(present: Bool) -> Bool | None:
    """None, as `Vector.present` has it, where everything is present."""
    return None if present.all() else present
