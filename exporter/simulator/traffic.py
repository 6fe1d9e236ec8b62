"""Synthetic clients: seeded requests of mixed lengths and languages, through the server's own port.

Arrivals are a Poisson process whose rate follows a pattern. A few clients hang up in the middle of their answer.
Above the concurrency limit an arrival is skipped, so that an overload stays bounded.
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
    """One synthetic request: where it goes, its body, and after how many bytes its client hangs up."""

    path: str
    body: dict[str, Any]
    hang_up_after: int | None


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
    if rng.random() < 0.8:
        body["messages"] = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": prompt}]
        return Call("/v1/chat/completions", body, hang_up_after)
    body["prompt"] = prompt
    return Call("/v1/completions", body, hang_up_after)


class Traffic:
    """Sends the calls; `run` goes on until cancelled."""

    def __init__(self, options: Options, address: tuple[str, int]) -> None:
        host = "127.0.0.1" if address[0] in ("0.0.0.0", "::") else address[0]  # noqa: S104 - compared, not bound
        self._base = f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"
        self._options = options
        self._rng = random.Random(options.seed)  # noqa: S311 - a simulation
        self._active = 0

    async def run(self) -> None:
        options = self._options
        headers = {"Authorization": f"Bearer {options.api_keys[0]}"} if options.api_keys else {}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        connector = aiohttp.TCPConnector(limit=options.traffic_concurrency)
        start = time.monotonic()
        async with (
            aiohttp.ClientSession(
                self._base, headers=headers, timeout=timeout, connector=connector
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while True:
                rate = rate_at(options.traffic_pattern, options.traffic, time.monotonic() - start)
                await asyncio.sleep(self._rng.expovariate(max(rate, 0.01)))
                call = draw_call(self._rng, options.served[0])
                if self._active < options.traffic_concurrency:
                    self._active += 1
                    group.create_task(self._send(session, call))

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> None:
        try:
            async with session.post(call.path, json=call.body) as response:
                received = 0
                async for chunk in response.content.iter_any():
                    received += len(chunk)
                    if call.hang_up_after is not None and received >= call.hang_up_after:
                        response.close()
                        return
        except (aiohttp.ClientError, TimeoutError):
            pass  # the faults of the server are not the client's concern
        finally:
            self._active -= 1
