"""The same alerts into a real Alertmanager and into ours: the same webhooks come out, byte order of the keys included.

Both get one configuration, and alerts with the times that the script gives them; so even times and URLs are equal.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alertmanager import AMTOOL, PATIENCE_SECONDS, PROGRAM, Alertmanager, Hook, Sink, amtool, rfc3339
from our_notifier import Notifier
from pydantic import SecretStr

from exporter.exposition.block import Block
from exporter.notify.fingerprint import show
from exporter.notify.forward import Forwarder, alertmanagers
from exporter.notify.model import Alert
from exporter.storage.model import Matcher

pytestmark = pytest.mark.skipif(
    PROGRAM is None or AMTOOL is None, reason="prometheus-alertmanager is not installed"
)

EXTERNAL_URL = "http://monitor.example:9093"
CONFIG = """
global:
  resolve_timeout: 5m
route:
  receiver: nobody
  group_by: [alertname]
  group_wait: 300ms
  group_interval: 500ms
  repeat_interval: 1h
  routes:
    - {{matchers: ['script="grouping"'], receiver: grouping, group_by: [alertname, cluster]}}
    - {{matchers: ['script="each alone"'], receiver: each-alone, group_by: ['...']}}
    - {{matchers: ['script="all in one"'], receiver: all-in-one, group_by: [script]}}
    - {{matchers: ['script="late"'], receiver: late, group_wait: 1h}}
    - {{matchers: ['script="life"'], receiver: life}}
    - {{matchers: ['script="repeat"'], receiver: repeat, repeat_interval: 1s}}
    - {{matchers: ['script="firing only"'], receiver: firing-only}}
    - {{matchers: ['script="truncation"'], receiver: truncation}}
    - {{matchers: ['script="inhibition"'], receiver: inhibition}}
    - {{matchers: ['script="left out"'], receiver: left-out}}
    - {{matchers: ['script="silence"'], receiver: silence}}
    - {{matchers: ['script="hours"'], receiver: hours, mute_time_intervals: [always], routes: [
        {{matchers: ['open="yes"'], mute_time_intervals: [never], active_time_intervals: [always]}},
        {{matchers: ['open="no"'], mute_time_intervals: [], active_time_intervals: [never]}}]}}
    - matchers: ['script="tree"']
      receiver: tree
      routes:
        - {{match: {{severity: critical}}, receiver: first, continue: true}}
        - {{match_re: {{severity: 'crit.*|warn.*'}}, receiver: second, group_by: [severity], routes: [
            {{matchers: ['team!~"a|b"', 'team!=""'], receiver: third}}]}}
        - {{matchers: [never_there!=""], receiver: first}}
inhibit_rules:
  - source_matchers: [alertname="EngineDown"]
    target_matchers: [severity=~"warning|info"]
    equal: [instance, script]
mute_time_intervals:
  - {{name: always, time_intervals: [{{times: [{{start_time: '00:00', end_time: '24:00'}}]}}]}}
  - {{name: never, time_intervals: [{{years: ['1971']}}]}}
receivers:
  - name: nobody
  - {{name: grouping, webhook_configs: [{{url: '{sink}/grouping'}}]}}
  - {{name: each-alone, webhook_configs: [{{url: '{sink}/each-alone'}}]}}
  - {{name: all-in-one, webhook_configs: [{{url: '{sink}/all-in-one'}}, {{url: '{sink}/all-in-one-too', max_alerts: 1}}]}}
  - {{name: late, webhook_configs: [{{url: '{sink}/late'}}]}}
  - {{name: life, webhook_configs: [{{url: '{sink}/life'}}]}}
  - {{name: repeat, webhook_configs: [{{url: '{sink}/repeat'}}]}}
  - {{name: firing-only, webhook_configs: [{{url: '{sink}/firing-only', send_resolved: false}}, {{url: '{sink}/both'}}]}}
  - {{name: truncation, webhook_configs: [{{url: '{sink}/truncation', max_alerts: 3}}]}}
  - {{name: inhibition, webhook_configs: [{{url: '{sink}/inhibition'}}]}}
  - {{name: left-out, webhook_configs: [{{url: '{sink}/left-out'}}]}}
  - {{name: silence, webhook_configs: [{{url: '{sink}/silence'}}]}}
  - {{name: hours, webhook_configs: [{{url: '{sink}/hours'}}]}}
  - {{name: tree, webhook_configs: [{{url: '{sink}/tree'}}]}}
  - {{name: first, webhook_configs: [{{url: '{sink}/first'}}]}}
  - {{name: second, webhook_configs: [{{url: '{sink}/second'}}]}}
  - {{name: third, webhook_configs: [{{url: '{sink}/third'}}]}}
