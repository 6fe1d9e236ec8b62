"""What took a message stays told of it, however slow the rest of its answer is: telling it twice is worse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from exporter.notify.config.receivers import KINDS
from exporter.notify.model import Context, Notification, Outcome, Receiver

pytest.importorskip("apprise")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


async def test_an_answer_whose_head_is_there_in_time_counts_whatever_the_kind(
    start: Any,
    reach: Callable[..., Receiver],
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    given_up = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await writer.drain()
        await given_up.wait()

    async def attempt(receiver: Receiver) -> Outcome:
        async with asyncio.timeout(receiver.timeout):  # as delivery does
            return await receiver.send(make_notification(), context)

    kinds = sorted(KINDS.keys() - {"email", "msteams"})  # email speaks no HTTP, msteams is msteamsv2
    endpoint = await start(slowly)
    outcomes = await asyncio.gather(
        *(attempt(reach(kind, endpoint.url, timeout="1s")) for kind in kinds), return_exceptions=True
    )
    given_up.set()
    told = {kind: getattr(outcome, "result", outcome) for kind, outcome in zip(kinds, outcomes, strict=True)}
    assert told == dict.fromkeys(kinds, "delivered")


@pytest.mark.parametrize("kind", ["telegram", "discord", "msteamsv2", "apprise"])
async def test_a_connection_that_is_lost_within_the_answers_body_takes_nothing_back(
    kind: str,
    start: Any,
    reach: Callable[..., Receiver],
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    async def lose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"{")
        await writer.drain()

    endpoint = await start(lose)
    outcome = await reach(kind, endpoint.url).send(make_notification(), context)
    assert (outcome.result, outcome.code) == ("delivered", 200)
