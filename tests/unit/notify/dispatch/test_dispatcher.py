from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from exporter.notify.config.model import Inhibition, Route
from exporter.notify.intervals import Span, TimeInterval
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Silence
from exporter.storage.model import Matcher

Make = Callable[..., Alert]

DOWN = Inhibition((Matcher("alertname", "=", "Down"),), (Matcher("alertname", "=", "Slow"),), ("instance",))
CRITICAL = (Matcher("severity", "=", "critical"),)
NEVER = TimeInterval((Span(years=((1999, 1999),)),))
ALWAYS = TimeInterval((Span(),))


def told(notifications: list[Notification]) -> list[tuple[str, list[str]]]:
    """What each says: its status, and which alerts do what."""
    return [
        (one.status, [f"{alert.name} {alert.status(one.created_at)}" for alert in one.alerts])
        for one in notifications
    ]


async def test_an_alert_whose_group_need_not_wait_is_told_in_the_same_turn(desk, alert: Make) -> None:
    here = desk()
    (one,) = await here.put(alert(instance="gpu1"))
    assert (one.number, one.receiver, one.integration) == (1, "team", "webhook[0]")
    assert (one.group_key, one.group_labels) == ('{}:{alertname="Slow"}', (("alertname", "Slow"),))
    assert told([one]) == [("firing", ["Slow firing"])]
    assert (one.created_at, one.repeated) == (here.now, False)


async def test_alerts_that_come_together_are_told_together_in_their_order(desk, alert: Make) -> None:
    (one,) = await desk().put(alert(instance="b"), alert(instance="a"))
    assert [dict(each.labels)["instance"] for each in one.alerts] == ["a", "b"]


async def test_what_is_known_of_an_alert_in_a_storm_is_little(desk, alert: Make) -> None:
    """Its labels by name, its place and what silences it were objects of its own: 700 bytes more for each."""
    here, storm = desk(), [alert(instance=f"gpu{n}") for n in range(4000)]
    tracemalloc.start()
    here.dispatcher.put(storm)
    while here.dispatcher.tick() == 0:
        pass
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 350 * len(storm)
    assert peak < 550 * len(storm)


async def test_a_group_gathers_alerts_for_its_wait(desk, alert: Make) -> None:
    here = desk(root=Route("team", group_wait=30.0, group_interval=60.0))
    assert await here.put(alert("A")) == []
    assert await here.wait(20.0) == []
    assert await here.put(alert("B", starts_at=here.now)) == []
    assert told(await here.wait(10.0)) == [("firing", ["A firing", "B firing"])]


async def test_an_alert_that_began_longer_ago_than_the_wait_is_told_at_once(desk, alert: Make) -> None:
    here = desk(root=Route("team", group_wait=30.0))
    assert len(await here.put(alert(starts_at=here.now - 31))) == 1


async def test_what_comes_to_a_group_later_waits_for_its_interval(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert(instance="a"))
    assert await here.put(alert(instance="b")) == []
    assert await here.wait(59.0) == []
    assert told(await here.wait(1.0)) == [("firing", ["Slow firing", "Slow firing"])]


