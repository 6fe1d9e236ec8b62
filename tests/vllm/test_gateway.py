"""The gateway before a real vLLM: what `openai` and bare sockets see through it, next to what they see without it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from real_engine import MODEL_NAME, START_LIMIT, Daemon, Page, free_port, is_open
from wire import NOTHING, Answer, Client, Tap, ask, gather

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
READ_TIMEOUT = 20.0
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"yes": {"type": "boolean"}},
            "required": ["yes"],
            "additionalProperties": False,
        },
    },
}


@dataclass
class Front:
    """The daemon with its gateway, the engine's own port, and how the requests so far ended."""

    daemon: Daemon
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def port(self) -> int:
        return self.daemon.engine_port

    @property
    def direct(self) -> int:
        """Where the engine itself listens."""
        return self.daemon.own_port

    def count(self, answers: Iterable[Answer]) -> None:
        """Take in what clients saw."""
        self.seen.update(answer.cause for answer in answers)

    def told(self, page: Page) -> Counter[str]:
        """Requests by outcome, as the gateway's totals say."""
        found: Counter[str] = Counter()
        for sample in page.samples:
            if sample.name == "vllm_slo_requests_total" and sample.labels["source"] == "gateway":
                found[sample.labels["outcome"]] += int(sample.value)
        return +found

    async def agreed(self) -> Page:
        """A page whose totals come to what the clients have seen."""
        assert not self.seen[NOTHING], "a client was left without any answer"
        return await asyncio.to_thread(self.daemon.wait, lambda page: self.told(page) == self.seen, 15)

    def logged(self, answers: Iterable[Answer]) -> list[dict[str, Any]]:
        """The access log's lines of these requests."""
        names = [answer.fields["x-request-id"] for answer in answers]
        until = time.monotonic() + 10
        while True:
            lines = {line["request_id"]: line for line in self.daemon.events("request")}
            if lines.keys() >= set(names) or time.monotonic() > until:
                return [lines[name] for name in names]
            time.sleep(0.05)

    def client(self, port: int | None = None, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port or self.port}/v1",
            api_key="none",
            max_retries=0,
            timeout=120,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
            **options,
        )


@pytest.fixture(scope="module")
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    settings = {
        "engine": {"on_hang": "report", "kill_timeout": 5.0},
        "gateway": {"read_timeout": READ_TIMEOUT, "probe_interval": 0},
    }
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--max-num-seqs", "256")
    daemon = make_daemon(*flags, settings=settings).start()
    daemon.wait_state("ready")
    return daemon


@pytest.fixture
def front(daemon: Daemon) -> Front:
    """At ready, with the totals as the test before has left them."""
    daemon.wait_state("ready")
    idle = lambda page: page.total("vllm_exporter_gateway_requests_running") == 0  # noqa: E731
    front = Front(daemon)
    front.seen = front.told(daemon.wait(idle))
    return front


@pytest.fixture
async def tapped(front: Front, make_daemon: Callable[..., Daemon]) -> AsyncIterator[tuple[Tap, int]]:
    """A second gateway before the same engine, with a tap between the two: the tap, and the gateway's port."""
    async with Tap(front.direct) as tap:
        port = free_port()
        gateway = {"mode": "on", "listen": f"127.0.0.1:{port}", "probe_interval": 0}
        daemon = make_daemon(attach_to=tap.port, settings={"gateway": gateway, "scrape": {"interval": 60}})
        await asyncio.to_thread(daemon.start)
        await asyncio.to_thread(daemon.wait_state, "ready")
        yield tap, port
        await asyncio.to_thread(daemon.close)


