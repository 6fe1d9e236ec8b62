"""An engine of two API servers and two tensor-parallel workers: one sum, and nothing of it survives its death."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from real_engine import MODEL_NAME, START_LIMIT, Daemon, Page

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

RESTARTS = "vllm_exporter_engine_restarts_total"


@pytest.fixture(scope="module")
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon("--api-server-count", "2", "--tensor-parallel-size", "2").start()


@pytest.fixture
def ready(daemon: Daemon) -> Daemon:
    daemon.wait_state("ready")
    return daemon


def ask_many(daemon: Daemon, requests: int, tokens: int) -> None:
    """Each request on a connection of its own, so that both API servers get some."""

    def ask() -> None:
        with daemon.client() as client:
            client.completions.create(
                model=MODEL_NAME, prompt="hello", max_tokens=tokens, extra_body={"ignore_eos": True}
            )

    clients = [threading.Thread(target=ask) for _ in range(requests)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(120)


def done(page: Page) -> tuple[float, float]:
    return (
        page.total("vllm_slo_requests_total", outcome="success"),
        page.total("vllm_slo_tokens_total", direction="output"),
    )


def replaced(daemon: Daemon, before: Page, processes: set[int]) -> Page:
    """The page of the next incarnation at ready; nothing of the old one is left by then."""
    for page in daemon.pages(START_LIMIT):
        assert page.state != "failed", daemon.tail()
        if page.total(RESTARTS) > before.total(RESTARTS) and page.state == "ready":
            break
    assert page.total(RESTARTS) == before.total(RESTARTS) + 1
    assert not processes & set(daemon.engine_processes())
    return page


def test_requests_at_both_api_servers_are_counted_once(ready: Daemon) -> None:
    ask_many(ready, 24, 20)
    page = ready.wait(lambda page: done(page) == (24, 24 * 20))
    assert page.get("vllm_slo_time_to_first_token_seconds_count") == 24


def test_a_killed_worker_takes_the_engine_with_it_and_it_comes_back(ready: Daemon) -> None:
    before, processes = ready.page(), set(ready.engine_processes())
    os.kill(ready.engine_pid("Worker_TP1"), signal.SIGKILL)
    page = replaced(ready, before, processes)
    assert done(page) == done(before)
    ask_many(ready, 6, 20)
    had = done(before)
    ready.wait(lambda page: done(page) == (had[0] + 6, had[1] + 6 * 20))


def test_api_servers_that_serve_on_without_their_launcher_are_swept(ready: Daemon) -> None:
    before, processes = ready.page(), set(ready.engine_processes())
    os.kill(ready.engine_pid("vllm serve"), signal.SIGKILL)
    replaced(ready, before, processes)


def test_a_stop_leaves_no_process_of_them(ready: Daemon) -> None:
    ready.signal(signal.SIGTERM)
    assert ready.wait_exit(60) == 0, ready.tail()
    ready.wait_gone(3)
