from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from exporter.notify.dispatch.writing import Writing
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Change, LogEntry, Silence
from exporter.storage.model import Matcher

Make = Callable[..., Alert]


class SlowLedger:
    """Writes when the test says so."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.may_write = asyncio.Event()
        self.works = True

    async def commit(self, change: Change) -> bool:
        self.changes.append(change)
        await self.may_write.wait()
        return self.works


def noted(number: int) -> Change:
    return Change(notifications=(Notification(number, "team", "webhook[0]", "{}:{}", (), (), 0.0),))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_nothing_is_handed_on_before_it_is_written() -> None:
    ledger, sent = SlowLedger(), list[Notification]()
    writing = Writing(ledger, sent.extend)
    running = asyncio.create_task(writing.run())
    writing.add(noted(1))
    await until(lambda: len(ledger.changes) == 1)
    writing.add(noted(2))
    writing.add(noted(3))
    assert sent == []
    ledger.may_write.set()
    await until(lambda: len(sent) == 3)
    assert [one.number for one in sent] == [1, 2, 3]
    assert [len(change.notifications) for change in ledger.changes] == [1, 2]
    running.cancel()


async def test_what_cannot_be_written_is_handed_on_all_the_same() -> None:
    ledger, sent = SlowLedger(), list[Notification]()
    ledger.works = False
    ledger.may_write.set()
    writing = Writing(ledger, sent.extend)
    writing.add(noted(1))
    await writing.drain()
    assert len(sent) == 1


async def test_what_is_being_written_when_the_end_comes_is_handed_on() -> None:
    ledger, sent = SlowLedger(), list[Notification]()
    writing = Writing(ledger, sent.extend)
    running = asyncio.create_task(writing.run())
    writing.add(noted(1))
    await until(lambda: len(ledger.changes) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    ledger.may_write.set()
    await until(lambda: len(sent) == 1)


async def test_what_was_gathered_before_the_end_is_written_and_handed_on_by_who_drains_after_it() -> None:
    ledger, sent = SlowLedger(), list[Notification]()
    writing = Writing(ledger, sent.extend)
    running = asyncio.create_task(writing.run())
    writing.add(noted(1))
    await until(lambda: len(ledger.changes) == 1)
    writing.add(noted(2))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    draining = asyncio.create_task(writing.drain())
    await asyncio.sleep(0)
    assert sent == []
    ledger.may_write.set()
    await draining
    assert [one.number for one in sent] == [1, 2]


async def test_who_drains_waits_for_what_is_being_written_though_nothing_else_is_there() -> None:
    ledger, sent = SlowLedger(), list[Notification]()
    writing = Writing(ledger, sent.extend)
    running = asyncio.create_task(writing.run())
    writing.add(noted(1))
    await until(lambda: len(ledger.changes) == 1)
    waiting = asyncio.create_task(writing.drain())  # before the end, and after it
    await asyncio.sleep(0)
    running.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    ledger.may_write.set()
    await waiting
    assert len(sent) == 1


async def test_a_ledger_that_breaks_breaks_the_writing_and_not_the_handing_on() -> None:
    class Broken:
        async def commit(self, change: Change) -> bool:
            raise OSError("a bug")

    sent = list[Notification]()
    writing = Writing(Broken(), sent.extend)
    writing.add(noted(1))
    with pytest.raises(OSError, match="a bug"):
        await writing.drain()
    assert len(sent) == 1
    await writing.drain()


async def test_of_what_touches_the_same_thing_the_later_rules(alert: Make) -> None:
    ledger = SlowLedger()
    ledger.may_write.set()
    writing = Writing(ledger, lambda notifications: None)
    here, gone, back = alert("A"), alert("B"), alert("C")
    entry = LogEntry("{}:{}", "team", "webhook[0]", frozenset({1}), frozenset(), 1.0)
    closed = entry._replace(group_key="{}:{a}")
    writing.add(Change(alerts=(here, gone), gone=(back.fingerprint,), log=(entry, closed)))
    writing.add(Change(alerts=(back,), gone=(gone.fingerprint,), gone_log=(closed[:3],)))
    writing.add(Change(log=(entry._replace(at=2.0),)))
    await writing.drain()
    (change,) = ledger.changes
    assert change == Change(
        alerts=(here, back),
        gone=(gone.fingerprint,),
        log=(entry._replace(at=2.0),),
        gone_log=(closed[:3],),
    )


async def test_a_silence_that_was_forgotten_and_comes_back_is_written() -> None:
    ledger = SlowLedger()
    ledger.may_write.set()
    writing = Writing(ledger, lambda notifications: None)
    silence = Silence("one", (Matcher("a", "=", "b"),), 0.0, 9.0, 0.0, "li", "")
    writing.add(Change(expired_silences=("one",)))
    writing.add(Change(silences=(silence,)))
    await writing.drain()
    assert ledger.changes == [Change(silences=(silence,))]


async def test_where_nothing_is_new_nothing_is_written() -> None:
    ledger = SlowLedger()
    await Writing(ledger, lambda notifications: None).drain()
    assert ledger.changes == []
