"""The simulator as a process, used through the official client and by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.engine.output.diagnosis import OutputScan, diagnose

FAST = ("--step-seconds", "0.002", "--prefill-tokens-per-second", "1e6")


class Simulator:
    """A running `simulate` process on a free port, its output being collected."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exporter.simulator", "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        self.output = b""
        self.url = ""

    def read_until(self, pattern: bytes, timeout: float = 20.0) -> re.Match[bytes]:
        """Collect output until it contains a match."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.output)):
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"{pattern!r} never came; got:\n{self.output.decode()}"
            self.read_more(remaining)
        return match

    def read_more(self, timeout: float = 20.0) -> None:
        """Take what the process printed next."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], timeout)[0]:
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it ended:\n{self.output.decode()}"
            self.output += data

    def ready(self) -> Simulator:
        self.url = self.read_until(rb"Starting vLLM server on (http://\S+)").group(1).decode()
        self.read_until(rb"Application startup complete")
        return self

    def wait(self, timeout: float = 15.0) -> int:
        assert self.process.stdout is not None
        self.output += self.process.communicate(timeout=timeout)[0]
        return self.process.returncode

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", **({"api_key": "none", "max_retries": 0} | options))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=10)


@contextlib.contextmanager
def simulator(*flags: str, env: dict[str, str] | None = None) -> Iterator[Simulator]:
    """A ready simulator; dead afterwards."""
    sim = Simulator(*flags, env=env)
    try:
        yield sim.ready()
    finally:
        sim.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with simulator("--served-model-name", "tiny", "alias", "--disable-uvicorn-access-log", *FAST) as sim:
        yield sim


async def page_of(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    async with session.get(f"{url}/metrics") as response:
        assert response.status == 200
        text = await response.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [v for k, v in sorted(sample.labels.items()) if k not in ("model_name", "engine")]
            key = " ".join([sample.name, *labels])
            found[key] = found.get(key, 0.0) + sample.value
    return found


async def until(session: aiohttp.ClientSession, url: str, name: str, wanted: float) -> dict[str, float]:
    """The page, once a value of it has reached what is wanted."""
    deadline = time.monotonic() + 20
    while (page := await page_of(session, url)).get(name) != wanted:
        assert time.monotonic() < deadline, f"{name} is {page.get(name)}, not {wanted}"
        await asyncio.sleep(0.02)
    return page


def test_it_is_healthy_names_its_models_and_its_version(shared: Simulator) -> None:
    with shared.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny", "alias"]


def test_a_completion_is_answered_whole(shared: Simulator) -> None:
    with shared.client() as client:
        answer = client.completions.create(model="tiny", prompt="Say something", max_tokens=7, extra_body={"ignore_eos": True})  # fmt: skip
        assert answer.usage is not None
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 7)
        assert answer.choices[0].text
        again = client.completions.create(model="tiny", prompt="x", max_tokens=7, seed=3)
        assert again.choices[0].text == client.completions.create(model="alias", prompt="x", max_tokens=7, seed=3).choices[0].text  # fmt: skip


def test_a_chat_streams_one_chunk_for_each_token_and_ends_with_its_usage(shared: Simulator) -> None:
    with shared.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "你好，请介绍一下自己"}],
                max_tokens=20,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
        )
    first, *tokens, last = chunks
    assert first.choices[0].delta.role == "assistant"
    assert len(tokens) == 20
    assert all(chunk.choices[0].delta.content for chunk in tokens)
    assert [chunk.choices[0].finish_reason for chunk in tokens] == [None] * 19 + ["length"]
    assert not last.choices
    assert last.usage is not None
    assert last.usage.completion_tokens == 20


