"""From the outbox to endpoints that answer as they are told to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.exposition.block import Block
from exporter.notify.delivery import worker
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.delivery.pace import Pace
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Context, Notification, Outcome
from exporter.notify.outbox.model import Change
from exporter.notify.outbox.outbox import Outbox

FAST = Pace(first_wait=0.01, longest_wait=0.02, first_trial=0.02, longest_trial=0.05)
PATIENT = Pace(first_wait=1000.0, longest_wait=1000.0, first_trial=1000.0, longest_trial=1000.0)
DELIVERED = Outcome("delivered", "200 OK", 200)
BUSY = Outcome("retry", "the endpoint answered 503", 503)
REFUSED = Outcome("refused", "the endpoint answered 400", 400, None, "no such channel")


class Endpoint:
    """Answers by script, then takes everything."""

    kind = "webhook"
    send_resolved = True
    timeout = 5.0

    def __init__(self, *script: Outcome | Exception) -> None:
        self.script = deque(script)
        self.attempts: list[int] = []
        self.got: list[int] = []
        self.closed = 0
        self.close_raises: Exception | None = None
        self.close_hangs = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, notification: Notification, context: Context) -> Outcome:
        self.attempts.append(notification.number)
        await self.gate.wait()
        outcome = self.script.popleft() if self.script else DELIVERED
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.result == "delivered":
            self.got.append(notification.number)
        return outcome

    async def close(self) -> None:
        self.closed += 1
        if self.close_hangs:
            await asyncio.sleep(3600)
        if self.close_raises is not None:
            raise self.close_raises


def notification(number: int, group: str = "g", receiver: str = "r", at: float = 1000.0) -> Notification:
    alerts = (Alert((("alertname", group), ("number", str(number))), (), 1.0),)
    return Notification(number, receiver, "webhook[0]", group, (), alerts, at)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


class Rig:
    """Delivery to some endpoints by their receivers' names, over an outbox in memory."""

    def __init__(
        self,
        endpoints: dict[str, Endpoint],
        pace: Pace,
        give_up_after: float,
        outbox: Outbox,
        identities: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.outbox = outbox
        self.block = Block()
        self.clock = 1000.0
        self.outcomes: list[tuple[int, str]] = []
        self.delivery = Delivery(
            {(name, "webhook[0]"): endpoint for name, endpoint in endpoints.items()},
            self.outbox,
            identities=identities,
            give_up_after=give_up_after,
            context=lambda: Context("http://box:9108", 1000.0),
            metrics=NotifyMetrics(self.block),
            observe=lambda one, outcome: self.outcomes.append((one.number, outcome.result)),
            pace=pace,
            clock=lambda: self.clock,
            draw=lambda: 1.0,
        )

    async def put(self, *notifications: Notification) -> None:
        await self.outbox.commit(Change(notifications))
        self.delivery.take(notifications)

    def value(self, name: str, **labels: str) -> float | None:
        for series, value in zip(*self.block.columns(), strict=True):
            if series.name == f"vllm_exporter_{name}" and labels.items() <= dict(series.labels).items():
                return value
        return None


@asynccontextmanager
async def rigged(
    pace: Pace = FAST,
    give_up_after: float = 1000.0,
    outbox: Outbox | None = None,
    identities: Mapping[tuple[str, str], str] | None = None,
    **endpoints: Endpoint,
) -> AsyncIterator[Rig]:
    rig = Rig(endpoints, pace, give_up_after, outbox or Outbox.in_memory(), identities)
    task = asyncio.create_task(rig.delivery.run())
    try:
        yield rig
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await rig.outbox.close()


async def test_what_is_delivered_is_struck_off_and_counted() -> None:
    endpoint = Endpoint()
    async with rigged(r=endpoint) as rig:
        assert rig.value("notifications_total", outcome="failed") == 0
        assert rig.value("notification_circuit_state", state="closed") == 1
        await rig.put(notification(1), notification(2))
        await until(lambda: not rig.outbox.load().pending)
        assert endpoint.got == [1, 2]
        assert rig.value("notifications_total", outcome="delivered") == 2
        assert rig.value("notification_attempts_total", result="delivered") == 2
        assert rig.value("notifications_pending") == 0


async def test_what_was_pending_before_a_start_is_sent_first_and_in_order() -> None:
    endpoint = Endpoint()
    rig = Rig({"r": endpoint}, FAST, 1000.0, Outbox.in_memory())
    await rig.put(notification(1), notification(2), notification(3))
    task = asyncio.create_task(rig.delivery.run())
    await until(lambda: endpoint.got == [1, 2, 3])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert endpoint.closed == 1


async def test_failures_are_retried_and_told_of_once() -> None:
    endpoint = Endpoint(BUSY, BUSY, BUSY)
    with capture_logs() as logs:
        async with rigged(r=endpoint) as rig:
            await rig.put(notification(1))
            await until(lambda: endpoint.got == [1])
            await until(lambda: not rig.outbox.load().pending)
            assert rig.value("notifications_total", outcome="failed") == 2, (
                "not the first: it may be a hiccup"
            )
            assert rig.value("notification_attempts_total", result="retry") == 3
    events = [line["event"] for line in logs]
    assert events == ["notifications_failing", "notifications_delivered_again"]
    assert rig.outcomes == [(1, "retry")] * 3 + [(1, "delivered")]


async def test_a_refused_one_becomes_a_dead_letter_that_can_be_sent_again() -> None:
    endpoint = Endpoint(REFUSED)
    with capture_logs() as logs:
        async with rigged(r=endpoint) as rig:
            await rig.put(notification(1), notification(2))
            await until(lambda: endpoint.got == [2])
            (letter,) = rig.outbox.dead()
            assert (letter.notification.number, letter.outcome, letter.attempts) == (1, REFUSED, 1)
            assert rig.value("notifications_dead_letters") == 1
            assert rig.value("notifications_total", outcome="dead") == 1
            assert not await rig.delivery.resend(99)
            assert await rig.delivery.resend(1)
            await until(lambda: endpoint.got == [2, 1])
            await until(lambda: not rig.outbox.load().pending)
            assert rig.outbox.dead() == () and rig.value("notifications_dead_letters") == 0
    assert [(one["event"], one["answer"]) for one in logs] == [("notification_dead", "no such channel")]


A, B = "identity of a", "identity of b"
KEY = ("r", "webhook[0]")


async def test_what_was_for_the_endpoint_that_stood_in_a_place_before_does_not_go_to_the_one_that_stands_there_now(
    tmp_path: Path,
) -> None:
    outbox = Outbox.open(tmp_path / "notify.db")
    assert await outbox.changed_identities({KEY: A}) == set()
    await outbox.commit(Change((notification(1), notification(2))))
    await outbox.bury(2, REFUSED, 1)
    await outbox.close()
    outbox = Outbox.open(tmp_path / "notify.db")
    assert await outbox.changed_identities({KEY: B}) == {KEY}
    endpoint = Endpoint()
    async with rigged(outbox=outbox, identities={KEY: B}, r=endpoint) as rig:
        rig.delivery.take(outbox.load().pending)
        await rig.put(notification(3))
        await until(lambda: not outbox.load().pending and len(outbox.dead()) == 2)
        assert endpoint.attempts == [3]
        assert outbox.dead()[1].outcome.detail == "its endpoint is not configured any more"
        assert not await rig.delivery.resend(1) and not await rig.delivery.resend(2)
        assert len(outbox.dead()) == 2


async def test_when_another_endpoint_takes_a_place_what_waits_there_does_not_go_to_it() -> None:
    a, b = Endpoint(), Endpoint()
    a.gate.clear()
    outbox = Outbox.in_memory()
    await outbox.changed_identities({KEY: A})
    async with rigged(PATIENT, outbox=outbox, identities={KEY: A}, r=a) as rig:
        await rig.put(notification(1), notification(2))
        await until(lambda: a.attempts == [1])
        await outbox.changed_identities({KEY: B})
        await rig.delivery.replace({KEY: b}, {KEY: B})
        await rig.put(notification(3))
        await until(lambda: b.got == [3])
        a.gate.set()
        await until(lambda: a.closed == 1 and not outbox.load().pending)
        assert (a.got, b.attempts) == ([1], [3])
        assert [letter.notification.number for letter in outbox.dead()] == [2]
        await until(lambda: rig.value("notifications_pending") == 0)


async def test_new_settings_of_the_same_endpoint_leave_it_what_waits() -> None:
    old, new = Endpoint(BUSY), Endpoint()
    outbox = Outbox.in_memory()
    await outbox.changed_identities({KEY: A})
    async with rigged(PATIENT, outbox=outbox, identities={KEY: A}, r=old) as rig:
        await rig.put(notification(1))
        await until(lambda: outbox.attempts(1) == 1)
        await rig.delivery.replace({KEY: new}, {KEY: A})
        await until(lambda: new.got == [1])


async def test_what_comes_while_an_old_receiver_is_slow_to_close_finds_its_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "CLOSE_SECONDS", 0.05)
    old, new = Endpoint(), Endpoint()
    old.close_hangs = True
    async with rigged(r=old) as rig:
        replacing = asyncio.create_task(rig.delivery.replace({KEY: Endpoint(), ("new", "webhook[0]"): new}))
        await until(lambda: old.closed == 1)
        await rig.put(notification(1, receiver="new"))
        await replacing
        await until(lambda: new.got == [1])
        assert [one.receiver for one in rig.delivery.status()] == ["r", "new"]


