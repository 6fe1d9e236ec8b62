"""What becomes of the engine when the daemon is stopped while it loads, is killed, or starts again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from real_engine import MODEL_NAME, Daemon, Page, is_open

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def ask(daemon: Daemon, tokens: int, port: int | None = None) -> None:
    with daemon.client(port=port) as client:
        client.completions.create(
            model=MODEL_NAME, prompt="hello", max_tokens=tokens, extra_body={"ignore_eos": True}
        )


def tokens(page: Page) -> float:
    return page.total("vllm_slo_tokens_total", direction="output")


@pytest.mark.parametrize("stage", ["configuring", "initializing"])
def test_a_stop_while_loading_does_not_wait_for_the_load(
    make_daemon: Callable[..., Daemon], stage: str
) -> None:
    daemon = make_daemon().start()
    daemon.wait(lambda page: stage in page.labels("vllm_exporter_engine_load_stage", "stage"), 120)
    assert daemon.engine_processes()
    stopped = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(30) == 0, daemon.tail()
    assert time.monotonic() - stopped < 5.0 + 2 + 1, "kill_timeout, and a little"
    daemon.wait_gone(3)


def test_the_engine_does_not_outlive_a_killed_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.wait_state("ready")
    ask(daemon, 10)
    assert len(daemon.engine_processes()) >= 2
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit(5)
    daemon.wait_gone(15)


def test_a_kept_engine_is_adopted_and_its_counters_go_on(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(settings={"engine": {"on_exit": "keep"}}).start()
    daemon.wait_state("ready")
    ask(daemon, 100)
    before = daemon.wait(lambda page: tokens(page) == 100)
    processes = set(daemon.engine_processes())

    daemon.signal(signal.SIGKILL)
    daemon.wait_exit(5)
    time.sleep(2)
    assert set(daemon.engine_processes()) == processes
    assert not is_open(daemon.engine_port), "the gateway went with its daemon"
    ask(daemon, 20, daemon.own_port)

    daemon.start()
    adopted = time.monotonic()
    daemon.wait_state("ready", 15)
    assert time.monotonic() - adopted < 8, "no load, which takes 15 s at best"
    page = daemon.wait(lambda page: tokens(page) == 120)
    assert page.total("vllm_slo_requests_total", outcome="success") == 2
    assert page.get("vllm_exporter_engine_info", mode="adopted") == 1
    restarts = "vllm_exporter_engine_restarts_total"
    assert page.total(restarts) == before.total(restarts) == 0
    assert set(daemon.engine_processes()) == processes

    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(45) == 0, daemon.tail()
    assert daemon.engine_is_open(), "a stop of the daemon keeps the engine too"
    assert set(daemon.engine_processes()) == processes
    ask(daemon, 5, daemon.own_port)

    daemon.start()
    page = daemon.wait_state("ready", 15)
    daemon.wait(lambda page: tokens(page) == 125)
    for pid, name in daemon.engine_processes().items():
        if "vllm serve" in name:
            os.kill(pid, signal.SIGKILL)
    page = daemon.wait(lambda page: page.total(restarts) == 1 and page.state == "ready", 240)
    assert tokens(page) == 125, "an adopted engine is restarted as our own"
    assert not set(daemon.engine_processes()) & processes
