"""The report as an alert, at its time."""

from __future__ import annotations

import asyncio
from datetime import time
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from exporter.notify.model import Alert
from exporter.notify.report.plan import Plan
from exporter.notify.report.report import LOOK_SECONDS, Report
from exporter.storage.head import Head, Layout
from exporter.storage.retention import Retention

DAY = 86_400.0
PLAN = Plan("daily", time(9), ZoneInfo("UTC"))
NINE = 1_795_251_600.0 // DAY * DAY + 9 * 3600
"""A day's nine o'clock."""


def store() -> Head:
    head = Head(retention=Retention(40 * 86_400_000), memory_limit=1 << 26)
    labels = {"__name__": "slo:objective:ratio", "sloth_id": "vllm-ttft", "sloth_slo": "ttft"}
    layout, stream = Layout([tuple(sorted(labels.items()))]), head.stream("rules")
    for at in range(int(NINE - DAY), int(NINE), 600):
        stream.append(at * 1000, layout, np.array([0.95]))
    return head


class Clock:
    """A clock that goes on when somebody sleeps; after `end` whoever sleeps is cancelled."""

    def __init__(self, now: float, end: float) -> None:
        self.now = now
        self._end = end
        self.longest = 0.0

    async def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self.now += max(seconds, 0.001)
        if self.now > self._end:
            raise asyncio.CancelledError
        await asyncio.sleep(0)

    def report(self, head: Head | None = None) -> Report:
        return Report(head or store(), PLAN, clock=lambda: self.now, sleep=self.sleep)


async def run(report: Report) -> list[Alert]:
    found: list[Alert] = []
    with pytest.raises(asyncio.CancelledError):
        await report.run(found.append)
    return found


async def test_the_report_is_an_alert_that_fires():
    report = Report(store(), PLAN, labels={"site": "上海", "empty": ""}, external_url="http://box:9108")
    alert = await report.compose(NINE)
    assert alert.labels == (
        ("alertname", "VLLMSLOReport"),
        ("period", "daily"),
        ("severity", "info"),
        ("site", "上海"),
    )
    assert [name for name, _ in alert.annotations] == ["description", "summary"]
    assert "ttft: no events, objective 95%" in dict(alert.annotations)["description"]
    assert (alert.starts_at, alert.status(NINE + 60), alert.generator_url) == (
        NINE,
        "firing",
        "http://box:9108",
    )


async def test_a_report_is_made_each_day_and_the_first_at_the_next_time():
    clock = Clock(NINE + 3600, NINE + 2 * DAY + 60)
    found = await run(clock.report())
    assert [alert.starts_at for alert in found] == [NINE + DAY, NINE + 2 * DAY]
    assert clock.longest <= LOOK_SECONDS


async def test_the_next_daemon_makes_up_for_what_was_missed_and_makes_nothing_twice():
    first = Clock(NINE - 60, NINE + 60).report()
    assert [alert.starts_at for alert in await run(first)] == [NINE]
    again = Clock(NINE + 90, NINE + 600).report()
    again.restore(first.state())
    assert await run(again) == []
    late = Clock(NINE + DAY + 3600, NINE + DAY + 7200).report()
    late.restore(first.state())
    assert [alert.starts_at for alert in await run(late)] == [NINE + DAY]


@pytest.mark.parametrize("last", ["yesterday", None, [1], float("nan")])
async def test_a_saved_state_that_is_none_is_left_out(last: object):
    report = Clock(NINE, NINE).report()
    report.restore({"last": last})
    assert report.state() == {}


async def test_a_machine_that_was_suspended_for_days_makes_one_report():
    clock = Clock(NINE - 60, NINE + 3 * DAY + 900)
    report = clock.report()
    found: list[Alert] = []

    def send(alert: Alert) -> None:
        found.append(alert)
        if len(found) == 1:
            clock.now += 3 * DAY

    with pytest.raises(asyncio.CancelledError):
        await report.run(send)
    assert [alert.starts_at for alert in found] == [NINE, NINE + 3 * DAY]


async def test_a_report_that_fails_does_not_end_the_daemon():
    class Broken:
        def select(self, _matchers: object) -> None:
            raise RuntimeError("the store is upside down")

    clock = Clock(NINE - 60, NINE + 60)
    assert await run(clock.report(Broken())) == []  # type: ignore[arg-type]
    assert Clock(NINE, NINE).report().state() == {}
