"""Alerts are pushed to real Alertmanagers at once, again, and until they have long been over."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.exposition.block import Block
from exporter.notify.forward import (
    BATCH,
    RESOLVED_SECONDS,
    Forwarder,
    Standing,
    alertmanagers,
    pause_seconds,
)
from exporter.notify.model import Alert, Outcome

NOW = 1_700_000_000.0
TAKEN = Outcome("delivered", "am:9093 answered 200", 200)
DOWN = Outcome("retry", "cannot connect to am:9093: connection refused")
BAD = Outcome("refused", "am:9093 answered 400", 400, answer="no labels")


def alert(number: int = 0, **changes: Any) -> Alert:
    values: dict[str, Any] = {"annotations": (), "starts_at": NOW - 10, **changes}
    return Alert(labels=(("alertname", "A"), ("n", str(number))), **values)


class Peer:
    """An Alertmanager that answers as it is told, the last answer for ever."""

    def __init__(self, *outcomes: Outcome, name: str = "am:9093") -> None:
        self.name = name
        self.outcomes = list(outcomes) or [TAKEN]
        self.batches: list[list[Alert]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    async def post(self, alerts: Any, now: float) -> Outcome:
        self.batches.append(list(alerts))
        await self.gate.wait()
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    async def close(self) -> None:
        self.closed = True

    async def until(self, batches: int) -> None:
        async with asyncio.timeout(10):
            while len(self.batches) < batches:
                await asyncio.sleep(0)
            await asyncio.sleep(0)


class Running:
    """A forwarder in its task."""

    def __init__(self, *peers: Peer, **options: Any) -> None:
        self.block = Block()
        self.time = 0.0
        self.forwarder = Forwarder(
            peers,  # type: ignore[arg-type]
            self.block,
            clock=lambda: NOW + self.time,
            timer=lambda: self.time,
            **options,
        )

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.forwarder.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.forwarder.close()

    def page(self) -> str:
        return self.block.render(openmetrics=False).decode()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses after failures are noted and not made; the resend's minute is for ever."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds == 60.0:
            await asyncio.Event().wait()
        if seconds:
            pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("exporter.notify.forward.asyncio.sleep", sleep)
    return pauses


async def test_every_alert_reaches_every_alertmanager_in_batches() -> None:
    one, other = Peer(name="a:1"), Peer(name="b:2")
    async with Running(one, other) as running:
        running.forwarder.put([alert(n) for n in range(150)])
        await one.until(3)
        await other.until(3)
        assert [len(batch) for batch in one.batches] == [BATCH, BATCH, 22]
        assert one.batches == other.batches
        assert 'alerts_sent_total{alertmanager="a:1"} 150' in running.page()
        assert 'alerts_queued{alertmanager="b:2"} 0' in running.page()
    assert one.closed


async def test_what_is_known_already_is_not_pushed_at_once_and_what_changed_is() -> None:
    peer = Peer()
    async with Running(peer) as running:
        running.forwarder.put([alert()])
        await peer.until(1)
        running.forwarder.put([alert(updated_at=NOW + 1)])
        running.forwarder.put([alert(1)])
        await peer.until(2)
        running.forwarder.put([alert(annotations=(("value", "2"),)), alert(1, ends_at=NOW)])
        await peer.until(3)
    assert peer.batches[1] == [alert(1)]
    assert peer.batches[2] == [alert(annotations=(("value", "2"),)), alert(1, ends_at=NOW)]


async def test_all_is_pushed_again_and_an_alert_that_ended_for_a_quarter_of_an_hour() -> None:
    peer = Peer()
    async with Running(peer) as running:
        running.forwarder.put([alert(0), alert(1, ends_at=NOW)])
        await peer.until(1)
        running.time = RESOLVED_SECONDS
        running.forwarder.resend()
        await peer.until(2)
        assert len(peer.batches[1]) == 2
        running.time = RESOLVED_SECONDS + 1
        running.forwarder.resend()
        await peer.until(3)
        assert peer.batches[2] == [alert(0)]
        assert running.forwarder.standing() == (alert(0),)


async def test_what_is_not_routed_here_any_more_after_a_reload_is_pushed_as_ended() -> None:
    peer, other = Peer(), Peer()
    before = Running(other).forwarder
    before.put([alert(0), alert(1), alert(2, ends_at=NOW - 5), alert(3, until=NOW + 60), alert(4)])
    async with Running(peer) as running:
        running.forwarder.put([alert(0), alert(4, annotations=(("value", "2"),))])
        running.forwarder.take_over(before)
        await peer.until(1)
    assert peer.batches == [
        [
            alert(0),
            alert(4, annotations=(("value", "2"),)),
            alert(1, ends_at=NOW),
            alert(2, ends_at=NOW - 5),
            alert(3, ends_at=NOW),
        ]
    ]
    assert other.batches == []


async def test_what_was_taken_over_and_comes_back_fires_again() -> None:
    peer = Peer()
    before = Running(Peer()).forwarder
    before.put([alert()])
    async with Running(peer) as running:
        running.forwarder.take_over(before)
        await peer.until(1)
        running.forwarder.put([alert()])
        await peer.until(2)
    assert peer.batches == [[alert(ends_at=NOW)], [alert()]]


async def test_an_alertmanager_that_is_away_gets_it_all_when_it_is_back(no_waiting: list[float]) -> None:
    peer = Peer(DOWN, DOWN, DOWN, TAKEN)
    with capture_logs() as logs:
        async with Running(peer) as running:
            running.forwarder.put([alert()])
            await peer.until(4)
            page = running.page()
    assert peer.batches == [[alert()]] * 4
    assert [0.5 <= pauses / 2**n <= 1.0 for n, pauses in enumerate(no_waiting)] == [True] * 3
    assert [(one["event"], one.get("failures")) for one in logs] == [
        ("alertmanager_push_failed", None),
        ("alertmanager_push_recovered", 3),
    ]
    assert 'alerts_failed_total{alertmanager="am:9093"} 3' in page
    assert "alerts_dropped_total 0" in page


async def test_what_is_refused_is_counted_and_not_tried_again_until_the_next_round() -> None:
    peer = Peer(BAD, TAKEN)
    with capture_logs() as logs:
        async with Running(peer) as running:
            running.forwarder.put([alert()])
            await peer.until(1)
            running.forwarder.put([alert(1)])
            await peer.until(2)
            assert "alerts_dropped_total 1" in running.page()
            running.forwarder.resend()
            await peer.until(3)
    assert peer.batches == [[alert()], [alert(1)], [alert(), alert(1)]]
    assert logs[0]["answer"] == "no labels"


async def test_a_bug_in_pushing_is_logged_without_its_words_and_others_go_first(
    no_waiting: list[float],
) -> None:
    class Broken(Peer):
        async def post(self, alerts: Any, now: float) -> Outcome:
            outcome = await super().post(alerts, now)
            if alert(0) in alerts and len(self.batches) < 3:
                raise ValueError("http://user:geheim@am:9093/")
            return outcome

    peer = Broken()
    with capture_logs() as logs:
        async with Running(peer) as running:
            running.forwarder.put([alert(n) for n in range(BATCH + 1)])
            await peer.until(4)
            assert 'alerts_queued{alertmanager="am:9093"} 0' in running.page()
    assert len(no_waiting) == 2
    assert alert(BATCH) in peer.batches[1]
    assert sum(len(batch) for batch in peer.batches[2:]) == BATCH + 1
    assert [one["event"] for one in logs][:2] == ["alertmanager_push_broken", "alertmanager_push_failed"]
    assert "geheim" not in repr(logs)


async def test_one_that_hangs_delays_no_other() -> None:
    stuck, fine = Peer(name="stuck:1"), Peer(name="fine:2")
    stuck.gate.clear()
    async with Running(stuck, fine) as running:
        for n in range(5):
            running.forwarder.put([alert(n)])
            await fine.until(n + 1)
        assert len(stuck.batches) == 1
        assert 'alerts_queued{alertmanager="stuck:1"} 5' in running.page()
        stuck.gate.set()
        await stuck.until(2)
    assert stuck.batches[1] == [alert(n) for n in range(1, 5)]


async def test_an_alert_that_ends_while_it_is_pushed_is_pushed_again() -> None:
    peer = Peer()
    peer.gate.clear()
    async with Running(peer) as running:
        running.forwarder.put([alert()])
        await peer.until(1)
        running.forwarder.put([alert(ends_at=NOW)])
        peer.gate.set()
        await peer.until(2)
    assert peer.batches == [[alert()], [alert(ends_at=NOW)]]


async def test_more_alerts_than_there_is_room_for_are_counted_and_said_once() -> None:
    peer = Peer()
    with capture_logs() as logs:
        async with Running(peer, capacity=3) as running:
            running.forwarder.put([alert(n) for n in range(5)])
            running.forwarder.put([alert(9)])
            assert "alerts_dropped_total 3" in running.page()
    assert [one["event"] for one in logs] == ["alertmanager_alerts_dropped"]


def test_room_is_made_by_those_that_ended_first() -> None:
    standing = Standing(2)
    standing.put([alert(0, ends_at=NOW), alert(1)], NOW, 0.0)
    assert standing.put([alert(2)], NOW, 0.0) == [alert(2).fingerprint]
    assert list(standing.alerts.values()) == [alert(1), alert(2)]
    assert standing.dropped == 0


def test_an_alert_that_fires_again_is_no_longer_over() -> None:
    standing = Standing()
    standing.put([alert(ends_at=NOW)], NOW, 0.0)
    standing.put([alert(starts_at=NOW + 5)], NOW + 5, 5.0)
    assert standing.again(5 * RESOLVED_SECONDS) == [alert().fingerprint]


@pytest.mark.parametrize(
    ("failures", "retry_after", "least", "most"),
    [
        (1, None, 0.5, 1.0),
        (2, None, 1.0, 2.0),
        (50, None, 15.0, 30.0),
        (1, 20.0, 20.0, 20.0),
        (1, 1e9, 300.0, 300.0),
    ],
)
def test_pauses_double_and_a_server_that_names_a_time_is_heeded(
    failures: int, retry_after: float | None, least: float, most: float
) -> None:
    assert pause_seconds(failures, retry_after, 0.0) == least
    assert pause_seconds(failures, retry_after, 1.0) == most


async def test_addresses_of_the_settings_are_shown_by_host_and_port_only() -> None:
    (target,) = alertmanagers([SecretStr("https://user:pw@am.example.org/prefix?token=geheim")])
    assert target.name == "am.example.org:443"
    assert "geheim" not in repr(target)
    assert alertmanagers([]) == ()
    await target.close()
