"""Every expression of the shipped rule files, asked of our evaluator and of a real Prometheus over the same samples."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from parity import difference, ours, theirs
from prometheus import PROGRAM, Labels, Prometheus, Sample

from exporter import promql
from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.model import STALE_BITS, Matcher
from exporter.storage.retention import Retention

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no `prometheus` on this machine (Debian's package prometheus)"
)

RULES = sorted((Path(__file__).parents[2] / "rules").glob("*.rules.yml"))
START, STEP, ROWS = 1_763_700_000_000, 20_000, 250
END = START + ROWS * STEP
OFF = 2_503
BOUNDS = ("0.025", "0.1", "0.25", "0.5", "1.0", "2.5", "3.0", "5.0", "10.0", "20.0", "50.0", "+Inf")
ENGINES = ("127.0.0.1:8000", "127.0.0.1:8001")


def expressions() -> list[str]:
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES]
    rules = [rule for document in documents for group in document["groups"] for rule in group["rules"]]
    return list(dict.fromkeys(str(rule["expr"]) for rule in rules))


def read_by(expression: str) -> list[tuple[Matcher, ...]]:
    return [reads.matchers for reads in promql.compile(expression).reads]


def series_of(matchers: tuple[Matcher, ...]) -> Iterator[Labels]:
    """Label sets that a selector picks, one for each alternative that it names, on two engines."""
    found: list[dict[str, str]] = [{"job": "vllm", "instance": engine} for engine in ENGINES]
    for one in matchers:
        if one.op in ("=", "=~") and one.value:
            values = one.value.replace("\\", "").split("|")
            found = [labels | {one.name: value} for labels in found for value in values]
    for labels in found:
        name = labels["__name__"]
        if name.startswith(("vllm_slo", "slo:", "model:")):
            labels |= {"model_name": "qwen", "source": labels.get("source", "engine")}
        for bound in BOUNDS if name.endswith("_bucket") and "le" not in labels else ("",):
            yield tuple(sorted((labels | ({"le": bound} if bound else {})).items()))


def columns() -> dict[Labels, list[float | None]]:
    """The samples of every series that a rule reads; None where it has none. Some ends, resets and quiet times."""
    dice = random.Random(5)
    found: dict[Labels, list[float | None]] = {}
    for expression in expressions():
        for matchers in read_by(expression):
            for labels in series_of(matchers):
                if labels not in found:
                    found[labels] = _column(dict(labels)["__name__"], dice)
    return found


def _column(name: str, dice: random.Random) -> list[float | None]:
    total, values = 0.0, list[float | None]()
    pace = dice.choice((1, 10, 200))
    reset, gone = dice.randrange(ROWS), dice.randrange(2 * ROWS)
    for row in range(ROWS):
        if name.endswith(("_total", "_count", "_sum", "_bucket")):
            total = 0.0 if row == reset else total + dice.choice((0, 0, 1, pace))
            value = total
        elif "timestamp" in name or "time_seconds" in name:
            value = START / 1000 + (row // 60) * 60 * STEP / 1000
        elif "ratio" in name:
            value = max(0.0, min(1.0, 0.5 + dice.gauss(0, 0.4)))
        elif "celsius" in name:
            value = dice.uniform(40, 100)
        elif name.endswith("_bytes"):
            value = dice.uniform(0, 80e9)
        else:
            value = float(
                row // dice.randint(20, 40) % 2 if "state" in name or "up" in name else dice.randint(0, 30)
            )
        values.append(None if gone <= row < gone + 15 else value)
    return values


@pytest.fixture(scope="module")
def samples() -> dict[Labels, list[float | None]]:
    return columns()


@pytest.fixture(scope="module")
def head(samples: dict[Labels, list[float | None]]) -> Head:
    store = Head(retention=Retention(24 * 3_600_000), memory_limit=1 << 30)
    labels = list(samples)
    layout = Layout(
        labels, [dict(one)["__name__"].endswith(("_total", "_count", "_bucket")) for one in labels]
    )
    for row in range(ROWS):
        values = [samples[one][row] for one in labels]
        present = np.array([value is not None for value in values])
        store.stream("engine").append(
            START + row * STEP + 1 + row % 300, layout, np.array([value or 0.0 for value in values]), present
        )
    return store


@pytest.fixture(scope="module")
def prometheus(
    samples: dict[Labels, list[float | None]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus")) as prometheus:
        for begin in range(0, ROWS, 50):
            push: dict[Labels, list[Sample]] = {}
            for labels, values in samples.items():
                for row in range(begin, min(ROWS, begin + 50)):
                    value, t = values[row], START + row * STEP + 1 + row % 300
                    if value is not None:
                        push.setdefault(labels, []).append((t, int(np.float64(value).view(np.uint64))))
                    elif row and values[row - 1] is not None:
                        push.setdefault(labels, []).append((t, STALE_BITS))
            prometheus.write(push)
        yield prometheus


@pytest.mark.usefixtures("as_in_two")
def test_each_shipped_expression_answers_as_prometheus_does(head: Head, prometheus: Prometheus) -> None:
    found, empty, asked = [], 0, expressions()
    span = START + 900_000 + OFF, END + OFF, 55_000
    for expression in asked:
        start, end, step = (f"{time / 1000:.3f}" for time in span)
        answer: dict[str, Any] = prometheus.ask(
            "query_range", query=expression, start=start, end=end, step=step
        )
        mine, other = ours(head, expression, *span), theirs(answer)
        apart = difference(mine, other)
        empty += other == {}
        if apart is not None:
            found.append(f"{expression}: {apart}")
    assert not found, f"{len(found)} of {len(asked)} differ:\n" + "\n".join(found[:20])
    assert empty < len(asked) / 4, f"{empty} of {len(asked)} answers are empty: the samples prove too little"
