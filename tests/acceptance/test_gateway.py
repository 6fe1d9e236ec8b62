"""The daemon with its gateway over the built-in simulator, as clients and whoever runs it see it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from daemon import PROGRAM, eventually, free_port, gone
from front import MODEL, Front, text
from wire import Answer, Client, ask, gather

COMPLETIONS = "/v1/completions"
SLOW = ("--step-seconds", "0.02")
KEEP = ("--on-exit", "keep")


async def ready(front: Front) -> None:
    await asyncio.to_thread(front.daemon.wait_ready)


async def running(front: Front, count: int) -> None:
    """Wait until so many requests are at the engine."""
    name = "vllm_exporter_gateway_requests_running"
    await asyncio.to_thread(eventually, f"{count} running", lambda: front.daemon.value(name) == count)


async def queued(front: Front, count: int) -> None:
    """Wait until so many requests wait at the gateway."""
    name = "vllm_exporter_gateway_requests_queued"
    await asyncio.to_thread(eventually, f"{count} queued", lambda: front.daemon.value(name) == count)


async def agreed(front: Front) -> None:
    """The gateway's totals come to what the clients have seen, and stay there."""
    await asyncio.to_thread(eventually, f"{front.seen} counted", lambda: front.told() == front.seen, 10)


def stops(front: Front, code: int = 0) -> None:
    front.daemon.process.send_signal(signal.SIGTERM)
    assert front.daemon.process.wait(40) == code


async def test_the_engine_moves_and_clients_find_the_gateway_at_its_address(tmp_path: Path) -> None:
    with Front(tmp_path) as front:
        await ready(front)
        assert front.engine_port != front.port
        through = await ask(front.port, text(5, seed=3))
        direct = await ask(front.engine_port, text(5, seed=3))
        assert (through.cause, through.text) == ("success", direct.text)
        async with Client(front.port) as client:
            assert (await client.get("/v1/models")).json["data"][0]["id"] == MODEL
            assert (await client.get("/health")).status == 200
            closed = await client.post("/sim/faults", {"silent": True})
        assert (closed.status, closed.error["code"]) == (404, "unknown_url")
        await agreed_on(front, through)
        stops(front)
        assert "daemon_failed" not in front.daemon.log.read_text()


async def agreed_on(front: Front, *answers: Answer) -> None:
    front.count(answers)
    await agreed(front)


async def test_the_gateway_is_off_when_told_so(tmp_path: Path) -> None:
    with Front(tmp_path, settings={"gateway.mode": "off"}) as front:
        await ready(front)
        assert front.engine_port == front.port
        assert (await ask(front.port, text(5))).cause == "success"
        assert not [name for name in front.daemon.families() if name.startswith("vllm_exporter_gateway_")]
        stops(front)


async def test_while_the_engine_loads_clients_are_told_how_far_it_is(tmp_path: Path) -> None:
    with Front(tmp_path, simulated=("--load-seconds", "3")) as front:
        answers = []
        async with Client(front.port) as client:
            while not answers or answers[-1].status != 200:
                try:
                    answers.append(await client.post(COMPLETIONS, text(1)))
                except ConnectionRefusedError:
                    assert not answers, "the port is never given up again"
                await asyncio.sleep(0.1)
        refused = answers[:-1]
        assert len(refused) >= 10
        for answer in refused:
            assert answer.status == 503
            assert answer.error["type"] == "service_unavailable"
            assert answer.error["code"] in ("engine_loading", "engine_down")
            assert 1 <= int(answer.fields["retry-after"]) <= 60
        told = {answer.error["message"] for answer in refused}
        assert any("loading_weights" in message and "% of the weights" in message for message in told), told
        assert len(told) >= 4, told
        await agreed_on(front, *answers)
        reasons = front.daemon.families()["vllm_exporter_gateway_refusals"].samples
        assert sum(sample.value for sample in reasons) == len(refused)


