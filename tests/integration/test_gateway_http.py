"""The relay on the wire: what passes, what does not, and how it ends."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import Callable

import pytest
from gateway_wire import (
    DONE,
    JSON_OK,
    USAGE,
    Message,
    Wire,
    answering,
    chunked,
    gateway,
    get,
    post,
    sse,
    token,
)

from exporter.gateway.admission.fleet import Standing
from exporter.gateway.keys.check import Keys
from exporter.gateway.keys.key import Key, digest
from exporter.gateway.model import Outcome


class SwallowingEngine:
    """Reads bodies without keeping them, slowly; with `early`, an answer that comes before the body."""

    def __init__(self, early: bytes = b"") -> None:
        self.early = early

    async def stream(self, head: Message, wire: Wire) -> None:
        if self.early:
            await wire.send(self.early)
        left = int(head["content-length"])
        while left:
            piece = await wire.some()
            if not piece:
                return
            left -= len(piece)
            await asyncio.sleep(0)
        await wire.send(JSON_OK)

    async def __call__(self, request: Message, wire: Wire) -> None:
        raise AssertionError("it streams")


STREAM = b'{"model":"m","stream":true}'


async def test_a_request_goes_to_the_engine_as_it_came_and_its_answer_comes_back_as_it_was_given() -> None:
    body = b'{ "model" : "m", "prompt": "\xc3\xa4" }'
    async with gateway(answering(JSON_OK)) as g:
        answer = await g.ask(post(body, "X-Odd-CASE: Kept", "traceparent: 00-1-2-03", "X-Request-Id: mine"))
        assert answer.status == 200
        assert answer.body == b"{}"
        assert answer["x-request-id"] == "mine"
        request = g.engine.requests[0]
        assert request.line == b"POST /v1/completions HTTP/1.1"
        assert (
            b"\r\nHost: g\r\nContent-Type: application/json\r\nX-Odd-CASE: Kept\r\ntraceparent: 00-1-2-03\r\n"
            in request.head
        )
        assert request["x-request-id"] == "mine"
        assert request["x-forwarded-for"] == "127.0.0.1"
        assert request["x-forwarded-proto"] == "http"
        assert request.body == body
        exchange = await g.ledger.wait()
        assert (exchange.outcome, exchange.status, exchange.model) == (Outcome.SUCCESS, 200, "m")
        assert g.gate.running == 0


async def test_a_request_id_is_made_where_there_is_none_and_is_the_same_on_both_sides() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        first, second = await wire.ask(post()), await wire.ask(post())
        made = [answer["x-request-id"] for answer in (first, second)]
        assert made == [request["x-request-id"] for request in g.engine.requests]
        assert made == [exchange.request_id for exchange in g.ledger.ended]
        assert len(set(made)) == 2
        assert all(len(one) == 32 and int(one, 16) for one in made)


async def test_a_head_that_comes_again_with_another_length_is_recognised() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        bodies = [b'{"model":"m","prompt":"%b"}' % (b"x" * size) for size in (0, 5, 500, 5)]
        for body in bodies:
            assert (await wire.ask(post(body))).status == 200
        assert [request.body for request in g.engine.requests] == bodies
        assert len({len(request.all("content-length")) for request in g.engine.requests}) == 1
        assert g.engine.connections == 1


async def test_headers_for_one_hop_do_not_go_on_in_either_direction() -> None:
    reply = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 2\r\n"
        b"content-length: 0\r\n\r\n"
    )
    async with gateway(answering(reply)) as g:
        lines = ("Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: 5", "TE: trailers", "Proxy-Authorization: x",
                 "Upgrade: h2c", "HTTP2-Settings: AAA", "X-Kept: 1", "Trailer: x")  # fmt: skip
        answer = await g.ask(post(b"{}", *lines))
        gone = (
            "connection",
            "x-mine",
            "keep-alive",
            "te",
            "proxy-authorization",
            "upgrade",
            "http2-settings",
            "trailer",
        )
        request = g.engine.requests[0]
        assert not [name for name in gone if name in request]
        assert request["x-kept"] == "1"
        assert not [name for name in ("connection", "x-hop", "keep-alive") if name in answer]
        assert answer["x-kept"] == "2"


async def test_who_asked_before_us_is_kept_and_we_come_last() -> None:
    async with gateway(answering(JSON_OK)) as g:
        await g.ask(get("/health", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"))
        assert g.engine.requests[0]["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"
        assert g.engine.requests[0]["x-forwarded-proto"] == "https"


async def test_the_absolute_form_goes_on_in_origin_form_with_its_own_authority_as_host() -> None:
    async with gateway(answering(JSON_OK)) as g:
        answer = await g.ask(b"GET http://other:81/health?a=b HTTP/1.1\r\nHost: g\r\n\r\n")
        assert answer.status == 200
        assert g.engine.requests[0].line == b"GET /health?a=b HTTP/1.1"
        assert g.engine.requests[0]["host"] == "other:81"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health HTTP/1.1\nHost: g\n\n\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: g\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: g\r\nA: b\0c\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost : g\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: g\rX: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET  /health HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\nHost: g\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"PLAY /health RTSP/1.0\r\nHost: g\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET ftp://g/health HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET health HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET /health#x HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET /v1/../health HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET http://g/v1/../health HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET /%68ealth HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"POST /sleep HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", 404),
        (b"CONNECT g:80 HTTP/1.1\r\nHost: g\r\n\r\n", 501),
        (b"DELETE /health HTTP/1.1\r\nHost: g\r\n\r\n", 405),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 2, 2\r\n\r\n{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: +2\r\n\r\n{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: -2\r\n\r\n{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.0\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\n", 417),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400),
    ],
)  # fmt: skip
async def test_what_could_be_read_in_two_ways_is_refused_and_never_reaches_the_engine(
    sent: bytes, status: int
) -> None:
    async with gateway(answering(JSON_OK)) as g:
        answer = await g.ask(sent)
        assert answer.status == status
        error = json.loads(answer.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert answer["content-type"] == "application/json"
        assert "x-request-id" in answer
        assert g.engine.requests == []
        assert (await g.ledger.wait()).outcome is Outcome.CLIENT_ERROR


async def test_after_a_request_that_breaks_http_the_connection_is_closed() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        answer = await wire.ask(b"GET /health HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n" + get())
        assert answer["connection"] == "close"
        assert await wire.is_closed()
        assert g.engine.requests == []


async def test_a_405_says_what_is_allowed() -> None:
    async with gateway(answering(JSON_OK)) as g:
        answer = await g.ask(b"DELETE /v1/completions HTTP/1.1\r\nHost: g\r\n\r\n")
        assert "POST" in answer["allow"]


async def test_an_upgrade_is_ignored_and_the_request_answered() -> None:
    async with gateway(answering(JSON_OK)) as g:
        lines = (
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        )
        answer = await g.ask(post(b'{"model":"m"}', *lines))
        assert answer.status == 200
        assert "upgrade" not in g.engine.requests[0]
        assert g.engine.requests[0].body == b'{"model":"m"}'


async def test_a_head_too_long_or_of_too_many_fields_is_refused() -> None:
    async with gateway(answering(JSON_OK), head_limit=4096) as g:
        assert (await g.ask(get("/health", "X: " + "y" * 5000))).status == 431
        assert (await g.ask(b"GET /health HTTP/1.1\r\nHost: g\r\nX: " + b"y" * 5000)).status == 431
        assert (await g.ask(get("/health", *["A: b"] * 200))).status == 431
        assert g.engine.requests == []


async def test_a_request_that_comes_byte_by_byte_is_the_same_request() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        for byte in b"\r\n" + post(b'{"model":"m"}'):
            await wire.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await wire.answer()).status == 200
        assert g.engine.requests[0].body == b'{"model":"m"}'


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body)
        )

    async with gateway(respond) as g:
        wire = await g.client()
        bodies = [b'{"model":"m","n":%d}' % number for number in range(300)]
        await wire.send(b"".join(post(body) for body in bodies) + get("/nowhere"))
        assert [(await wire.answer()).body for _ in bodies] == bodies
        assert (await wire.answer()).status == 404
        assert g.gate.running == 0


async def test_a_thousand_refusals_in_one_read_do_not_pile_up() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        await wire.send(get("/x") * 2000)
        assert [(await wire.answer()).status for _ in range(2000)] == [404] * 2000


async def test_what_follows_a_chunked_body_at_once_is_not_guessed_at() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await wire.ask(head + chunked(b'{"model":"m"}') + get())
        assert answer.status == 200
        assert answer["connection"] == "close"
        assert await wire.is_closed()
        assert len(g.engine.requests) == 1


async def test_a_chunked_json_body_reaches_the_engine_whole() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(2):
            assert (await wire.ask(head + chunked(b'{"mod', b'el":"m"}'))).status == 200
        assert [request.body for request in g.engine.requests] == [b'{"model":"m"}'] * 2
        assert g.engine.requests[0]["content-length"] == "13"
        assert (await g.ledger.wait(2)).model == "m"


async def test_http_1_0_gets_no_chunks_and_is_closed() -> None:
    async with gateway(answering(sse(token(), DONE))) as g:
        wire = await g.client()
        body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
        await wire.send(post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await wire.answer()
        assert "transfer-encoding" not in answer
        assert answer["connection"] == "close"
        assert answer.body == token() + DONE
        assert g.engine.requests[0].line.endswith(b"HTTP/1.1")


async def test_http_1_0_may_ask_to_be_kept() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        for _ in range(2):
            answer = await wire.ask(get("/health", "Connection: keep-alive", version="HTTP/1.0"))
            assert answer["connection"] == "keep-alive"
        assert (await wire.ask(get("/health", version="HTTP/1.0")))["connection"] == "close"
        assert await wire.is_closed()


async def test_a_client_that_wants_to_close_is_closed() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        answer = await wire.ask(post(b"{}", "Connection: close"))
        assert answer["connection"] == "close"
        assert await wire.is_closed()
        assert "connection" not in g.engine.requests[0]


async def test_head_204_and_304_have_no_body_whatever_they_say() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        if request.line.startswith(b"HEAD"):
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        elif b"no" in request.line:
            await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await wire.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")

    async with gateway(respond) as g:
        wire = await g.client()
        answer = await wire.ask(b"HEAD /health HTTP/1.1\r\nHost: g\r\n\r\n", to_head=True)
        assert (answer.status, answer["content-length"]) == (200, "5")
        assert (await wire.ask(get("/health?no"))).status == 204
        assert (await wire.ask(get("/health?304"))).status == 304
        answer = await wire.ask(b"HEAD /nowhere HTTP/1.1\r\nHost: g\r\n\r\n", to_head=True)
        assert answer.status == 404
        assert (await wire.ask(get("/health?304"))).status == 304
        assert g.engine.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nab")
        await asyncio.sleep(0.01)
        await wire.send(b"cd")
        wire.close()

    async with gateway(respond) as g:
        wire = await g.client()
        for _ in range(2):
            answer = await wire.ask(get())
            assert (answer.body, answer["transfer-encoding"]) == (b"abcd", "chunked")
        assert g.engine.connections == 2


async def test_interim_answers_of_the_engine_are_dropped() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with gateway(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + early + JSON_OK)) as g:
        wire = await g.client()
        assert [(await wire.ask(get())).status for _ in range(3)] == [200, 200, 200]
        assert g.engine.connections == 1


async def test_chunks_and_trailers_of_an_answer_pass_as_they_are() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with gateway(answering(raw)) as g:
        wire = await g.client()
        await wire.send(get("/health", "X-Request-Id: i"))
        answer = await wire.answer()
        assert (answer.body, answer.trailers) == (b"abcd", b"X-Sum: 1\r\n")
        assert (await wire.ask(get())).trailers == b"X-Sum: 1\r\n"


async def test_a_stream_arrives_token_by_token() -> None:
    go = asyncio.Event()

    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(sse(token("a"), end=False))
        await go.wait()
        await wire.send(chunked(token("b"), DONE))

    async with gateway(respond) as g:
        wire = await g.client()
        await wire.send(post(STREAM))
        seen = b""
        while token("a") not in seen:
            seen += await wire.some()
        go.set()
        while not seen.endswith(b"0\r\n\r\n"):
            seen += await wire.some()
        exchange = await g.ledger.wait()
        assert (exchange.outcome, exchange.tokens_seen, exchange.stream) == (Outcome.SUCCESS, 2, True)
        assert exchange.first_token is not None


async def test_usage_is_asked_for_and_hidden_from_a_client_that_did_not_ask() -> None:
    async with gateway(answering(sse(token(), USAGE, DONE))) as g:
        answer = await g.ask(post(STREAM))
        assert answer.body == token() + DONE
        assert json.loads(g.engine.requests[0].body)["stream_options"] == {"include_usage": True}
        exchange = await g.ledger.wait()
        assert (exchange.input_tokens, exchange.output_tokens) == (3, 2)


async def test_usage_stays_for_a_client_that_asked_for_it_and_its_bytes_are_the_engines() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    stream = sse(token(), USAGE, DONE)
    async with gateway(answering(stream)) as g:
        wire = await g.client()
        await wire.send(post(body))
        answer = await wire.answer()
        assert answer.body == token() + USAGE + DONE
        assert g.engine.requests[0].body == body
        assert (await g.ledger.wait()).output_tokens == 2


async def test_the_tokens_of_a_whole_answer_are_counted() -> None:
    reply = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(reply)

    async def in_two(request: Message, wire: Wire) -> None:
        await wire.send(head)
        await asyncio.sleep(0.01)
        await wire.send(reply[:10])
        await asyncio.sleep(0.01)
        await wire.send(reply[10:])

    for respond in (answering(head + reply), in_two):
        async with gateway(respond) as g:
            assert (await g.ask(post())).body == reply
            exchange = await g.ledger.wait()
            assert (exchange.input_tokens, exchange.output_tokens) == (7, 9)


async def test_expect_100_continue_is_answered_before_the_body_is_sent() -> None:
    async with gateway(answering(JSON_OK)) as g:
        for path in ("/v1/completions", "/v1/audio/transcriptions"):
            wire = await g.client()
            await wire.send(post(b"", "Expect: 100-continue", path=path, length=13))
            assert (await wire.answer()).status == 100
            assert (await wire.ask(b'{"model":"m"}')).status == 200
        assert [request.body for request in g.engine.requests] == [b'{"model":"m"}'] * 2
        assert "expect" not in g.engine.requests[0]


async def test_a_refusal_before_the_body_is_final() -> None:
    async with gateway(answering(JSON_OK), body_limit=1024) as g:
        wire = await g.client()
        answer = await wire.ask(post(b"", "Expect: 100-continue", length=5000))
        assert answer.status == 413
        assert answer["connection"] == "close"
        assert await wire.is_closed()
        assert g.engine.connections == 0


async def test_a_chunked_body_that_grows_too_large_is_refused() -> None:
    async with gateway(answering(JSON_OK), body_limit=4096) as g:
        for path in ("/v1/completions", "/v1/audio/transcriptions"):
            wire = await g.client()
            await wire.send(f"POST {path} HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            await wire.send(b"1000\r\n" + b"x" * 4096 + b"\r\n1000\r\n" + b"x" * 4096)
            assert (await wire.answer()).status == 413
        assert all(not request.whole for request in g.engine.requests)


async def test_a_large_upload_streams_with_little_memory() -> None:
    size = 64 << 20
    piece = bytes(1 << 20)

    async with gateway(SwallowingEngine()) as g:
        wire = await g.client()
        await wire.send(post(b"", path="/v1/audio/transcriptions", length=size))
        for _ in range(size // len(piece)):
            await wire.send(piece)
            assert g.relay.held_bytes == 0
        assert (await wire.answer()).status == 200
        assert (await g.ledger.wait()).request_bytes > size


async def test_a_chunked_upload_goes_on_in_chunks_with_its_trailers() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        await wire.send(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        )
        await wire.send(b"3;a=b\r\nabc\r\n")
        await asyncio.sleep(0.02)
        await wire.send(b"2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n")
        assert (await wire.answer()).status == 200
        request = g.engine.requests[0]
        assert (request.body, request.trailers) == (b"abcde", b"X-Sum: 7\r\n")
        assert request["transfer-encoding"] == "chunked"
        assert (await wire.ask(get())).status == 200


async def test_a_json_body_beyond_what_is_read_streams_through() -> None:
    body = b'{"model":"m","prompt":"' + b"x" * 200_000 + b'"}'
    async with gateway(answering(JSON_OK), peek_limit=65536) as g:
        assert (await g.ask(post(body))).status == 200
        head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await g.ask(head + chunked(body[:100_000], body[100_000:]))).status == 200
        assert [request.body for request in g.engine.requests] == [body, body]
        assert g.relay.held_bytes == 0


async def test_all_held_bodies_together_are_bounded() -> None:
    async with gateway(answering(JSON_OK)) as g:
        g.relay.held_limit = 100_000
        wires = [await g.client() for _ in range(3)]
        for wire in wires:
            await wire.send(post(b"x" * 60_000, length=70_000))
        done, waiting = await asyncio.wait(
            [asyncio.create_task(wire.answer()) for wire in wires], timeout=0.3
        )
        assert {task.result().status for task in done} == {503}
        assert len(waiting) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for wire in wires:
            wire.close()
        await g.ledger.wait(3)
        assert g.relay.held_bytes == 0


async def test_a_client_that_leaves_stops_the_engine_at_once() -> None:
    for leave in (Wire.close, Wire.abort):

        async def respond(request: Message, wire: Wire) -> None:
            await wire.send(sse(token(), end=False))
            await wire.some()

        async with gateway(respond) as g:
            wire = await g.client()
            await wire.send(post(STREAM))
            await wire.some()
            leave(wire)
            exchange = await g.ledger.wait()
            assert exchange.outcome is Outcome.ABORTED
            await asyncio.wait_for(g.engine.left.wait(), 2)
            assert g.gate.running == 0
            assert g.relay.running == 0


async def test_a_client_that_leaves_before_the_answer_stops_the_engine_too() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.some()

    async with gateway(respond) as g:
        wire = await g.client()
        await wire.send(post())
        while not g.engine.requests:
            await asyncio.sleep(0.01)
        wire.writer.write_eof()
        assert (await g.ledger.wait()).outcome is Outcome.ABORTED
        await asyncio.wait_for(g.engine.left.wait(), 2)


async def test_an_engine_that_leaves_in_mid_stream_ends_it_with_an_error_and_no_proper_end() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(sse(token(), token(), end=False))
        wire.close()

    for body in (STREAM, b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'):
        async with gateway(respond) as g:
            wire = await g.client()
            answer = await wire.ask(post(body))
            assert not answer.whole
            assert answer.body.startswith(token() + token() + b'data: {"error":')
            assert DONE not in answer.body
            assert (await g.ledger.wait()).outcome is Outcome.TRUNCATED
            assert await wire.is_closed()


async def test_an_engine_that_leaves_in_mid_answer_cuts_the_connection() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")
        wire.close()

    async with gateway(respond) as g:
        wire = await g.client()
        answer = await wire.ask(post())
        assert not answer.whole
        assert (await g.ledger.wait()).outcome is Outcome.TRUNCATED


@pytest.mark.parametrize(
    "reply",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_502(reply: bytes) -> None:
    async with gateway(answering(reply)) as g:
        answer = await g.ask(post())
        assert answer.status == 502
        assert (await g.ledger.wait()).outcome is Outcome.ENGINE_ERROR
        assert g.gate.running == 0


async def test_an_engine_that_is_not_there_is_a_502_and_another_takes_its_place() -> None:
    async with gateway(dead=1) as g:
        answer = await g.ask(post())
        assert answer.status == 502
        assert json.loads(answer.body)["error"]["code"] == "engine_unreachable"
        assert (await g.ledger.wait()).outcome is Outcome.ENGINE_UNREACHABLE
    async with gateway(answering(JSON_OK), dead=2) as g:
        for _ in range(4):
            assert (await g.ask(post())).status == 200
        assert (await g.ledger.wait(4)).backend == "engine0"
        assert g.gate.running == 0


async def test_a_kept_connection_that_the_engine_has_closed_costs_nobody_an_error() -> None:
    served = 0

    async def respond(request: Message, wire: Wire) -> None:
        nonlocal served
        served += 1
        if served == 2:
            wire.abort()  # as one that was just about to be closed for idleness
        else:
            await wire.send(JSON_OK)

    async with gateway(respond) as g:
        wire = await g.client()
        assert [(await wire.ask(post())).status for _ in range(3)] == [200, 200, 200]
        assert g.engine.connections == 2


async def test_an_engine_that_dies_before_it_answers_is_not_asked_twice() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        wire.abort()

    async with gateway(respond) as g:
        assert (await g.ask(post())).status == 502
        assert len(g.engine.requests) == 1
        exchange = await g.ledger.wait()
        assert exchange.outcome is Outcome.ENGINE_UNREACHABLE


async def test_idle_connections_to_the_engine_are_dropped_before_it_drops_them() -> None:
    async with gateway(answering(JSON_OK)) as g:
        await g.ask(post())
        g.clock.ahead += 4.5
        await asyncio.wait_for(g.engine.left.wait(), 2)


async def test_an_engine_that_says_close_is_not_asked_again_on_that_connection() -> None:
    async with gateway(answering(JSON_OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))) as g:
        wire = await g.client()
        for _ in range(2):
            assert "connection" not in await wire.ask(post())
        assert g.engine.connections == 2


async def test_a_silent_engine_is_a_timeout() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        if b"stream" in request.body:
            await wire.send(sse(token(), end=False))
        await wire.some()

    async with gateway(respond, read_timeout=30) as g:
        plain, stream = await g.client(), await g.client()
        await plain.send(post())
        await stream.send(post(STREAM))
        seen = await stream.some()
        while len(g.engine.requests) < 2:
            await asyncio.sleep(0.01)
        g.clock.ahead += 29
        await asyncio.sleep(0.3)
        assert not g.ledger.ended
        g.clock.ahead += 2
        assert (await plain.answer()).status == 504
        assert b'data: {"error":' in seen + await stream.rest()
        await g.ledger.wait(2)
        assert {exchange.outcome for exchange in g.ledger.ended} == {Outcome.TIMEOUT}


async def test_an_engine_that_takes_no_more_of_an_upload_is_a_timeout() -> None:
    class Deaf(SwallowingEngine):
        async def stream(self, head: Message, wire: Wire) -> None:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            deaf.set()
            await closed.wait()
            raise ConnectionResetError

    deaf, closed = asyncio.Event(), asyncio.Event()
    async with gateway(Deaf(), read_timeout=30, body_timeout=5) as g:
        wire = await g.client()
        wire.writer.write(post(bytes(32 << 20), path="/v1/audio/transcriptions"))
        await deaf.wait()
        await asyncio.sleep(0.3)
        g.clock.ahead += 29
        await asyncio.sleep(0.3)
        assert not g.ledger.ended
        g.clock.ahead += 2
        assert (await wire.answer()).status == 504
        assert (await g.ledger.wait()).outcome is Outcome.TIMEOUT
        wire.abort()
        closed.set()


async def test_slow_clients_are_told_and_closed() -> None:
    async with gateway(answering(JSON_OK), head_timeout=5, body_timeout=5, idle_timeout=5) as g:
        silent, head, body, idle = [await g.client() for _ in range(4)]
        await head.send(b"GET /health HTTP/1.1\r\nHo")
        await body.send(post(b"{", length=10))
        assert (await idle.ask(get())).status == 200
        await asyncio.sleep(0.3)
        g.clock.ahead += 6
        assert (await head.answer()).status == 408
        assert (await body.answer()).status == 408
        assert await silent.is_closed()
        assert await idle.is_closed()


async def test_a_client_that_does_not_read_holds_the_engine_back_and_is_cut_at_last() -> None:
    sent = 0

    async def respond(request: Message, wire: Wire) -> None:
        nonlocal sent
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await wire.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent += 0x10000

    async with gateway(respond, write_timeout=30) as g:
        wire = await g.client()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(get("/load"))
        await asyncio.sleep(0.5)
        held = sent
        await asyncio.sleep(0.3)
        assert sent == held < 64 << 20
        g.clock.ahead += 31
        await asyncio.wait_for(g.engine.left.wait(), 5)
        assert (await g.ledger.wait()).outcome is Outcome.ABORTED


async def test_the_connection_idle_for_longest_makes_room() -> None:
    async with gateway(answering(JSON_OK), max_connections=3) as g:
        first, second, third = [await g.client() for _ in range(3)]
        for wire in (first, second, third):
            assert (await wire.ask(get())).status == 200
        assert (await first.ask(get())).status == 200
        fourth = await g.client()
        assert (await fourth.ask(get())).status == 200
        assert await second.is_closed()
        assert [(await wire.ask(get())).status for wire in (first, third, fourth)] == [200, 200, 200]
        assert g.relay.connections == 3


async def test_keys_are_checked_and_the_engine_gets_its_own() -> None:
    from pydantic import SecretStr

    keys = Keys([Key("alice", (digest(b"sk-good"),))])
    async with gateway(answering(JSON_OK), keys=keys) as g:
        g.fleet.backends[0].api_key = SecretStr("engine-key")
        wire = await g.client()
        refused = await wire.ask(post(b"{}", "Authorization: Bearer sk-bad"))
        assert refused.status == 401
        assert "bad" not in refused.body.decode()
        assert (await wire.ask(post(b"{}", "Authorization: Bearer sk-good"))).status == 200
        assert (await wire.ask(post(b"{}", "x-api-key: sk-good"))).status == 200
        assert (await wire.ask(get("/health"))).status == 200
        for request in g.engine.requests:
            assert request.all("authorization") == ["Bearer engine-key"]
            assert "x-api-key" not in request
        assert g.ledger.ended[1].key == "alice"


async def test_without_keys_of_ours_the_clients_key_passes_through() -> None:
    async with gateway(answering(JSON_OK)) as g:
        await g.ask(post(b"{}", "Authorization: Bearer abc"))
        assert g.engine.requests[0]["authorization"] == "Bearer abc"


async def test_the_gateways_own_answers_come_without_an_engine() -> None:
    async with gateway(
        local=lambda exchange, target: b'{"object":"list"}' if "models" in target else None, dead=1
    ) as g:
        wire = await g.client()
        for _ in range(2):
            answer = await wire.ask(get("/v1/models"))
            assert (answer.status, answer.body) == (200, b'{"object":"list"}')
        assert (await g.ledger.wait()).outcome is Outcome.SUCCESS


async def test_requests_wait_their_turn_and_one_who_leaves_is_forgotten() -> None:
    go = asyncio.Event()

    async def respond(request: Message, wire: Wire) -> None:
        await go.wait()
        await wire.send(JSON_OK)

    async with gateway(respond, max_concurrent=1, max_queued=2) as g:
        running, leaving, waiting, refused = [await g.client() for _ in range(4)]
        for number, wire in enumerate((running, leaving, waiting), start=1):
            await wire.send(post())
            while g.relay.running < number:
                await asyncio.sleep(0.005)
        answer = await refused.ask(post())
        assert answer.status == 429
        assert int(answer["retry-after"]) >= 1
        leaving.close()
        while g.gate.queued > 1:
            await asyncio.sleep(0.005)
        go.set()
        assert (await running.answer()).status == 200
        assert (await waiting.answer()).status == 200
        assert len(g.engine.requests) == 2


async def test_an_engines_refusal_of_an_upload_is_passed_on_while_it_is_under_way() -> None:
    too_large = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    async with gateway(SwallowingEngine(too_large)) as g:
        wire = await g.client()
        await wire.send(post(b"x" * 1000, path="/v1/audio/transcriptions", length=50 << 20))
        answer = await wire.answer()
        assert (answer.status, answer.body, answer["connection"]) == (413, b"big", "close")
        assert await wire.is_closed()


async def test_draining_finishes_what_runs_and_takes_nothing_new() -> None:
    go = asyncio.Event()

    async def respond(request: Message, wire: Wire) -> None:
        await go.wait()
        await wire.send(JSON_OK)

    async with gateway(respond) as g:
        idle, running = await g.client(), await g.client()
        await running.send(post())
        while not g.engine.requests:
            await asyncio.sleep(0.005)
        g.gate.draining = True
        drained = asyncio.create_task(g.relay.drain(10))
        assert await idle.is_closed()
        late = await g.ask(post())
        assert late.status == 503
        assert late["connection"] == "close"
        go.set()
        answer = await running.answer()
        assert (answer.status, answer["connection"]) == (200, "close")
        await asyncio.wait_for(drained, 5)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    place = tmp_path_factory.mktemp("tls")
    cert, key = place / "cert.pem", place / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


async def test_both_sides_may_speak_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, trusting = contexts
    async with gateway(answering(sse(token(), USAGE, DONE)), tls=server, engine_tls=contexts) as g:
        wire = await g.client(trusting)
        for _ in range(2):
            assert (await wire.ask(post(STREAM))).body == token() + DONE
        assert g.engine.requests[0]["x-forwarded-proto"] == "https"
        assert g.engine.connections == 1
        refused = await wire.ask(post(b"", length=1 << 40))
        assert refused.status == 413
        assert await wire.is_closed()


async def test_a_client_over_tls_that_leaves_stops_the_engine(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, trusting = contexts

    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(sse(token(), end=False))
        await wire.some()

    async with gateway(respond, tls=server) as g:
        wire = await g.client(trusting)
        await wire.send(post(STREAM))
        await wire.some()
        wire.close()
        assert (await g.ledger.wait()).outcome is Outcome.ABORTED
        await asyncio.wait_for(g.engine.left.wait(), 2)


async def test_bytes_behind_a_chunked_body_do_not_reset_the_answer() -> None:
    async with gateway(answering(JSON_OK)) as g:
        wire = await g.client()
        ahead = b"x" * 1000
        head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        await wire.send(head + chunked(b"{}") + ahead)
        answer = await wire.answer()
        assert (answer.status, answer["connection"]) == (200, "close")
        await wire.send(ahead * 100)
        assert await asyncio.wait_for(wire.reader.read(), 5) == b""


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_one_engine_with_two_names_takes_bodies_that_are_too_large_to_be_read() -> None:
    async with gateway(answering(JSON_OK), peek_limit=1024) as g:
        g.fleet.follow("engine0", standing=Standing.READY, models=["m", "adapter"], now=0.0)
        body = b'{"model":"adapter","prompt":"' + b"x" * 5000 + b'"}'
        assert (await g.ask(post(body))).status == 200
        assert g.engine.requests[0].body == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"secret","prompt":"' + b"x" * 500_000 + b'"}',
        b'{"model":"secret","x":NaN,"prompt":"' + b"x" * 300_000 + b'"}',
    ],
    ids=["too large to be held", "too odd to be read"],
)
async def test_a_key_for_certain_models_sends_nothing_that_was_not_read(body: bytes) -> None:
    keys = Keys([Key("k", (digest(b"good"),), models=frozenset({"m"}))])
    async with gateway(answering(JSON_OK), keys=keys, peek_limit=400_000) as g:
        answer = await g.ask(post(body, "Authorization: Bearer good"))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, "model_not_readable")
        assert not g.engine.requests


async def test_uploads_that_wait_are_counted_among_what_is_held() -> None:
    async def respond(message: Message, wire: Wire) -> None:
        await wire.some()

    async with gateway(respond, max_concurrent=1, peek_limit=100_000) as g:
        g.relay.held_limit = 480_000
        await (await g.client()).send(post())
        await until(lambda: len(g.engine.requests) == 1)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        piece = b"%x\r\n%b\r\n" % (110_000, b"x" * 110_000)
        waiting = [await g.client() for _ in range(4)]
        for wire in waiting:
            await wire.send(head + piece)
        await until(lambda: g.relay.held_bytes > 400_000)
        late = await g.client()
        await late.send(head + piece)
        assert (await late.answer()).status == 503
        for wire in waiting:
            wire.abort()
        await until(lambda: g.relay.held_bytes < 1000)


async def test_a_client_that_never_shakes_hands_does_not_hold_the_end_up(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with asyncio.timeout(5), gateway(answering(JSON_OK), tls=contexts[0]) as g:
        silent = await g.client()
        await until(lambda: len(g.relay._handshakes) == 1)
        g.wires.remove(silent)
    assert await silent.is_closed()
    silent.close()


async def test_the_first_client_after_a_quiet_time_is_not_timed_by_an_old_clock() -> None:
    """Without clients the relay looks around but seldom, and an idle client's time counts from its last look."""
    async with gateway(answering(JSON_OK)) as g:
        g.clock.ahead = 100.0
        assert (await g.ask(post())).status == 200
        assert g.clock() - g.relay.now < 10.0