async def test_the_asynchronous_client_is_served_many_streams_at_once(shared: Simulator) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> int:
        stream = await client.completions.create(
            model="tiny",
            prompt=f"number {number}",
            max_tokens=10 + number,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        return len([chunk async for chunk in stream])

    async with openai.AsyncOpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        assert await asyncio.gather(*(one(client, i) for i in range(16))) == [10 + i for i in range(16)]


def test_a_reply_that_ends_by_itself_or_on_a_stop_string_says_stop(shared: Simulator) -> None:
    with shared.client() as client:
        whole = client.completions.create(model="tiny", prompt="x", max_tokens=4000, seed=1)
        assert whole.choices[0].finish_reason == "stop"
        word = whole.choices[0].text.split()[3]
        cut = client.completions.create(model="tiny", prompt="x", max_tokens=4000, seed=1, stop=[word])
        assert cut.choices[0].finish_reason == "stop"
        assert cut.choices[0].text == whole.choices[0].text[: whole.choices[0].text.index(word)]


def test_errors_come_as_the_exceptions_of_the_client(shared: Simulator) -> None:
    with shared.client() as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.completions.create(model="absent", prompt="x")
        with pytest.raises(openai.BadRequestError, match="cannot be greater than max_model_len"):
            client.completions.create(model="tiny", prompt="x", max_tokens=100_000)
        with pytest.raises(openai.BadRequestError, match="one choice"):
            client.completions.create(model="tiny", prompt="x", n=3)


async def test_a_client_that_hangs_up_is_counted_as_abort_and_leaves_nothing_behind(
    shared: Simulator,
) -> None:
    async with aiohttp.ClientSession() as session:
        before = (await page_of(session, shared.url))["vllm:request_success_total abort"]
        body = {"model": "tiny", "prompt": "x", "max_tokens": 8000, "stream": True, "ignore_eos": True}
        for _ in range(3):
            async with session.post(f"{shared.url}/v1/completions", json=body) as response:
                await response.content.readany()
                response.close()
        page = await until(session, shared.url, "vllm:request_success_total abort", before + 3)
        assert page["vllm:num_requests_running"] == 0
        assert page["vllm:kv_cache_usage_perc"] == 0


async def test_the_key_guards_v1_and_nothing_else() -> None:
    with simulator(*FAST, env={"VLLM_API_KEY": "secret"}) as sim:
        with sim.client(api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with sim.client(api_key="secret") as client:
            assert client.models.list().data
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{sim.url}/v1/models") as response:
                assert (response.status, await response.json()) == (401, {"error": "Unauthorized"})
            for path in ("/health", "/metrics", "/version", "/load", "/ping"):
                async with session.get(f"{sim.url}{path}") as response:
                    assert response.status == 200
            async with session.get(f"{sim.url}/nowhere") as response:
                assert (response.status, await response.json()) == (404, {"detail": "Not Found"})


async def test_overload_shows_in_the_queue_the_cache_and_as_preemptions_and_passes() -> None:
    flags = ("--num-gpu-blocks-override", "40", "--max-model-len", "512", "--max-num-seqs", "8", *FAST)
    with simulator(*flags, "--disable-uvicorn-access-log") as sim:
        async with aiohttp.ClientSession() as session:

            async def send(number: int) -> int:
                body = {"prompt": f"{number} tell me", "max_tokens": 200, "ignore_eos": True}
                async with session.post(f"{sim.url}/v1/completions", json=body) as response:
                    return int((await response.json())["usage"]["completion_tokens"])

            jobs = [asyncio.create_task(send(i)) for i in range(16)]
            queued = fullest = 0.0
            while not all(job.done() for job in jobs):
                page = await page_of(session, sim.url)
                queued = max(queued, page["vllm:num_requests_waiting"])
                fullest = max(fullest, page["vllm:kv_cache_usage_perc"])
                await asyncio.sleep(0.02)
            assert [job.result() for job in jobs] == [200] * 16
            page = await page_of(session, sim.url)
            assert queued > 0
            assert fullest > 0.5
            assert page["vllm:num_preemptions_total"] > 0
            assert page["vllm:num_requests_waiting"] == page["vllm:kv_cache_usage_perc"] == 0


async def test_a_full_queue_rejects_with_503_and_counts_it() -> None:
    with simulator("--max-num-queued-reqs", "1") as sim:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "max_tokens": 4000, "stream": True, "ignore_eos": True}
            async with session.post(f"{sim.url}/v1/completions", json=body) as first:
                assert first.status == 200
                async with session.post(f"{sim.url}/v1/completions", json=body) as second:
                    assert second.status == 503
                    assert "busy" in (await second.json())["error"]["message"]
            page = await page_of(session, sim.url)
            assert page["vllm:admission_rejections_total max_num_queued_reqs"] == 1


async def test_each_engine_of_a_data_parallel_server_takes_its_share() -> None:
    with simulator("--data-parallel-size", "2", *FAST) as sim:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "max_tokens": 50, "ignore_eos": True}
            await asyncio.gather(*(_read(session, f"{sim.url}/v1/completions", body) for _ in range(8)))
            async with session.get(f"{sim.url}/metrics") as response:
                text = await response.text()
        shares = re.findall(r'vllm:generation_tokens_total\{engine="(\d)",model_name="sim-8b"\} (\S+)', text)
        assert [engine for engine, _ in shares] == ["0", "1"]
        assert sum(float(tokens) for _, tokens in shares) == 400
        assert all(float(tokens) > 0 for _, tokens in shares)


