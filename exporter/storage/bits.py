"""The two NaNs with a meaning: a series ended here, and a series has no sample here.

No page and no arithmetic gives either; they are told apart from a measured NaN by their bits alone, so values are only
ever copied, never computed with, before the marked ones are out.
"""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import F64, Bool
from exporter.storage.model import STALE_BITS

ABSENT_BITS = 0x7FF8000000000A85
"""A NaN of our own: the series has no sample in this row, and is not ended by it either."""

_STALE = np.uint64(STALE_BITS)
_ABSENT = np.uint64(ABSENT_BITS)

STALE = float(np.array(STALE_BITS, np.uint64).view(np.float64))
ABSENT = float(np.array(ABSENT_BITS, np.uint64).view(np.float64))


def are_samples(values: F64) -> Bool:
    """Where there is a sample: neither marker. A measured NaN is a sample."""
    bits = values.view(np.uint64)
    sampled: Bool = (bits != _ABSENT) & (bits != _STALE)
    return sampled


def are_absent(values: F64) -> Bool:
    """Where a series has nothing at all, not even its end."""
    absent: Bool = values.view(np.uint64) == _ABSENT
    return absent


def has_nan(values: F64) -> bool:
    """Whether there is any NaN, and so perhaps a marker; cheaper than looking at bits."""
    return bool(np.count_nonzero(np.isnan(values)))  # half of what `any` costs for a few values
