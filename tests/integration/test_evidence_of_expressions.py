"""Whatever the expression: what fires has its data, and when all series end nothing is taken for judged.

No process here; but the expressions are those of the parity tests, each function and operator and random mixtures.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from parity_expressions import mixtures, systematic

from exporter import promql
from exporter.alerting.evidence import NOTHING, needs
from exporter.alerting.ground import Ground
from exporter.promql.model import Budget, QueryError, Vector
from exporter.promql.query import Query
from exporter.storage.head import Head, Layout
from exporter.storage.model import NAME, Labels
from exporter.storage.retention import Retention

T0 = 1_700_000_000_000
SCRAPE_MS, SCRAPES = 5000, 2000
END = T0 + (SCRAPES - 1) * SCRAPE_MS
LOOKBACK_MS = 300_000


def series() -> list[Labels]:
    def one(name: str, **labels: str) -> Labels:
        return tuple(sorted({NAME: name, **labels}.items()))

    found: list[Labels] = []
    for instance in "ab":
        for model in ("qwen", "meta-llama/x"):
            own = {"instance": instance, "job": "vllm", "engine": "0", "model_name": model}
            for name in ("num_requests_running", "kv_cache_usage_perc", "generation_tokens_total"):
                found.append(one(f"vllm:{name}", **own))
            for reason in ("stop", "abort"):
                found.append(one("vllm:request_success_total", **own, finished_reason=reason))
            for bound in ("0.1", "1.0", "+Inf"):
                found.append(one("vllm:time_to_first_token_seconds_bucket", **own, le=bound))
        for gpu in "01":
            for name in ("temperature_celsius", "noise", "steps", "energy_joules_total"):
                found.append(one(name, instance=instance, job="node", gpu=gpu))
        for name in ("up", "constant", "tiny", "huge", "flapping", "job:requests:rate5m", "since_seconds"):
            found.append(one(name, instance=instance, job="vllm"))
        found.append(one("engine_info", instance=instance, job="vllm", version="1"))
    return found


@pytest.fixture
def head() -> Head:
    """Series without gaps, every five seconds up to END."""
    dice = random.Random(4)
    store = Head(retention=Retention(1 << 45), memory_limit=1 << 32)
    layout = Layout(series())
    values = np.zeros(len(series()))
    for place in range(SCRAPES):
        values = values + np.array([dice.random() for _ in series()])
        store.stream("engine").append(T0 + place * SCRAPE_MS, layout, values)
    return store


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    """Those that our compiler takes. A window that reaches into the future ends where nothing is yet."""
    found = []
    for text in [one for kind in systematic().values() for one in kind] + mixtures(1000, 7):
        try:
            found.append(promql.compile(text))
        except QueryError:
            continue
    return [one for one in found if "offset -" not in one.expression.lower()]


def test_whatever_fires_on_series_that_go_on_has_its_data(head: Head, queries: list[Query]) -> None:
    judged = 0
    ground = Ground(head, END, LOOKBACK_MS)
    for query in queries:
        try:
            value = query.instant(head, END, Budget(samples=50_000_000, timeout=30))
        except QueryError:
            continue
        if not isinstance(value, Vector):
            continue
        need = needs(query.plan)
        here = np.ones(len(value.labels), bool) if value.present is None else value.present[:, 0]
        for labels in [value.labels[row] for row in here.nonzero()[0].tolist()[:20]]:
            own = tuple(pair for pair in labels if pair[0] != NAME)
            assert ground.bears(need, own), (query.expression, own)
            judged += 1
    assert judged > 3000


def test_when_all_series_have_ended_only_the_past_and_what_needs_nothing_can_be_judged(
    head: Head, queries: list[Query]
) -> None:
    head.stream("engine").end(END + 1000)
    ground = Ground(head, END + 2000, LOOKBACK_MS)
    for query in queries:
        need = needs(query.plan)
        if ground.bears(need, ()):
            past = "offset" in query.expression.lower() or "@" in query.expression
            assert need is NOTHING or past, query.expression
