"""One daemon whose engine is killed in every way, frozen, and at last stopped with 64 streams."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from real_engine import MODEL_NAME, START_LIMIT, Daemon, Page, is_open, streams

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

HANG_TIMEOUT, CANARY_TIMEOUT = 6.0, 3.0
HEALTH_TIMEOUT = 4.0
DRAIN_TIMEOUT, KILL_TIMEOUT = 1.0, 4.0


@pytest.fixture(scope="module")
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    engine = {
        "hang_timeout": HANG_TIMEOUT,
        "hang_grace": 1.0,
        "canary_timeout": CANARY_TIMEOUT,
        "health_interval": 1.0,
        "health_timeout": HEALTH_TIMEOUT,
        "drain_timeout": DRAIN_TIMEOUT,
        "kill_timeout": KILL_TIMEOUT,
    }
    return make_daemon(settings={"engine": engine}).start()


@pytest.fixture
def ready(daemon: Daemon) -> Daemon:
    daemon.wait_state("ready")
    return daemon


def restarts(page: Page) -> float:
    return page.total("vllm_exporter_engine_restarts_total")


def served_tokens(page: Page) -> float:
    return page.total("vllm_slo_tokens_total", direction="output")


def ask(daemon: Daemon, tokens: int) -> None:
    with daemon.client() as client:
        answer = client.completions.create(
            model=MODEL_NAME, prompt="hello", max_tokens=tokens, extra_body={"ignore_eos": True}
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == tokens


def until_served_again(daemon: Daemon, before: Page) -> Iterator[Page]:
    """Pages up to the first one of the next incarnation at ready."""
    for page in daemon.pages(START_LIMIT):
        assert page.state != "failed", daemon.tail()
        yield page
        if page.state == "ready" and restarts(page) > restarts(before):
            return


def check_continuity(daemon: Daemon, before: Page, after_death: list[Page]) -> None:
    """Derived counters never went back over the restart, and count on exactly; the engine's own page came and went."""
    tokens = [served_tokens(before), *map(served_tokens, after_death)]
    assert tokens == sorted(tokens)
    finished = [p.total("vllm_slo_requests_total", outcome="success") for p in (before, *after_death)]
    assert finished == sorted(finished)
    down = [page for page in after_death if page.state in ("backoff", "starting", "loading")]
    assert down
    assert not any("vllm:" in page.text for page in down), "no page of the dead engine lingers"
    had = after_death[-1]
    ask(daemon, 37)
    daemon.wait(lambda page: served_tokens(page) == served_tokens(had) + 37)


def test_orphans_of_a_killed_api_server_are_swept_and_it_starts_again(ready: Daemon) -> None:
    ask(ready, 50)
    before = ready.wait(lambda page: served_tokens(page) >= 50)
    core, api_server = ready.engine_pid("EngineCore"), ready.engine_pid("vllm serve")
    old = set(ready.engine_processes())
    running = streams(ready, 4)
    os.kill(api_server, signal.SIGKILL)
    killed = time.monotonic()
    counted = ready.wait(lambda page: restarts(page) > restarts(before) or page.state == "backoff", 10)
    assert time.monotonic() - killed < 5
    assert counted.get("vllm_exporter_engine_up") == 0
    while set(ready.engine_processes()) & old:
        assert time.monotonic() - killed < 15, "orphans live"
        time.sleep(0.05)
    pages = list(until_served_again(ready, before))
    assert ready.engine_pid("EngineCore") != core
    assert pages[-1].labels("vllm_exporter_engine_restarts_total", "reason")
    assert restarts(pages[-1]) == restarts(before) + 1
    assert any(stream.join(30).error for stream in running), "it died under requests"
    check_continuity(ready, before, pages)


def test_a_killed_engine_core_is_a_crash_though_the_program_exits_with_0(ready: Daemon) -> None:
    before = ready.page()
    running = streams(ready, 4)
    os.kill(ready.engine_pid("EngineCore"), signal.SIGKILL)
    pages = list(until_served_again(ready, before))
    assert restarts(pages[-1]) == restarts(before) + 1
    assert any(stream.join(30).error for stream in running), "it died under requests"
    crash_ratio = pages[-1].total("vllm_slo_error_ratio_sum")
    assert crash_ratio > before.total("vllm_slo_error_ratio_sum"), "time with the engine down is an error"
    check_continuity(ready, before, pages)


def test_a_frozen_engine_core_under_demand_is_found_recorded_and_replaced(ready: Daemon) -> None:
    before = ready.page()
    core = ready.engine_pid("EngineCore")
    demand = streams(ready, 4)
    os.kill(core, signal.SIGSTOP)
    frozen = time.monotonic()
    ready.wait(lambda page: page.state != "ready", HANG_TIMEOUT + CANARY_TIMEOUT + 15)
    assert time.monotonic() - frozen > HANG_TIMEOUT - 2, "found before there was reason to"
    pages = list(until_served_again(ready, before))
    incidents = "vllm_exporter_engine_incidents_total"
    assert pages[-1].total(incidents) == before.total(incidents) + 1
    assert restarts(pages[-1]) == restarts(before) + 1
    assert ready.engine_pid("EngineCore") != core
    newest = max((ready.data_dir / "incidents").iterdir(), key=lambda folder: folder.stat().st_mtime)
    kept = b"".join(file.read_bytes() for file in newest.rglob("*") if file.is_file())
    assert str(core).encode() in kept, "the frozen process stands in the evidence"
    for stream in demand:
        stream.join(30)
    check_continuity(ready, before, pages)


def test_a_silent_api_server_is_found_by_its_probes_and_replaced(ready: Daemon) -> None:
    before = ready.page()
    api_server = ready.engine_pid("vllm serve")
    os.kill(api_server, signal.SIGSTOP)
    pages = list(until_served_again(ready, before))
    stalls = "vllm_exporter_engine_stalls_total"
    assert pages[-1].total(stalls, signal="health") == before.total(stalls, signal="health") + 1
    assert restarts(pages[-1]) == restarts(before) + 1
    assert ready.engine_pid("vllm serve") != api_server
    check_continuity(ready, before, pages)


def test_busy_is_not_hung(ready: Daemon) -> None:
    before = ready.page()
    until = time.monotonic() + 2.5 * HANG_TIMEOUT
    clients = [threading.Thread(target=_keep_busy, args=(ready, until), daemon=True) for _ in range(48)]
    for client in clients:
        client.start()
    for page in ready.pages(START_LIMIT, interval=0.2):
        assert page.state == "ready"
        if time.monotonic() > until:
            break
    for client in clients:
        client.join(60)
    assert restarts(ready.page()) == restarts(before)


def _keep_busy(daemon: Daemon, until: float) -> None:
    while time.monotonic() < until:
        ask(daemon, 400)


def test_a_stop_with_64_streams_keeps_its_deadline_and_leaves_nothing(ready: Daemon) -> None:
    running = streams(ready, 64)
    stopped = time.monotonic()
    ready.signal(signal.SIGTERM)
    assert ready.wait_exit(60) == 0, ready.tail()
    took = time.monotonic() - stopped
    ready.wait_gone(3)
    assert not is_open(ready.port)
    assert took < DRAIN_TIMEOUT + KILL_TIMEOUT + 2
    for stream in running:
        stream.join(60)
