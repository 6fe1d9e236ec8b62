"""Starts that cannot succeed: diagnosed from vLLM's real output, named, and not tried again."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from real_engine import START_LIMIT, Daemon

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Refusal:
    reason: str
    advice: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    model: str | None = None


REFUSALS = (
    Refusal("bad_arguments", "--no-such-flag", ("--no-such-flag",)),
    Refusal("bad_arguments", "lots", ("--gpu-memory-utilization", "lots")),
    Refusal("model_not_found", "/models/absent", model="/models/absent"),
    Refusal("model_not_found", "HF_HUB_OFFLINE", model="example-org/absent-model"),
    Refusal("max_model_len_too_large", "999999", ("--max-model-len", "999999")),
    Refusal(
        "kv_cache_too_small",
        "--max-model-len",
        ("--max-model-len", "2000000"),
        {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"},
    ),
)


@pytest.mark.parametrize(
    "refusal", REFUSALS, ids=lambda refusal: f"{refusal.reason}-{refusal.advice.strip('-/')}"
)
def test_a_start_that_cannot_succeed_is_named_and_not_tried_again(
    make_daemon: Callable[..., Daemon], refusal: Refusal
) -> None:
    options = {"model": refusal.model} if refusal.model else {}
    daemon = make_daemon(*refusal.flags, environment=refusal.environment, **options).start()
    page = daemon.wait(lambda page: page.state in ("failed", "backoff", "ready"), START_LIMIT)
    assert page.state == "failed", daemon.tail()
    assert page.labels("vllm_exporter_engine_last_failure_info", "reason") == {refusal.reason}
    assert page.total("vllm_exporter_engine_restarts_total") == 0
    assert daemon.status_of("/-/ready") == 503
    daemon.wait_gone(5)
    (told,) = daemon.told("engine_failed")
    assert refusal.advice in str(told)
    daemon.signal(signal.SIGTERM)
    daemon.wait_exit(10)


def test_a_port_that_somebody_holds_is_named_with_its_holder(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(settings={"gateway": {"mode": "off"}})
    with socket.create_server(("127.0.0.1", daemon.engine_port)):
        daemon.start()
        page = daemon.wait(lambda page: page.state in ("failed", "backoff", "ready"), START_LIMIT)
        assert page.state == "failed", daemon.tail()
        assert page.labels("vllm_exporter_engine_last_failure_info", "reason") == {"port_in_use"}
        (told,) = daemon.told("engine_failed")
        assert str(daemon.engine_port) in str(told)
        daemon.signal(signal.SIGTERM)
        daemon.wait_exit(10)
