"""What these tests share: modules of this folder can be imported, and Prometheus 2's idea of where a counter begins."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from exporter.promql.functions import rates
from exporter.storage.arrays import F64, I64
from exporter.storage.model import Edges

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def as_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus 2 asks where a counter's slope meets zero before it asks how far the series is from the window's start.

    Where zero lies between half an interval and a whole one, it carries a counter on by more than Prometheus 3 does.
    """
    extrapolated = rates.extrapolated

    def as_before(edges: Edges, lo: I64, hi: I64, *, counter: bool, per_second: bool) -> F64:
        if counter:
            sampled = (edges.last_time - edges.first_time) / 1000.0
            close = sampled / (edges.counts - 1) * rates.CLOSE
            to_start = (edges.first_time - lo) / 1000.0
            to_zero = sampled * (edges.first / edges.rise)
            reached = (to_zero < to_start) & (edges.rise > 0.0) & (edges.first >= 0.0) & (to_zero < close)
            before = np.where(reached, to_zero, np.where(to_start < close, to_start, close / rates.CLOSE / 2))
            to_end = (hi - edges.last_time) / 1000.0
            after = np.where(to_end < close, to_end, close / rates.CLOSE / 2)
            factor: F64 = (sampled + before + after) / sampled
            return edges.rise * (factor / ((hi - lo) / 1000.0) if per_second else factor)
        return extrapolated(edges, lo, hi, counter=counter, per_second=per_second)

    monkeypatch.setattr(rates, "extrapolated", as_before)
