from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from exporter.engine.verdict.hang import CanaryOutcome
from exporter.engine.verdict.health import Health
from exporter.engine.verdict.probes import EngineClient
from exporter.engine.verdict.question import TokenOutcome

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Engine:
    """A server whose every answer is the test's."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Answer = self.respond(200, b"")

    @staticmethod
    def respond(status: int, body: bytes, **headers: str) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body, headers=headers)

        return answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers), await request.read()))
        return await self.answer(request)


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with aiohttp.ClientSession() as session:
            made = Engine(EngineClient(url, SecretStr("sesame"), lambda: session))
            runner = web.ServerRunner(
                web.Server(made.handle, handler_cancellation=True), shutdown_timeout=0.0
            )
            await runner.setup()
            await web.SockSite(runner, sock).start()
            yield made
            await runner.cleanup()


def closed_client(session: aiohttp.ClientSession) -> EngineClient:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return EngineClient(f"http://127.0.0.1:{port}", None, lambda: session)


@pytest.mark.parametrize(
    ("status", "health"), [(200, Health.OK), (503, Health.ERROR), (404, Health.ERROR), (302, Health.ERROR)]
)
async def test_health_is_good_only_at_200_and_no_redirect_is_followed(
    engine: Engine, status: int, health: Health
) -> None:
    engine.answer = engine.respond(status, b"", Location="/elsewhere")
    assert (await engine.client.health(5.0)).health is health
    assert [path for path, _, _ in engine.requests] == ["/health"]


async def test_the_api_key_goes_with_every_request(engine: Engine) -> None:
    await engine.client.health(5.0)
    await engine.client.models(5.0)
    await engine.client.canary("m", 5.0)
    assert {headers["Authorization"] for _, headers, _ in engine.requests} == {"Bearer sesame"}


async def test_no_answer_in_time_is_silence(engine: Engine) -> None:
    engine.answer = never
    answer = await engine.client.health(0.1)
    assert answer.health is Health.SILENT
    assert answer.took >= 0.1


async def test_nobody_at_the_port_is_refused_and_listens_tells_so_cheaply() -> None:
    async with aiohttp.ClientSession() as session:
        client = closed_client(session)
        assert not await client.listens(5.0)
        assert (await client.health(5.0)).health is Health.REFUSED
        assert (await client.models(5.0)).models == ()
        assert (await client.canary("m", 5.0))[0] is CanaryOutcome.FAILED


async def test_somebody_at_the_port_listens(engine: Engine) -> None:
    assert await engine.client.listens(5.0)


@pytest.mark.parametrize(
    ("body", "models"),
    [
        (b'{"data": [{"id": "a"}, {"id": "b/c"}]}', ("a", "b/c")),
        (b'{"data": []}', ()),
        (b'{"data": [{"id": 7}, "x", {"id": ""}, {"id": "ok"}]}', ("ok",)),
        (b"[]", ()),
        (b"<html>", ()),
        (b"\xff\xfe", ()),
        (b'{"data": "' + b"x" * (2 << 20) + b'"}', ()),
    ],
)
async def test_models_are_the_ids_and_nonsense_is_none(
    engine: Engine, body: bytes, models: tuple[str, ...]
) -> None:
    engine.answer = engine.respond(200, body)
    answer = await engine.client.models(5.0)
    assert answer.models == models
    assert (answer.refusal is None) is bool(models)


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        (401, "unauthorized", "/v1/models answered 401"),
        (403, "unauthorized", "/v1/models answered 403"),
        (404, "not_vllm", "is it a vLLM server?"),
        (307, "redirected", "engine.url"),
        (500, "health", "/v1/models answered 500"),
        (200, "no_model", "lists no model yet"),
    ],
)
async def test_models_that_are_not_to_be_had_come_with_the_reason(
    engine: Engine, status: int, reason: str, says: str
) -> None:
    engine.answer = engine.respond(status, b'{"data": []}')
    refusal = (await engine.client.models(5.0)).refusal
    assert refusal is not None
    assert refusal.reason == reason
    assert says in refusal.line


async def test_a_health_page_that_is_refused_says_what_to_set(engine: Engine) -> None:
    engine.answer = engine.respond(401, b"")
    refusal = (await engine.client.health(5.0)).refusal
    assert refusal is not None
    assert refusal.line.endswith(
        "/health answered 401; engine.api_key is not a key of this server; correct it"
    )


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, CanaryOutcome.ANSWERED),
        (400, CanaryOutcome.INCONCLUSIVE),
        (401, CanaryOutcome.INCONCLUSIVE),
        (404, CanaryOutcome.INCONCLUSIVE),
        (429, CanaryOutcome.INCONCLUSIVE),
        (501, CanaryOutcome.INCONCLUSIVE),
        (503, CanaryOutcome.INCONCLUSIVE),
        (500, CanaryOutcome.FAILED),
    ],
)
async def test_a_canary_is_one_token_and_only_the_engine_itself_can_fail_it(
    engine: Engine, status: int, outcome: CanaryOutcome
) -> None:
    engine.answer = engine.respond(status, b"{}")
    assert (await engine.client.canary('na"me', 5.0))[0] is outcome
    path, _, body = engine.requests[0]
    assert path == "/v1/completions"
    assert b'"max_tokens": 1' in body
    assert b'"na\\"me"' in body


async def test_a_canary_without_an_answer_fails_at_its_deadline(engine: Engine) -> None:
    engine.answer = never
    outcome, took = await engine.client.canary("m", 0.1)
    assert outcome is CanaryOutcome.FAILED
    assert took >= 0.1


STREAM = (
    b'data: {"choices":[{"index":0,"text":"x","finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
)


def by_path(**answers: Answer) -> Answer:
    """Answers by the last word of the path."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answers[request.path.rpartition("/")[2]](request)

    return answer


