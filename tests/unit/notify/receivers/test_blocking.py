from __future__ import annotations

import asyncio
import threading

import pytest

from exporter.notify.receivers.blocking import BusyError, Threads


async def test_a_call_gives_what_it_returns_or_raises() -> None:
    threads = Threads("test")
    assert await threads.call(lambda: 6 * 7, 5) == 42
    with pytest.raises(ZeroDivisionError):
        await threads.call(lambda: 1 // 0, 5)


async def test_calls_that_hang_hold_a_place_until_they_return() -> None:
    threads = Threads("test", most=2)
    release = threading.Event()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await threads.call(release.wait, 0.01)
    with pytest.raises(BusyError):
        await threads.call(lambda: None, 5)
    release.set()
    for _ in range(500):
        try:
            assert await threads.call(lambda: "free", 5) == "free"
            return
        except BusyError:
            await asyncio.sleep(0.01)
    raise AssertionError("the place is never free again")


def test_a_call_that_returns_after_the_loop_has_ended_harms_nobody() -> None:
    release = threading.Event()
    threads = Threads("late")

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await threads.call(release.wait, 0.01)

    asyncio.run(give_up())
    late = [thread for thread in threading.enumerate() if thread.name == "late"]
    assert [thread.daemon for thread in late] == [True]
    release.set()
    late[0].join(5)
    assert not late[0].is_alive()