async def test_the_end_is_told_and_the_group_goes(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.put(alert(ends_at=here.now))
    assert told(await here.wait(60.0)) == [("resolved", ["Slow resolved"])]
    assert await here.wait(7200.0) == []
    saved = here.ledger.saved()
    assert (saved.alerts, saved.log) == ((), ())


async def test_an_alert_that_comes_back_after_its_end_is_told_at_once(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.put(alert(ends_at=here.now))
    await here.wait(60.0)
    assert told(await here.put(alert(starts_at=here.now))) == [("firing", ["Slow firing"])]


async def test_some_ends_are_told_with_those_that_fire_on(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert(instance="a"), alert(instance="b"))
    await here.put(alert(instance="b", ends_at=here.now))
    assert told(await here.wait(60.0)) == [("firing", ["Slow firing", "Slow resolved"])]
    assert await here.wait(3000.0) == []


async def test_what_fires_on_is_said_again_after_the_repeat_interval(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    assert await here.wait(3599.0) == []
    (one,) = await here.wait(1.0)
    assert one.repeated
    assert await here.wait(3599.0) == []


async def test_an_alert_that_ends_before_anybody_was_told_of_it_is_not_told(desk, alert: Make) -> None:
    here = desk(root=Route("team", group_wait=30.0))
    await here.put(alert())
    await here.put(alert(ends_at=here.now))
    assert await here.wait(600.0) == []
    assert here.ledger.saved().alerts == ()


async def test_who_does_not_want_to_hear_of_ends_hears_of_none(desk, endpoints, alert: Make) -> None:
    here = desk(endpoints=[endpoints(send_resolved=False)])
    await here.put(alert(instance="a"), alert(instance="b"))
    await here.put(alert(instance="a", ends_at=here.now))
    assert await here.wait(60.0) == []
    await here.put(alert(instance="c"))
    assert told(await here.wait(60.0)) == [("firing", ["Slow firing", "Slow firing"])]
    await here.put(alert(instance="b", ends_at=here.now), alert(instance="c", ends_at=here.now))
    assert await here.wait(60.0) == []
    assert len(await here.put(alert(instance="b", starts_at=here.now))) == 1


async def test_every_endpoint_of_a_receiver_gets_its_own(desk, endpoints, alert: Make) -> None:
    here = desk(endpoints=[endpoints(), endpoints(number=1, send_resolved=False)])
    assert [(one.number, one.integration) for one in await here.put(alert())] == [
        (1, "webhook[0]"),
        (2, "webhook[1]"),
    ]
    await here.put(alert(ends_at=here.now))
    assert [one.integration for one in await here.wait(60.0)] == ["webhook[0]"]


async def test_routes_decide_who_is_told(desk, endpoints, alert: Make) -> None:
    both = (endpoints("team"), endpoints("night"))
    night = Route("night", CRITICAL, group_wait=0.0, goes_on=True, key='{}/{severity="critical"}')
    rest = Route("team", group_wait=0.0, key="{}/{}")
    here = desk(night, rest, endpoints=both)
    assert [one.receiver for one in await here.put(alert("A", severity="warning"))] == ["team"]
    found = await here.put(alert("B", severity="critical"))
    assert [(one.receiver, one.group_key) for one in found] == [("night", '{}/{severity="critical"}:{}')]
    (view,) = [view for view in here.dispatcher.alerts() if view.alert.name == "B"]
    assert view.receivers == ("night", "team")


async def test_a_receiver_without_endpoints_tells_nobody_and_forgets_what_is_over(desk, alert: Make) -> None:
    here = desk(root=Route("nobody", group_wait=0.0))
    assert await here.put(alert("Watchdog")) == []
    assert [view.receivers for view in here.dispatcher.alerts()] == [("nobody",)]
    await here.put(alert("Watchdog", ends_at=here.now))
    await here.wait(300.0)
    assert here.ledger.saved().alerts == ()


async def test_an_alert_that_comes_with_its_inhibitor_is_not_told(desk, alert: Make) -> None:
    here = desk(inhibitions=[DOWN])
    slow, down = alert("Slow", instance="a"), alert("Down", instance="a")
    assert told(await here.put(slow, alert("Slow", instance="b"), down)) == [
        ("firing", ["Slow firing"]),
        ("firing", ["Down firing"]),
    ]
    (view,) = [view for view in here.dispatcher.alerts() if view.alert == slow]
    assert (view.state, view.inhibited_by) == ("suppressed", (down.fingerprint,))


async def test_it_is_told_when_the_inhibitor_has_ended_and_it_fires_on(desk, alert: Make) -> None:
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"), alert("Down", instance="a"))
    await here.put(alert("Down", instance="a", ends_at=here.now))
    assert told(await here.wait(60.0)) == [("firing", ["Slow firing"]), ("resolved", ["Down resolved"])]


async def test_an_end_is_told_though_it_is_inhibited_to_whom_was_told_of_the_alert(desk, alert: Make) -> None:
    """In Alertmanager whoever was told of the alert never hears of its end, and has it open for ever."""
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"))
    await here.put(alert("Down", instance="a", starts_at=here.now))
    await here.put(alert("Slow", instance="a", ends_at=here.now))
    assert told(await here.wait(60.0)) == [("resolved", ["Slow resolved"])]
    await here.put(alert("Down", instance="a", ends_at=here.now))
    assert told(await here.wait(60.0)) == [("resolved", ["Down resolved"])]
    assert here.ledger.saved().log == ()


async def test_an_inhibited_end_is_told_by_the_next_daemon(desk, alert: Make) -> None:
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"), alert("Slow", instance="b"))
    await here.put(alert("Down", instance="a", starts_at=here.now), alert("Slow", instance="c"))
    await here.wait(60.0)  # told of b and c, and a is left out
    await here.restart()
    await here.put(alert("Slow", instance="a", ends_at=here.now))
    (one,) = await here.wait(60.0)
    assert told([one]) == [("firing", ["Slow resolved", "Slow firing", "Slow firing"])]


async def test_an_inhibited_end_is_told_though_its_group_had_other_news_meanwhile(desk, alert: Make) -> None:
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"))
    await here.put(alert("Down", instance="a", starts_at=here.now), alert("Slow", instance="b"))
    assert told(await here.wait(60.0)) == [("firing", ["Slow firing"])]
    await here.put(alert("Slow", instance="b", ends_at=here.now))
    assert told(await here.wait(60.0)) == [("resolved", ["Slow resolved"])]
    await here.put(alert("Slow", instance="a", ends_at=here.now))
    assert told(await here.wait(60.0)) == [("resolved", ["Slow resolved"])]


async def test_what_was_left_out_while_it_was_inhibited_is_news_again_as_in_alertmanager(
    desk, alert: Make
) -> None:
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"))
    await here.put(alert("Down", instance="a", starts_at=here.now), alert("Slow", instance="b"))
    await here.wait(60.0)
    await here.put(alert("Down", instance="a", ends_at=here.now))
    assert told(await here.wait(60.0)) == [
        ("firing", ["Slow firing", "Slow firing"]),
        ("resolved", ["Down resolved"]),
    ]


async def test_an_inhibited_end_is_not_told_to_whom_nothing_was_told(desk, alert: Make) -> None:
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"), alert("Down", instance="a"))
    await here.put(alert("Slow", instance="a", ends_at=here.now))
    assert await here.wait(600.0) == []


async def test_an_inhibited_end_that_is_silenced_is_not_told(desk, alert: Make) -> None:
    here = desk(inhibitions=[DOWN])
    await here.put(alert("Slow", instance="a"))
    here.dispatcher.silences.add(
        Silence("", (Matcher("alertname", "=", "Slow"),), here.now, here.now + 900, 0.0, "li", "")
    )
    await here.put(alert("Down", instance="a", starts_at=here.now))
    await here.put(alert("Slow", instance="a", ends_at=here.now))
    assert await here.wait(600.0) == []


async def test_a_silence_holds_an_alert_back_and_its_end_lets_it_go(desk, alert: Make) -> None:
    here = desk()
    silence = here.dispatcher.silences.add(
        Silence("", (Matcher("alertname", "=", "Slow"),), here.now, here.now + 100, 0.0, "li", "")
    )
    assert await here.put(alert()) == []
    (view,) = here.dispatcher.alerts()
    assert (view.state, view.silenced_by) == ("suppressed", (silence.id,))
    assert await here.wait(119.0) == []
    assert told(await here.wait(1.0)) == [("firing", ["Slow firing"])]


async def test_an_alert_that_ends_unheard_and_comes_back_is_news(desk, alert: Make) -> None:
    """Alertmanager would keep silent until the repeat interval is over: its log still has the alert as told."""
    here = desk()
    await here.put(alert())
    silence = here.dispatcher.silences.add(
        Silence("", (Matcher("alertname", "=", "Slow"),), here.now, here.now + 900, 0.0, "li", "")
    )
    await here.put(alert(ends_at=here.now))
    assert await here.wait(60.0) == []
    here.dispatcher.silences.expire(silence.id)
    assert told(await here.put(alert(starts_at=here.now))) == [("firing", ["Slow firing"])]


@pytest.mark.parametrize(
    "hours",
    [
        {"mute_times": ("always",)},
        {"active_times": ("never",)},
        {"mute_times": ("never", "always"), "active_times": ("always",)},
    ],
)
async def test_nobody_is_told_out_of_hours(desk, alert: Make, hours: dict[str, tuple[str, ...]]) -> None:
    here = desk(root=Route("team", group_wait=0.0, **hours), intervals={"always": ALWAYS, "never": NEVER})
    assert await here.put(alert()) == []
    (group,) = here.dispatcher.groups()
    assert group.muted_by == (("never",) if "mute_times" not in hours else ("always",))
    assert group.alerts[0].state == "active"


async def test_what_fires_when_the_hours_begin_is_told_then(desk, alert: Make) -> None:
    here = desk(root=Route("team", group_wait=0.0, group_interval=60.0, mute_times=("noon",)))
    minute = int(here.now // 60 % 1440)
    interval = TimeInterval((Span(times=((minute, minute + 10),)),))
    here.dispatcher.reload(replace(here.config, intervals={"noon": interval}))
    assert await here.put(alert()) == []
    notifications = await here.wait(660.0)
    assert told(notifications) == [("firing", ["Slow firing"])]
    assert 540.0 <= notifications[0].created_at - here.now + 660.0 <= 660.0


async def test_a_held_alert_fires_on_and_is_told_with_its_repetition(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    assert await here.put(alert(no_data_since=here.now)) == []
    (one,) = await here.wait(3600.0)
    assert one.repeated
    assert one.alerts[0].no_data_since is not None


async def test_a_repetition_has_the_newest_text(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.put(alert(says="much too slow"))
    (one,) = await here.wait(3600.0)
    assert one.alerts[0].annotations == (("summary", "much too slow"),)


async def test_a_pushed_alert_ends_unless_it_is_pushed_again(desk, alert: Make, start: float) -> None:
    here = desk()
    await here.put(alert(until=here.now + 90))
    await here.wait(60.0)
    await here.put(alert(until=here.now + 90))
    assert await here.wait(89.0) == []
    (one,) = await here.wait(60.0)
    assert told([one]) == [("resolved", ["Slow resolved"])]
    assert (one.alerts[0].ends_at, one.alerts[0].until) == (start + 150, None)


async def test_an_alert_that_fires_has_no_end_though_one_is_known(desk, alert: Make) -> None:
    here = desk()
    (one,) = await here.put(alert(ends_at=here.now + 300))
    assert (one.alerts[0].ends_at, one.alerts[0].until) == (None, None)
    assert here.dispatcher.alerts()[0].alert.ends_at == here.now + 300


async def test_an_end_for_what_nobody_knows_is_not_told(desk, alert: Make) -> None:
    here = desk()
    assert await here.put(alert(ends_at=here.now)) == []
    assert here.ledger.saved().alerts == ()
    assert here.dispatcher.groups() == []


async def test_alerts_go_as_they_are_to_an_alertmanager(desk, endpoints, alert: Make) -> None:
    both = (endpoints(kind="alertmanager"), endpoints(kind="webhook"))
    here = desk(endpoints=both, inhibitions=[DOWN])
    slow, down = alert("Slow", instance="a"), alert("Down", instance="a")
    notifications = await here.put(slow, down)
    assert [(one.integration, one.alerts[0].name) for one in notifications] == [("webhook[0]", "Down")]
    assert here.forwarded == [("team", [slow, down])]


async def test_what_was_pushed_for_a_time_is_forwarded_when_it_is_up(desk, endpoints, alert: Make) -> None:
    here = desk(endpoints=[endpoints(kind="alertmanager")])
    await here.put(alert(until=here.now + 30))
    await here.wait(31.0)
    assert [alerts[0].ends_at for _, alerts in here.forwarded] == [None, here.now - 1]


async def test_all_that_fires_is_forwarded_by_its_new_routes_after_a_reload_and_a_restart(
    desk, endpoints, alert: Make
) -> None:
    here = desk(
        Route("night", CRITICAL, key='{}/{severity="critical"}'),
        endpoints=(endpoints("team", kind="alertmanager"), endpoints("night", kind="alertmanager")),
    )
    slow, down = alert("Slow", severity="critical"), alert("Down", until=here.now + 600)
    await here.put(slow, down, alert("Over", ends_at=here.now))
    (down,) = [view.alert for view in here.dispatcher.alerts() if view.alert.name == "Down"]
    here.forwarded.clear()
    here.config = replace(here.config, route=replace(here.config.route, routes=()))
    here.dispatcher.reload(here.config)
    assert here.forwarded == [("team", [slow, down])]
    here.forwarded.clear()
    await here.restart()
    assert here.forwarded == [("team", [slow, down])]


async def test_a_reload_routes_anew_and_repeats_nothing(desk, endpoints, alert: Make) -> None:
    here = desk()
    await here.put(alert(instance="a"))
    await here.wait(30.0)
    here.dispatcher.reload(replace(here.config, inhibitions=(DOWN,)))
    assert await here.wait(0.0) == []
    await here.put(alert(instance="b"))
    assert await here.wait(29.0) == []
    assert len(await here.wait(1.0)) == 1
    other = replace(
        here.config, route=replace(here.config.route, receiver="night"), endpoints=(endpoints("night"),)
    )
    here.dispatcher.reload(other)
    assert [(one.receiver, len(one.alerts)) for one in await here.wait(0.0)] == [("night", 2)]


async def test_groups_are_shown_by_their_labels(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert("Slow", instance="b"), alert("Slow", instance="a"), alert("Down", instance="a"))
    await here.put(alert("Slow", instance="c", ends_at=here.now))
    groups = here.dispatcher.groups()
    assert [(group.labels, len(group.alerts)) for group in groups] == [
        ((("alertname", "Down"),), 1),
        ((("alertname", "Slow"),), 2),
    ]
    assert [dict(view.alert.labels)["instance"] for view in groups[1].alerts] == ["a", "b"]


async def test_alerts_are_shown_by_fingerprint_until_they_end(desk, alert: Make) -> None:
    here = desk()
    await here.put(*(alert(instance=str(number)) for number in range(20)))
    await here.put(alert(instance="3", ends_at=here.now))
    prints = [view.alert.fingerprint for view in here.dispatcher.alerts()]
    assert prints == sorted(prints)
    assert len(prints) == 19


async def test_more_pushed_alerts_than_there_is_room_for_are_dropped(desk, alert: Make, monkeypatch) -> None:
    here = desk()
    monkeypatch.setattr(here.dispatcher._alerts, "_most", 2)
    pushed = [alert(instance=str(number), until=here.now + 300) for number in range(5)]
    (one,) = await here.put(*pushed)
    assert len(one.alerts) == 2
    assert "vllm_exporter_notify_alerts_dropped_total 3" in here.page()
    await here.put(alert(instance="0", ends_at=here.now))
    await here.wait(60.0)
    await here.put(pushed[4])
    assert [dict(view.alert.labels)["instance"] for view in here.dispatcher.alerts()] == ["4", "1"]


async def test_whoever_can_push_cannot_keep_the_alerts_of_rules_out(desk, alert: Make, monkeypatch) -> None:
    here = desk()
    monkeypatch.setattr(here.dispatcher._alerts, "_most", 3)
    pushed = [alert(instance=str(number), until=here.now + 300) for number in range(3)]
    await here.put(*pushed)
    assert told(await here.put(alert("Down"))) == [("firing", ["Down firing"])]
    assert told(await here.wait(60.0)) == [("firing", ["Slow firing", "Slow firing", "Slow resolved"])]
    await here.put(pushed[2], alert("Over", ends_at=here.now))
    assert {view.alert.name for view in here.dispatcher.alerts()} == {"Down", "Slow"}
    assert len(await here.put(*(alert(f"Down{number}") for number in range(5)))) == 5
    await here.wait(60.0)
    assert [view.alert.name for view in here.dispatcher.alerts() if view.alert.name == "Slow"] == []
    assert "vllm_exporter_notify_alerts_dropped_total 5" in here.page()


async def test_the_same_alert_twice_in_one_call_is_one(desk, alert: Make) -> None:
    here = desk()
    (one,) = await here.put(alert(), alert(says="worse"))
    assert [each.annotations for each in one.alerts] == [(("summary", "worse"),)]
    await here.put(alert(ends_at=here.now), alert(ends_at=here.now))
    assert told(await here.wait(60.0)) == [("resolved", ["Slow resolved"])]


async def test_what_is_announced_is_told_once_and_leaves_no_alert(desk, endpoints, alert: Make) -> None:
    both = (endpoints("team"), endpoints("night"), endpoints("night", kind="alertmanager"))
    here = desk(endpoints=both)
    here.dispatcher.announce(alert("Report"))
    (one,) = await here.wait(7200.0)
    assert (one.receiver, one.group_labels) == ("team", (("alertname", "Report"),))
    here.dispatcher.announce(alert("Report"), "night")
    assert [(one.number, one.integration) for one in await here.wait(0.0)] == [(2, "webhook[0]")]
    assert here.dispatcher.alerts() == []
    assert here.forwarded == []
    saved = here.ledger.saved()
    assert (saved.alerts, saved.log) == ((), ())


async def test_an_announcement_can_be_silenced(desk, alert: Make) -> None:
    here = desk()
    here.dispatcher.silences.add(
        Silence("", (Matcher("alertname", "=", "Report"),), here.now, here.now + 60, 0.0, "li", "")
    )
    here.dispatcher.announce(alert("Report"))
    assert await here.wait(0.0) == []


async def test_an_end_that_waits_is_told_when_a_reload_breaks_its_group_up(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert())
    await here.put(alert(ends_at=here.now))
    alone = replace(here.config.route, group_by=None, key="{}/{}")
    here.dispatcher.reload(replace(here.config, route=alone))
    assert told(await here.wait(0.0)) == [("resolved", ["Slow resolved"])]


async def test_alerts_that_were_told_do_not_wait_in_the_groups_of_a_reload(desk, alert: Make) -> None:
    here = desk()
    await here.put(alert("Old", starts_at=here.now))
    waiting = replace(here.config.route, group_wait=30.0, group_by=None, key="{}/{}")
    here.dispatcher.reload(replace(here.config, route=waiting))
    assert told(await here.wait(0.0)) == [("firing", ["Old firing"])]
    assert await here.put(alert("New", starts_at=here.now)) == []
    assert len(await here.wait(30.0)) == 1