def streams(body: bytes) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(body)
        return response

    return answer


async def test_a_streamed_token_is_timed_before_its_end_and_comes_with_its_usage(engine: Engine) -> None:
    engine.answer = streams(STREAM + b"data: [DONE]\n\n")
    answer = await engine.client.ask("m", "1", 5.0)
    assert answer.outcome is TokenOutcome.SUCCESS
    assert answer.first_token is not None
    assert 0 < answer.first_token <= answer.took
    assert (answer.input_tokens, answer.output_tokens) == (3, 1)


async def test_a_stream_that_never_ends_properly_is_truncated_and_one_with_an_error_is_the_engines(
    engine: Engine,
) -> None:
    engine.answer = streams(STREAM)
    assert (await engine.client.ask("m", "1", 5.0)).outcome is TokenOutcome.TRUNCATED
    engine.answer = streams(b'data: {"error":{"code":500}}\n\ndata: [DONE]\n\n')
    assert (await engine.client.ask("m", "1", 5.0)).outcome is TokenOutcome.ENGINE_ERROR


async def test_a_stream_without_a_token_in_time_is_a_timeout_whatever_its_head_said(engine: Engine) -> None:
    async def head_only(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(60)
        return response

    engine.answer = head_only
    answer = await engine.client.ask("m", "1", 0.1)
    assert answer.outcome is TokenOutcome.TIMEOUT
    assert answer.first_token is None


async def test_a_server_of_chats_only_is_asked_as_a_chat_and_at_once_the_next_time(engine: Engine) -> None:
    chat = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'

    async def chat_only(request: web.Request) -> web.StreamResponse:
        wanted = streams(chat) if "chat" in request.path else engine.respond(404, b"")
        return await wanted(request)

    engine.answer = chat_only
    for _ in range(2):
        assert (await engine.client.ask("m", "1", 5.0)).outcome is TokenOutcome.SUCCESS
    paths = [path for path, _, _ in engine.requests]
    assert paths == ["/v1/completions", "/v1/chat/completions", "/v1/chat/completions"]


async def test_a_model_that_generates_nothing_is_asked_for_an_embedding(engine: Engine) -> None:
    whole = engine.respond(
        200, b'{"data": [], "usage": {"prompt_tokens": 3}}', **{"Content-Type": "application/json"}
    )
    engine.answer = by_path(completions=engine.respond(404, b""), embeddings=whole)
    answer = await engine.client.ask("m", "1", 5.0)
    assert answer.outcome is TokenOutcome.SUCCESS
    assert (answer.first_token, answer.input_tokens, answer.output_tokens) == (None, 3, 0)


async def test_a_model_that_nothing_can_be_asked_of_is_a_value(engine: Engine) -> None:
    engine.answer = engine.respond(404, b"")
    answer = await engine.client.ask("m", "1", 5.0)
    assert answer.outcome is TokenOutcome.CLIENT_ERROR
    assert answer.unsupported
    assert len(engine.requests) == 3


async def test_a_wrong_key_is_not_tried_at_every_path(engine: Engine) -> None:
    engine.answer = engine.respond(401, b"")
    answer = await engine.client.ask("m", "1", 5.0)
    assert answer.outcome is TokenOutcome.CLIENT_ERROR
    assert not answer.unsupported
    assert len(engine.requests) == 1


async def test_a_priority_goes_only_to_an_engine_that_has_priorities(engine: Engine) -> None:
    await engine.client.ask("m", "1", 5.0)
    async with aiohttp.ClientSession() as session:
        client = EngineClient(engine.client.base_url, None, lambda: session, has_priorities=True)
        await client.ask("m", "1", 5.0)
    bodies = [body for _, _, body in engine.requests]
    assert [b'"priority": -9223372036854775808' in body for body in bodies] == [False, True]


async def test_a_connection_that_the_server_had_closed_is_no_answer_and_the_next_one_is(
    engine: Engine,
) -> None:
    breaks = 1

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal breaks
        if breaks:
            breaks -= 1
            assert request.transport is not None
            request.transport.abort()
        return await streams(STREAM + b"data: [DONE]\n\n")(request)

    engine.answer = answer
    assert (await engine.client.ask("m", "1", 5.0)).outcome is TokenOutcome.SUCCESS
    breaks = 2
    assert (await engine.client.ask("m", "1", 5.0)).outcome is TokenOutcome.ENGINE_UNREACHABLE
