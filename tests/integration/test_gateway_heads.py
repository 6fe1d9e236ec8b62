"""The head of an answer whose first token is long in coming."""

from __future__ import annotations

import asyncio

from gateway_wire import Message, Wire, gateway, post, sse, token

from exporter.gateway.model import Outcome

STREAM = post(b'{"model":"m","stream":true}')


async def test_a_head_does_not_wait_for_the_first_token_for_long() -> None:
    """Requests that vLLM has queued have their head at once; a proxy before us may give up on one that has none."""
    go_on = asyncio.Event()

    async def respond(request: Message, wire: Wire) -> None:
        head, _, rest = sse(token()).partition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n")
        await go_on.wait()
        await wire.send(rest)

    async with gateway(respond) as g:
        client = await g.client()
        await client.send(STREAM)
        head = await asyncio.wait_for(client.some(), 5.0)
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        go_on.set()
        assert b"data: " in await asyncio.wait_for(client.some(), 5.0)
        client.close()


async def test_a_stream_whose_head_alone_has_gone_out_still_tells_of_its_failure() -> None:
    """Its client was cut off without a word, for no whole event had been sent before: nor had a part of one."""

    async def respond(request: Message, wire: Wire) -> None:
        head, _, _ = sse(token()).partition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n")
        await wire.rest()

    async with gateway(respond, read_timeout=600.0) as g:
        client = await g.client()
        await client.send(STREAM)
        head = await asyncio.wait_for(client.some(), 5.0)
        assert head.endswith(b"\r\n\r\n")
        g.clock.ahead += 601.0
        assert b'"code":"engine_timeout"' in await asyncio.wait_for(client.rest(), 5.0)
        assert (await g.ledger.wait()).outcome is Outcome.TIMEOUT