async def _read(session: aiohttp.ClientSession, url: str, body: object) -> bytes:
    async with session.post(url, json=body) as response:
        return await response.read()


async def test_synthetic_traffic_moves_the_page_through_the_port() -> None:
    with simulator("--traffic", "40", "--traffic-pattern", "burst", *FAST) as sim:
        async with aiohttp.ClientSession() as session:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                page = await page_of(session, sim.url)
                if page.get("http_requests_total /v1/chat/completions POST 2xx", 0) >= 10:
                    break
                await asyncio.sleep(0.05)
        assert page["http_requests_total /v1/chat/completions POST 2xx"] >= 10
        assert page["vllm:prefix_cache_hits_total"] > 0
        assert page["vllm:time_to_first_token_seconds_count"] >= 5


def test_the_load_is_told_as_vllm_tells_it_and_the_port_opens_at_its_end() -> None:
    sim = Simulator("--load-seconds", "1")
    try:
        sim.read_until(rb"Loading safetensors checkpoint shards:  25% Completed \| 1/4")
        assert b"Application startup complete" not in sim.output
        sim.ready()
        assert re.search(rb"\(APIServer pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[\S+:\d+\] ", sim.output)
        assert b"\rLoading safetensors checkpoint shards: 100% Completed" in sim.output
    finally:
        sim.close()


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        ("unknown-flag", 2, b"unrecognized arguments: --no-such-flag"),
        ("model-not-found", 1, b"HFValidationError: Repo id must be"),
        ("port-taken", 1, b"[Errno 98] Address already in use"),
        ("kv-cache-too-small", 1, b"KV cache is needed, which is larger than the available"),
    ],
)
def test_it_refuses_to_start_as_vllm_does(reason: str, code: int, words: bytes) -> None:
    sim = Simulator("--fail", reason)
    assert sim.wait() == code
    assert words in sim.output


def test_a_taken_port_and_a_small_cache_are_refused_in_earnest(shared: Simulator) -> None:
    port = shared.url.rpartition(":")[2]
    second = Simulator("--port", port)
    assert second.wait() == 1
    assert b"[Errno 98] Address already in use" in second.output
    small = Simulator("--num-gpu-blocks-override", "4")
    assert small.wait() == 1
    assert b"KV cache is needed" in small.output


async def test_sigterm_ends_it_at_once_with_streams_open() -> None:
    with simulator("--disable-uvicorn-access-log") as sim:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "max_tokens": 4000, "stream": True, "ignore_eos": True}
            async with session.post(f"{sim.url}/v1/completions", json=body) as response:
                await response.content.readany()
                sim.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(sim.wait) == 0
        assert b"shutdown triggered" in sim.output


async def test_with_a_shutdown_timeout_running_requests_finish_and_new_ones_are_refused() -> None:
    with simulator("--shutdown-timeout", "20", "--disable-uvicorn-access-log") as sim:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "max_tokens": 60, "stream": True, "ignore_eos": True}
            async with session.post(f"{sim.url}/v1/completions", json=body) as response:
                await response.content.readany()
                sim.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(sim.read_until, rb"shutdown triggered")
                async with session.get(f"{sim.url}/health") as health:
                    assert health.status == 200
                async with session.post(f"{sim.url}/v1/completions", json=body) as refused:
                    assert refused.status == 500
                    assert "cannot schedule new futures" in await refused.text()
                assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(sim.wait) == 0


