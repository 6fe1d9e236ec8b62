"""The evaluator with its real thread: ticks, events, reloads, what is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from exporter.alerting import evaluator
from exporter.alerting.evaluator import Evaluator
from exporter.alerting.metrics import FAMILIES
from exporter.alerting.transition import Transition
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.settings import RuleSettings
from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.model import NAME, Matcher
from exporter.storage.retention import Retention

NOW = 1_700_000_000.0
RULES = """
groups:
  - name: fast
    interval: 1s
    rules:
      - {record: made, expr: sum(up)}
      - {alert: Queue, expr: waiting > 5, for: 3s, annotations: {summary: "{{ $value }} wait"}}
  - name: slow
    rules:
      - {alert: Slow, expr: 'max_over_time(made[3d]) > 10'}
"""


class Daemon:
    """An evaluator over a head, with a folder of rule files; seconds after NOW."""

    def __init__(self, folder: Path, *, patience: float = 30.0, **settings: Any) -> None:
        self.folder = folder
        self.head = Head(retention=Retention(3_600_000), memory_limit=64 << 20)
        self.block = Block()
        self.woken = asyncio.Event()
        self.now = NOW
        self.layout = Layout([((NAME, "up"),), ((NAME, "waiting"),)])
        self.told: list[Transition] = []
        self.evaluator = Evaluator(
            RuleSettings(builtin=False, files=(str(folder / "*.yml"),), **settings),
            self.head,
            self.block,
            external_url="http://box",
            wake=self.woken.set,
            clock=lambda: self.now,
            patience=patience,
        )
        self.evaluator.subscribe(self.told.extend)

    def write(self, text: str, name: str = "a.yml") -> None:
        (self.folder / name).write_text(text)

    async def scrape(self, second: float, *, up: float = 1, waiting: float = 0) -> None:
        self.feed(second, up=up, waiting=waiting)
        await self.evaluator.tick(self.now)

    def feed(self, second: float, *, up: float = 1, waiting: float = 0) -> None:
        self.now = NOW + second
        self.head.stream("engine").append(round(self.now * 1000), self.layout, (up, waiting))

    def evaluated(self, group: str) -> float | None:
        for status in self.evaluator.statuses():
            if status.name == group:
                return None if status.last_evaluation is None else status.last_evaluation - NOW
        raise AssertionError(f"no group {group}")

    def meter(self, name: str, group: str | None = None) -> float:
        for line in self.block.render(openmetrics=False).decode().splitlines():
            if line.startswith(name) and (group is None or f';{group}"' in line):
                return float(line.split()[-1])
        raise AssertionError(f"no {name}")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.write(RULES)
    yield daemon
    daemon.evaluator.close()


async def test_groups_are_evaluated_with_the_scrapes_each_at_its_interval(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    times = []
    for second in range(11):
        await daemon.scrape(second + 0.003 * (second % 2))
        times.append((daemon.evaluated("fast"), daemon.evaluated("slow")))
    fast = [round(first or 0) for first, _ in times]
    slow = [round(second or 0) for _, second in times]
    assert fast == list(range(11))
    assert slow == [0] * 5 + [5] * 5 + [10]


async def test_an_alert_goes_through_its_states_and_each_change_is_told(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    for second in range(10):
        await daemon.scrape(second, waiting=9 if 2 <= second < 8 else 0)
    assert [(one.before, one.after, one.at - NOW) for one in daemon.told] == [
        ("inactive", "pending", 2),
        ("pending", "firing", 5),
        ("firing", "inactive", 8),
    ]
    assert daemon.told[1].alert.annotations == (("summary", "9 wait"),)
    assert threading.current_thread().name != "rules"


async def test_the_work_is_done_in_the_rule_thread(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    await daemon.evaluator.load()
    threads = []
    select = daemon.head.select

    def spy(matchers: Any) -> Any:
        threads.append(threading.current_thread().name)
        return select(matchers)

    monkeypatch.setattr(daemon.head, "select", spy)
    await daemon.scrape(0)
    assert threads
    assert all(name.startswith("rules") for name in threads)


async def test_an_event_evaluates_the_groups_that_read_the_stream_at_once(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0)
    daemon.feed(0.2, waiting=9)
    await daemon.evaluator.tick(daemon.now, streams=frozenset({"engine"}))
    assert daemon.evaluated("fast") == pytest.approx(0.2)
    assert daemon.evaluated("slow") == pytest.approx(0.2)  # it reads what the fast group records
    await daemon.scrape(1)
    assert daemon.evaluated("fast") == 1


async def test_an_event_on_a_stream_that_nobody_reads_evaluates_nothing(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0)
    layout = Layout([((NAME, "temperature"),)])
    daemon.head.stream("gpu").append(round(NOW * 1000), layout, (40.0,))
    await daemon.evaluator.tick(NOW + 0.2, streams=frozenset({"gpu"}))
    assert daemon.evaluated("fast") == 0


async def test_when_no_scrape_lands_groups_are_evaluated_late_rather_than_never(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0)
    assert daemon.evaluator.late_in(NOW) == pytest.approx(1.5)
    await daemon.evaluator.tick(NOW + 1.2, landed=False)
    assert daemon.evaluated("fast") == 0
    await daemon.evaluator.tick(NOW + 1.5, landed=False)
    assert daemon.evaluated("fast") == 1.5
    assert daemon.evaluated("slow") == 0


class Gate:
    """Holds the rule thread up inside an evaluation."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        select = daemon.head.select

        def held(matchers: Any) -> Any:
            self.entered.set()
            assert self.open.wait(30)
            return select(matchers)

        monkeypatch.setattr(daemon.head, "select", held)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 30)


