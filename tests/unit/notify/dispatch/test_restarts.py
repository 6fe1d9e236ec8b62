"""What the next daemon knows, and that no clock brings a storm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exporter.notify.config.model import Route
from exporter.notify.model import Alert
from exporter.notify.outbox.model import Silence
from exporter.storage.model import Matcher

Make = Callable[..., Alert]


async def test_what_was_told_is_not_told_again_after_a_restart(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.restart(down=100.0)
    assert await here.wait(600.0) == []
    assert await here.put(alert(starts_at=here.now, says="still")) == []
    assert await here.wait(600.0) == []


async def test_numbers_go_on_after_a_restart(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert("A"), alert("B"))
    await here.restart()
    (one,) = await here.put(alert("C"))
    assert one.number == 3


async def test_an_alert_that_waited_for_its_group_is_told_by_the_next_daemon(desk, alert: Make) -> None:
    here = desk(root=Route("team", group_wait=30.0))
    await here.put(alert())
    await here.restart(down=10.0)
    assert await here.wait(29.0) == []
    assert len(await here.wait(1.0)) == 1


async def test_an_end_that_was_not_told_yet_is_told_by_the_next_daemon(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.put(alert(ends_at=here.now))
    await here.restart(down=10.0)
    assert await here.wait(49.0) == []
    (one,) = await here.wait(1.0)
    assert one.status == "resolved"
    assert here.ledger.saved().alerts == ()


async def test_the_repeat_interval_counts_from_before_the_restart(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.restart(down=1800.0)
    assert await here.wait(1740.0) == []
    assert [one.repeated for one in await here.wait(60.0)] == [True]


async def test_an_entry_of_a_time_to_come_counts_from_now(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.restart(down=-86400.0)
    assert await here.wait(3540.0) == []
    assert [one.repeated for one in await here.wait(60.0)] == [True]


async def test_whoever_pushed_an_alert_has_time_to_push_it_again(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert("A", until=here.now + 300), alert("B", ends_at=here.now + 240))
    await here.restart(down=900.0)
    assert await here.wait(299.0) == []
    assert [one.status for one in await here.wait(61.0)] == ["resolved", "resolved"]


async def test_silences_hold_over_a_restart(desk, alert: Make) -> None:
    here = desk()
    here.dispatcher.silences.add(
        Silence("", (Matcher("alertname", "=", "Slow"),), here.now, here.now + 1000, 0.0, "li", "")
    )
    await here.restart(down=10.0)
    assert await here.put(alert()) == []
    assert len(await here.wait(1020.0)) == 1


async def test_a_clock_that_is_set_forward_repeats_nothing(desk, alert: Make) -> None:
    here = desk()
    await here.put(*(alert(str(number)) for number in range(50)))
    here.now += 400 * 86400.0
    assert await here.wait(3540.0) == []
    assert len(await here.wait(60.0)) == 50


async def test_a_clock_that_is_set_back_delays_nothing(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    here.now -= 7200.0
    await here.put(alert(ends_at=here.now + 7200.0))
    (one,) = await here.wait(60.0)
    assert (one.status, one.alerts[0].status(one.created_at)) == ("resolved", "resolved")
    assert one.alerts[0].starts_at <= (one.alerts[0].ends_at or 0.0) <= one.created_at
    assert len(await here.put(alert(starts_at=here.now))) == 1
    assert len(await here.wait(3600.0)) == 1


async def test_a_machine_that_slept_tells_nothing_on_waking(desk, alert: Make) -> None:
    """The timer stands still while the machine sleeps (CLOCK_MONOTONIC), the clock on the wall goes on."""
    here = desk()
    await here.put(alert("Rule"), alert("Pushed", until=here.now + 300))
    here.now += 8 * 3600.0
    assert await here.wait(60.0) == []
    await here.put(alert("Pushed", until=here.now + 300))
    assert await here.wait(240.0) == []


async def test_old_entries_are_forgotten_when_their_group_and_alerts_are_gone(
    desk, endpoints, alert: Make
) -> None:
    here = desk()
    await here.put(alert("A"), alert("B"))
    other = replace(
        here.config,
        route=replace(here.config.route, receiver="night", key="{}/{}"),
        endpoints=(endpoints("night"),),
    )
    here.dispatcher.reload(other)
    await here.wait(10.0)
    assert len(here.ledger.saved().log) == 4
    await here.put(alert("A", ends_at=here.now))
    await here.wait(1000.0)
    assert sorted(entry.group_key for entry in here.ledger.saved().log) == [
        '{}/{}:{alertname="B"}',
        '{}:{alertname="B"}',
    ]