async def test_a_dead_letter_whose_endpoint_is_gone_stays() -> None:
    async with rigged(r=Endpoint(REFUSED)) as rig:
        await rig.put(notification(1))
        await until(lambda: bool(rig.outbox.dead()))
        await rig.delivery.replace({})
        assert not await rig.delivery.resend(1)
        assert len(rig.outbox.dead()) == 1


async def test_an_endpoint_that_does_not_hear_of_ends_hears_no_late_news_of_what_has_ended() -> None:
    endpoint = Endpoint(*[BUSY] * 1000)
    endpoint.send_resolved = False
    async with rigged(r=endpoint) as rig:
        fires, report = notification(1, "g"), notification(2, "report")
        await rig.outbox.commit(Change(alerts=fires.alerts))
        await rig.put(fires, report)
        await until(lambda: rig.outbox.attempts(1) > 1 and rig.outbox.attempts(2) > 1)
        await rig.outbox.commit(Change(gone=(fires.alerts[0].fingerprint,)))
        await until(lambda: [one.number for one in rig.outbox.load().pending] == [2])
        assert rig.value("notifications_total", outcome="superseded") == 1
        endpoint.script.clear()
        await until(lambda: endpoint.got == [2])


async def test_what_fails_too_long_is_given_up() -> None:
    endpoint = Endpoint(*[BUSY] * 1000)
    async with rigged(r=endpoint, give_up_after=0.05) as rig:
        await rig.put(notification(1))
        await until(lambda: bool(rig.outbox.dead()))
        (letter,) = rig.outbox.dead()
        assert letter.outcome.detail == "given up: the endpoint answered 503"
        assert letter.attempts == len(endpoint.attempts)


