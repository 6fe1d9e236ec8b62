"""The three alerts of old, written over the `vllm_` summary gauges and as shipped: the same verdict at the same time.

An engine's page goes through the real indicators into the real store, every 5 s; both conditions are asked at each of
them. The sliding window of the gauges is kept in steps of 5 s, so one condition may see an edge two of them later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from exporter import promql
from exporter.alerting.rulefile import load_rule_file
from exporter.exposition.block import Block
from exporter.exposition.layout import PageReader
from exporter.promql.model import Budget, Vector
from exporter.settings import SliSettings
from exporter.sli import Indicators
from exporter.storage.head import Head, Layout
from exporter.storage.retention import Retention

RULES = Path(__file__).parents[3] / "rules"
STEP = 5
OLD = {
    "VLLMHighQueueLength": "vllm_num_waiting_requests > 5",
    "VLLMHighTTFT": "vllm_ttft_p95 > 3",
    "VLLMHighErrorRate": "vllm_error_rate_percent > 10",
}
BOUNDS = (0.1, 0.5, 1.0, 3.0, 5.0, 10.0)
SHIPPED = {
    rule.name: rule.expr
    for file in RULES.glob("*.rules.yml")
    for group in load_rule_file(file)
    for rule in group.rules
    if rule.name in OLD
}


class Model:
    """What one model has done, as vLLM's page shows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting = 0
        self.done = {"stop": 0, "error": 0, "abort": 0}
        self.ttft = [0] * (len(BOUNDS) + 1)

    def serve(self, *, stop: int = 0, error: int = 0, abort: int = 0, ttft: float = 0.05) -> None:
        for reason, count in (("stop", stop), ("error", error), ("abort", abort)):
            self.done[reason] += count
        for place, bound in enumerate((*BOUNDS, float("inf"))):
            self.ttft[place] += (stop + error) * (ttft <= bound)

    def page(self) -> Iterator[tuple[str, str]]:
        who = f'engine="0",model_name="{self.name}"'
        yield "gauge vllm:num_requests_waiting", f"vllm:num_requests_waiting{{{who}}} {self.waiting}"
        for reason, count in self.done.items():
            labels = f'{who},finished_reason="{reason}"'
            yield "counter vllm:request_success_total", f"vllm:request_success_total{{{labels}}} {count}"
        name = "vllm:time_to_first_token_seconds"
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.ttft, strict=True):
            yield f"histogram {name}", f'{name}_bucket{{{who},le="{bound}"}} {count}'
        yield f"histogram {name}", f"{name}_count{{{who}}} {self.ttft[-1]}"
        yield f"histogram {name}", f"{name}_sum{{{who}}} {self.ttft[-1]}"


def page_of(models: list[Model]) -> bytes:
    families: dict[str, list[str]] = {}
    for model in models:
        for family, line in model.page():
            families.setdefault(family, []).append(line)
    lines = []
    for family, samples in families.items():
        kind, name = family.split()
        lines += [f"# TYPE {name} {kind}", *samples]
    return ("\n".join(lines) + "\n").encode()


Story = Callable[[int, list[Model]], bool]
"""What happens in the step that ends so many seconds after the start; false while the engine is down."""


def queues_of_two(at: int, models: list[Model]) -> bool:
    """Four and three are more than five; three and two are not."""
    models[0].waiting, models[1].waiting = (4, 3) if 200 <= at < 500 else (3, 2)
    return True


def slow_first_tokens(at: int, models: list[Model]) -> bool:
    models[0].serve(stop=8)
    models[1].serve(stop=2, ttft=4.0 if 400 <= at < 800 else 0.3)
    return True


def failing(at: int, models: list[Model]) -> bool:
    models[0].serve(stop=9, abort=3, error=3 if 400 <= at < 700 else 0)
    models[1].serve(stop=1)
    return True


def a_tenth_failing(at: int, models: list[Model]) -> bool:
    models[0].serve(stop=9, error=1)
    return True


def idle_then_down(at: int, models: list[Model]) -> bool:
    if at < 100:
        models[0].serve(stop=5)
    return not 600 <= at < 1000


def silent(at: int, models: list[Model]) -> bool:
    if at < 300:
        models[0].serve(stop=1, ttft=6.0)
    return True


STORIES = (queues_of_two, slow_first_tokens, failing, a_tenth_failing, idle_then_down, silent)
CASES = {
    "VLLMHighQueueLength": {"queues_of_two": 1},
    "VLLMHighTTFT": {"slow_first_tokens": 1, "silent": 1},
    "VLLMHighErrorRate": {"failing": 1, "idle_then_down": 1},
}
"""How often each is seen to begin; in the other stories never."""


class Stored:
    """Brings what a block shows into the store, as a Prometheus would that scrapes it."""

    def __init__(self, head: Head, block: Block) -> None:
        self._stream = head.stream("indicators")
        self._block = block
        self._series: object = None

    def append(self, at_ms: int) -> None:
        series, values = self._block.columns()
        if series is not self._series:
            target = {"job": "vllm", "instance": "a"}
            labels = [
                tuple(sorted({**dict(one.labels), **target, "__name__": one.name}.items())) for one in series
            ]
            self._layout = Layout(labels, [one.type in ("counter", "histogram") for one in series])
            self._series = series
        present = np.array([value is not None for value in values])
        self._stream.append(at_ms, self._layout, np.array(values, dtype=np.float64), present)


def holds(query: promql.Query, head: Head, at_ms: int) -> bool:
    value = query.instant(head, at_ms, Budget(samples=1_000_000, timeout=10.0))
    assert isinstance(value, Vector)
    return bool(value.values.size) and (value.present is None or bool(value.present.any()))


def verdicts(story: Story) -> dict[str, tuple[list[int], list[int]]]:
    """For each alert the times at which the condition over the gauges changes, and the shipped one."""
    block, reader = Block(), PageReader()
    indicators = Indicators(SliSettings(), block, model_limit=8, scrape_interval=float(STEP))
    head = Head(retention=Retention(3_600_000), memory_limit=1 << 26)
    store = Stored(head, block)
    models = [Model("m1"), Model("m2")]
    queries = {name: (promql.compile(OLD[name]), promql.compile(SHIPPED[name])) for name in OLD}
    edges: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in OLD}
    for at in range(0, 1400, STEP):
        now = 1_700_000_000.0 + at
        if story(at, models):
            indicators.apply(reader.read(page_of(models)), now=now, epoch="one")
        else:
            indicators.missed(now=now, down=True)
        store.append(int(1000 * now))
        for name, pair in queries.items():
            for query, seen in zip(pair, edges[name], strict=True):
                if holds(query, head, int(1000 * now)) != bool(len(seen) % 2):
                    seen.append(at)
    return edges


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_the_summary_gauges_give_the_same_verdict(story: Story):
    for name, (old, shipped) in verdicts(story).items():
        begun = CASES[name].get(story.__name__, 0)
        assert len(old) in (2 * begun, 2 * begun - 1), (name, old)
        assert len(shipped) == len(old), (name, old, shipped)
        assert all(abs(a - b) <= 2 * STEP for a, b in zip(old, shipped, strict=True)), (name, old, shipped)
