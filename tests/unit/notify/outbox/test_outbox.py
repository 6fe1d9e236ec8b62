"""What is put down is there for the next daemon, whatever the disk does in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.notify.model import Alert, Notification, Outcome
from exporter.notify.outbox import codec, file, kept, rows, writer
from exporter.notify.outbox import outbox as outbox_module
from exporter.notify.outbox.model import Change, LogEntry, Saved, Silence
from exporter.notify.outbox.outbox import Outbox
from exporter.storage.archive_file import FileError
from exporter.storage.model import Matcher

BUSY = Outcome("retry", "the endpoint answered 503", 503, 12.0, "later, 请稍后")
REFUSED = Outcome("refused", "the endpoint answered 400", 400, None, "no")
ENTRY = LogEntry('{}:{alertname="A"}', "r", "webhook[0]", frozenset({1, 2**64 - 1}), frozenset({7}), 5.5)
SILENCE = Silence(
    "3f0c", (Matcher("alertname", "=~", "A|B"), Matcher("x", "!=", "")), 1.0, 2.0, 3.0, "张三", "维护"
)


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LOCK_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notify.db"


def alert(name: str = "A", **more: float | None) -> Alert:
    labels = (("alertname", name), ("model", "通义"), ("odd", "\U0001f600"))
    return Alert(labels, (("summary", "half of a \udc80 character"),), 1.5, **more)  # type: ignore[arg-type]


def notification(number: int, *alerts: Alert) -> Notification:
    return Notification(
        number,
        "r",
        "webhook[0]",
        "{}:{}",
        (("alertname", "A"),),
        alerts or (alert(),),
        100.25,
        number % 2 == 0,
    )


def same(one: Saved, other: Saved) -> bool:
    def bare(saved: Saved) -> tuple[object, ...]:
        return (frozenset(saved.alerts), frozenset(saved.log), frozenset(saved.silences), *saved[3:])

    return bare(one) == bare(other)


async def reopened(outbox: Outbox, path: Path) -> Saved:
    before = outbox.load()
    await outbox.close()
    again = Outbox.open(path)
    after = again.load()
    await again.close()
    assert same(after, before)
    return after


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_everything_comes_back(path: Path) -> None:
    outbox = Outbox.open(path)
    assert same(outbox.load(), Saved())
    alerts = (
        alert(),
        alert("B", ends_at=2.5, updated_at=3.0, no_data_since=4.0, until=5.0),
    )
    assert await outbox.commit(
        Change((notification(1, *alerts), notification(2)), (ENTRY,), alerts, (), (SILENCE,))
    )
    assert await outbox.failed(1, BUSY, 3)
    assert await outbox.bury(2, REFUSED, 1, 77.0) == 0
    saved = await reopened(outbox, path)
    assert saved.pending == (notification(1, *alerts),)
    assert set(saved.alerts) == set(alerts)
    assert saved.log == (ENTRY,) and saved.silences == (SILENCE,)
    assert [(one.notification, one.outcome, one.attempts, one.at) for one in saved.dead] == [
        (notification(2), REFUSED, 1, 77.0)
    ]
    assert saved.next_number == 3
    outbox = Outbox.open(path)
    assert (outbox.attempts(1), outbox.attempts(2)) == (3, 0)
    await outbox.close()


async def test_what_is_struck_off_is_gone_and_its_number_is_never_used_again(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(41),)))
    await outbox.delivered(41)
    saved = await reopened(outbox, path)
    assert saved.pending == () and saved.next_number == 42


async def test_what_is_over_goes(path: Path) -> None:
    outbox = Outbox.open(path)
    big = next(one for n in range(99) if (one := alert(f"n{n}")).fingerprint >= 2**63)
    await outbox.commit(Change((), (ENTRY,), (alert(), big), (), (SILENCE,)))
    gone = (alert().fingerprint, big.fingerprint)
    await outbox.commit(Change(gone=gone, expired_silences=("3f0c",), gone_log=(ENTRY[:3],)))
    assert same(await reopened(outbox, path), Saved())


async def test_newer_takes_the_place_of_older(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((), (ENTRY,), (alert(),), (), (SILENCE,)))
    newer = ENTRY._replace(at=9.0), alert(ends_at=3.0), Silence("3f0c", (), 1.0, 9.0, 8.0, "", "")
    await outbox.commit(Change((), newer[:1], newer[1:2], (), newer[2:]))
    saved = await reopened(outbox, path)
    assert (saved.log, saved.alerts, saved.silences) == (newer[:1], newer[1:2], newer[2:])


async def test_a_dead_letter_is_revived_as_new(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),)))
    await outbox.failed(1, BUSY, 8)
    await outbox.bury(1, REFUSED, 9)
    assert await outbox.revive(1) == notification(1)
    assert await outbox.revive(1) is None and outbox.attempts(1) == 0
    assert (await reopened(outbox, path)).pending == (notification(1),)


async def test_each_notification_knows_the_endpoint_that_it_is_for_over_restarts(path: Path) -> None:
    key, other = ("r", "webhook[0]"), ("r", "webhook[1]")
    outbox = Outbox.open(path)
    hash_key = outbox.identity_key
    await outbox.commit(Change((notification(1),)))
    assert await outbox.changed_identities({key: "a", other: "o"}) == set(), "before, nobody knew"
    await outbox.commit(
        Change((notification(2), notification(3)), (ENTRY, ENTRY._replace(integration="webhook[1]")))
    )
    await outbox.bury(3, REFUSED)
    await outbox.close()
    outbox = Outbox.open(path)
    assert outbox.identity_key == hash_key
    assert [outbox.identity(n) for n in (1, 2, 3)] == ["", "a", "a"]
    assert await outbox.changed_identities({key: "b", other: "o"}) == {key}
    assert await outbox.changed_identities({key: "b", other: "o"}) == set()
    assert [entry.integration for entry in outbox.load().log] == ["webhook[1]"], "b was told of nothing"
    await outbox.commit(Change((notification(4),)))
    await outbox.delivered(2)
    for one in path.parent.iterdir():
        one.unlink()
    await outbox.commit(Change())
    await reopened(outbox, path)
    outbox = Outbox.open(path)
    assert outbox.identity_key == hash_key, "also after all was written anew"
    assert [outbox.identity(n) for n in (1, 2, 3, 4)] == ["", "", "a", "b"]
    assert await outbox.changed_identities({key: "b"}) == {other}, "who is no more"
    await outbox.close()


async def test_without_the_key_of_the_hash_nobody_claims_to_know_an_endpoint(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.changed_identities({("r", "webhook[0]"): "a"})
    await outbox.commit(Change((notification(1),)))
    await outbox.close()
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM hash_key")
    other.close()
    outbox = Outbox.open(path)
    assert outbox.load().pending == (notification(1),) and outbox.identity(1) == ""
    await outbox.close()


async def test_dead_letters_are_bounded_by_number_and_by_alerts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "DEAD_LETTERS", 3)
    monkeypatch.setattr(kept, "DEAD_ALERTS", 10)
    outbox = Outbox.open(path)
    many = tuple(alert(f"n{n}") for n in range(9))
    dropped = 0
    for number, alerts in enumerate([(alert(),)] * 5 + [many, many], 1):
        await outbox.commit(Change((notification(number, *alerts),)))
        dropped += await outbox.bury(number, REFUSED, 1, float(number))
        left = [letter.notification.number for letter in outbox.dead()]
        expected = {5: [3, 4, 5], 6: [5, 6], 7: [7]}
        assert left == expected.get(number, left)
    assert dropped == 6
    saved = await reopened(outbox, path)
    assert [letter.notification.number for letter in saved.dead] == [7]


NAN = float("nan")


@pytest.mark.parametrize(
    "odd",
    [
        Change((replace(notification(2), group_key="half of a \udc80 character"),)),
        Change((replace(notification(2), created_at=NAN),)),
        Change((replace(notification(2), number=1 << 70),)),
        Change((), (ENTRY._replace(at=NAN),)),
        Change((), (ENTRY._replace(firing=frozenset({-1})),)),
        Change((), (), (alert(ends_at=object()),)),  # type: ignore[arg-type]
        Change(gone=("x",)),  # type: ignore[arg-type]
    ],
)
async def test_what_cannot_be_written_down_is_left_out_and_the_file_is_not_to_blame(
    path: Path, odd: Change
) -> None:
    outbox = Outbox.open(path)
    assert await outbox.commit(Change((notification(1),)))
    with capture_logs() as logs:
        odd = odd._replace(notifications=(*odd.notifications, notification(3)))
        assert await outbox.commit(odd), "the rest of it is written"
    assert {line["event"] for line in logs} == {"outbox_row_left_out"} and "character" not in repr(logs)
    assert outbox.stats.set_aside == {} and outbox.stats.problem is None
    for one in path.parent.iterdir():
        one.unlink()
    assert await outbox.commit(Change((notification(4),))), "all of it anew"
    assert outbox.stats.set_aside == {} and outbox.stats.problem is None
    await outbox.close()
    outbox = Outbox.open(path)
    assert [one.number for one in outbox.load().pending] == [1, 3, 4]
    await outbox.close()


async def test_each_dead_letter_that_makes_room_is_told_of_once_however_many_are_buried_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "DEAD_LETTERS", 3)
    outbox = Outbox.open(path)
    await outbox.commit(Change(tuple(map(notification, range(1, 21)))))
    dropped = await asyncio.gather(*(outbox.bury(number, REFUSED) for number in range(1, 21)))
    assert sum(dropped) == 17 and len(outbox.dead()) == 3
    await reopened(outbox, path)


async def test_many_changes_at_once_are_few_transactions(path: Path) -> None:
    outbox = Outbox.open(path)
    assert all(await asyncio.gather(*(outbox.commit(Change((notification(n),))) for n in range(1, 501))))
    assert outbox.stats.writes < 250
    assert len((await reopened(outbox, path)).pending) == 500


async def test_without_a_file_everything_is_kept_in_memory() -> None:
    outbox = Outbox.in_memory()
    assert await outbox.commit(Change((notification(1),)))
    assert outbox.load().pending == (notification(1),)
    assert await outbox.delivered(1)
    assert outbox.load().pending == ()
    await outbox.close()


async def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    await Outbox.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_goes_away_is_written_anew(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),), (ENTRY,), (alert(),), (), (SILENCE,)))
    for one in path.parent.iterdir():
        one.unlink()
    assert await outbox.commit(Change((notification(2),)))
    assert len((await reopened(outbox, path)).pending) == 2


async def test_a_file_that_breaks_is_set_aside_and_written_anew(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),), (ENTRY,), (alert(),), (), (SILENCE,)))
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE notification")
    other.close()
    assert await outbox.commit(Change((notification(2),)))
    assert outbox.stats.set_aside == {"corrupt": 1} and outbox.stats.problem is None
    assert len((await reopened(outbox, path)).pending) == 2


async def test_a_file_that_is_broken_at_the_start_gives_what_can_be_read(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),), (ENTRY,), (alert(),), (), (SILENCE,)))
    await outbox.bury(1, REFUSED, 1)
    await outbox.commit(Change((notification(2),)))
    await outbox.close()
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE alert")
        other.execute("INSERT INTO silence VALUES ('x', '[]')")
    other.close()
    outbox = Outbox.open(path)
    saved = outbox.load()
    assert saved.pending == (notification(2),) and len(saved.dead) == 1
    assert saved.silences == (SILENCE,) and saved.alerts == () and saved.next_number == 3
    assert outbox.stats.set_aside == {"corrupt": 1}
    await outbox.commit(Change((notification(3),)))
    assert len((await reopened(outbox, path)).pending) == 2


@pytest.mark.parametrize("seed", range(12))
async def test_a_file_with_any_damage_costs_no_more_than_what_was_in_it(path: Path, seed: int) -> None:
    dice = random.Random(seed)
    outbox = Outbox.open(path)
    for number in range(1, 40):
        await outbox.commit(Change((notification(number),), (ENTRY,), (alert(f"n{number}"),)))
    await outbox.close()
    data = bytearray(path.read_bytes())
    if seed % 3 == 0:
        del data[dice.randrange(len(data)) :]
    elif seed % 3 == 1:
        start = dice.randrange(len(data))
        data[start : start + 4096] = dice.randbytes(min(4096, len(data) - start))
    else:
        for _ in range(20):
            data[dice.randrange(len(data))] = dice.randrange(256)
    path.write_bytes(bytes(data))
    outbox = Outbox.open(path)
    assert len(outbox.load().pending) <= 39
    assert await outbox.commit(Change((notification(100),)))
    saved = outbox.load()
    await outbox.close()
    outbox = Outbox.open(path)
    assert notification(100) in outbox.load().pending
    assert len(outbox.load().pending) >= len(saved.pending) - 39
    await outbox.close()


async def test_another_programs_file_is_set_aside_untouched(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    outbox = Outbox.open(path)
    assert outbox.stats.set_aside == {"version": 1}
    assert await outbox.commit(Change((notification(1),)))
    await outbox.close()
    with sqlite3.connect(path.with_name("notify.db.broken-1")) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    other.close()


async def test_a_file_of_another_version_is_set_aside(path: Path) -> None:
    await Outbox.open(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    outbox = Outbox.open(path)
    assert outbox.stats.set_aside == {"version": 1} and same(outbox.load(), Saved())
    await outbox.close()


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """What a test sets as RLIMIT_FSIZE goes back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("file_size_limit")
async def test_on_a_full_disk_it_goes_on_in_memory_and_writes_all_when_there_is_room(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    many = tuple(alert(f"n{n}") for n in range(2000))
    assert not await outbox.commit(Change((notification(2),), (), many))
    assert outbox.stats.problem is not None
    assert not await outbox.commit(Change((notification(3),)))
    await outbox.delivered(1)
    assert [one.number for one in outbox.load().pending] == [2, 3]
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await until(lambda: outbox.stats.problem is None)
    saved = await reopened(outbox, path)
    assert [one.number for one in saved.pending] == [2, 3] and len(saved.alerts) == 2000


async def test_a_file_that_cannot_be_written_is_read_and_sending_goes_on(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),)))
    await outbox.close()
    real = file.connect

    def read_only(path: Path) -> sqlite3.Connection:
        raise FileError("read_only", "attempt to write a readonly database")

    file.connect = read_only
    try:
        outbox = Outbox.open(path)
        assert outbox.load().pending == (notification(1),)
        assert not await outbox.delivered(1)
        assert not await outbox.commit(Change((notification(2),)))
        assert outbox.stats.problem == "read_only"
    finally:
        file.connect = real
    await until(lambda: outbox.stats.problem is None)
    assert [one.number for one in (await reopened(outbox, path)).pending] == [2]