def chat(tokens: int, *, content: str = "tell me", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    fixed = {"temperature": 1.0, "seed": 11, "ignore_eos": True}
    return {"model": MODEL_NAME, "messages": messages, "max_tokens": tokens} | fixed | more


def text(tokens: int, **more: Any) -> dict[str, Any]:
    fixed = {"temperature": 1.0, "seed": 12, "ignore_eos": True}
    return {"model": MODEL_NAME, "prompt": "once upon a time", "max_tokens": tokens} | fixed | more


WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
EVERY_TIME = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
REQUESTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, chat(20)),
    "chat, streamed": (CHAT, chat(40, stream=True)),
    "chat, streamed, with usage": (CHAT, chat(40, **WITH_USAGE)),
    "chat, streamed, usage every time": (CHAT, chat(20, **EVERY_TIME)),
    "chat, streamed, usage every time but not asked": (
        CHAT,
        chat(20, stream=True, stream_options={"continuous_usage_stats": True}),
    ),
    "chat, several choices": (CHAT, chat(15, n=3, stream=True)),
    "chat, several choices, with usage": (CHAT, chat(15, n=3, **WITH_USAGE)),
    "chat, log probabilities": (CHAT, chat(8, logprobs=True, top_logprobs=3, stream=True)),
    "chat, stopped by a word": (CHAT, chat(200, stop=["e", "a", "1"], stream=True)),
    "JSON": (CHAT, chat(30, response_format={"type": "json_object"})),
    "JSON by a schema, streamed": (CHAT, chat(40, response_format=SCHEMA, stream=True)),
    "a tool": (CHAT, chat(40, tools=[TOOL], tool_choice="required")),
    "a named tool, streamed": (
        CHAT,
        chat(
            40, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}, stream=True
        ),
    ),
    "a tool or not, streamed": (CHAT, chat(30, tools=[TOOL], tool_choice="auto", stream=True)),
    "text": (COMPLETIONS, text(20)),
    "text, streamed": (COMPLETIONS, text(40, stream=True)),
    "text, streamed, with usage": (COMPLETIONS, text(40, **WITH_USAGE)),
    "two prompts": (COMPLETIONS, text(10, prompt=["a", "b c"], stream=True)),
    "one token": (COMPLETIONS, text(1, stream=True)),
    "echo": (COMPLETIONS, text(10, echo=True, stream=True)),
    "non-ASCII": (CHAT, chat(10, content='你好，世界 😀\u2028 \\ " \u0000x')),
    "messages": ("/v1/messages", chat(20, temperature=0)),
    "messages, streamed": ("/v1/messages", chat(20, temperature=0, stream=True)),
    "responses": (
        "/v1/responses",
        {"model": MODEL_NAME, "input": "hi", "max_output_tokens": 20, "temperature": 0, "store": False},
    ),
    "tokenize": ("/tokenize", {"model": MODEL_NAME, "prompt": "hello"}),
    "too many tokens": (CHAT, chat(10**6)),
    "too many tokens, streamed": (CHAT, chat(10**6, stream=True)),
    "a wrong type": (CHAT, chat(5, temperature="hot", stream=True)),
    "no messages": (CHAT, chat(5) | {"messages": []}),
    "another model": (CHAT, chat(5) | {"model": "another"}),
    "no such API here": ("/v1/embeddings", {"model": MODEL_NAME, "input": "x"}),
    "no JSON": (CHAT, {"": "replaced below"}),
}
IDS = {
    rb'"(created|created_at|completed_at)":[0-9.]+': rb'"\1":0',
    rb"(chatcmpl-tool|call|msg|resp|rs|fc)[-_][0-9a-f]{8,}": rb"\1-0",
    rb"chatcmpl-tool-[0-9a-f]+": rb"chatcmpl-tool-0",
}
"""What is the engine's clock or chance, and nobody can fix by `X-Request-Id` and `seed`."""
OF_A_PROXY = ("date", "x-request-id", "connection")


def settled(body: bytes) -> bytes:
    """A body without what differs between two calls."""
    for pattern, instead in IDS.items():
        body = re.sub(pattern, instead, body)
    return body