async def test_requests_are_held_while_the_engine_loads_and_while_it_is_started_again(tmp_path: Path) -> None:
    held = {"gateway.hold_timeout": 30}
    with Front(tmp_path, settings=held, simulated=("--load-seconds", "1")) as front:
        await asyncio.to_thread(front.daemon.event, "engine_started")
        first = await gather(*(ask(front.port, text(3, stream=n % 2 == 0)) for n in range(8)))
        os.kill(front.engine_pid, signal.SIGKILL)
        state = "vllm_exporter_engine_up"
        await asyncio.to_thread(eventually, "down", lambda: front.daemon.value(state) == 0)
        second = await gather(*(ask(front.port, text(3)) for _ in range(8)))
        assert {answer.cause for answer in (*first, *second)} == {"success"}
        await agreed_on(front, *first, *second)
        wait = front.daemon.value("vllm_slo_queue_duration_seconds_sum", source="gateway")
        assert wait is not None
        assert wait > 4.0, "their wait is the gateway's queue"


async def test_a_hold_ends_in_a_503(tmp_path: Path) -> None:
    held = {"gateway.hold_timeout": 0.5}
    with Front(tmp_path, settings=held, simulated=("--load-seconds", "60")) as front:
        await asyncio.to_thread(front.daemon.event, "engine_started")
        answers = await gather(*(ask(front.port, text(3)) for _ in range(4)))
        for answer in answers:
            assert (answer.status, answer.error["code"]) == (503, "engine_loading")
            assert answer.ended - answer.sent > 0.45
        await agreed_on(front, *answers)
        front.daemon.process.send_signal(signal.SIGTERM)


async def test_a_stop_finishes_what_runs_and_takes_no_more(tmp_path: Path) -> None:
    with Front(tmp_path, simulated=SLOW) as front:
        await ready(front)
        async with Client(front.port) as waiting:
            before = await waiting.get("/health")
            streams = [asyncio.create_task(ask(front.port, text(100, stream=True))) for _ in range(8)]
            whole = asyncio.create_task(ask(front.port, text(100)))
            await running(front, 9)
            front.daemon.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(front.daemon.event, "signal_received")
            await asyncio.sleep(0.2)
            refused = [await ask(front.port, text(1)) for _ in range(3)]
            refused.append(await waiting.post(COMPLETIONS, text(1)))
            front.count(refused)
            told = front.told()
            ended = await gather(whole, *streams)
        assert before.status == 200
        for answer in refused:
            assert (answer.status, answer.error["code"]) == (503, "gateway_draining")
            assert int(answer.fields["retry-after"]) >= 1
        assert told["rejected"] == 4
        assert [answer.cause for answer in ended] == ["success"] * 9
        assert all(answer.text.count(" ") or answer.text for answer in ended)
        assert front.daemon.process.wait(40) == 0
        assert Counter(line["outcome"] for line in front.logged().values()) == {"success": 9, "rejected": 4}
        assert "daemon_failed" not in front.daemon.log.read_text()


async def test_a_second_signal_ends_what_runs_and_each_client_sees_that(tmp_path: Path) -> None:
    with Front(tmp_path, simulated=SLOW) as front:
        await ready(front)
        asked = [
            asyncio.create_task(
                ask(front.port, text(3000, stream=n % 4 > 0), fields={"X-Request-Id": f"r{n}"})
            )
            for n in range(8)
        ]
        await running(front, 8)
        for _ in range(2):
            front.daemon.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
        answers = await gather(*asked)
        assert front.daemon.process.wait(20) == 0
        assert {answer.cause for answer in answers} <= {"truncated", "engine_unreachable", "nothing"}
        assert len(front.logged()) == 8


