"""The last minutes of cumulative numbers, and of samples, at a bounded cost."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from operator import sub


class SlidingWindow:
    """Gains of a vector of cumulative numbers over the last `length` seconds.

    A vector is kept every `length / steps`, so the window is up to one step longer than asked. All vectors have the
    same size until `restart`.
    """

    def __init__(self, length: float, *, steps: int = 60) -> None:
        self._length = length
        self._step = length / steps
        self._kept: deque[tuple[float, Sequence[float]]] = deque()

    def clear(self) -> None:
        """Forget all: the numbers mean something else from now on."""
        self._kept.clear()

    def restart(self, now: float, vector: Sequence[float]) -> None:
        """Let the window begin here."""
        self._kept.clear()
        self._kept.append((now, vector))

    def advance(self, now: float, vector: Sequence[float]) -> tuple[float, list[float]]:
        """Seconds covered, and what each number gained in them; the vector is kept, not copied."""
        kept = self._kept
        if not kept or now < kept[-1][0] or len(kept[0][1]) != len(vector):
            self.restart(now, vector)  # the first one, or the clock was set back
            return 0.0, [0.0] * len(vector)
        oldest = now - self._length
        while len(kept) > 1 and kept[1][0] <= oldest:
            kept.popleft()
        since, base = kept[0]
        if now - kept[-1][0] >= self._step:
            kept.append((now, vector))
        return now - since, list(map(sub, vector, base))


class SlidingSamples:
    """Mean and median of the samples of the last `length` seconds, at most `limit` of them."""

    def __init__(self, length: float, *, limit: int = 10_000) -> None:
        self._length = length
        self._limit = limit
        self._samples: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def add(self, now: float, value: float) -> None:
        """Take one sample."""
        self._samples.append((now, value))
        insort(self._sorted, value)
        if len(self._samples) > self._limit:
            self._drop()

    def clear(self) -> None:
        """Forget all."""
        self._samples.clear()
        self._sorted.clear()

    def expire(self, now: float) -> None:
        """Forget what is older than the window, or from the future of a clock that was set back."""
        while self._samples and not 0 <= now - self._samples[0][0] <= self._length:
            self._drop()

    def mean(self) -> float | None:
        """None without samples."""
        return sum(self._sorted) / len(self._sorted) if self._sorted else None

    def median(self) -> float | None:
        """The middle one, or the mean of the two; None without samples."""
        values = self._sorted
        if not values:
            return None
        half = len(values) // 2
        return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2

    def _drop(self) -> None:
        _, value = self._samples.popleft()
        del self._sorted[bisect_left(self._sorted, value)]