async def test_what_waits_for_an_endpoint_that_is_down_has_a_bound_and_the_oldest_become_dead_letters() -> (
    None
):
    endpoint = Endpoint(*[BUSY] * 1000)
    async with rigged(replace(PATIENT, most_alerts=10), r=endpoint) as rig:
        for number in range(1, 41):
            await rig.put(notification(number, at=1000.0 + number / 100))
        await until(lambda: len(rig.outbox.load().pending) == 10)
        assert [one.number for one in rig.outbox.load().pending] == list(range(31, 41))
        letters = rig.outbox.dead()
        assert [letter.notification.number for letter in letters] == list(range(1, 31))
        assert all(letter.outcome.detail.startswith("given up") for letter in letters)
        assert rig.value("notifications_total", outcome="dead") == 30


async def test_an_endpoint_that_hangs_delays_no_other() -> None:
    hanging, well = Endpoint(), Endpoint()
    hanging.gate.clear()
    async with rigged(bad=hanging, good=well) as rig:
        await rig.put(*(notification(n, f"g{n}", "bad") for n in range(1, 11)))
        await rig.put(*(notification(n, f"g{n}", "good") for n in range(11, 21)))
        await until(lambda: len(well.got) == 10)
        assert len(hanging.attempts) == 4 and hanging.got == []
        assert rig.value("notifications_pending", receiver="bad") == 10