async def test_keys_are_checked_here_and_have_limits_and_figures_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    keys = {
        "web": add_key(file, "web"),
        "slow": add_key(file, "slow", requests_per_minute=2),
        "other": add_key(file, "other", models=["another-model"]),
        "tokens": add_key(file, "tokens", tokens_per_minute=50),
    }
    with Front(tmp_path, settings={"gateway.keys_file": str(file)}) as front:
        await ready(front)

        async def by(name: str, tokens: int = 5) -> Answer:
            fields = {"Authorization": f"Bearer {keys[name]}"}
            return await ask(front.port, text(tokens), fields=fields)

        none = await ask(front.port, text(5))
        wrong = await ask(front.port, text(5), fields={"Authorization": "Bearer sk-wrong"})
        for answer in (none, wrong):
            assert answer.status == 401
            assert answer.fields["www-authenticate"] == "Bearer"
            assert answer.error["type"] == "invalid_request_error"
        web = [await by("web") for _ in range(5)]
        slow = [await by("slow") for _ in range(4)]
        other = await by("other")
        tokens = [await by("tokens", 60), await by("tokens")]
        assert [answer.status for answer in web] == [200] * 5
        assert [answer.status for answer in slow] == [200, 200, 429, 429]
        assert slow[2].error["code"] == "rate_limit_exceeded"
        assert 1 <= int(slow[2].fields["retry-after"]) <= 30
        assert (other.status, other.error["code"]) == (404, "model_not_found")
        assert [answer.status for answer in tokens] == [200, 429]
        async with Client(front.port) as client:
            assert (await client.get("/health")).status == 200
            assert (await client.get("/v1/models")).status == 401
        await agreed_on(front, none, wrong, *web, *slow, other, *tokens)
        value = front.daemon.value
        assert value("vllm_slo_key_requests_total", key="web", outcome="success") == 5
        assert value("vllm_slo_key_requests_total", key="slow", outcome="client_error") == 2
        assert value("vllm_slo_key_tokens_total", key="tokens", direction="output") == 60
        assert value("vllm_slo_key_request_duration_seconds_count", key="web") == 5
        command = (*PROGRAM, "keys", "add", "late", "--file", str(file))
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        keys["late"] = made.stdout.strip().split()[-1]
        front.daemon.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.3)
        late = await by("late")
        assert late.status == 200, "a key counts as soon as the file is read again"
        shown = front.daemon.log.read_text() + front.daemon.get()
        assert not [name for name, key in keys.items() if key in shown], "keys are never shown"
        line = await asyncio.to_thread(
            eventually, "a line in the log", lambda: front.logged().get(late.fields["x-request-id"])
        )
        assert line["key"] == "late"


def add_key(file: Path, name: str, **limits: object) -> str:
    """A new key, its digest in the file."""
    key = f"sk-{secrets.token_urlsafe(32)}"
    lines = ["[[keys]]", f'name = "{name}"', f'hash = "sha256:{hashlib.sha256(key.encode()).hexdigest()}"']
    lines += [f"{limit} = {json.dumps(value)}" for limit, value in limits.items()]
    with file.open("a") as keys:
        keys.write("\n".join([*lines, "", ""]))
    return key


async def test_addresses_and_models_have_limits_too(tmp_path: Path) -> None:
    limits = {"gateway.requests_per_minute": 4, f'gateway.model_tokens_per_minute."{MODEL}"': 100}
    with Front(tmp_path, settings=limits) as front:
        await ready(front)
        answers = [await ask(front.port, text(tokens)) for tokens in (5, 200, 5, 5, 5, 5)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429, 429, 429]
        assert answers[2].error["code"] == "model_rate_limit_exceeded"
        assert all(int(answer.fields["retry-after"]) >= 1 for answer in answers[2:])
        await agreed_on(front, *answers)


async def test_what_does_not_fit_waits_in_order_of_priority_or_is_refused(tmp_path: Path) -> None:
    bounds = {"gateway.max_concurrent": 1, "gateway.max_queued": 4, "gateway.queue_timeout": 20}
    with Front(tmp_path, settings=bounds, simulated=("--step-seconds", "0.01")) as front:
        await ready(front)
        order: list[str] = []

        async def client(name: str, priority: str, tokens: int = 10) -> Answer:
            answer = await ask(front.port, text(tokens, stream=True), fields={"X-Priority": priority})
            order.append(name)
            return answer

        tasks = [asyncio.create_task(client("first", "batch", 150))]
        await running(front, 1)
        for number, name in enumerate(("batch 1", "batch 2", "user 1", "user 2"), 1):
            tasks.append(asyncio.create_task(client(name, name.split()[0].replace("user", "interactive"))))
            await queued(front, number)
        full = await ask(front.port, text(1))
        assert (full.status, full.error["code"]) == (429, "queue_full")
        assert int(full.fields["retry-after"]) >= 1
        answers = await gather(*tasks)
        assert order == ["first", "user 1", "user 2", "batch 1", "batch 2"]
        await agreed_on(front, full, *answers)
        assert front.seen == {"success": 5, "rejected": 1}


