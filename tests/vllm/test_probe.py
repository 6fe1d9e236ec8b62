"""The probe over a real vLLM that nobody asks: measured, told from users, found when it hangs and not when it is slow."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from real_engine import MODEL_NAME, PROMPT, Daemon, Page

INTERVAL, TIMEOUT = 2.0, 1.5
HANG_TIMEOUT, CANARY_TIMEOUT = 10.0, 4.0


@pytest.fixture(scope="module")
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Its scheduler knows priorities: a question bears one before everybody's."""
    settings = {
        "engine": {"hang_timeout": HANG_TIMEOUT, "canary_timeout": CANARY_TIMEOUT, "hang_grace": 0.0},
        "gateway": {"probe_interval": INTERVAL, "probe_timeout": TIMEOUT},
    }
    made = make_daemon("--scheduling-policy", "priority", settings=settings).start()
    made.wait_state("ready")
    return made


def probes(page: Page, outcome: str) -> float:
    return page.total("vllm_slo_probe_requests_total", outcome=outcome)


def users(page: Page) -> float:
    return page.total("vllm_slo_requests_total", source="engine", outcome="success")


def test_an_idle_vllm_is_measured_and_its_probes_are_not_among_the_users_requests(daemon: Daemon) -> None:
    page = daemon.wait(lambda page: probes(page, "success") >= 4, 60.0)
    assert page.total("vllm_slo_probe_success") == 1
    assert page.total("vllm_slo_probe_time_to_first_token_seconds_count") >= 4
    seen = page.total("vllm:request_success_total")
    assert seen >= 3, "vLLM itself counts them"
    assert users(page) <= 1
    before = users(page)
    with daemon.client() as client:
        client.completions.create(model=MODEL_NAME, prompt=PROMPT, max_tokens=8)
    daemon.wait(lambda page: users(page) >= before + 1)
    assert users(daemon.page()) <= before + 2


def test_an_engine_core_that_stands_still_for_a_while_is_slow_and_not_hung(daemon: Daemon) -> None:
    before = daemon.page()
    core = daemon.engine_pid("EngineCore")
    os.kill(core, signal.SIGSTOP)
    try:
        for page in daemon.pages(60.0):
            assert page.state == "ready"
            if probes(page, "timeout") >= probes(before, "timeout") + 2:
                break
    finally:
        os.kill(core, signal.SIGCONT)
    daemon.wait(lambda page: page.total("vllm_slo_probe_success") == 1)
    until = time.monotonic() + HANG_TIMEOUT
    for page in daemon.pages(60.0, interval=0.5):
        assert page.state == "ready"
        if time.monotonic() > until:
            break


def test_an_engine_core_that_hangs_while_nobody_asks_is_found_and_recorded(daemon: Daemon) -> None:
    before = daemon.page()
    os.kill(daemon.engine_pid("EngineCore"), signal.SIGSTOP)
    frozen = time.monotonic()
    daemon.wait(lambda page: page.state != "ready", INTERVAL + HANG_TIMEOUT + CANARY_TIMEOUT + 10.0)
    assert time.monotonic() - frozen > HANG_TIMEOUT, "found before there was reason to"
    incidents = "vllm_exporter_engine_incidents_total"
    page = daemon.wait(lambda page: page.total(incidents) == before.total(incidents) + 1)
    assert page.total("vllm_exporter_engine_canaries_total", outcome="failed") == 1