async def test_every_task_says_whose_it_is() -> None:
    endpoint = Endpoint()
    endpoint.gate.clear()
    async with rigged(r=endpoint) as rig:
        await rig.put(notification(7))
        await until(lambda: endpoint.attempts == [7])
        await rig.delivery.replace({KEY: endpoint, ("new", "webhook[0]"): Endpoint()})
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {"notify r webhook[0]", "notify r webhook[0] #7", "notify new webhook[0]"} <= names


async def test_an_attempt_ends_with_its_time() -> None:
    endpoint = Endpoint()
    endpoint.gate.clear()
    endpoint.timeout = 0.02
    async with rigged(PATIENT, r=endpoint) as rig:
        await rig.put(notification(1))
        await until(lambda: rig.outbox.attempts(1) == 1)
        (status,) = rig.delivery.status()
        assert status.last_outcome == Outcome("retry", "no answer within 0.02 s")
        (queued,) = status.queue
        assert queued.attempts == 1 and not queued.in_flight
        assert queued.next_attempt == pytest.approx(2000, abs=60) and queued.gives_up_at > 1900


async def test_a_bug_in_a_receiver_is_a_failure_of_it_alone_and_shows_no_secret() -> None:
    endpoint, well = Endpoint(ValueError("https://hooks/secret")), Endpoint()
    with capture_logs() as logs:
        async with rigged(bad=endpoint, good=well) as rig:
            await rig.put(notification(1, receiver="bad"), notification(2, receiver="good"))
            await until(lambda: endpoint.got == [1] and well.got == [2])
    assert "receiver_broken" in [line["event"] for line in logs]
    assert "secret" not in repr(logs)


async def test_an_endpoint_that_stays_away_is_left_alone_and_its_circuit_shows() -> None:
    endpoint = Endpoint(*[BUSY] * 5)
    pace = Pace(first_wait=0.001, longest_wait=0.001, first_trial=1000.0)
    async with rigged(pace, r=endpoint) as rig:
        await rig.put(notification(1))
        await until(lambda: rig.value("notification_circuit_state", state="open") == 1)
        await rig.put(notification(2))
        await asyncio.sleep(0.01)
        assert endpoint.attempts == [1] * 5
        (status,) = rig.delivery.status()
        assert status.circuit == "open" and status.failures == 5
        assert status.next_trial == pytest.approx(2000, abs=60)
        mended = Endpoint()
        await rig.delivery.replace({("r", "webhook[0]"): mended})
        await until(lambda: mended.got == [1, 2])
        assert endpoint.closed == 1
        assert rig.value("notification_circuit_state", state="closed") == 1


async def test_a_reload_hurries_no_endpoint_whose_settings_stay() -> None:
    limited, down = Endpoint(Outcome("retry", "429", 429, 500.0)), Endpoint(*[BUSY] * 5)
    pace = Pace(first_wait=0.001, longest_wait=0.001, first_trial=1000.0)
    async with rigged(pace, limited=limited, down=down) as rig:
        await rig.put(notification(1, receiver="limited"), notification(2, receiver="down"))
        await until(lambda: rig.outbox.attempts(1) == 1 and rig.outbox.attempts(2) == 5)
        places = [("limited", "webhook[0]"), ("down", "webhook[0]")]
        fresh = {key: Endpoint() for key in places}
        await rig.delivery.replace(fresh, unchanged=set(places))
        await rig.put(notification(3, "other", receiver="limited"), notification(4, "other", receiver="down"))
        await asyncio.sleep(0.02)
        assert [one.attempts for one in fresh.values()] == [[], []]
        assert [one.circuit for one in rig.delivery.status()] == ["closed", "open"]
        mended = {key: Endpoint() for key in places}
        await rig.delivery.replace(mended, unchanged={places[0]})
        await until(lambda: sorted(mended[places[1]].got) == [2, 4])
        assert mended[places[0]].attempts == []


