"""Two hours in the life of an engine as samples: resets, gaps, series that end and come back, odd histograms, NaN.

Sample times are 1 to 400 ms after a multiple of five seconds, so that windows whose ends are not there mean the same
whether they are open or closed on the left.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from prometheus import Labels, Sample

from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.model import STALE_BITS
from exporter.storage.retention import Retention

START = 1_763_700_000_000
"""A whole minute."""
END = START + 75 * 60_000
OFF = 2_503
"""An evaluation stands this long after a multiple of five seconds."""
BOUNDS = ("0.001", "0.005", "0.01", "0.1", "0.25", "0.5", "1.0", "2.5", "10.0", "+Inf")
MODELS = ("meta-llama/Llama-3.1-8B", "qwen")


class Row(NamedTuple):
    """The samples of one stream at one time; a series that an earlier row had and this one lacks ends here."""

    t_ms: int
    values: dict[Labels, float]


def series(name: str, **labels: str) -> Labels:
    return tuple(sorted({"__name__": name, "job": "vllm", **labels}.items()))


@cache
def streams() -> dict[str, list[Row]]:
    """Every stream, its rows in order of time; the same each time."""
    dice = random.Random(7)
    return {
        "engine": _rows(dice, 15_000, _Engine(dice), without=range(230, 236)),
        "gpu": _rows(dice, 5_000, _gpu(dice), without=range(300, 320)),
        "rules": _rows(dice, 30_000, _rules(dice), without=range(60, 75)),
        "odd": _rows(dice, 20_000, _odd(dice), without=()),
    }


def _rows(
    dice: random.Random,
    interval: int,
    values: Callable[[int], dict[Labels, float]],
    without: range | tuple[int, ...],
) -> list[Row]:
    """`without`: rows that were never taken, so that nothing ends there."""
    rows = [
        Row(START + number * interval + dice.randint(1, 400), values(number))
        for number in range((END - START) // interval)
    ]
    return [row for number, row in enumerate(rows) if number not in without]


class _Engine:
    """The page of an engine: restarts at row 90, down for four rows; one model leaves for 40 rows."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._counts: dict[Labels, float] = {}

    def __call__(self, number: int) -> dict[Labels, float]:
        dice, counts = self._dice, self._counts
        page: dict[Labels, float] = {series("up", instance="a"): 1.0, series("up", instance="b"): 0.0}
        if 90 <= number < 94:
            counts.clear()
            return {series("up", instance="a"): 0.0, series("up", instance="b"): 0.0}
        for at, model in enumerate(MODELS):
            if model == "qwen" and 160 <= number < 200:
                continue
            label = {"model_name": model, "engine": str(at), "instance": "a"}
            load = 6 + 5 * math.sin(number / 17 + at)
            page[series("vllm:num_requests_running", **label)] = float(round(load))
            page[series("vllm:num_requests_waiting", **label)] = float(max(0, round(load - 8)))
            page[series("vllm:kv_cache_usage_perc", **label)] = load / 12 + dice.random() / 100
            for reason in ("stop", "length", "abort"):
                self._rise(
                    series("vllm:request_success_total", finished_reason=reason, **label), dice.uniform(0, 9)
                )
            self._rise(series("vllm:generation_tokens_total", **label), dice.randint(100, 3000))
            self._rise(series("vllm:num_preemptions_total", **label), 0)
            finished = dice.randint(0, 20)
            spread = sorted(dice.choices(range(len(BOUNDS)), k=finished))
            for place, bound in enumerate(BOUNDS):
                below = sum(one <= place for one in spread)
                self._rise(series("vllm:time_to_first_token_seconds_bucket", le=bound, **label), below)
            self._rise(series("vllm:time_to_first_token_seconds_count", **label), finished)
            self._rise(series("vllm:time_to_first_token_seconds_sum", **label), finished * dice.random())
            if number > 120 and number % 50 == 0:
                # A counter that falls a little without starting from zero.
                key = series("vllm:generation_tokens_total", **label)
                counts[key] = counts[key] / 3
        page |= {key: value for key, value in counts.items() if dict(key)["model_name"] in MODELS}
        if 160 <= number < 200:
            page = {key: value for key, value in page.items() if dict(key).get("model_name") != "qwen"}
        return page

    def _rise(self, key: Labels, by: float) -> None:
        self._counts[key] = self._counts.get(key, 0.0) + by


