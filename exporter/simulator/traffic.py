"""Synthetic clients: seeded requests of mixed lengths and languages, to a server's port.

Arrivals are a Poisson process whose rate follows a pattern. A few clients hang up in the middle of their answer, some of
them without a word (a reset, as when a phone loses its network), and some lose patience before the first token. Above the
concurrency limit an arrival is skipped, so that an overload stays bounded.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from exporter.simulator.options import Options

DIURNAL_PERIOD = 600.0
"""Seconds of a simulated day."""

BURST_PERIOD, BURST_LENGTH, BURST_FACTOR = 60.0, 10.0, 5.0

REQUEST_TIMEOUT = 120.0

PATIENCE = 8.0
"""Seconds without a byte of text after which anybody goes away."""

ROLE_BYTES = 300
"""What comes of a stream before its first token: an event that only says whose turn it is."""

UP_EVERY = 0.2
"""Seconds between two looks whether a server that is not there yet has come up."""

_ENGLISH = (
    "Explain how a paged KV cache works and why it matters for throughput.",
    "Summarise the following meeting notes in three bullet points.",
    "Write a short story about a lighthouse keeper who collects clocks.",
    "What should I check first when a service becomes slow only on Mondays?",
    "Translate this paragraph into plain language for a new colleague.",
)
_CHINESE = (
    "请用简单的话解释一下什么是连续批处理，以及它为什么能提高吞吐量。",
    "帮我写一封邮件，告诉客户我们的发布会推迟到下周三下午。",
    "这段代码为什么在高并发的时候会变慢？请一步一步分析原因。",
    "把下面这段会议记录整理成三条要点。",
)
_SYSTEM = (
    "You are a careful assistant. Answer in the language of the question, and say when you are not sure. " * 4
)
_FILLER = "The quick notes from the last session say that the second shard was slower than the first one. "
_CHINESE_FILLER = "会议记录显示第二个分片比第一个分片慢一些，需要继续观察。"


def rate_at(pattern: str, mean: float, seconds: float) -> float:
    """Arrivals a second at a time since the start; each pattern's mean over its period is `mean`."""
    match pattern:
        case "diurnal":
            return mean * (1.0 - 0.8 * math.cos(2 * math.pi * seconds / DIURNAL_PERIOD))
        case "burst":
            quiet = BURST_PERIOD / (BURST_PERIOD + (BURST_FACTOR - 1.0) * BURST_LENGTH)
            return (
                mean
                * quiet
                * (BURST_FACTOR if seconds % BURST_PERIOD >= BURST_PERIOD - BURST_LENGTH else 1.0)
            )
    return mean


@dataclass(frozen=True)
class Call:
    """One synthetic request: where it goes, its body, and what its client puts up with."""

    path: str
    body: dict[str, Any]
    hang_up_after: int | None
    """Bytes after which the client leaves."""
    vanishes: bool = False
    """Whether it then leaves without closing its connection properly."""
    patience: float = PATIENCE
    """Seconds that it waits for the first of them."""


def draw_call(rng: random.Random, model: str) -> Call:
    """A request like those of a mixed day: mostly streamed chats, some long prompts, a third in Chinese."""
    chinese = rng.random() < 0.3
    prompt = rng.choice(_CHINESE if chinese else _ENGLISH)
    if rng.random() < 0.25:
        prompt += "\n" + (_CHINESE_FILLER if chinese else _FILLER) * rng.randint(4, 40)
    max_tokens = min(512, max(8, round(rng.lognormvariate(4.5, 0.7))))
    stream = rng.random() < 0.85
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "stream": stream}
    if stream and rng.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    hang_up_after = rng.randint(400, 8000) if stream and rng.random() < 0.03 else None
    vanishes = hang_up_after is not None and rng.random() < 0.3
    patience = rng.uniform(0.0, 0.05) if stream and rng.random() < 0.02 else PATIENCE
    if rng.random() < 0.8:
        body["messages"] = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": prompt}]
        return Call("/v1/chat/completions", body, hang_up_after, vanishes, patience)
    body["prompt"] = prompt
    return Call("/v1/completions", body, hang_up_after, vanishes, patience)


def base_url(address: tuple[str, int]) -> str:
    """Where a listener on this address is reached from the same machine."""
    host = "127.0.0.1" if address[0] in ("0.0.0.0", "::") else address[0]  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"


class Traffic:
    """Sends the calls to the server at a base URL; `run` goes on until cancelled."""

    def __init__(self, options: Options, to: str) -> None:
        self._base = to
        self._options = options
        self._rng = random.Random(options.seed)  # noqa: S311 - a simulation
        self._active = 0

    async def run(self, *, wait_until_up: bool = False) -> None:
        """`wait_until_up`: send nothing before the server lists its models for the first time."""
        options = self._options
        headers = {"Authorization": f"Bearer {options.api_keys[0]}"} if options.api_keys else {}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        connector = aiohttp.TCPConnector(limit=options.traffic_concurrency)
        async with (
            aiohttp.ClientSession(
                self._base, headers=headers, timeout=timeout, connector=connector
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while wait_until_up and not await _is_up(session):  # noqa: ASYNC110  it is another process
                await asyncio.sleep(UP_EVERY)
            start = time.monotonic()
            while True:
                rate = rate_at(options.traffic_pattern, options.traffic, time.monotonic() - start)
                await asyncio.sleep(self._rng.expovariate(max(rate, 0.01)))
                call = draw_call(self._rng, options.served[0])
                if self._active < options.traffic_concurrency:
                    self._active += 1
                    group.create_task(self._send(session, call))

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> None:
        try:
            async with asyncio.timeout(call.patience if call.body["stream"] else None) as waiting:
                async with session.post(call.path, json=call.body) as response:
                    received = 0
                    async for chunk in response.content.iter_any():
                        received += len(chunk)
                        if received > ROLE_BYTES:
                            waiting.reschedule(None)
                        if call.hang_up_after is not None and received >= call.hang_up_after:
                            transport = response.connection and response.connection.transport
                            if call.vanishes and transport is not None:
                                transport.abort()
                            response.close()
                            return
        except (aiohttp.ClientError, TimeoutError):
            pass  # the faults of the server are not the client's concern
        finally:
            self._active -= 1


async def _is_up(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/v1/models") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
