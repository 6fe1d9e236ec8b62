"""The binary operators on floats, as Go and IEEE 754 define them, over arrays.

Go's `math.Mod` takes its sign from the dividend, which is `np.fmod`, not `np.mod`; `math.Pow` and `math.Atan2` agree
with C99's (https://pkg.go.dev/math).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from exporter.storage.model import F64


Operator = Callable[[Any, Any], Any]

ARITHMETIC: dict[str, Operator] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISONS: dict[str, Operator] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
SETS = ("and", "or", "unless")


def calculate(operator: str, left: F64, right: F64) -> F64:
    """Both arrays under an arithmetic operator, or 1 and 0 for what a comparison says."""
    with np.errstate(all="ignore"):
        if operator in ARITHMETIC:
            result: F64 = ARITHMETIC[operator](left, right)
            return result
        return COMPARISONS[operator](left, right).astype(np.float64)  # type: ignore[no-any-return]
