"""The dispatcher on real clocks, and many alerts at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from exporter.exposition.block import Block
from exporter.notify.config.model import Inhibition, Route
from exporter.notify.dispatch import Dispatcher
from exporter.notify.dispatch.dispatcher import ALERTS_A_TURN
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Change, Silence
from exporter.storage.model import Matcher

Make = Callable[..., Alert]


class Running:
    """A dispatcher that runs; `arrived` is set by notifications."""

    def __init__(self, config, ledger, **others) -> None:
        self.sent: list[Notification] = []
        self.arrived = asyncio.Event()
        self.dispatcher = Dispatcher(config, ledger, deliver=self.deliver, **others)

    def deliver(self, notifications) -> None:
        self.sent += notifications
        self.arrived.set()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.dispatcher.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                self.arrived.clear()
                await self.arrived.wait()


async def test_groups_are_told_when_their_time_comes(desk, config, alert: Make) -> None:
    loaded = config(root=Route("team", group_wait=0.05, group_interval=0.05, repeat_interval=3600.0))
    async with Running(loaded, desk().ledger) as here:
        now = time.time()
        here.dispatcher.put([alert(starts_at=now)])
        await asyncio.sleep(0)
        assert here.sent == []
        await here.until(1)
        here.dispatcher.put([alert(starts_at=now, ends_at=time.time())])
        await here.until(2)
        assert [one.status for one in here.sent] == ["firing", "resolved"]


async def test_a_silence_is_written_without_waiting_for_a_group(desk, config) -> None:
    ledger = desk().ledger
    async with Running(config(), ledger) as here:
        now = time.time()
        here.dispatcher.silences.add(Silence("", (Matcher("a", "=", "b"),), now, now + 60, 0.0, "li", ""))
        async with asyncio.timeout(10):
            while not ledger.saved().silences:
                await asyncio.sleep(0)


async def test_ten_thousand_alerts_of_one_group_are_one_notification(desk, alert: Make) -> None:
    here = desk()
    alerts = [alert(instance=f"gpu{number}", job="vllm") for number in range(10_000)]
    began = time.perf_counter()
    (one,) = await here.put(*alerts)
    assert await here.put(*alerts) == []
    seconds = time.perf_counter() - began
    assert len(one.alerts) == 10_000
    assert seconds < 5, f"took {seconds:.2f} s"  # 0.2 s on an idle core


async def test_a_storm_of_groups_leaves_the_loop_room_to_breathe(desk, config, alert: Make) -> None:
    loaded = config(root=Route("team", group_by=None, group_wait=0.0))
    async with Running(loaded, desk().ledger) as here:
        here.dispatcher.put([alert(instance=str(number)) for number in range(3000)])
        await here.until(1)
        assert len(here.sent) < 3000
        await here.until(3000)
        assert len({one.group_key for one in here.sent}) == 3000


async def test_very_many_alerts_are_taken_in_over_several_turns_and_told_together(
    desk, config, alert: Make
) -> None:
    down = Inhibition((Matcher("alertname", "=", "Down"),), (Matcher("instance", "=", "7"),))
    loaded = config(root=Route("team", group_by=frozenset(), group_wait=0.0), inhibitions=[down])
    async with Running(loaded, desk().ledger) as here:
        first = [alert(instance=str(number)) for number in range(3000)]
        here.dispatcher.put([*first, alert("Down")])
        here.dispatcher.put([alert("Late"), alert(instance="8", ends_at=time.time())])
        assert len(here.dispatcher.alerts()) == ALERTS_A_TURN
        turns = 0
        while not here.sent:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 5
        (one,) = here.sent
        assert len(one.alerts) == 3000
        assert not any(("instance", "7") in told.labels for told in one.alerts), (
            "Down, the last, holds it back"
        )
        await here.dispatcher.drain()
        assert len(here.dispatcher.alerts()) == 3001


async def test_a_reload_while_alerts_come_in_loses_none(desk, alert: Make) -> None:
    here = desk()
    here.dispatcher.put([alert(instance=str(number)) for number in range(1200)])
    here.config = replace(here.config, route=replace(here.config.route, key="{}/{}"))
    here.dispatcher.reload(here.config)
    (one,) = await here.wait(0.0)
    assert (one.group_key, len(one.alerts)) == ('{}/{}:{alertname="Slow"}', 1200)


async def test_the_metrics_tell_how_many_alerts_there_are(desk, config, alert: Make) -> None:
    block, now = Block(), [1000.0]
    dispatcher = Dispatcher(
        config(),
        desk().ledger,
        deliver=lambda notifications: None,
        metrics=NotifyMetrics(block),
        timer=lambda: now[0],
    )
    dispatcher.tick()
    dispatcher.put([alert("A"), alert("B", ends_at=time.time()), alert("C")])
    now[0] += dispatcher.tick()
    dispatcher.tick()
    lines = block.render(openmetrics=False).decode().splitlines()
    assert 'vllm_exporter_notify_alerts{state="active"} 2' in lines
    assert 'vllm_exporter_notify_alerts_received_total{status="resolved"} 1' in lines
    assert "vllm_exporter_notify_groups 2" in lines


async def test_an_announcement_is_written_down_once_the_dispatcher_is_drained(config, alert: Make) -> None:
    class Slow:
        written = 0

        async def commit(self, change: Change) -> bool:
            await asyncio.sleep(0.01)
            self.written += len(change.notifications)
            return True

    ledger = Slow()
    async with Running(config(), ledger) as here:
        here.dispatcher.announce(alert("Report"))
        await asyncio.sleep(0)  # its writing begins
        await here.dispatcher.drain()
        assert ledger.written == 1
        here.dispatcher.announce(alert("Report"))
    await here.dispatcher.drain()
    assert ledger.written == 2
    assert len(here.sent) == 2
