"""The evaluator with its real thread: alerts without data, and those that a daemon before remembered. Seconds after NOW."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from exporter.alerting.evaluator import Evaluator
from exporter.alerting.remembered import Remembered
from exporter.alerting.transition import Transition
from exporter.exposition.block import Block
from exporter.settings import RuleSettings
from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.model import NAME, Labels
from exporter.storage.retention import Retention

NOW = 1_700_000_000.0
TARGET = (("instance", "127.0.0.1:9108"), ("job", "vllm-exporter"))
RULES = """
groups:
  - name: alerts
    interval: 1s
    rules:
      - {alert: Queue, expr: recorded > 5, labels: {severity: warning}}
      - {alert: Queue, expr: waiting > 50, labels: {severity: critical}}
      - {alert: Slow, expr: waiting > 5, for: 3s, labels: {team: "{{ $labels.owner }}"}}
  - name: recordings
    interval: 1s
    rules:
      - {record: recorded, expr: sum(waiting)}
"""


class Daemon:
    """An evaluator over a head that two streams feed: the engine's and the daemon's own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.head = Head(retention=Retention(3_600_000), memory_limit=64 << 20)
        self.batches: list[list[Transition]] = []
        self.now = NOW
        self.evaluator = Evaluator(
            RuleSettings(**{"builtin": False, "files": (str(folder / "*.yml"),), **settings}),
            self.head,
            Block(),
            external_url="http://box",
            clock=lambda: self.now,
            patience=30.0,
            no_data_timeout=3600,
        )
        self.evaluator.subscribe(lambda batch: self.batches.append(list(batch)))
        self._layouts: dict[tuple[str, ...], Layout] = {}

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(one.rule, one.before, one.after) for batch in self.batches for one in batch]

    def put(self, second: float, stream: str, series: dict[str, float], *more: tuple[str, str]) -> None:
        self.now = NOW + second
        key = (stream, *series)
        labels = [tuple(sorted((*TARGET, *more, (NAME, name)))) for name in series]
        layout = self._layouts.setdefault(key, Layout(labels))
        self.head.stream(stream).append(round(self.now * 1000), layout, list(series.values()))

    async def scrape(self, second: float, **series: float) -> None:
        self.put(second, "engine", series)
        await self.evaluator.tick(self.now)

    async def misses(self, second: float) -> None:
        self.now = NOW + second
        self.head.stream("engine").end(round(self.now * 1000))
        await self.evaluator.tick(self.now)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    (tmp_path / "a.yml").write_text(RULES)
    yield daemon
    daemon.evaluator.close()


def named(name: str, **labels: str) -> Labels:
    return tuple(sorted({"alertname": name, **labels}.items()))


async def test_what_an_evaluation_changed_comes_in_one_batch(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0, waiting=60)
    await daemon.scrape(1, waiting=60)
    assert [[(one.rule, one.after) for one in batch] for batch in daemon.batches] == [
        [("Queue", "firing"), ("Slow", "pending")],
        [("Queue", "firing")],
    ]


async def test_an_alert_over_a_recorded_series_is_held_when_what_was_recorded_goes(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0, waiting=9)
    await daemon.scrape(1, waiting=9)
    with structlog.testing.capture_logs() as logs:
        await daemon.misses(2)
        await daemon.misses(3)
    assert daemon.told[-1] == ("Queue", "firing", "held")
    assert [one["event"] for one in logs] == ["alert_without_data"]
    await daemon.scrape(4, waiting=1)
    await daemon.scrape(5, waiting=1)
    assert daemon.told[-1] == ("Queue", "held", "inactive")


