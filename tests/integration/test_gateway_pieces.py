"""An answer that comes in one piece is handled in one go: its client and its exchange see what they see of any other."""

from __future__ import annotations

import asyncio

import pytest
from gateway_wire import DONE, Message, Respond, Wire, gateway, post, token

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
            seen.append(
                (
                    got.head,
                    got.body,
                    got.whole,
                    exchange.outcome,
                    exchange.reason,
                    exchange.status,
                    exchange.input_tokens,
                    exchange.output_tokens,
                    exchange.response_bytes,
                    g.gate.running,
                    g.relay.held_bytes,
                )
            )
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
            seen.append(
                (
                    got.head,
                    got.body,
                    got.whole,
                    exchange.outcome,
                    exchange.reason,
                    exchange.status,
                    exchange.input_tokens,
                    exchange.output_tokens,
                    exchange.tokens_seen,
                    g.gate.running,
                )
            )
    assert seen[0] == seen[1] == seen[2]