async def test_a_wait_for_room_ends_in_a_503_and_one_who_leaves_it_is_not_served(tmp_path: Path) -> None:
    bounds = {"gateway.max_concurrent": 1, "gateway.queue_timeout": 1}
    with Front(tmp_path, settings=bounds, simulated=("--step-seconds", "0.01")) as front:
        await ready(front)
        long = asyncio.create_task(ask(front.port, text(250, stream=True)))
        await running(front, 1)
        late, left = await gather(ask(front.port, text(1)), ask(front.port, text(1), leave_in=0.4))
        assert (late.status, late.error["code"]) == (503, "queue_timeout")
        assert late.ended - late.sent > 0.95
        await agreed_on(front, late, left, await long)
        assert front.seen == {"rejected": 1, "aborted": 1, "success": 1}


async def test_a_client_that_vanishes_stops_the_engines_work(tmp_path: Path) -> None:
    with Front(tmp_path, simulated=("--step-seconds", "0.005")) as front:
        await ready(front)
        bodies = [text(2000, stream=n % 2 == 0) for n in range(10)]
        began = time.monotonic()
        answers = await gather(*(ask(front.port, body, leave_in=0.3) for body in bodies))
        idle = lambda: front.daemon.value("vllm:num_requests_running") == 0  # noqa: E731
        await asyncio.to_thread(eventually, "the engine is idle", idle, 5)
        assert time.monotonic() - began < 6, "and not when all the tokens are made"
        await agreed_on(front, *answers)
        assert front.seen == {"aborted": 10}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_totals_go_on_after_the_daemon_was(tmp_path: Path, number: signal.Signals) -> None:
    seen: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    port = None
    for life in range(2):
        with Front(tmp_path, port=port) as front:
            port = front.port
            front.seen = seen
            await ready(front)
            if life:
                assert front.told() == shown, "no total goes back"
            front.count(await gather(*(ask(port, text(3, stream=n % 2 == 0)) for n in range(7))))
            front.count([await ask(port, {"model": "none", "prompt": "x"})])
            await agreed(front)
            shown = front.told()
            front.daemon.process.send_signal(number)
            front.daemon.process.wait(30)
    assert shown == {"success": 14, "client_error": 2}


async def test_a_kept_engine_is_reached_again_through_the_next_daemon(tmp_path: Path) -> None:
    with Front(tmp_path, *KEEP, simulated=SLOW) as front:
        await ready(front)
        port, engine, at = front.port, front.engine_pid, front.engine_port
        front.count([await ask(port, text(3))])
        await agreed(front)
        front.daemon.kill()
    with pytest.raises(ConnectionRefusedError):
        await ask(port, text(1))
    assert (await ask(at, text(3))).cause == "success", "the engine itself goes on, where it is"
    with Front(tmp_path, *KEEP, port=port, simulated=SLOW) as next_front:
        await ready(next_front)
        assert int(next_front.daemon.event("engine_adopted")["pid"]) == engine
        next_front.seen = front.seen
        next_front.count(await gather(*(ask(port, text(3, stream=True)) for _ in range(4))))
        await agreed(next_front)
        assert next_front.seen == {"success": 5}
        os.kill(engine, signal.SIGKILL)
        await asyncio.to_thread(next_front.daemon.event, "engine_started")
        await ready(next_front)
        assert (await ask(port, text(3))).cause == "success", "its successor is found as well"
        successor = next_front.engine_pid
        stops(next_front)
    assert not gone(successor)
    with Front(tmp_path, "--on-exit", "stop", port=port, simulated=SLOW) as last:
        await ready(last)
        assert (await ask(port, text(3))).cause == "success"
        stops(last)
    assert gone(successor)


async def test_clients_may_come_to_another_address_than_the_engines(tmp_path: Path) -> None:
    elsewhere = free_port()
    with Front(tmp_path, settings={"gateway.listen": f"127.0.0.1:{elsewhere}"}) as front:
        await ready(front)
        assert front.engine_port == front.port
        assert (await ask(elsewhere, text(5))).cause == "success"
        assert (await ask(front.port, text(5))).cause == "success"
        await asyncio.to_thread(eventually, "one counted", lambda: front.told() == {"success": 1})
