"""The head of an answer whose first token is long in coming."""

from __future__ import annotations

import asyncio

from gateway_wire import Message, Wire, gateway, post, sse, token

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
