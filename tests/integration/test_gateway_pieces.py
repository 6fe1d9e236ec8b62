"""An answer that comes in one piece is handled in one go: its client and its exchange see what they see of any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from gateway_wire import DONE, Message, Respond, Wire, gateway, post, token

from exporter.gateway.model import Exchange, Outcome

USAGE = b'{"choices":[{"index":0,"text":"a"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


def said(status: bytes, body: bytes, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    head = [
        version + b" " + status,
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *lines,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def in_pieces(answer: bytes, pieces: int) -> Respond:
    async def respond(request: Message, wire: Wire) -> None:
        step = -(-len(answer) // pieces)
        for at in range(0, len(answer), step):
            await wire.send(answer[at : at + step])
            await asyncio.sleep(0.01)

    return respond


def told(got: Message, exchange: Exchange) -> tuple[object, ...]:
    """What the client got, and what is known of it."""
    return (
        got.head,
        got.body,
        got.whole,
        exchange.outcome,
        exchange.reason,
        exchange.status,
        exchange.input_tokens,
        exchange.output_tokens,
    )


@pytest.mark.parametrize("line", ["X-Kept: 1", "Connection: close"])
@pytest.mark.parametrize(
    "answer",
    [
        said(b"200 OK", USAGE),
        said(b"200 OK", b"no JSON"),
        said(b"200 OK", b""),
        said(b"200 OK", USAGE, b"X-Request-Id: theirs"),
        said(b"200 OK", USAGE, b"Content-Encoding: gzip"),
        said(b"200 OK", USAGE, b"Connection: close"),
        said(b"400 Bad Request", b'{"error":{}}'),
        said(b"500 Internal Server Error", b"{}"),
        said(b"503 Service Unavailable", b"{}"),
        said(b"200 OK", USAGE, version=b"HTTP/1.0"),
    ],
)
async def test_an_answer_is_the_same_in_one_piece_and_in_two(answer: bytes, line: str) -> None:
    seen = []
    for pieces in (1, 2):
        async with gateway(in_pieces(answer, pieces)) as g:
            got = await g.ask(post(b'{"model":"m"}', "X-Request-Id: mine", line))
            exchange = await g.ledger.wait()
            seen.append((*told(got, exchange), exchange.response_bytes, g.gate.running, g.relay.held_bytes))
    assert seen[0] == seen[1]
    assert seen[0][2]


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = token()
FINISH = b'data: {"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}\n\n'
COUNTS = (
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2},"system_fingerprint":"f"}\n\n'
)


@pytest.mark.parametrize("asked", ["", ',"stream_options":{"include_usage":true}'])
@pytest.mark.parametrize(
    "events",
    [
        [TOKEN],
        [TOKEN, TOKEN, FINISH, COUNTS, DONE],
        [TOKEN, COUNTS],
        [FINISH, COUNTS, DONE],
        [COUNTS, DONE],
        [TOKEN[:30], TOKEN[30:] + TOKEN, DONE],
        [TOKEN + b"data: {", b"}\n\n", DONE],
        [b": ping\n\n", TOKEN, b'data: {"error":{"type":"InternalServerError","message":"m"}}\n\n', DONE],
    ],
)
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"", b"zz\r\n", b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"])
async def test_a_stream_is_the_same_whatever_comes_with_its_head(
    events: list[bytes], asked: str, end: bytes
) -> None:
    """What is plain goes out before it is read: the client and the exchange see no difference."""
    seen = []
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    for together in (0, 1, len(chunks)):

        async def respond(request: Message, wire: Wire, together: int = together) -> None:
            await wire.send(STREAM + b"".join(chunks[:together]))
            await asyncio.sleep(0.02)
            await wire.send(b"".join(chunks[together:]))
            await asyncio.sleep(0.02)
            await wire.send(end)
            wire.close()

        async with gateway(respond) as g:
            got = await g.ask(post(b'{"model":"m","stream":true%b}' % asked.encode(), "X-Request-Id: mine"))
            exchange = await g.ledger.wait()
            seen.append((*told(got, exchange), exchange.tokens_seen, g.gate.running))
    assert seen[0] == seen[1] == seen[2]


async def test_a_head_without_a_body_goes_out_with_the_next_look() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(STREAM)
        await asyncio.Event().wait()

    async with gateway(respond) as g:
        wire = await g.client()
        await wire.send(post(b'{"model":"m","stream":true}'))
        (connection,) = g.relay._connections
        async with asyncio.timeout(10):
            while connection.passage is None or connection.passage._answer is None:
                await asyncio.sleep(0.001)
        assert connection.due <= g.relay.now or not connection.passage._answer.head_out


async def test_whoever_has_the_beginning_of_an_answer_gets_no_other_one_behind_it() -> None:
    """Whatever fails here after that: a second answer would be taken for the next request's."""

    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(STREAM + b"%x\r\n%b\r\n" % (len(TOKEN), TOKEN))
        await asyncio.Event().wait()

    def fails(model: str) -> Callable[[float], None]:
        raise MemoryError

    async with gateway(respond, respond) as g:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        g.ledger.gap = fails  # type: ignore[method-assign]
        wire = await g.client()
        await wire.send(post(b'{"model":"m","stream":true}'))
        got = await wire.rest()
        exchange = await g.ledger.wait()
    assert got.count(b"HTTP/1.1") == 1
    assert (exchange.outcome, exchange.tries) == (Outcome.TRUNCATED, 1)