async def test_a_file_that_could_not_be_read_at_the_start_is_not_overwritten_later(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),)))
    await outbox.close()
    path.rename(path.with_name("elsewhere"))
    path.mkdir()
    outbox = Outbox.open(path)
    assert outbox.load().pending == () and outbox.stats.problem is not None
    assert not await outbox.commit(Change((notification(2),)))
    path.rmdir()
    path.with_name("elsewhere").rename(path)
    await until(lambda: outbox.stats.problem is None)
    assert outbox.stats.set_aside == {"unread": 1}
    await outbox.close()
    old = Outbox.open(path.with_name("notify.db.broken-1"))
    assert old.load().pending == (notification(1),)
    await old.close()


async def test_a_lock_of_another_process_delays_and_loses_nothing(path: Path) -> None:
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),)))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not await outbox.commit(Change((notification(2),)))
    assert outbox.stats.problem == "locked"
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: outbox.stats.problem is None)
    assert len((await reopened(outbox, path)).pending) == 2


async def test_a_disk_that_hangs_holds_nothing_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "COMMIT_SECONDS", 0.05)
    outbox = Outbox.open(path)
    await outbox.commit(Change((notification(1),)))
    hangs = [True]
    real = rows.write

    def hanging(*arguments: object) -> None:
        while hangs[0]:
            time.sleep(0.002)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "write", hanging)
    assert not await outbox.commit(Change((notification(2),)))
    started = time.monotonic()
    for number in range(3, 50):
        assert not await outbox.commit(Change((notification(number),)))
    assert time.monotonic() - started < 0.05 * 20, "only the first one waited"
    assert outbox.stats.problem == "slow" and outbox.stats.failures["slow"] == 48
    hangs[0] = False
    await until(lambda: outbox.stats.problem is None)
    assert await outbox.commit(Change((notification(50),)))
    assert len((await reopened(outbox, path)).pending) == 50