async def test_ticks_during_an_evaluation_come_back_at_once_and_are_made_up_for_once(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.evaluator.load()
    gate = Gate(daemon, monkeypatch)
    first = asyncio.create_task(daemon.scrape(0))
    await gate.reached()
    for second in (1, 2, 3):
        daemon.feed(second)
        await asyncio.wait_for(daemon.evaluator.tick(daemon.now), 10)
    assert not first.done()
    gate.open.set()
    await first
    assert daemon.evaluated("fast") == 3
    assert daemon.meter("vllm_exporter_rule_group_iterations_missed_total", "fast") == 2
    assert daemon.meter("vllm_exporter_rule_evaluations_total", "fast") == 4


async def test_a_tick_that_is_cancelled_leaves_the_evaluator_usable(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.evaluator.load()
    gate = Gate(daemon, monkeypatch)
    first = asyncio.create_task(daemon.scrape(0))
    await gate.reached()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.open.set()
    await daemon.scrape(1)
    assert daemon.evaluated("fast") == 1


async def test_a_reload_waits_for_the_evaluation_and_keeps_pending_alerts(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0, waiting=9)
    gate = Gate(daemon, monkeypatch)
    evaluation = asyncio.create_task(daemon.scrape(1, waiting=9))
    await gate.reached()
    daemon.write(RULES.replace("wait}", "waiting}").replace('wait"', 'still wait"'))
    reload = asyncio.create_task(daemon.evaluator.reload())
    await asyncio.sleep(0)
    assert not reload.done()
    gate.open.set()
    await evaluation
    assert (await reload).rules == 3
    for second in (2, 3):
        await daemon.scrape(second, waiting=9)
    assert [(one.after, one.at - NOW) for one in daemon.told] == [("pending", 0), ("firing", 3)]
    assert daemon.told[1].alert.annotations == (("summary", "9 still wait"),)


async def test_rules_go_on_while_a_file_system_keeps_a_reload_waiting(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files were read in the rule thread, and one that did not answer stopped all rules and the end of the daemon."""
    await daemon.evaluator.load()
    entered, go = threading.Event(), threading.Event()
    read = evaluator.read_groups

    def slowly(*arguments: Any, **options: Any) -> Any:
        entered.set()
        assert go.wait(60)
        return read(*arguments, **options)

    monkeypatch.setattr(evaluator, "read_groups", slowly)
    reload = asyncio.create_task(daemon.evaluator.reload())
    assert await asyncio.to_thread(entered.wait, 30)
    await daemon.scrape(0)
    assert daemon.evaluated("fast") == 0
    go.set()
    assert not (await reload).problems


async def test_a_file_system_that_does_not_answer_is_told_of(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.evaluator.load()
    go = threading.Event()
    monkeypatch.setattr(evaluator, "read_groups", lambda *_, **__: go.wait(60))
    monkeypatch.setattr(evaluator, "READ_SECONDS", 0.01)
    assert "does a file system not answer" in (await daemon.evaluator.reload()).problems[0]
    assert "an earlier attempt" in (await daemon.evaluator.reload()).problems[0]
    await daemon.scrape(0)
    assert daemon.evaluated("fast") == 0
    go.set()


SLOW = """
groups:
  - name: stuck
    interval: 1s
    rules: [{record: stuck, expr: sum(waiting)}]
  - name: fast
    interval: 1s
    rules: [{record: made, expr: sum(up)}]
"""


class Stuck:
    """Holds up whoever asks for `waiting`: the group `stuck`."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        select = daemon.head.select

        def held(matchers: Any) -> Any:
            if any(matcher.value == "waiting" for matcher in matchers):
                self.entered.set()
                assert self.open.wait(60)
            return select(matchers)

        monkeypatch.setattr(daemon.head, "select", held)
        self.daemon = daemon

    async def end(self) -> None:
        """Let go, and do what the daemon does when it is woken."""
        self.open.set()
        while self.daemon.evaluator._held:
            await asyncio.wait_for(self.daemon.woken.wait(), 30)
            self.daemon.woken.clear()
            await self.daemon.evaluator.tick(self.daemon.now + 0.1, landed=False)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, patience=0.02)
    daemon.write(SLOW)
    yield daemon
    daemon.evaluator.close()


async def test_a_group_that_takes_long_delays_no_other(slow: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule of 30 seconds made all others, the shipped alerts among them, 40 seconds late each time."""
    await slow.evaluator.load()
    stuck = Stuck(slow, monkeypatch)
    for second in range(4):
        await asyncio.wait_for(slow.scrape(second), 30)
        assert slow.evaluated("fast") == second
        assert slow.evaluated("stuck") is None
    assert slow.evaluator.late_in(slow.now) == pytest.approx(1.5)
    await stuck.end()
    assert slow.evaluated("stuck") == 3
    assert slow.meter("vllm_exporter_rule_group_iterations_missed_total", "stuck") == 2
    assert slow.meter("vllm_exporter_rule_evaluations_total", "stuck") == 2
    await slow.scrape(4)
    await stuck.end()
    assert slow.evaluated("stuck") == slow.evaluated("fast") == 4
    assert slow.meter("vllm_exporter_rule_group_iterations_missed_total", "stuck") == 2


async def test_more_slow_groups_than_threads_leave_one_for_the_others(
    slow: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known that they are slow; those that wait are evaluated for the newest scrape."""
    groups = "".join(
        f"  - {{name: stuck{n}, interval: 1s, rules: [{{record: stuck{n}, expr: sum(waiting)}}]}}\n"
        for n in range(6)
    )
    slow.write("groups:\n" + groups + SLOW.split("\n", 5)[5])
    await slow.evaluator.load()
    for group in slow.evaluator._groups:
        group.seconds = 9.0 if group.key.rpartition(";")[2].startswith("stuck") else 0.0
    stuck = Stuck(slow, monkeypatch)
    for second in range(5):
        await asyncio.wait_for(slow.scrape(second), 30)
        assert slow.evaluated("fast") == second
    assert len(slow.evaluator._workers._threads) <= 4
    await stuck.end()
    assert [slow.evaluated(f"stuck{n}") for n in range(6)] == [4] * 6


async def test_a_reload_does_not_wait_for_a_slow_group_that_stays(
    slow: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slow.evaluator.load()
    stuck = Stuck(slow, monkeypatch)
    await slow.scrape(0)
    slow.write(SLOW.replace("sum(up)", "max(up)"))
    assert not (await asyncio.wait_for(slow.evaluator.reload(), 30)).problems
    await slow.scrape(1)
    assert slow.evaluated("fast") == 1
    stuck.open.set()


async def test_a_reload_waits_for_a_slow_group_that_changes_and_evaluates_it_once(
    slow: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slow.evaluator.load()
    stuck = Stuck(slow, monkeypatch)
    await slow.scrape(0)
    slow.write(SLOW.replace("sum(waiting)", "max(waiting)"))
    reload = asyncio.create_task(slow.evaluator.reload())
    await slow.scrape(1)
    assert slow.evaluated("fast") == 1
    assert not reload.done()
    stuck.open.set()
    assert not (await asyncio.wait_for(reload, 30)).problems
    assert slow.evaluated("stuck") in (0, 1)
    await slow.scrape(2)
    await stuck.end()
    assert slow.evaluated("stuck") == 2
    assert slow.evaluator.statuses()[0].rules[0].query == "max(waiting)"


async def test_a_reload_gives_up_on_a_group_that_never_ends_and_changes_nothing(
    slow: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slow.evaluator.load()
    stuck = Stuck(slow, monkeypatch)
    await slow.scrape(0)
    slow.write(SLOW.replace("sum(waiting)", "max(waiting)"))
    monkeypatch.setattr(evaluator, "HALT_SECONDS", 0.01 - 30)
    problems = (await asyncio.wait_for(slow.evaluator.reload(), 30)).problems
    assert "nothing was changed" in problems[0]
    assert ";stuck" in problems[0]
    assert slow.evaluator.statuses()[0].rules[0].query == "sum(waiting)"
    await stuck.end()
    await slow.scrape(1)
    await stuck.end()
    assert slow.evaluated("stuck") == 1


async def test_the_end_leaves_a_group_that_never_ends_behind(
    slow: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slow.evaluator.load()
    stuck = Stuck(slow, monkeypatch)
    await slow.scrape(0)
    monkeypatch.setattr(evaluator, "CLOSE_SECONDS", 0.01)
    with structlog.testing.capture_logs() as logs:
        slow.evaluator.close()
    assert [line["event"] for line in logs] == ["rules_still_at_work"]
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("rules-"))
    stuck.open.set()


async def test_ticks_that_waited_while_the_clock_was_set_back_are_for_the_new_time(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were put together at the later time, an hour ahead: rules took no row any more until the clock was there."""
    await daemon.evaluator.load()
    gate = Gate(daemon, monkeypatch)
    first = asyncio.create_task(daemon.scrape(0, waiting=9))
    await gate.reached()
    daemon.feed(1, waiting=9)
    await daemon.evaluator.tick(daemon.now)
    daemon.head.truncate_after(round((NOW - 3600) * 1000))
    daemon.feed(-3600 + 0.5, waiting=9)
    await daemon.evaluator.tick(daemon.now)
    gate.open.set()
    await first
    assert daemon.evaluated("fast") == pytest.approx(-3600 + 0.5)
    assert daemon.head.stream("rule:recording:made{}").last_ms == round((NOW - 3600 + 0.5) * 1000)
    await daemon.scrape(-3600 + 1.5)
    assert daemon.head.stream("rule:recording:made{}").last_ms == round((NOW - 3600 + 1.5) * 1000)


async def test_a_bad_file_changes_nothing_and_says_why(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    await daemon.scrape(0, waiting=9)
    before = daemon.evaluator.statuses()
    daemon.write("groups: [{name: g, rules: [{alert: X, expr: 'sum('}]}]", "b.yml")
    reload = await daemon.evaluator.reload()
    assert len(reload.problems) == 1
    assert "b.yml" in reload.problems[0]
    assert daemon.evaluator.statuses() == before
    assert daemon.meter("vllm_exporter_rules_last_reload_success ") == 0
    (daemon.folder / "b.yml").unlink()
    assert not (await daemon.evaluator.reload()).problems
    assert daemon.meter("vllm_exporter_rules_last_reload_success ") == 1
    await daemon.scrape(3, waiting=9)
    assert daemon.told[-1].after == "firing"


async def test_a_rule_that_is_gone_ends_its_alert_its_series_and_its_metrics(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    for second in (0, 1, 2, 3, 4):
        await daemon.scrape(second, waiting=9)
    assert daemon.meter('vllm_exporter_alerts{state="firing"}') == 1
    daemon.write(RULES.replace("Queue", "Line").replace("slow", "slower"))
    daemon.now = NOW + 4.5
    await daemon.evaluator.reload()
    assert [(one.rule, one.after, one.at - NOW) for one in daemon.told[-1:]] == [("Queue", "inactive", 4.5)]
    assert daemon.meter('vllm_exporter_alerts{state="firing"}') == 0
    text = daemon.block.render(openmetrics=False).decode()
    assert ';slower"' in text
    assert ';slow"' not in text
    selection = daemon.head.select([Matcher(NAME, "=", "ALERTS")])
    import numpy as np

    at = np.array([round((NOW + 4.5) * 1000)], np.int64)
    assert not selection.latest(at, 300_000).present.any()


async def test_files_with_mistakes_are_all_told_of_at_the_start(daemon: Daemon) -> None:
    daemon.write("groups: [{name: g, rules: [{alert: X, expr: 'sum('}]}]", "b.yml")
    daemon.write("groups: 5", "c.yml")
    with pytest.raises(ConfigError) as caught:
        await daemon.evaluator.load()
    assert len(caught.value.problems) == 2


async def test_what_rules_look_back_to_is_kept(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    retention = daemon.evaluator.retention(base_ms=1000, recorded_ms=5000)
    days = 3 * 86_400_000
    assert retention.keep(((NAME, "made"),), "engine") >= days
    assert retention.keep(((NAME, "other"),), "engine") == 1000
    assert retention.keep(((NAME, "other"),), "rule:recording:other{}") == 5000
    assert retention.keep(((NAME, "ALERTS_FOR_STATE"),), "rule:alerting:X{}") >= 3_600_000


async def test_a_clock_that_is_set_back_neither_stops_the_rules_nor_delays_an_alert(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    for second in (0, 1, 2):
        await daemon.scrape(second, waiting=9)
    daemon.head.truncate_after(round((NOW - 3600) * 1000))
    for second in (-3600 + 0.1, -3600 + 1.1):
        await daemon.scrape(second, waiting=9)
    assert [one.after for one in daemon.told] == ["pending", "firing"]
    assert daemon.evaluated("fast") == pytest.approx(-3600 + 1.1)


async def test_a_rule_that_fails_is_counted_and_told_and_recovers(daemon: Daemon) -> None:
    daemon.write("groups: [{name: g, interval: 1s, rules: [{record: r, expr: 'up / ignoring (x) waiting'}]}]")
    await daemon.evaluator.load()
    layout = Layout([((NAME, "up"), ("x", "1")), ((NAME, "up"), ("x", "2")), ((NAME, "waiting"),)])
    daemon.head.stream("engine").append(round(NOW * 1000), layout, (1, 1, 1))
    await daemon.evaluator.tick(NOW)
    assert daemon.evaluator.statuses()[0].rules[0].health == "err"
    assert daemon.meter("vllm_exporter_rule_evaluation_failures_total", "g") == 1
    await daemon.scrape(1)
    assert daemon.evaluator.statuses()[0].rules[0].health == "ok"
    assert daemon.meter("vllm_exporter_rule_evaluation_failures_total", "g") == 1


async def test_statuses_may_be_read_by_other_threads_while_rules_run_and_are_reloaded(daemon: Daemon) -> None:
    await daemon.evaluator.load()
    done = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not done.wait(0.001):
                for group in daemon.evaluator.statuses():
                    for rule in group.rules:
                        assert rule.state in ("inactive", "pending", "firing")
                        assert all(alert.labels["alertname"] == rule.name for alert in rule.alerts)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for second in range(40):
            await daemon.scrape(second, waiting=9 if second % 7 else 0)
            if second % 10 == 5:
                daemon.write(RULES.replace("for: 3s", f"for: {second % 3}s"))
                assert not (await daemon.evaluator.reload()).problems
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not failed
    assert daemon.evaluated("fast") == 39


async def test_an_alert_flood_is_logged_in_a_few_lines(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.write("groups: [{name: g, rules: [{alert: A, expr: m}]}]")
    await daemon.evaluator.load()
    layout = Layout([((NAME, "m"), ("n", str(n))) for n in range(500)])
    daemon.head.stream("engine").append(round(NOW * 1000), layout, [1.0] * 500)
    with structlog.testing.capture_logs() as logs:
        await daemon.evaluator.tick(NOW)
    assert len(daemon.told) == 500
    assert [line["event"] for line in logs] == ["alert_fires"] * 20 + ["more_alerts_changed"]
    daemon.evaluator.close()


async def test_a_rule_that_takes_too_long_is_ended_by_its_deadline(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, query_timeout=1e-9)
    daemon.write(RULES)
    await daemon.evaluator.load()
    await daemon.scrape(0)
    assert "timed out" in daemon.evaluator.statuses()[0].rules[0].last_error
    daemon.evaluator.close()


def test_every_family_is_well_named() -> None:
    for family in FAMILIES:
        assert family.name.startswith("vllm_exporter_")
        assert family.help.endswith(".")


async def test_the_shipped_rules_load_and_evaluate_without_an_error(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    shipped = Evaluator(RuleSettings(), daemon.head, Block(), external_url="http://box")
    await shipped.load()
    daemon.feed(0)
    await shipped.tick(NOW)
    statuses = shipped.statuses()
    assert sum(len(group.rules) for group in statuses) > 20
    assert [rule.last_error for group in statuses for rule in group.rules if rule.health != "ok"] == []
    shipped.close()