"""
QUIET_SECONDS = 1.0
"""How long nobody must be told: beyond the wait of a group and its interval."""


class Both:
    """Alertmanager and ours, given the same and compared in what they send."""

    def __init__(self, sink: Sink, theirs: Alertmanager, ours: Notifier) -> None:
        self._sink = sink
        self.theirs = theirs
        self.ours = ours
        self._silences: dict[str, str] = {}

    async def push(self, *alerts: Alert) -> None:
        """The same alerts into both."""
        self.ours.put(alerts)
        await asyncio.to_thread(self.theirs.push, alerts)

    async def silence(self, *matchers: Matcher) -> str:
        """The same silence in both, for an hour; gives ours."""
        now = time.time()
        ours = self.ours.silence(matchers, now, now + 3600)
        shown = [
            {
                "name": one.name,
                "value": one.value,
                "isRegex": "~" in one.op,
                "isEqual": not one.op.startswith("!"),
            }
            for one in matchers
        ]
        self._silences[ours] = await asyncio.to_thread(
            lambda: self.theirs.silence(*shown, starts_at=now + 0.1, ends_at=now + 3600)
        )
        return ours

    async def expire(self, silence: str) -> None:
        """End it in both."""
        self.ours.expire(silence)
        await asyncio.to_thread(self.theirs.expire, self._silences[silence])

    async def told(self, path: str, count: int) -> list[Any]:
        """Wait until both have told a path so many times, and give what: the same, group by group."""
        await until(lambda: min(len(hooks) for hooks in self._hooks(path)) >= count)
        await asyncio.sleep(0.1)
        ours, theirs = self._hooks(path)
        assert [len(theirs), len(ours)] == [count, count]
        assert by_group(ours) == by_group(theirs)
        for one, other in zip(by_headers(ours), by_headers(theirs), strict=True):
            assert one == other
        return [hook.payload for hook in theirs]

    async def quiet(self, *paths: str, seconds: float = QUIET_SECONDS) -> None:
        """For some time neither tells these paths anything more."""
        before = [len(hooks) for path in paths for hooks in self._hooks(path)]
        await asyncio.sleep(seconds)
        assert [len(hooks) for path in paths for hooks in self._hooks(path)] == before

    def _hooks(self, path: str) -> tuple[list[Hook], list[Hook]]:
        return self._sink.at(f"/ours/{path}"), self._sink.at(f"/theirs/{path}")


def by_group(hooks: Sequence[Hook]) -> dict[str, list[Any]]:
    """What each group was told, in that order."""
    found: dict[str, list[Any]] = {}
    for hook in hooks:
        payload = hook.payload
        found.setdefault(dict(payload)["groupKey"], []).append(payload)
    return found


def by_headers(hooks: Sequence[Hook]) -> list[str]:
    return [hook.headers["Content-Type"] for hook in hooks]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nobody was told"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def theirs(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder = tmp_path_factory.mktemp("alertmanager")
    with Alertmanager(folder, CONFIG.format(sink=sink.url("/theirs")), external_url=EXTERNAL_URL) as theirs:
        yield theirs


@pytest.fixture
async def both(sink: Sink, theirs: Alertmanager, tmp_path: Path) -> AsyncIterator[Both]:
    config = CONFIG.format(sink=sink.url("/ours"))
    async with Notifier(config, tmp_path / "notify.db", external_url=EXTERNAL_URL) as ours:
        yield Both(sink, theirs, ours)


def alert(script: str, name: str, *, annotations: dict[str, str] | None = None, **labels: str) -> Alert:
    """An alert that fires from now on; times in whole milliseconds."""
    pairs = {"alertname": name, "script": script, **labels}
    return Alert(
        labels=tuple(sorted(pairs.items())),
        annotations=tuple(sorted((annotations or {"summary": f"{name} is there"}).items())),
        starts_at=round(time.time(), 3),
        updated_at=time.time(),
        generator_url="http://prometheus.example:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1",
    )


def over(one: Alert) -> Alert:
    """The alert, ended just now."""
    now = time.time()
    return replace(one, ends_at=round(now - 0.05, 3), updated_at=now)


def status(payload: Any) -> list[str]:
    """The notification's status and those of its alerts."""
    fields = dict(payload)
    return [fields["status"], *(dict(one)["status"] for one in fields["alerts"])]