def test_while_loading_sigterm_ends_it_only_before_the_engine_core_exists() -> None:
    early = Simulator("--load-seconds", "30")
    early.read_until(rb"vLLM server version")
    early.process.send_signal(signal.SIGTERM)
    assert early.wait() == -signal.SIGTERM
    late = Simulator("--load-seconds", "1")
    try:
        late.read_until(rb"Starting to load model")
        late.process.send_signal(signal.SIGTERM)
        late.ready()
        late.process.send_signal(signal.SIGTERM)
        assert late.wait() == 0
    finally:
        late.close()


def test_a_process_that_hangs_after_sigterm_has_closed_its_port() -> None:
    with simulator("--sigterm", "hang") as sim:
        sim.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        with sim.client() as client:
            while time.monotonic() < deadline:
                try:
                    client.models.list()
                except openai.APIConnectionError:
                    break
                time.sleep(0.02)
            else:
                raise AssertionError("the port is still open")
        assert sim.process.poll() is None


async def set_fault(session: aiohttp.ClientSession, url: str, **faults: object) -> dict[str, Any]:
    async with session.post(f"{url}/sim/faults", json=faults) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def test_a_wedged_engine_is_healthy_and_makes_no_token_until_it_is_freed() -> None:
    with simulator(*FAST, "--fault", "wedge") as sim:
        async with aiohttp.ClientSession() as session:
            job = asyncio.create_task(
                _read(session, f"{sim.url}/v1/completions", {"prompt": "x", "max_tokens": 3})
            )
            await asyncio.sleep(0.3)
            assert not job.done()
            async with session.get(f"{sim.url}/health") as response:
                assert response.status == 200
            assert (await page_of(session, sim.url))["vllm:generation_tokens_total"] == 0
            assert (await set_fault(session, sim.url, wedge=False))["wedge"] is False
            assert json.loads(await asyncio.wait_for(job, 10))["usage"]["completion_tokens"] == 3


async def test_errors_come_as_500_and_as_frames_in_streams() -> None:
    with simulator(*FAST, "--fault", "error-rate=1") as sim:
        with sim.client() as client:
            with pytest.raises(openai.InternalServerError):
                client.completions.create(model="sim-8b", prompt="x")
            with pytest.raises(openai.APIError), client.completions.create(model="sim-8b", prompt="x", stream=True) as stream:  # fmt: skip
                list(stream)
        async with aiohttp.ClientSession() as session:
            page = await page_of(session, sim.url)
        assert page["vllm:request_success_total error"] == 2
        assert page["http_requests_total /v1/completions POST 5xx"] == 1


async def test_truncated_streams_break_off_without_done() -> None:
    with simulator(*FAST, "--fault", "truncate-rate=1") as sim:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "max_tokens": 50, "stream": True, "ignore_eos": True}
            received = b""
            with pytest.raises(aiohttp.ClientError):
                async with session.post(f"{sim.url}/v1/completions", json=body) as response:
                    async for chunk in response.content.iter_any():
                        received += chunk
            assert b"[DONE]" not in received


async def test_health_and_metrics_fail_in_their_several_ways() -> None:
    with simulator(*FAST) as sim:
        async with aiohttp.ClientSession() as session:
            await set_fault(session, sim.url, health="fail", metrics="garbage")
            async with session.get(f"{sim.url}/health") as response:
                assert response.status == 503
            async with session.get(f"{sim.url}/metrics") as response:
                with pytest.raises(ValueError, match=r"."):
                    list(text_string_to_metric_families(await response.text()))
            await set_fault(session, sim.url, metrics="html")
            async with session.get(f"{sim.url}/metrics") as response:
                assert response.content_type == "text/html"
            await set_fault(session, sim.url, metrics="error")
            async with session.get(f"{sim.url}/metrics") as response:
                assert response.status == 500
            await set_fault(session, sim.url, metrics="endless")
            async with session.get(f"{sim.url}/metrics") as response:
                assert len(await response.content.readexactly(3 << 20)) == 3 << 20
                response.close()
            await set_fault(session, sim.url, silent=True, health="silent")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await session.get(f"{sim.url}/health")
            async with session.delete(f"{sim.url}/sim/faults") as response:
                assert (await response.json())["silent"] is False
            async with session.get(f"{sim.url}/health") as response:
                assert response.status == 200
            async with session.post(f"{sim.url}/sim/faults", json={"slow": 0}) as response:
                assert response.status == 400


