"""Many streams through a relay on the daemon's own loop, while their tokens are passed on together."""

from __future__ import annotations

import asyncio
import random

import pytest
from gateway_wire import DONE, JSON_OK, Gateway, Message, Wire, gateway, post, sse, token

from exporter.gateway.model import Outcome
from exporter.gateway.relay import coalescing as coalescing_module
from exporter.gateway.relay.polling import RelayLoop, new_event_loop

STREAMS = 30
TOKENS = 200
STEP = 0.004
"""Seconds between two tokens: 7,500 a second in all."""
ASK = post(b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}')


def event(number: int) -> bytes:
    return token(f"{number} " + "字" * (number % 3))


async def respond(request: Message, wire: Wire) -> None:
    if b"stream" not in request.body:
        await wire.send(JSON_OK)
        return
    await wire.send(sse(event(0), end=False))
    due = asyncio.get_running_loop().time()
    for number in range(1, TOKENS):
        due += STEP
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        data = event(number)
        await wire.send(b"%x\r\n%b\r\n" % (len(data), data))
    await wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE))


async def stream(g: Gateway) -> Message:
    await asyncio.sleep(random.random() * 0.2)
    return await g.ask(ASK)


async def leaves(g: Gateway) -> None:
    wire = await g.client()
    await wire.send(ASK)
    await wire.some()
    await asyncio.sleep(TOKENS * STEP / 2)
    wire.abort()


async def rests(g: Gateway) -> Message:
    """Reads nothing for a while."""
    wire = await g.client()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await wire.send(ASK)
    await asyncio.sleep(TOKENS * STEP / 2)
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    return await wire.answer()


def test_streams_that_wait_for_each_other_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing_module, "BUSY", 200.0)  # a slow machine comes to less than 2,000

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), RelayLoop)
        async with gateway(respond) as g:
            assert g.relay._poller is not None
            coalescing = g.relay._poller.coalescing
            assert coalescing is not None
            leaving = [asyncio.create_task(leaves(g)) for _ in range(5)]
            running = [asyncio.create_task(stream(g)) for _ in range(STREAMS)]
            running.append(asyncio.create_task(rests(g)))
            together = 0
            while not all(task.done() for task in running):
                # Others are answered meanwhile.
                assert (await g.ask(post(b'{"model":"m"}'))).body == b"{}"
                together += coalescing.busy
                await asyncio.sleep(0.02)
            assert together, "too few tokens came at a time"
            await asyncio.gather(*leaving)
            whole = b"".join(event(number) for number in range(TOKENS)) + DONE
            for task in running:
                assert task.result().body == whole
            streamed = [exchange for exchange in g.ledger.ended if exchange.stream]
            outcomes = [exchange.outcome for exchange in streamed]
            assert outcomes.count(Outcome.SUCCESS) == STREAMS + 1
            assert outcomes.count(Outcome.ABORTED) == 5
            assert {x.tokens_seen for x in streamed if x.outcome is Outcome.SUCCESS} == {TOKENS}
            async with asyncio.timeout(10):
                while coalescing.busy or coalescing.sockets:
                    await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 60))