async def test_groups_have_the_same_keys_labels_and_order(both: Both):
    same = {"summary": "队列 “满” & <slow>\nline two", "runbook_url": "http://x/?a=1&b=2"}
    await both.push(
        alert("grouping", "Slow", cluster="a", instance="b:1", job="z", annotations=same),
        alert("grouping", "Slow", cluster="a", instance="a:2", job="z", annotations=same),
        alert("grouping", "Slow", cluster="a", instance="a:10", job="y", annotations={**same, "n": "1"}),
        alert("grouping", "Slow", cluster='b"\\\n', instance="c", model_name="模型/七"),
        alert("grouping", "Slow", instance="without"),
        alert("grouping", "Down", cluster="a", instance="\u2028 \x7f é"),
    )
    told = await both.told("grouping", 4)
    assert sorted(len(dict(one)["alerts"]) for one in told) == [1, 1, 1, 3]


async def test_grouping_by_all_labels_and_by_one_that_all_share(both: Both):
    await both.push(*(alert("each alone", "Slow", instance=str(n)) for n in range(5)))
    await both.push(*(alert("all in one", f"Slow{n % 3}", instance=str(n)) for n in range(7)))
    await both.told("each-alone", 5)
    [whole] = await both.told("all-in-one", 1)
    assert len(dict(whole)["alerts"]) == 7
    [part] = await both.told("all-in-one-too", 1)
    assert dict(part)["truncatedAlerts"] == 6


async def test_an_alert_that_has_fired_for_longer_than_its_group_waits_is_told_at_once(both: Both):
    old = alert("late", "Slow")
    await both.push(replace(old, starts_at=old.starts_at - 3601))
    await both.told("late", 1)


async def test_the_life_of_a_group_is_told_the_same(both: Both):
    first = alert("life", "Slow", instance="a")
    second = alert("life", "Slow", instance="b", severity="warning")
    await both.push(first)
    await both.told("life", 1)
    await both.push(second)
    await both.told("life", 2)
    await both.push(over(first))
    told = await both.told("life", 3)
    assert status(told[-1]) == ["firing", "resolved", "firing"]
    await both.push(over(second))
    told = await both.told("life", 4)
    assert status(told[-1]) == ["resolved", "resolved"]
    again = replace(first, starts_at=round(time.time(), 3), updated_at=time.time())
    await both.push(again)
    told = await both.told("life", 5)
    assert status(told[-1]) == ["firing", "firing"]
    await both.push(replace(again, annotations=(("summary", "it got worse"),), updated_at=time.time()))
    await both.quiet("life")


async def test_what_does_not_change_is_said_again_after_the_repeat_interval(both: Both):
    begun = time.monotonic()
    await both.push(alert("repeat", "Slow", instance="a"), alert("repeat", "Slow", instance="b"))
    first, second = await both.told("repeat", 2)
    assert first == second
    assert time.monotonic() - begun > 1


async def test_who_does_not_want_to_know_of_the_end_is_not_told(both: Both):
    one, other = alert("firing only", "Slow", instance="a"), alert("firing only", "Slow", instance="b")
    await both.push(one, other)
    await both.told("firing-only", 1)
    await both.push(over(one))
    await both.told("both", 2)
    await both.push(over(other))
    await both.told("both", 3)
    await both.told("firing-only", 1)


async def test_more_alerts_than_a_webhook_takes_are_cut_off_and_counted(both: Both):
    await both.push(*(alert("truncation", "Storm", instance=f"{n:02}") for n in range(20)))
    [one] = await both.told("truncation", 1)
    assert dict(one)["truncatedAlerts"] == 17
    assert [dict(dict(shown)["labels"])["instance"] for shown in dict(one)["alerts"]] == ["00", "01", "02"]


