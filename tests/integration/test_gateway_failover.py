"""Engines that die under a request: it goes elsewhere as long as its client has had no byte, and to no third engine."""

from __future__ import annotations

import json

from gateway_wire import (
    JSON_OK,
    Message,
    Respond,
    Wire,
    answering,
    gateway,
    post,
    sse,
    token,
)

from exporter.gateway.model import Outcome

STREAM = post(b'{"model":"m","stream":true}')


def dying(said: bytes = b"") -> Respond:
    async def respond(request: Message, wire: Wire) -> None:
        if said:
            await wire.send(said)
        wire.close()
        await wire.writer.wait_closed()

    return respond


async def test_an_engine_that_dies_after_its_head_alone_has_said_nothing() -> None:
    head = sse(end=False)
    async with gateway(dying(head)) as g:
        answer = await g.ask(STREAM)
        assert answer.status == 502
        assert json.loads(answer.body)["error"]["code"] == "engine_unreachable"
        assert (await g.ledger.wait()).outcome is Outcome.ENGINE_UNREACHABLE
        assert g.gate.running == 0
    async with gateway(dying(head), answering(JSON_OK)) as g:
        answers = [await g.ask(STREAM) for _ in range(3)]
        assert {answer.status for answer in answers} == {200}
        exchange = await g.ledger.wait(3)
        assert (exchange.outcome, exchange.backend) == (Outcome.SUCCESS, "engine1")
        assert g.gate.running == 0


async def test_what_was_held_back_of_a_dead_engines_answer_is_forgotten() -> None:
    last = b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n'
    async with gateway(dying(sse(last, end=False)), answering(JSON_OK)) as g:
        for count in (1, 2):
            assert (await g.ask(STREAM)).body == b"{}"
            exchange = await g.ledger.wait(count)
            assert (exchange.tokens_seen, exchange.first_token, exchange.status) == (0, None, 200)


async def test_an_engine_that_dies_after_a_token_truncates_its_stream() -> None:
    async with gateway(dying(sse(token(), end=False)), answering(JSON_OK)) as g:
        answer = await g.ask(STREAM)
        assert (answer.status, answer.whole) == (200, False)
        assert answer.body.startswith(token())
        assert (await g.ledger.wait()).outcome is Outcome.TRUNCATED


async def test_a_finish_that_was_held_back_goes_out_before_the_error() -> None:
    last = b'data: {"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}\n\n'
    async with gateway(dying(sse(token(), last, end=False))) as g:
        answer = await g.ask(STREAM)
        assert answer.body.startswith(token() + last + b'data: {"error":')
        assert not answer.whole


async def test_a_request_that_kills_engines_is_not_sent_to_each_of_them() -> None:
    async with gateway(dying(), dying(), dying(), dying()) as g:
        answer = await g.ask(post())
        assert answer.status == 502
        assert sum(len(engine.requests) for engine in g.engines) == 2
        exchange = await g.ledger.wait()
        assert (exchange.outcome, exchange.reason) == (Outcome.ENGINE_UNREACHABLE, "reset")
        assert g.gate.running == 0


async def test_a_request_that_kills_engines_on_kept_connections_is_not_sent_to_each_of_them() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        if b"poison" in request.body:
            wire.abort()
        else:
            await wire.send(JSON_OK)

    async with gateway(respond, respond, respond, respond) as g:
        for _ in range(4):
            assert (await g.ask(post())).status == 200
        assert (await g.ask(post(b'{"model":"m","prompt":"poison"}'))).status == 502
        reached = [engine for engine in g.engines if any(b"poison" in r.body for r in engine.requests)]
        assert len(reached) == 2
        assert g.gate.running == 0


async def test_engines_that_cannot_be_reached_are_all_tried() -> None:
    async with gateway(answering(JSON_OK), dead=3) as g:
        assert (await g.ask(post())).status == 200
        assert (await g.ledger.wait()).tries <= 4