def heads(answer: Answer) -> list[bytes]:
    """The head but for what a proxy must change, in its order."""
    return [line for line in answer.lines if line.partition(b":")[0].lower().decode() not in OF_A_PROXY]


def events(answer: Answer, *, in_order: bool = True) -> list[bytes]:
    found = settled(answer.body).split(b"\n\n")
    return found if in_order else sorted(found)


def joined(answer: Answer) -> tuple[dict[str, list[Any]], set[str]]:
    """What was said in all, and the forms of the events, however the tokens were spread over them."""
    said: dict[str, list[Any]] = {}

    def empty(node: Any, where: str) -> Any:
        if isinstance(node, dict):
            where += str(node.get("index", ""))
            return {key: empty(value, f"{where}/{key}") for key, value in node.items()}
        if isinstance(node, list):
            if where.endswith("/logprobs/content"):
                said.setdefault(where, []).extend(node)
                return None
            return [empty(value, where) for value in node]
        if isinstance(node, str) and where.endswith(("/content", "/text", "/arguments")):
            said.setdefault(where, []).extend(node)
            return None
        return None if where.startswith("/usage") else node

    forms = {
        json.dumps(empty(event, "")) for event in json.loads(settled(json.dumps(answer.events).encode()))
    }
    return said, forms


async def test_the_engine_has_moved_and_its_port_is_the_gateways(front: Front) -> None:
    assert front.direct != front.port
    assert is_open(front.direct)
    async with Client(front.port) as client:
        assert (await client.get("/health")).status == 200
        through = await client.get("/v1/models")
        version = await client.get("/version")
    async with Client(front.direct) as client:
        assert through.json["data"][0]["id"] == (await client.get("/v1/models")).json["data"][0]["id"]
        assert heads(version) == heads(await client.get("/version"))


@pytest.mark.parametrize("name", REQUESTS)
async def test_heads_and_bodies_are_those_of_a_direct_call(front: Front, name: str) -> None:
    path, wanted = REQUESTS[name]
    body: dict[str, Any] | bytes = b'{"model": "tiny-qwen", "messages": [' if name == "no JSON" else wanted
    fields = {"X-Request-Id": f"same-{re.sub('[^a-z]', '-', name)}"}
    in_order = "several" not in name and "two" not in name  # choices take turns by chance
    async with Client(front.port) as client, Client(front.direct) as other:
        for _ in range(8):
            through = await client.post(path, body, fields=fields)
            direct = await other.post(path, body, fields=fields)
            front.count([through])
            same = events(through, in_order=in_order) == events(direct, in_order=in_order)
            if same:
                break
    assert through.status == direct.status
    assert heads(through) == heads(direct)
    if through.streams and not same:
        # vLLM sends tokens together that its event loop was late for, and on a busy machine it is late all the time.
        assert joined(through) == joined(direct)
    else:
        assert same, (through.body, direct.body)
    assert through.trailers == direct.trailers == []
    assert through.fields["x-request-id"] == fields["X-Request-Id"]
    await front.agreed()


async def test_what_the_engine_sends_is_what_the_client_gets_byte_for_byte(
    front: Front, tapped: tuple[Tap, int]
) -> None:
    tap, port = tapped
    for name, (path, body) in REQUESTS.items():
        fields = {"X-Request-Id": f"tapped-{re.sub('[^a-z]', '-', name)}", "X-Own": " kept  "}
        async with Client(port) as client:
            answer = await client.post(path, body, fields=fields)
        sent, answered = tap.exchange(fields["X-Request-Id"].encode() + b"\r\n")
        asked_head, _, asked = sent.partition(b"\r\n\r\n")
        head, _, came = answered.partition(b"\r\n\r\n")
        for line in ("Host: 127.0.0.1", "X-Own:  kept  ", f"X-Request-Id: {fields['X-Request-Id']}"):
            assert line.encode() in asked_head.split(b"\r\n"), name
        got = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in answer.chunks) + b"0\r\n\r\n"
        own = json.dumps(body).encode()
        options = body.get("stream_options") or {}
        if body.get("stream") and path in (CHAT, COMPLETIONS) and not options.get("include_usage"):
            assert json.loads(asked)["stream_options"]["include_usage"] is True, name
            if answer.streams:
                assert b'"choices":[],"usage"' in came, name
                assert b'"usage"' not in answer.body, f"{name}: it is hidden from who did not ask"
                given = [
                    event
                    for event in b"".join(unchunked(came)).split(b"\n\n")
                    if b'"choices":[]' not in event
                ]
                assert unstamped(answer.body) == unstamped(b"\n\n".join(given)), name
        else:
            assert asked == own, name
            if answer.streams:
                assert got == came, f"{name}: chunk by chunk"
            else:
                assert answer.body == came, name
        theirs = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        ours = [
            line for line in answer.lines if not line.lower().startswith((b"x-request-id:", b"connection:"))
        ]
        assert ours == theirs, name