async def test_a_remembered_alert_that_fires_again_goes_on(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    slow = Remembered(named("Slow", instance=TARGET[0][1], job=TARGET[1][1]), (("summary", "s"),), NOW - 100)
    assert daemon.evaluator.hold([slow]) == []
    for second in range(5):
        await daemon.scrape(second, waiting=9)
    slow_ones = [one for batch in daemon.batches for one in batch if one.rule == "Slow"]
    assert [(one.before, one.after, one.at - NOW, one.starts_at) for one in slow_ones] == [
        ("held", "firing", 3, NOW - 100)
    ]


async def test_a_remembered_alert_whose_data_says_otherwise_is_over(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    assert daemon.evaluator.hold([Remembered(named("Queue", severity="warning"), (), NOW - 100)]) == []
    await daemon.scrape(0, waiting=1)
    assert daemon.told == [], "what its expression reads was not recorded yet"
    await daemon.scrape(1, waiting=1)
    assert daemon.told == [("Queue", "held", "inactive")]


async def test_a_label_that_the_rule_sets_is_its_own_although_an_external_one_is_the_same(
    daemon: Daemon,
) -> None:
    """Held under fewer labels it would never be found again: over, and firing anew, after each restart."""
    await daemon.evaluator.load()
    external = (("cluster", "c1"), ("severity", "critical"))
    labels = named("Queue", severity="critical", instance=TARGET[0][1], job=TARGET[1][1], cluster="c1")
    assert daemon.evaluator.hold([Remembered(labels, (), NOW - 100, external=external)]) == []
    await daemon.scrape(0, waiting=60)
    await daemon.scrape(1, waiting=60)
    critical = [
        one for batch in daemon.batches for one in batch if ("severity", "critical") in one.alert.labels
    ]
    assert [(one.before, one.after, one.starts_at) for one in critical] == [("held", "firing", NOW - 100)]
    assert critical[0].alert.labels == tuple(pair for pair in labels if pair[0] != "cluster")


async def test_a_remembered_alert_without_data_is_told_so_once(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    old = Remembered(named("Queue", severity="warning"), (), NOW - 100)
    known = Remembered(named("Queue", severity="critical"), (), NOW - 100, no_data_since=NOW - 50)
    assert daemon.evaluator.hold([old, known]) == []
    for second in (0, 1, 119):
        await daemon.misses(second)
    assert not daemon.batches, "the first scrapes and evaluations are awaited"
    for second in (120, 121, 122):
        await daemon.misses(second)
    (one,) = [one for batch in daemon.batches for one in batch]
    assert (one.alert.labels, one.before, one.after, one.no_data_since) == (old.labels, "firing", "held", NOW)


async def test_remembered_alerts_that_no_rule_can_have_made_are_given_back(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    gone = [Remembered(named("Gone"), (), NOW), Remembered(named("Queue", severity="info"), (), NOW)]
    assert daemon.evaluator.hold(gone) == gone


async def test_a_reload_that_drops_a_rule_ends_what_it_held(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    daemon.evaluator.hold([Remembered(named("Queue", severity="warning"), (), NOW - 100)])
    (daemon.folder / "a.yml").write_text("groups: []")
    assert not (await daemon.evaluator.reload()).problems
    assert daemon.told == [("Queue", "held", "inactive")]


async def test_after_a_reload_recorded_series_stand_for_the_new_rules(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0, waiting=9)
    await daemon.scrape(1, waiting=9)
    (daemon.folder / "a.yml").write_text(RULES.replace("sum(waiting)", "sum(waiting) unless vector(1)"))
    assert not (await daemon.evaluator.reload()).problems
    await daemon.scrape(2, waiting=9)
    await daemon.scrape(3, waiting=9)
    assert ("Queue", "firing", "inactive") in daemon.told
    assert ("Queue", "firing", "held") not in daemon.told


async def test_slow_first_tokens_are_not_resolved_by_the_engines_end(tmp_path: Path) -> None:
    """Of the shipped rules: the histogram goes on over restarts, so it stands still, and its rate sinks to nothing."""
    daemon = Daemon(tmp_path, builtin=True, files=())
    await daemon.evaluator.load()
    slow = 0.0

    async def second(at: int, *, up: bool, late: float) -> None:
        nonlocal slow
        slow += late
        for bound, count in (("1.0", 0.0), ("10.0", slow), ("+Inf", slow)):
            series = {"vllm_slo_time_to_first_token_seconds_bucket": count}
            daemon.put(at, f"le {bound}", series, ("le", bound), ("source", "engine"))
        own = {"vllm_exporter_engine_up": float(up), "vllm_exporter_scrape_success": float(up)}
        daemon.put(at, "exporter", own)
        await daemon.evaluator.tick(daemon.now)

    def ttft() -> list[tuple[str, str]]:
        return [(before, after) for name, before, after in daemon.told if name == "VLLMHighTTFT"]

    for at in range(0, 400, 5):
        await second(at, up=True, late=10)
    assert ttft() == [("inactive", "pending"), ("pending", "firing")]
    for at in range(400, 800, 5):
        await second(at, up=False, late=0)
    assert ttft()[2:] == [("firing", "held")]
    for at in range(800, 830, 5):
        await second(at, up=True, late=0)
    assert ttft()[3:] == [("held", "inactive")]
    daemon.evaluator.close()


async def test_what_had_no_data_for_long_before_a_restart_is_given_up_only_when_the_daemon_looked(
    daemon: Daemon,
) -> None:
    await daemon.evaluator.load()
    known = Remembered(named("Queue", severity="critical"), (), NOW - 9999, no_data_since=NOW - 9000)
    daemon.evaluator.hold([known])
    for second in range(0, 120, 20):
        await daemon.misses(second)
    assert not daemon.batches
    await daemon.misses(120)
    ((one,),) = daemon.batches
    assert (one.before, one.after, one.no_data_since) == ("held", "inactive", NOW - 9000)
