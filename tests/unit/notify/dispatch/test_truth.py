"""Whatever happens in between, what an endpoint was last told of an alert is true in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.notify.config.model import Inhibition, Route
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Silence
from exporter.storage.model import Matcher

INTERVAL = 60.0
REPEAT = 1000.0
ROOT = Route(
    "team", group_by=frozenset({"group"}), group_wait=0.0, group_interval=INTERVAL, repeat_interval=REPEAT
)
WAITING = replace(ROOT, group_wait=20.0)
ALONE = replace(ROOT, group_by=None, key="{}/{}")
DOWN = Inhibition((Matcher("alertname", "=", "A0"),), (Matcher("alertname", "=", "A1"),))
NUMBERS = st.integers(0, 5)

STEPS = st.one_of(
    st.tuples(st.just("fire"), st.sets(NUMBERS, min_size=1, max_size=3)),
    st.tuples(st.just("end"), st.sets(NUMBERS, min_size=1, max_size=3)),
    st.tuples(st.just("wait"), st.sampled_from((1.0, 19.0, 45.0, 130.0, 1100.0))),
    st.tuples(st.just("clock"), st.sampled_from((-86400.0, -30.0, 30.0, 86400.0))),
    st.tuples(st.just("restart"), st.sampled_from((-500.0, 0.0, 5.0, 7200.0))),
    st.tuples(st.just("reload"), st.sampled_from((ROOT, WAITING, ALONE))),
    st.tuples(st.just("restart anew"), st.sampled_from((ROOT, WAITING, ALONE))),
    st.tuples(st.just("silence"), NUMBERS),
    st.tuples(st.just("speak"), st.just(0)),
)


class Story:
    """A desk, what is true, and what the endpoint believes."""

    def __init__(self, here) -> None:
        self.here = here
        self.firing: set[int] = set()
        self.unsure: set[int] = set()
        """Those that ended while a silence held them back: of their end nobody hears."""
        self.believes: dict[int, str] = {}
        self.last: dict[str, Notification] = {}

    def hear(self, notifications: list[Notification]) -> None:
        for one in notifications:
            before = self.last.get(one.group_key)
            if before is not None and not one.repeated and one.status == "resolved":
                owed = any(self.believes.get(number(alert)) == "firing" for alert in one.alerts)
                assert owed or before.status == "firing", "an end is told once"
            self.last[one.group_key] = one
            for alert in one.alerts:
                self.believes[number(alert)] = alert.status(one.created_at)

    def silenced(self, number: int) -> bool:
        return any(
            Matcher("alertname", "=", f"A{number}") in silence.matchers
            for silence in self.here.dispatcher.silences.query(("active", "pending"))
        )

    async def step(self, what: str, which) -> None:
        here = self.here
        match what:
            case "fire" | "end":
                alerts = [self.alert(number, what == "end") for number in sorted(which)]
                self.firing = self.firing | which if what == "fire" else self.firing - which
                for number in which:
                    if what == "end" and self.silenced(number):
                        self.unsure.add(number)
                self.hear(await here.put(*alerts))
            case "wait":
                self.hear(await here.wait(which))
            case "clock":
                here.now += which
            case "restart":
                await here.restart(down=which)
            case "reload":
                here.config = replace(here.config, route=which)
                here.dispatcher.reload(here.config)
                self.hear(await here.wait(0.0))
            case "restart anew":
                here.config = replace(here.config, route=which)
                await here.restart()
                self.hear(await here.wait(0.0))
            case "silence":
                matchers = (Matcher("alertname", "=", f"A{which}"),)
                here.dispatcher.silences.add(Silence("", matchers, here.now, here.now + 1e6, 0.0, "li", ""))
                if which not in self.firing:
                    self.unsure.add(which)  # its end may not have been told yet
            case "speak":
                self.speak()

    def speak(self) -> None:
        for silence in self.here.dispatcher.silences.query(("active", "pending")):
            self.here.dispatcher.silences.expire(silence.id)

    def alert(self, number: int, over: bool) -> Alert:
        labels = (("alertname", f"A{number}"), ("group", str(number % 2)))
        return Alert(labels, (), self.here.now - 1.0, self.here.now if over else None)

    async def end(self) -> None:
        self.speak()
        self.hear(await self.here.wait(3 * INTERVAL))
        for number in range(6):
            if number in self.firing:
                if number != 1 or 0 not in self.firing:
                    assert self.believes.get(number) == "firing", number
            elif number not in self.unsure:
                assert self.believes.get(number) != "firing", number
        shown = [view for group in self.here.dispatcher.groups() for view in group.alerts]
        assert sorted(int(view.alert.name[1:]) for view in shown) == sorted(self.firing)
        quiet = await self.here.wait(REPEAT / 2)
        assert all(one.repeated for one in quiet), "nothing has changed"


def number(alert: Alert) -> int:
    return int(alert.name[1:])


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=25))
def test_in_the_end_what_was_told_last_is_true(steps, desk: Callable, loop) -> None:
    async def story() -> None:
        told = Story(desk(root=ROOT, inhibitions=[DOWN]))
        for what, which in steps:
            await told.step(what, which)
        await told.end()

    loop.run_until_complete(story())
