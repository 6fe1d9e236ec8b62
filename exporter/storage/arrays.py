"""Names for the arrays that the store is made of."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Integer = TypeVar("Integer", bound="np.integer[Any]")

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
Bool = NDArray[np.bool_]


def distinct(values: NDArray[Integer]) -> NDArray[Integer]:
    """Every value once, rising. The first call of `np.unique` would load `numpy.ma`: 25 ms, in the middle of a scrape."""
    ordered = np.sort(values)
    first: Bool = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