def unchunked(data: bytes) -> list[bytes]:
    pieces = []
    while data:
        size, _, data = data.partition(b"\r\n")
        pieces.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return pieces


def unstamped(body: bytes) -> bytes:
    """Without the mark that vLLM puts on the last chunk of all: on the finish, where it sends no usage."""
    return re.sub(rb',"system_fingerprint":"[^"]*"', b"", body)


# The client library


async def everything(client: openai.AsyncOpenAI) -> dict[str, Any]:
    """What `openai` makes of the API, by what was asked; ids and times left out."""
    found: dict[str, Any] = {}

    def keep(name: str, answer: Any) -> None:
        found[name] = json.loads(settled(answer.model_dump_json().encode()))

    options: dict[str, Any] = {
        "model": MODEL_NAME,
        "temperature": 1.0,
        "seed": 5,
        "extra_body": {"ignore_eos": True},
    }
    messages: Any = [{"role": "user", "content": "who are you?"}]
    headers = {"X-Request-Id": "by-openai"}
    asked: dict[str, Any] = {"messages": messages, "max_tokens": 30, "extra_headers": headers, **options}
    keep("chat", await client.chat.completions.create(**asked))
    keep("JSON", await client.chat.completions.create(**asked, response_format={"type": "json_object"}))
    keep("schema", await client.chat.completions.create(**asked, response_format=SCHEMA))
    keep("tool", await client.chat.completions.create(**asked, tools=[TOOL], tool_choice="required"))
    stream = await client.chat.completions.create(**asked, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    found["streamed"] = "".join(pieces)
    stream = await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks: list[ChatCompletionChunk] = [chunk async for chunk in stream]
    found["usage"] = chunks[-1].usage.model_dump() if chunks[-1].usage else None
    plain = await client.completions.create(prompt="it was", max_tokens=30, extra_headers=headers, **options)
    keep("text", plain)
    found["models"] = [model.id async for model in client.models.list()]
    for name, wrong in (
        ("too long", {**asked, "max_tokens": 10**6}),
        ("another model", {**asked, "model": "another"}),
        ("no messages", {**asked, "messages": []}),
        ("a wrong type", {**asked, "temperature": "hot", "stream": True}),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**wrong)
        found[name] = (type(caught.value).__name__, caught.value.status_code, caught.value.body)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.embeddings.create(model=MODEL_NAME, input="x")
    found["embeddings"] = missing.value.status_code
    return found


OPENAI_OUTCOMES = {"success": 7, "client_error": 5}


async def test_the_client_library_sees_the_same_through_the_gateway(front: Front) -> None:
    async with front.client() as client, front.client(front.direct) as other:
        through, direct = await everything(client), await everything(other)
        assert through == direct
        assert through["too long"][0] == "BadRequestError"
        assert through["another model"][0] == "NotFoundError"
        one = await client.models.retrieve(MODEL_NAME)  # vLLM has no such path; the gateway answers it
        assert one.id == MODEL_NAME
    front.seen.update(OPENAI_OUTCOMES)
    await front.agreed()


def test_the_synchronous_client_library_sees_the_same_too(front: Front) -> None:
    def ask_all(port: int) -> list[Any]:
        plain = openai.DefaultHttpxClient(verify=False)
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=plain) as client:
            asked: dict[str, Any] = {
                "model": MODEL_NAME,
                "messages": [{"role": "user", "content": "and you?"}],
                "max_tokens": 25,
                "temperature": 1.0,
                "seed": 3,
                "extra_body": {"ignore_eos": True},
            }
            whole = client.chat.completions.create(**asked)
            streamed = client.chat.completions.create(**asked, stream=True)
            parts = [chunk.choices[0].delta.content or "" for chunk in streamed]
            with client.chat.completions.with_streaming_response.create(**asked, stream=True) as raw:
                lines = [line for line in raw.iter_lines() if line]
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(**{**asked, "max_tokens": -1})
            shown = [
                whole.choices[0].message.content,
                whole.usage,
                "".join(parts),
                lines[-1],
                caught.value.body,
            ]
            assert shown[0] == shown[2]
            return shown

    assert ask_all(front.port) == ask_all(front.direct)
    front.seen.update({"success": 3, "client_error": 1})
    asyncio.run(front.agreed())