def test_rows_that_are_not_ours_are_errors_of_one_kind() -> None:
    decoders: list[Callable[[str], object]] = [
        codec.decode_alert,
        codec.decode_alerts,
        codec.decode_labels,
        codec.decode_outcome,
        lambda text: codec.decode_silence("x", text),
    ]
    good = json.loads(codec.encode_alert(alert()))
    wrong = ["", "{", "1", "[]x", '"x"', "[1]", '{"a":1}', "[[1]]", json.dumps([*good[:2], "x", *good[3:]])]
    for decode in decoders:
        for text in wrong:
            with pytest.raises((codec.RowError, TypeError, ValueError)):
                decode(text)
    with pytest.raises(codec.RowError):
        codec.decode_fingerprints(b"123")


TEXTS = st.text(max_size=20)
LABELS = st.dictionaries(TEXTS, TEXTS.filter(bool), max_size=5).map(lambda one: tuple(sorted(one.items())))
TIMES = st.floats(allow_nan=False)
MAYBE = st.none() | TIMES
ALERTS = st.builds(Alert, LABELS, LABELS, TIMES, MAYBE, TIMES, TEXTS, MAYBE, MAYBE)


@settings(max_examples=100)
@given(st.lists(ALERTS, max_size=4).map(tuple), st.sampled_from((1, 3, codec.PACKED_FROM)))
def test_any_alert_survives_its_way_through_the_file(alerts: tuple[Alert, ...], packed_from: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "PACKED_FROM", packed_from)
        assert codec.decode_alerts(codec.encode_alerts(alerts)) == alerts


