"""The HTTP face: vLLM's paths over simulated engines, and `/sim/faults` to break them."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from exporter.simulator import console, openai_api, text
from exporter.simulator.engine import EngineDeadError, FaultBoard, Ranks, TokenQueue
from exporter.simulator.faults import Crash, Plan, parse_body
from exporter.simulator.metrics import PageMetrics
from exporter.simulator.openai_api import Answer, ApiError, GenerationRequest
from exporter.simulator.options import Options
from exporter.simulator.scheduler import FinishReason, Request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_UNCOUNTED = ("/metrics", "/health", "/load", "/ping", "/version", "/server_info", "/sim/faults")


class Server:
    """Answers for the engines behind it, as wrongly as the fault board says."""

    def __init__(self, options: Options, ranks: Ranks, metrics: PageMetrics, board: FaultBoard) -> None:
        self._options = options
        self._ranks = ranks
        self._metrics = metrics
        self._board = board
        self._started = int(time.time())
        self._random = random.Random(options.seed)  # noqa: S311 - a simulation
        self._requests = 0
        self.accepting = True
        self.crash: Callable[[Crash], None] = lambda crash: None
        """What carries out a crash; set by who owns the process."""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._frame_of_every_request], client_max_size=64 << 20)
        app.on_response_prepare.append(_sign)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ping", self._health)
        app.router.add_post("/ping", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/load", self._load)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._page)
        app.router.add_get("/metrics/", self._page)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/sim/faults", self._show_faults)
        app.router.add_post("/sim/faults", self._set_faults)
        app.router.add_delete("/sim/faults", self._clear_faults)
        return app

    def begin(self, plan: Plan) -> None:
        """Carry a plan out now; its delay is the caller's to wait for."""
        self._board.faults = self._board.faults.changed(plan.changes)
        if plan.crash is not None:
            self.crash(plan.crash)

    @web.middleware
    async def _frame_of_every_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._board.faults.silent and request.path != "/sim/faults":
            await _for_ever()
        start = time.monotonic()
        response = await self._guarded(request, handler)
        seconds = time.monotonic() - start
        if not self._options.quiet and request.path != "/sim/faults":
            peer = request.transport.get_extra_info("peername") if request.transport else None
            where = f"{peer[0]}:{peer[1]}" if peer else "-"
            console.uvicorn(
                f'{where} - "{request.method} {request.path_qs} HTTP/1.1" {response.status} {response.reason}'
            )
        if request.path not in _UNCOUNTED:
            resource = request.match_info.route.resource
            self._metrics.http(
                method=request.method,
                handler=resource.canonical if resource is not None else "none",
                status=response.status,
                seconds=seconds,
                request_bytes=request.content_length or 0,
                response_bytes=response.content_length or 0,
            )
        return response

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        keys = self._options.api_keys
        if keys and request.path.startswith("/v1") and request.method != "OPTIONS":
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or key not in keys:
                return _json({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except ApiError as error:
            return _json(error.body, status=error.status)
        except EngineDeadError:
            dead = openai_api.internal_error(openai_api.ENGINE_DEAD)
            return _json(dead.body, status=dead.status)
        except web.HTTPException as error:
            # FastAPI answers unknown paths and methods in this form.
            return _json({"detail": error.reason}, status=error.status)

    async def _health(self, _request: web.Request) -> web.Response:
        if self._board.faults.health == "silent":
            await _for_ever()
        bad = self._ranks.dead or self._board.faults.health == "fail"
        return web.Response(status=503 if bad else 200)

    async def _version(self, _request: web.Request) -> web.Response:
        return _json({"version": console.VERSION})

    async def _load(self, _request: web.Request) -> web.Response:
        return _json({"server_load": self._ranks.unfinished})

    async def _models(self, _request: web.Request) -> web.Response:
        options = self._options
        return _json(
            openai_api.model_list(options.served, options.model, self._started, options.shape.max_model_len)
        )

    async def _page(self, request: web.Request) -> web.StreamResponse:
        faults = self._board.faults
        if faults.metrics_delay or faults.metrics == "slow":
            await asyncio.sleep(faults.metrics_delay or 10.0)
        match faults.metrics:
            case "silent":
                await _for_ever()
            case "error":
                return web.Response(status=500, text="Internal Server Error")
            case "html":
                return web.Response(text="<!doctype html><title>Sign in</title>\n", content_type="text/html")
            case "garbage":
                page = self._metrics.page()
                return _metrics_response(page[: len(page) // 2] + b'\nvllm:broken{le="0.1 not a number\n')
            case "huge" | "endless":
                return await self._huge(request, endless=faults.metrics == "endless")
        return _metrics_response(self._metrics.page())

    async def _huge(self, request: web.Request, *, endless: bool) -> web.StreamResponse:
        """A valid page of about 100 MB, or one without an end, written at the reader's pace."""
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST})
        await response.prepare(request)
        await response.write(self._metrics.page())
        number = 0
        while endless or number < 100 * 150:
            lines = (f'sim_padding{{number="{number * 150 + i}"}} {i}.0\n' for i in range(150))
            await response.write("".join(lines).encode().ljust(1))
            number += 1
            await asyncio.sleep(0)
        return response

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return _json(self._board.faults.as_dict())

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            plan = parse_body(json.loads(await request.read()))
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        if plan.after:
            asyncio.get_running_loop().call_later(plan.after, self.begin, plan)
        elif plan.crash is not None:
            # The answer goes out first.
            asyncio.get_running_loop().call_later(0.01, self.begin, plan)
        else:
            self.begin(plan)
        return await self._show_faults(request)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._board.faults = type(self._board.faults)()
        return await self._show_faults(request)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        body = await request.read()
        wanted = openai_api.parse_request(
            body, chat=chat, models=self._options.served, max_model_len=self._options.shape.max_model_len
        )
        if not self.accepting:
            raise openai_api.internal_error("cannot schedule new futures after shutdown")
        self._admit()
        answer = Answer(wanted, uuid.uuid4().hex, int(time.time()))
        fails_at, breaks_at = self._draw_faults(wanted)
        tokens = self._submit(wanted, answer.id)
        try:
            if wanted.stream:
                return await self._stream(request, answer, tokens, fails_at, breaks_at)
            return await self._whole(answer, tokens, fails_at)
        finally:
            # The client went away, or something broke: nothing may be left in the engine.
            tokens.end(FinishReason.ABORT)

    def _admit(self) -> None:
        requests, tokens = self._options.max_queued_requests, self._options.max_queued_tokens
        if requests is not None and self._ranks.unfinished + 1 > requests:
            self._metrics.rejections["max_num_queued_reqs"].inc()
            raise openai_api.overloaded("The engine is currently busy and cannot accept new requests.")
        if tokens is not None and self._ranks.queued_prompt_tokens >= tokens:
            self._metrics.rejections["max_num_queued_tokens"].inc()
            raise openai_api.overloaded("The engine has reached its prefill token backlog limit.")

    def _draw_faults(self, wanted: GenerationRequest) -> tuple[int | None, int | None]:
        """After how many tokens this request fails, and after how many its stream breaks; None: never."""
        faults = self._board.faults
        fails_at = breaks_at = None
        if faults.error_rate and self._random.random() < faults.error_rate:
            fails_at = self._random.randint(0, min(8, wanted.max_tokens - 1))
        if wanted.stream and faults.truncate_rate and self._random.random() < faults.truncate_rate:
            breaks_at = self._random.randint(1, min(8, wanted.max_tokens))
        return fails_at, breaks_at

    def _submit(self, wanted: GenerationRequest, request_id: str) -> TokenQueue:
        self._requests += 1
        seed = self._options.seed * 1_000_003 + self._requests if wanted.seed is None else wanted.seed
        length = None
        if not wanted.ignore_eos:
            mean = self._options.reply_tokens
            length = max(1, round(random.Random(seed).gammavariate(2.0, mean / 2.0)))  # noqa: S311
        return self._ranks.submit(
            Request(
                id=request_id,
                prompt=wanted.prompt,
                max_tokens=wanted.max_tokens,
                sample=text.author(seed, wanted.prompt_text),
                stop_after=length,
            )
        )

    async def _stream(
        self,
        request: web.Request,
        answer: Answer,
        tokens: TokenQueue,
        fails_at: int | None,
        breaks_at: int | None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        # vLLM answers 200 when the request is accepted, before its first token.
        await response.prepare(request)
        if answer.request.chat:
            await response.write(openai_api.frame(answer.role_chunk()))
        count = 0
        try:
            async for piece, count, reason, stop in _pieces(answer.request, tokens, fails_at):
                await response.write(openai_api.frame(answer.token_chunk(piece, count, reason, stop)))
                if count == breaks_at:
                    tokens.end(FinishReason.ABORT)
                    if request.transport is not None:
                        request.transport.abort()
                    return response
        except (ApiError, EngineDeadError) as error:
            body = (
                error.body
                if isinstance(error, ApiError)
                else openai_api.internal_error(openai_api.ENGINE_DEAD).body
            )
            await response.write(openai_api.frame(body))
        else:
            if answer.request.include_usage:
                await response.write(openai_api.frame(answer.usage_chunk(count)))
        await response.write(openai_api.DONE)
        return response

    async def _whole(self, answer: Answer, tokens: TokenQueue, fails_at: int | None) -> web.Response:
        parts = [answer.request.prompt_text] if answer.request.echo else []
        count, reason, stop = 0, "stop", None
        async for piece, length, ended, found in _pieces(answer.request, tokens, fails_at):
            parts.append(piece)
            count, reason, stop = length, ended or reason, found
        return _json(answer.whole("".join(parts), count, reason, stop))


async def _pieces(
    wanted: GenerationRequest, tokens: TokenQueue, fails_at: int | None
) -> AsyncIterator[tuple[str, int, str | None, str | None]]:
    """For each token: the text to show, the reply's length, and with the last one why it ended (and on which stop)."""
    watch = openai_api.StopText(wanted.stop)
    count = 0
    while True:
        if count == fails_at:
            tokens.end(FinishReason.ERROR)
            raise openai_api.internal_error("Internal server error")
        output = await tokens.get()
        count += 1
        shown, stopped = watch.feed(text.text_of(output.token))
        if stopped:
            tokens.end(FinishReason.STOP)
            yield shown, count, FinishReason.STOP.value, watch.found
            return
        if output.finish_reason is not None:
            yield shown + watch.flush(), count, output.finish_reason.value, None
            return
        yield shown, count, None, None


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "uvicorn"


def _json(body: object, status: int = 200) -> web.Response:
    """A body as FastAPI writes it: without spaces, and its type without a charset."""
    data = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(body=data, status=status, content_type="application/json")


def _metrics_response(page: bytes) -> web.Response:
    return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")