# Many, long, gone


async def test_200_clients_at_once_are_all_served_and_all_counted(front: Front) -> None:
    before = await front.agreed()
    rng = random.Random(7)
    used: Counter[str] = Counter()

    async def one(client: openai.AsyncOpenAI, tokens: int, streams: bool) -> None:
        asked: dict[str, Any] = {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": "x" * rng.randint(1, 200)}],
            "max_tokens": tokens,
            "extra_body": {"ignore_eos": True},
        }
        if not streams:
            answer = await client.chat.completions.create(**asked)
            usage = answer.usage
        else:
            usage = None
            options = {"include_usage": True}
            async for chunk in await client.chat.completions.create(
                **asked, stream=True, stream_options=options
            ):
                usage = chunk.usage or usage
        assert usage is not None
        assert usage.completion_tokens == tokens
        used["input"] += usage.prompt_tokens
        used["output"] += usage.completion_tokens

    async with front.client() as client:
        limits = [(rng.randint(1, 100), n % 3 > 0) for n in range(200)]
        await asyncio.gather(*(one(client, tokens, streams) for tokens, streams in limits))
    front.seen["success"] += 200
    page = await front.agreed()
    for direction, count in used.items():
        name = "vllm_slo_tokens_total"
        labels = {"source": "gateway", "direction": direction}
        assert page.total(name, **labels) - before.total(name, **labels) == count
    assert page.total("vllm_exporter_gateway_requests_running") == 0


@pytest.mark.parametrize("usage", [False, True], ids=["", "with usage"])
async def test_a_long_stream_is_whole(front: Front, usage: bool) -> None:
    body = text(5000, temperature=0.0, **(WITH_USAGE if usage else {"stream": True}))
    async with Client(front.port) as client, Client(front.direct) as other:
        through = await client.post(COMPLETIONS, body, limit=120)
        direct = await other.post(COMPLETIONS, body, limit=120)
    assert through.text == direct.text
    assert through.finished
    assert through.usage == direct.usage
    assert [line["output_tokens"] for line in front.logged([through])] == [5000]
    front.count([through])
    page = await front.agreed()
    assert page.get("vllm_slo_inter_token_latency_seconds_count", source="gateway")


async def test_what_vanished_clients_asked_for_is_given_up_at_once(front: Front) -> None:
    bodies = [text(8000, stream=n % 3 > 0) for n in range(30)]
    asked = [ask(front.port, body, leave_in=0.02 + 0.05 * n) for n, body in enumerate(bodies)]
    answers = await gather(*asked)
    left = time.monotonic()
    idle = lambda page: page.total("vllm:num_requests_running") + page.total("vllm:num_requests_waiting") == 0  # noqa: E731
    await asyncio.to_thread(front.daemon.wait, idle, 10)
    assert time.monotonic() - left < 5, "8000 tokens would take longer"
    front.count(answers)
    assert {answer.cause for answer in answers} == {"aborted"}
    await front.agreed()


