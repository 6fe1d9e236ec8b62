"""Two replicas of a model behind one gateway share the work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from real_engine import MODEL_NAME, START_LIMIT, Daemon, Page, streams

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NAMES = ("one", "two")


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