async def test_whether_late_news_is_withdrawn_is_for_the_settings_as_they_are_now_to_say() -> None:
    old, new = Endpoint(*[BUSY] * 1000), Endpoint(*[BUSY] * 1000)
    async with rigged(r=old) as rig:
        fires = notification(1)
        await rig.outbox.commit(Change(alerts=fires.alerts))
        await rig.put(fires)
        await until(lambda: rig.outbox.attempts(1) > 0)
        await rig.outbox.commit(Change(gone=(fires.alerts[0].fingerprint,)))
        await until(lambda: rig.outbox.attempts(1) > 3)
        new.send_resolved = False
        await rig.delivery.replace({KEY: new})
        await until(lambda: not rig.outbox.load().pending)
        assert rig.value("notifications_total", outcome="superseded") == 1


async def test_an_endpoint_that_is_replaced_in_the_middle_of_an_attempt_ends_it_first() -> None:
    old, new = Endpoint(), Endpoint()
    old.gate.clear()
    async with rigged(r=old) as rig:
        await rig.put(notification(1), notification(2))
        await until(lambda: old.attempts == [1])
        await rig.delivery.replace({("r", "webhook[0]"): new})
        assert old.closed == 0 and new.attempts == []
        old.gate.set()
        await until(lambda: new.got == [2])
        assert old.got == [1] and old.closed == 1


