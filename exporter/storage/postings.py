"""Which series have a label: their numbers, in as little memory as so many of them take.

Most values belong to one series, or to a few; and a few values (a job's, an instance's) to all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from exporter.storage.arrays import I32, Bool

Numbers: TypeAlias = "int | tuple[int, ...] | array[int]"
"""One series, a few, or many (32 bits each); each number once, in no order."""

_FEW = 16
"""Series up to which a tuple takes no more than an array."""


def joined(numbers: Numbers, number: int) -> Numbers:
    """These, and one more; an array is extended in its place."""
    if isinstance(numbers, array):
        numbers.append(number)
        return numbers
    few = (numbers, number) if isinstance(numbers, int) else (*numbers, number)
    return few if len(few) <= _FEW else array("i", few)


def without(numbers: Numbers, gone: Bool) -> Numbers | None:
    """Those of them that are not `gone`, which has a flag for each number; None: there are none."""
    if isinstance(numbers, int):
        return None if gone[numbers] else numbers
    if isinstance(numbers, array):
        held = np.array(numbers, np.int32)
        left: I32 = held[~gone[held]]
        if len(left) > _FEW:
            return array("i", left.tobytes())
        few = tuple(left.tolist())
    else:
        few = tuple([number for number in numbers if not gone[number]])
    return few[0] if len(few) == 1 else few or None


def gathered(parts: Iterable[Numbers]) -> I32:
    """All of them in one array."""
    every = array("i")
    for numbers in parts:
        if isinstance(numbers, int):
            every.append(numbers)
        else:
            every.extend(numbers)
    return np.frombuffer(every, np.int32)