@pytest.mark.parametrize(
    ("fault", "code"), [("crash=3", 3), ("crash=SIGKILL", -9), ("crash=SIGSEGV@0.1", -11)]
)
def test_it_crashes_as_told(fault: str, code: int) -> None:
    assert Simulator("--fault", fault).wait() == code


async def test_when_the_engine_core_dies_health_says_503_streams_get_an_error_and_the_exit_code_is_0() -> (
    None
):
    with simulator() as sim:
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "x", "max_tokens": 4000, "stream": True, "ignore_eos": True}
            async with session.post(f"{sim.url}/v1/completions", json=body) as response:
                await response.content.readany()
                await set_fault(session, sim.url, crash="engine-core")
                rest = await response.content.read()
            assert b'"code":500' in rest
            assert rest.endswith(b"data: [DONE]\n\n")
            async with session.get(f"{sim.url}/health") as health:
                assert health.status == 503
        assert await asyncio.to_thread(sim.wait) == 0
        assert b"EngineDeadError" in sim.output


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _children_of(pid: int, wanted: int) -> list[int]:
    """The children, once there are as many as wanted and each bears its name."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            pids = [int(child) for child in children.read().split()]
        names = []
        for child in pids:
            with open(f"/proc/{child}/comm") as comm:
                names.append(comm.read())
        if len(names) == wanted and all(name.startswith("VLLM::") for name in names):
            return pids
        time.sleep(0.01)
    raise AssertionError(f"no {wanted} children, but {names}")


def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(_alive, pids))


def test_a_stop_takes_its_engine_processes_along_and_a_kill_leaves_them_behind() -> None:
    with simulator("--engine-processes", "2") as sim:
        children = _children_of(sim.process.pid, 2)
        sim.process.send_signal(signal.SIGTERM)
        assert sim.wait() == 0
        assert _gone(children)
    with simulator("--engine-processes", "2", "--data-parallel-size", "2") as sim:
        children = _children_of(sim.process.pid, 2)
        try:
            assert all(os.getpgid(pid) == pid for pid in children)
            sim.process.kill()
            sim.process.wait(10)
            assert all(map(_alive, children))
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)


async def test_an_engine_process_that_is_stopped_wedges_the_engine_and_one_that_is_killed_ends_it() -> None:
    with simulator("--engine-processes", "1", *FAST) as sim:
        (child,) = _children_of(sim.process.pid, 1)
        async with aiohttp.ClientSession() as session:
            for signum, wedged in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
                os.kill(child, signum)
                deadline = time.monotonic() + 10
                while True:
                    async with session.get(f"{sim.url}/sim/faults") as response:
                        if (await response.json())["wedge"] is wedged:
                            break
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        assert await asyncio.to_thread(sim.wait) == 0
        assert b"engine core exited unexpectedly" in sim.output


async def test_a_flooded_log_leaves_the_server_answering() -> None:
    with simulator(*FAST, "--fault", "log-lines=2000") as sim:
        await asyncio.to_thread(sim.read_until, rb"nobody will read about")
        while sim.output.count(b"nobody will read about") < 400:
            await asyncio.to_thread(sim.read_more)
        async with aiohttp.ClientSession() as session:
            await set_fault(session, sim.url, log_lines=0)
            async with session.get(f"{sim.url}/health") as response:
                assert response.status == 200


def test_an_engine_process_killed_in_mid_load_ends_the_start() -> None:
    sim = Simulator("--engine-processes", "2", "--load-seconds", "4")
    try:
        sim.read_until(rb"Starting to load model")
        children = _children_of(sim.process.pid, 2)
        os.kill(children[0], signal.SIGKILL)
        assert sim.wait() == 1
        assert _gone(children)
        assert b"Engine core initialization failed" in sim.output
    finally:
        sim.close()


@pytest.mark.parametrize(
    ("reason", "diagnosis"),
    [
        ("unknown-flag", "bad_arguments"),
        ("model-not-cached", "model_not_found"),
        ("kv-cache-too-small", "kv_cache_too_small"),
        ("out-of-memory", "gpu_out_of_memory"),
    ],
)
def test_the_daemon_diagnoses_a_refusal_as_it_would_a_real_one(reason: str, diagnosis: str) -> None:
    sim = Simulator("--fail", reason)
    code = sim.wait()
    scan = OutputScan()
    scan.feed(sim.output)
    assert diagnose(code, scan).reason == diagnosis