@pytest.mark.parametrize("hangs", [False, True])
async def test_an_endpoint_that_cannot_be_closed_neither_ends_the_daemon_nor_doubles_what_it_was_told(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CLOSE_SECONDS", 0.02)

    def bad() -> Endpoint:
        endpoint = Endpoint()
        endpoint.close_hangs, endpoint.close_raises = hangs, RuntimeError("https://hooks/secret")
        return endpoint

    busy, idle, gone, last = bad(), bad(), bad(), bad()
    busy.gate.clear()
    with capture_logs() as logs:
        async with rigged(r=busy, idle=idle, gone=gone) as rig:
            await rig.put(notification(1))
            await until(lambda: busy.attempts == [1])
            await rig.delivery.replace({("r", "webhook[0]"): last, ("idle", "webhook[0]"): Endpoint()})
            busy.gate.set()
            await until(lambda: bool(busy.closed and idle.closed and gone.closed))
            await rig.put(notification(2))
            await until(lambda: not rig.outbox.load().pending)
            assert (busy.got, last.got) == ([1], [2])
            await until(lambda: len(logs) == 3)
        assert last.closed == 1
    events = [line["event"] for line in logs]
    assert events == ["receiver_not_closed"] * 4 and "secret" not in repr(logs)


async def test_what_waits_for_an_endpoint_that_is_no_more_becomes_a_dead_letter() -> None:
    endpoint, other = Endpoint(), Endpoint()
    endpoint.gate.clear()
    async with rigged(r=endpoint) as rig:
        await rig.put(notification(1), notification(2))
        await until(lambda: endpoint.attempts == [1])
        await rig.delivery.replace({("other", "webhook[0]"): other})
        assert rig.value("notifications_total", receiver="r") is None
        endpoint.gate.set()
        await until(lambda: endpoint.closed == 1)
        assert endpoint.got == [1]
        await rig.put(notification(3), notification(4, receiver="other"))
        await until(lambda: len(rig.outbox.dead()) == 2)
        assert [letter.notification.number for letter in rig.outbox.dead()] == [2, 3]
        await until(lambda: other.got == [4])
        assert [one.receiver for one in rig.delivery.status()] == ["other"]


async def test_settling_waits_for_a_first_attempt_of_everything() -> None:
    endpoint, stuck = Endpoint(BUSY), Endpoint()
    async with rigged(PATIENT, r=endpoint) as rig:
        await rig.put(notification(1, "a"), notification(2, "b"))
        assert await rig.delivery.settle(20)
        assert endpoint.got == [2] and [one.number for one in rig.outbox.load().pending] == [1]
    stuck.gate.clear()
    async with rigged(PATIENT, r=stuck) as rig:
        await rig.put(notification(1))
        assert not await rig.delivery.settle(0.02)


async def test_settling_waits_for_a_second_attempt_that_is_under_way_and_begins_no_third() -> None:
    endpoint = Endpoint(BUSY, BUSY)
    async with rigged(r=endpoint) as rig:
        await rig.put(notification(1))
        await until(lambda: rig.outbox.attempts(1) == 1)
        endpoint.gate.clear()
        await until(lambda: endpoint.attempts == [1, 1])
        settling = asyncio.create_task(rig.delivery.settle(20))
        await asyncio.sleep(0.01)
        assert not settling.done(), "cut off, it may have arrived and would come again after the restart"
        endpoint.gate.set()
        assert await settling
        assert rig.outbox.attempts(1) == 2
        await asyncio.sleep(0.1)
        assert endpoint.attempts == [1, 1]


async def test_settling_does_not_wait_for_an_endpoint_that_is_left_alone() -> None:
    endpoint = Endpoint(*[BUSY] * 5)
    pace = Pace(first_wait=0.001, longest_wait=0.001, first_trial=1000.0)
    async with rigged(pace, r=endpoint) as rig:
        await rig.put(notification(1))
        await until(lambda: rig.value("notification_circuit_state", state="open") == 1)
        await rig.put(notification(2), notification(3, "other"))
        async with asyncio.timeout(10):
            assert await rig.delivery.settle(1000)
        assert endpoint.attempts == [1] * 5


async def test_settling_gives_everything_that_was_never_tried_its_turn() -> None:
    endpoint = Endpoint(Outcome("refused", "400", 400), *[BUSY] * 2)
    async with rigged(PATIENT, r=endpoint) as rig:
        await rig.put(*(notification(n, f"g{n % 10}") for n in range(1, 31)))
        assert await rig.delivery.settle(20)
        assert sorted(set(endpoint.attempts)) == sorted(endpoint.attempts)
        behind = [one.number for one in rig.outbox.load().pending]
        assert len(behind) == 6, "two that failed, and what waits behind them in their groups"


async def test_attempts_of_the_life_before_count(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path / "notify.db")
    await outbox.commit(Change((notification(1),)))
    await outbox.failed(1, BUSY, 6)
    await outbox.close()
    outbox = Outbox.open(tmp_path / "notify.db")
    endpoint = Endpoint(REFUSED)
    async with rigged(outbox=outbox, r=endpoint) as rig:
        rig.delivery.take(outbox.load().pending)
        await until(lambda: bool(outbox.dead()))
        assert outbox.dead()[0].attempts == 7


@pytest.mark.parametrize("step", [-1e6, 1e6])
async def test_a_clock_that_is_set_while_something_waits_neither_hurries_it_nor_gives_it_up(
    step: float,
) -> None:
    endpoint = Endpoint(BUSY)
    async with rigged(PATIENT, give_up_after=3600.0, r=endpoint) as rig:
        await rig.put(notification(1))
        await until(lambda: rig.outbox.attempts(1) == 1)
        rig.clock += step
        rig.delivery.take(())
        await rig.put(notification(2, "other", at=rig.clock))
        await until(lambda: endpoint.got == [2])
        assert endpoint.attempts == [1, 2] and rig.outbox.dead() == ()
        (status,) = rig.delivery.status()
        assert status.queue[0].next_attempt == pytest.approx(rig.clock + 1000.0, abs=60)


async def test_a_clock_that_jumps_gives_nothing_up_untried() -> None:
    endpoint = Endpoint()
    async with rigged(r=endpoint, give_up_after=10.0) as rig:
        await rig.put(notification(1, at=-1e9), notification(2, at=1e9))
        await until(lambda: endpoint.got == [1, 2])
        assert rig.value("notification_delay_seconds_count") == 2
