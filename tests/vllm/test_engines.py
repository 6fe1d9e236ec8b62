"""Two replicas of a model behind one gateway: work is shared, and one that dies costs the requests that were at it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from real_engine import MODEL_NAME, START_LIMIT, Daemon, Page, streams

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NAMES = ("one", "two")
RUNNING = "vllm_exporter_gateway_requests_running"
RESTARTS = "vllm_exporter_engine_restarts_total"


@pytest.fixture(scope="module")
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon(engines=NAMES, settings={"gateway": {"probe_interval": 0}}).start()


def is_ready(page: Page, name: str) -> bool:
    return page.get("vllm_exporter_engine_state", instance=name, state="ready") == 1


@pytest.fixture
def ready(daemon: Daemon) -> Daemon:
    daemon.wait(lambda page: all(is_ready(page, name) for name in NAMES), 2 * START_LIMIT)
    return daemon


def successes(page: Page, **labels: str) -> float:
    return page.total("vllm_slo_requests_total", outcome="success", **labels)


def test_clients_see_one_server_and_both_engines_work(ready: Daemon) -> None:
    with ready.client() as client:
        assert [model.id for model in client.models.list()] == [MODEL_NAME]
    running = streams(ready, 8, tokens=200)
    for stream in running:
        assert stream.join(120).error is None
        assert stream.output_tokens == 200
    page = ready.wait(
        lambda page: (
            successes(page, source="gateway") == 8
            and sum(successes(page, instance=name) for name in NAMES) == 8
        )
    )
    assert all(successes(page, instance=name) for name in NAMES), "the least outstanding work"


def test_one_that_is_killed_costs_the_requests_that_were_at_it_and_comes_back(ready: Daemon) -> None:
    before = ready.page()
    running = streams(ready, 8, tokens=7000)
    page = ready.wait(lambda page: page.total(RUNNING) == 8)
    at = {name: page.total(RUNNING, engine_name=name) for name in NAMES}
    engines = [pid for pid, name in ready.engine_processes().items() if "vllm serve" in name]
    assert len(engines) == 2, engines
    os.kill(min(engines), signal.SIGKILL)
    page = ready.wait(lambda page: sum(is_ready(page, name) for name in NAMES) == 1)
    (left,) = (name for name in NAMES if is_ready(page, name))
    (killed,) = {*NAMES} - {left}

    with ready.client() as client:
        for _ in range(4):
            answer = client.completions.create(model=MODEL_NAME, prompt="hello", max_tokens=2)
            assert answer.choices
    assert ready.status_of("/-/ready") == 200, "the other replica is there"

    def made(page: Page, **labels: str) -> float:
        return successes(page, **labels) - successes(before, **labels)

    ended = [stream.join(180) for stream in running]
    assert sum(stream.error is None and stream.output_tokens == 7000 for stream in ended) == at[left]
    ready.wait(lambda page: made(page, source="gateway") == made(page, instance=left) == at[left] + 4)
    page = ready.wait(lambda page: all(is_ready(page, name) for name in NAMES), START_LIMIT)
    assert {name: page.total(RESTARTS, instance=name) for name in NAMES} == {left: 0, killed: 1}
    again = streams(ready, 4, tokens=50)
    assert all(stream.join(60).error is None for stream in again)
