"""The engine is killed, stopped and broken under load: each client is told, and each request is counted once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from daemon import eventually
from front import Front, text
from wire import Answer, Client

ROUNDS = int(os.environ.get("GATEWAY_FAULT_ROUNDS", "11"))
"""Of a second or three each; a night of them finds what happens once in a thousand."""
CLIENTS = 24
READ_TIMEOUT = 1.5
LONGEST = READ_TIMEOUT + 8.0
"""Seconds within which every request must have ended, on a busy machine too."""
SETTINGS = {"engine.on_hang": "report", "gateway.read_timeout": READ_TIMEOUT}
SIMULATED = (
    "--step-seconds", "0.01", "--max-model-len", "200000", "--num-gpu-blocks-override", "400000", "--max-num-seqs", "64"
)  # fmt: skip
ENDS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}
CRASHES = {"core": "engine-core", "exit": 3, "abort": "SIGABRT"}
BREAKS: dict[str, dict[str, Any]] = {
    "errors": {"error_rate": 0.5},
    "cuts": {"truncate_rate": 0.5},
    "silence": {"silent": True},
    "wedge": {"wedge": True},
}
FAULTS = ("short stop", "long stop", *ENDS, *CRASHES, *BREAKS)


async def requests(front: Front, name: str, rng: random.Random) -> dict[str, Answer]:
    """A client's few requests over one connection, each with an id of its own."""
    answers = {}
    async with Client(front.port) as client:
        for number in range(rng.randint(1, 3)):
            body = text(rng.choice((1, 5, 20, 60)), stream=rng.random() < 0.7)
            path = "/v1/completions"
            if body["stream"] and rng.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
            if rng.random() < 0.5:
                path = "/v1/chat/completions"
                del body["prompt"]
                body["messages"] = [{"role": "user", "content": "你好"}]
            if rng.random() < 0.05:
                body["max_tokens"] = -1
            leave_in = None
            if rng.random() < 0.1:
                leave_in = rng.random() * 0.2
                body["max_tokens"] = 100_000
            request_id = f"{name}-{number}"
            answers[request_id] = await client.post(
                path, body, fields={"X-Request-Id": request_id}, leave_in=leave_in, limit=LONGEST
            )
            await asyncio.sleep(rng.random() * 0.05)
    return answers


async def strike(front: Front, fault: str, rng: random.Random) -> bool:
    """Do it to the engine at some moment; whether that was its end."""
    await asyncio.sleep(rng.random() * 0.5)
    pid = front.engine_pid
    if fault in ENDS:
        os.kill(pid, ENDS[fault])
        return True
    if fault in CRASHES:
        await asyncio.to_thread(front.fault, crash=CRASHES[fault])
        return True
    if fault in BREAKS:
        await asyncio.to_thread(front.fault, **BREAKS[fault])
    else:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(0.3 if fault == "short stop" else READ_TIMEOUT + 1.0)
    if fault in BREAKS:
        await asyncio.to_thread(front.fault)
    else:
        os.kill(pid, signal.SIGCONT)
    return False


@pytest.mark.timeout(120 + 10 * ROUNDS)
async def test_every_client_is_told_and_every_request_is_counted_once_under_its_cause(tmp_path: Path) -> None:
    with Front(tmp_path, settings=SETTINGS, simulated=SIMULATED) as front:
        starts = 1
        for number in range(ROUNDS):
            await asyncio.to_thread(front.daemon.event, "engine_started", starts)
            await asyncio.to_thread(front.daemon.event, "engine_ready", starts)
            await asyncio.to_thread(front.daemon.wait_ready)
            fault = FAULTS[number % len(FAULTS)]
            clients = [
                requests(front, f"{number}-{client}", random.Random(1000 * number + client))
                for client in range(CLIENTS)
            ]
            ended, *asked = await asyncio.gather(strike(front, fault, random.Random(number)), *clients)
            starts += ended
            answers = {name: answer for client in asked for name, answer in client.items()}
            front.count(answers.values())
            await agreed(front, f"round {number}, {fault}", answers)
        assert len(front.seen) >= 6, f"they end in many ways: {front.seen}"


async def agreed(front: Front, where: str, answers: dict[str, Answer]) -> None:
    """The log has each request once, under the cause that its client saw; the totals are the sums of that."""

    def written() -> dict[str, dict[str, Any]] | None:
        found = front.logged()
        return found if answers.keys() <= found.keys() else None

    lines = await asyncio.to_thread(eventually, "each request is written down", written, 10)
    for name, answer in answers.items():
        line = lines[name]
        if answer.left:
            # It may have left an answer, or an error, that was on its way to it.
            front.seen[answer.cause] -= 1
            front.seen[line["outcome"]] += 1
            continue
        assert line["outcome"] == answer.cause, (where, line, answer.status, answer.error)
        assert line["status"] == answer.status, (where, line)
    assert Counter(line["outcome"] for line in lines.values()) == +front.seen, where
    assert front.told() == +front.seen, where
    value = front.daemon.value
    assert value("vllm_exporter_gateway_requests_running") == 0, where
    assert value("vllm_exporter_gateway_requests_queued") == 0, where