async def test_an_alert_is_mute_while_what_inhibits_it_fires(both: Both):
    down = alert("inhibition", "EngineDown", instance="a", severity="critical")
    slow = alert("inhibition", "Slow", instance="a", severity="warning")
    await both.push(down, slow, alert("inhibition", "Slow", instance="b", severity="warning"))
    told = await both.told("inhibition", 2)
    assert sorted(len(dict(one)["alerts"]) for one in told) == [1, 1]
    await both.push(over(down))
    await both.told("inhibition", 4)


async def test_an_alert_that_was_left_out_while_it_was_inhibited_is_told_again(both: Both):
    """That its end is told even while it is inhibited is ours alone: `exporter/notify/dispatch/muting.py`."""
    slow = alert("left out", "Slow", instance="a", severity="warning")
    await both.push(slow)
    await both.told("left-out", 1)
    down = alert("left out", "EngineDown", instance="a", severity="critical")
    await both.push(down)
    await both.told("left-out", 2)
    await both.push(alert("left out", "Slow", instance="b", severity="warning"))
    told = await both.told("left-out", 3)
    assert status(told[-1]) == ["firing", "firing"]
    await both.push(over(down))
    told = await both.told("left-out", 5)
    assert sorted(len(status(one)) for one in told) == [2, 2, 2, 2, 3]
    await both.push(over(slow))
    told = await both.told("left-out", 6)
    assert status(told[-1]) == ["firing", "resolved", "firing"]


async def test_a_silenced_alert_is_told_when_the_silence_ends(both: Both):
    silence = await both.silence(Matcher("script", "=", "silence"), Matcher("instance", "=~", "a|b"))
    await asyncio.sleep(0.2)
    await both.push(*(alert("silence", "Slow", instance=name) for name in "abc"))
    [one] = await both.told("silence", 1)
    assert [dict(dict(shown)["labels"])["instance"] for shown in dict(one)["alerts"]] == ["c"]
    await both.expire(silence)
    told = await both.told("silence", 2)
    assert status(told[-1]) == ["firing", "firing", "firing", "firing"]


async def test_hours_mute_and_open_routes(both: Both):
    await both.push(*(alert("hours", "Slow", open=value) for value in ("yes", "no", "neither")))
    await both.told("hours", 1)
    await both.quiet("hours")


async def test_alerts_take_the_same_ways_through_the_tree(both: Both):
    severities = ("critical", "warning", "criticism", "info")
    await both.push(
        *(
            alert("tree", "Slow", severity=severity, team=team)
            for severity in severities
            for team in ("a", "c")
        ),
        alert("tree", "Slow", severity="warning"),
    )
    await both.told("tree", 1)
    await both.told("first", 1)
    await both.told("second", 3)
    await both.told("third", 3)


async def test_what_is_pushed_shows_in_amtool_and_goes_when_it_ends(theirs: Alertmanager):
    forwarder = Forwarder(alertmanagers((SecretStr(theirs.url),)), Block())
    pushing = asyncio.create_task(forwarder.run())
    try:
        slow = alert("pushed", "Slow", annotations={"summary": "太慢"}, instance="a")
        slow, *others = (
            replace(one, starts_at=one.starts_at - 60)
            for one in (slow, *(alert("pushed", "Queue", instance=f"{n:03}") for n in range(150)))
        )
        forwarder.put([slow, *others])
        shown = await asking(theirs, lambda alerts: len(alerts) == 151)
        [one] = [found for found in shown if found["labels"]["alertname"] == "Slow"]
        assert one["labels"] == dict(slow.labels)
        assert one["annotations"] == {"summary": "太慢"}
        assert one["startsAt"] == rfc3339(slow.starts_at)
        assert one["generatorURL"] == slow.generator_url
        assert one["fingerprint"] == show(slow.fingerprint)
        forwarder.resend()
        forwarder.put([over(slow), *map(over, others[:100])])
        left = await asking(theirs, lambda alerts: len(alerts) == 50)
        assert {found["labels"]["alertname"] for found in left} == {"Queue"}
    finally:
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        await forwarder.close()


async def asking(
    theirs: Alertmanager, enough: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """What amtool shows of the alerts that were pushed, once that is enough."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        text = await asyncio.to_thread(
            amtool, theirs.url, "alert", "query", 'script="pushed"', "--output=json"
        )
        alerts: list[dict[str, Any]] = json.loads(text)
        if enough(alerts):
            return alerts
        assert time.monotonic() < deadline, f"amtool shows {len(alerts)} alerts"
        await asyncio.sleep(0.1)