async def test_time_to_first_token_is_the_clients_own_within_2_ms(front: Front) -> None:
    answers, added = [], []
    async with Client(front.port) as client, Client(front.direct) as other:
        for number in range(100):
            body = chat(3, stream=True, content=f"{number}")
            answers.append(await client.post(CHAT, body))
            direct = await other.post(CHAT, body)
            added.append((answers[-1].ttft or 0) - (direct.ttft or 0))
    measured = [line["ttft"] for line in front.logged(answers)]
    apart = [(answer.ttft or 0) - own for answer, own in zip(answers, measured, strict=True)]
    front.count(answers)
    told = f"apart {statistics.median(apart) * 1e3:.2f} ms, added {statistics.median(added) * 1e3:.2f} ms"
    assert abs(statistics.median(apart)) < 0.002, told
    assert statistics.median(added) < 0.005, told
    await front.agreed()


# The end of the engine


async def test_engines_killed_under_load_leave_no_client_without_an_end(front: Front) -> None:
    for restarts, title in enumerate(("EngineCore", "vllm serve"), 1):
        asked = [
            asyncio.create_task(
                ask(front.port, text(400 + 150 * n, stream=n % 4 > 0), limit=READ_TIMEOUT + 30)
            )
            for n in range(48)
        ]
        name = "vllm_exporter_gateway_requests_running"
        await asyncio.to_thread(front.daemon.wait, lambda page, name=name: page.total(name) > 40)
        os.kill(front.daemon.engine_pid(title), signal.SIGKILL)
        answers = await gather(*asked)
        front.count(answers)
        ends = Counter(answer.cause for answer in answers)
        assert sum(ends[cause] for cause in ("engine_error", "truncated", "engine_unreachable")) > 20, ends
        down = await gather(*(ask(front.port, text(5)) for _ in range(8)))
        front.count(down)
        assert {answer.cause for answer in down} <= {"engine_error", "engine_unreachable", "rejected"}
        assert all(int(answer.fields.get("retry-after", "1")) >= 1 for answer in down)
        await front.agreed()
        await asyncio.to_thread(served_again, front.daemon, restarts)
        again = await ask(front.port, text(5))
        assert again.cause == "success"
        front.count([again])
        await front.agreed()


def served_again(daemon: Daemon, restarts: int) -> None:
    name = "vllm_exporter_engine_restarts_total"
    daemon.wait(lambda page: page.total(name) == restarts and page.state == "ready", START_LIMIT)


async def test_a_stop_lets_streams_end_and_takes_no_new_ones(front: Front) -> None:
    asked = [asyncio.create_task(ask(front.port, text(3000, stream=True), limit=120)) for _ in range(16)]
    name = "vllm_exporter_gateway_requests_running"
    await asyncio.to_thread(front.daemon.wait, lambda page: page.total(name) == 16)
    front.daemon.signal(signal.SIGTERM)
    await asyncio.to_thread(front.daemon.wait, lambda page: page.state == "draining")
    refused = await ask(front.port, text(1))
    assert (refused.status, refused.error["code"]) == (503, "gateway_draining")
    answers = await gather(*asked)
    assert {(answer.cause, answer.finished) for answer in answers} == {("success", True)}
    assert await asyncio.to_thread(front.daemon.wait_exit, 60) == 0
    assert not front.daemon.events("daemon_failed")
    front.count([refused, *answers])
    lines = Counter(
        line["outcome"] for line in front.daemon.events("request") if line["route"] != "/v1/models"
    )
    assert lines == front.seen, "each request of all tests has its line"
