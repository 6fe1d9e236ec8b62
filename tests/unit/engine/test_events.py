from __future__ import annotations

import asyncio

from exporter.engine.events import Cleared, Exited, Inbox, Scraped, StopAsked


async def test_events_come_in_the_order_in_which_they_were_posted() -> None:
    inbox = Inbox()
    inbox.post(Scraped(None, 1.0))
    inbox.ask_stop()
    assert await inbox.next() == Scraped(None, 1.0)
    assert await inbox.next() == StopAsked()
    assert inbox.stops == 1


async def test_events_of_a_life_that_is_over_are_dropped_and_those_of_no_life_are_not() -> None:
    inbox = Inbox()
    inbox.life = 2
    inbox.post(Exited(1, 0, 0.0))
    inbox.post(Scraped(None, 1.0))
    inbox.post(Cleared(2))
    assert await inbox.next() == Scraped(None, 1.0)
    assert await inbox.next() == Cleared(2)


async def test_a_deadline_that_has_passed_gives_what_is_there_and_then_nothing() -> None:
    inbox = Inbox()
    past = asyncio.get_running_loop().time() - 1.0
    inbox.ask_stop()
    assert await inbox.next(past) == StopAsked()
    assert await inbox.next(past) is None


async def test_an_event_that_comes_later_is_waited_for() -> None:
    inbox = Inbox()
    asyncio.get_running_loop().call_soon(inbox.ask_stop)
    assert await inbox.next() == StopAsked()