def _gpu(dice: random.Random) -> Callable[[int], dict[Labels, float]]:
    energy = [0.0, 0.0]

    def row(number: int) -> dict[Labels, float]:
        values = {}
        for gpu in range(2):
            label = {"gpu": str(gpu), "instance": "a"}
            energy[gpu] += dice.random() * 300
            values[series("temperature_celsius", **label)] = 20 * math.sin(number / 40) - 3 * gpu
            values[series("energy_joules_total", **label)] = energy[gpu]
            values[series("noise", **label)] = (
                math.nan
                if number % 97 == 50 * gpu
                else math.inf
                if number % 193 == 5 + gpu
                else -math.inf
                if number % 389 == 9 + gpu
                else dice.gauss(0, 100)
            )
            values[series("steps", **label)] = float(number // 40 * (1 - 2 * gpu))
            if number % 7 < 4 + gpu:
                values[series("flapping", **label)] = float(number)
        return values

    return row


def _rules(dice: random.Random) -> Callable[[int], dict[Labels, float]]:
    def row(number: int) -> dict[Labels, float]:
        values = {
            series("job:requests:rate5m", model_name=model): dice.random() * (at + 1)
            for at, model in enumerate(MODELS)
        }
        values[series("engine_info", instance="a", version="0.6" if number < 80 else "0.7")] = 1.0
        values[series("constant", instance="a")] = 42.0
        values[series("labelled", text="two\nlines")] = 1.0
        values[series("tiny", instance="a")] = 1e-300 * (number + 1)
        values[series("huge", instance="a")] = 1.7e308 * (1 if number % 2 else 0.5)
        values[series("since_seconds", instance="a")] = 1.7e9 + number * 3333.0
        return values

    return row


def _odd(dice: random.Random) -> Callable[[int], dict[Labels, float]]:
    counts: dict[Labels, float] = {}

    def row(number: int) -> dict[Labels, float]:
        for le, by in (("1", 5), ("2", 3), ("5", 9), ("+Inf", 9)):
            key = series("odd_bucket", kind="falling", le=le)
            counts[key] = counts.get(key, 0.0) + dice.randint(0, by)
        for kind, bounds in (
            ("endless", ("1", "2")),
            ("alone", ("+Inf",)),
            ("below_zero", ("-5", "-1", "0", "3", "+Inf")),
            ("negative", ("-5", "-1", "+Inf")),
            ("spelled", ("1.0", "2e0", "0.5e1", "+Inf")),
            ("garbage", ("one", "1", "2", "+Inf")),
        ):
            total = 0
            for le in bounds:
                total += dice.randint(0, 4)
                key = series("odd_bucket", kind=kind, le=le)
                counts[key] = counts.get(key, 0.0) + total
        counts[series("odd_bucket", kind="empty", le="1")] = 0.0
        counts[series("odd_bucket", kind="empty", le="+Inf")] = 0.0
        return dict(counts)

    return row


def head() -> Head:
    """Our store with all of it."""
    store = Head(retention=Retention(24 * 3_600_000), memory_limit=1 << 30)
    fill(store, START, END + 1)
    return store


def fill(store: Head, begin: int, end: int) -> None:
    """Append the rows of the times `[begin, end)`."""
    for name, rows in streams().items():
        stream, layouts = store.stream(name), dict[tuple[Labels, ...], Layout]()
        for row in rows:
            if not begin <= row.t_ms < end:
                continue
            labels = tuple(row.values)
            if labels not in layouts:
                layouts[labels] = Layout(labels, [_is_counter(one) for one in labels])
            stream.append(row.t_ms, layouts[labels], np.array(list(row.values.values())))


def _is_counter(labels: Labels) -> bool:
    return dict(labels)["__name__"].endswith(("_total", "_bucket", "_count", "_sum"))


def pushes() -> Iterator[dict[Labels, list[Sample]]]:
    """The same for a Prometheus, ten minutes a push; where a series ends, the staleness marker that a scrape writes."""
    samples: list[tuple[int, Labels, int]] = []
    for rows in streams().values():
        before: dict[Labels, float] = {}
        for row in rows:
            samples += [(row.t_ms, key, _bits(value)) for key, value in row.values.items()]
            samples += [(row.t_ms, key, STALE_BITS) for key in before if key not in row.values]
            before = row.values
    samples.sort(key=lambda one: one[0])
    for begin in range(START, END, 600_000):
        push: dict[Labels, list[Sample]] = {}
        for t, key, bits in samples:
            if begin <= t < begin + 600_000:
                push.setdefault(key, []).append((t, bits))
        yield push


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.uint64))
