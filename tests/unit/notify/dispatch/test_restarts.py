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


async def test_an_end_that_was_not_told_yet_is_told_by_the_next_daemon_though_it_groups_otherwise(
    desk, alert: Make
) -> None:
    here = desk()
    await here.put(alert(instance="a"), alert(instance="b"))
    await here.put(alert(instance="b", ends_at=here.now))
    here.config = replace(here.config, route=replace(here.config.route, group_by=None, key="{}/{}"))
    await here.restart(down=10.0)
    told = await here.wait(600.0)
    assert [(one.group_key, one.status, len(one.alerts)) for one in told] == [
        ('{}/{}:{alertname="Slow", instance="a"}', "firing", 1),
        ('{}:{alertname="Slow"}', "firing", 2),
    ]
    assert [alert.status(told[1].created_at) for alert in told[1].alerts] == ["firing", "resolved"]
    assert (told[1].group_labels, told[1].number) == ((("alertname", "Slow"),), 3)
    assert await here.wait(600.0) == []
    await here.put(alert(instance="a", ends_at=here.now))
    told = await here.wait(600.0)
    assert sorted((one.group_key, one.status) for one in told) == [
        ('{}/{}:{alertname="Slow", instance="a"}', "resolved"),
        ('{}:{alertname="Slow"}', "resolved"),
    ]
    await here.wait(1000.0)
    assert (here.ledger.saved().log, here.ledger.saved().alerts) == ((), ())


async def test_of_ends_that_new_groups_tell_the_old_one_tells_the_last(desk, alert: Make) -> None:
    """A receiver that knows groups by their keys, such as PagerDuty, has the old one open until then."""
    here = desk()
    await here.put(*(alert(instance=name) for name in "abc"))
    here.config = replace(here.config, route=replace(here.config.route, group_by=None, key="{}/{}"))
    here.dispatcher.reload(here.config)
    assert len(await here.wait(60.0)) == 3
    old: list[str] = []
    for name in "abc":
        await here.put(alert(instance=name, ends_at=here.now))
        told = await here.wait(60.0)
        assert told[0].group_key.startswith("{}/{}:")
        old += [one.status for one in told if one.group_key.startswith("{}:")]
    assert old == ["resolved"]
    assert here.ledger.saved().alerts == ()


async def test_an_alert_whose_rule_is_gone_after_the_restart_is_told_as_over_though_routes_changed(
    desk, alert: Make
) -> None:
    here = desk()
    await here.put(alert())
    here.config = replace(here.config, route=replace(here.config.route, group_wait=30.0, key="{}/{}"))
    await here.restart()
    await here.put(alert(ends_at=here.now))
    assert [(one.group_key, one.status) for one in await here.wait(600.0)] == [
        ('{}:{alertname="Slow"}', "resolved")
    ]


async def test_the_end_of_what_another_configuration_told_is_not_told_where_it_is_silenced_or_nobody_is(
    desk, endpoints, alert: Make
) -> None:
    here = desk(
        Route("night", (Matcher("alertname", "=", "Night"),), group_wait=0.0, key="{}/{night}"),
        endpoints=(endpoints(), endpoints("night"), endpoints("quiet", send_resolved=False)),
    )
    names = ("Slow", "Night")
    assert len(await here.put(*(alert(name) for name in names))) == 2
    root = replace(here.config.route, receiver="quiet", routes=(), key="{}/{}")
    here.config = replace(here.config, route=root, endpoints=(endpoints(), endpoints("quiet")))
    await here.restart()
    await here.wait(60.0)
    here.dispatcher.silences.add(
        Silence("", (Matcher("alertname", "=", "Slow"),), here.now, here.now + 900, 0.0, "li", "")
    )
    await here.put(*(alert(name, ends_at=here.now) for name in names))
    assert [(one.receiver, one.group_key) for one in await here.wait(600.0)] == [
        ("quiet", '{}/{}:{alertname="Night"}')
    ]


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