def test_many_alerts_are_packed_and_never_there_as_one_text() -> None:
    alerts = tuple(alert(f"n{n}") for n in range(10_000))
    length = sum(len(codec.encode_alert(one)) for one in alerts)
    tracemalloc.start()
    packed = codec.encode_alerts(alerts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(packed, bytes) and len(packed) < length / 5
    assert peak < length / 2
    assert codec.decode_alerts(packed) == alerts
    for damaged in (packed[:-1], b"", b"x" + packed):
        with pytest.raises(codec.RowError):
            codec.decode_alerts(damaged)


async def test_rows_are_made_as_they_are_written(path: Path) -> None:
    """All rows of a storm at once took several times what its alerts take."""
    alerts = tuple(alert(f"n{n}") for n in range(10_000))
    connection = file.connect(path)
    tracemalloc.start()
    rows.write(connection, rows.changes((kept.Delta(Change((), (), alerts)),)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert connection.execute("SELECT count(*) FROM alert").fetchone() == (10_000,)
    connection.close()


async def test_ten_thousand_alerts_are_written_in_a_moment(path: Path) -> None:
    outbox = Outbox.open(path)
    alerts = tuple(alert(f"n{n}") for n in range(10_000))
    started = time.process_time()
    assert await outbox.commit(Change((notification(1, *alerts),), (), alerts))
    assert time.process_time() - started < 1.5, "a fifth of a second on an idle machine"
    await outbox.close()
    assert os.path.getsize(path) < 16 << 20
