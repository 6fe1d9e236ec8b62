"""What alerts about the engine say beyond their rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.alerting.files import read_groups
from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.notify.engine_facts import ABOUT_THE_ENGINE, EngineFacts, FactsOfSeveral

CRASHED = (("alertname", "VLLMEngineCrashed"), ("severity", "critical"))
FAILURE = Failure("gpu_out_of_memory", "the GPU ran out of memory", "use a smaller model", retryable=True)
OUTPUT = b"""INFO 11-20 12:00:00 [core.py:1] ready
INFO:     10.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK
Loading: 50% Completed | 1/2 [00:01<00:01,  1.00it/s]

ERROR 11-20 12:00:01 [core.py:9] EngineCore failed, token hf_abcdefghijklmnopqrst
torch.OutOfMemoryError: CUDA out of memory, asked s3cr3t
"""


def status(failure: Failure | None = FAILURE) -> EngineStatus:
    return EngineStatus(
        "supervised", "http://x", EngineState.backoff, last_failure=failure, models=("llama", "lora")
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "engine.log"
    path.write_bytes(OUTPUT)
    return path


def test_an_alert_about_the_engine_carries_why_it_ended_and_what_it_said_last(output: Path) -> None:
    facts = EngineFacts(status, output, ["s3cr3t"])
    assert facts(CRASHED) == {
        "diagnosis": "the GPU ran out of memory; use a smaller model",
        "last_log": "ready\nEngineCore failed, token ***\ntorch.OutOfMemoryError: CUDA out of memory, asked ***",
    }


def test_other_alerts_carry_nothing(output: Path) -> None:
    facts = EngineFacts(status, output)
    assert facts((("alertname", "VLLMHighTTFT"),)) == {}
    assert facts(()) == {}


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    assert EngineFacts(lambda: status(None))(CRASHED) == {}
    assert set(EngineFacts(status, tmp_path / "none.log")(CRASHED)) == {"diagnosis"}


def test_a_message_may_name_the_engines_state_and_models() -> None:
    assert EngineFacts(status).facts() == {"engine": "backoff", "model": "llama, lora"}
    assert EngineFacts(lambda: EngineStatus("attached", "http://x")).facts() == {"engine": "stopped"}


def test_the_alerts_about_the_engine_are_shipped_ones() -> None:
    groups, _ = read_groups((), builtin=True)
    assert {rule.name for group in groups for rule in group.rules} >= ABOUT_THE_ENGINE


def test_of_several_engines_the_one_speaks_that_the_alert_is_about(tmp_path: Path):
    output = tmp_path / "engine.log"
    output.write_text("ERROR gone\n")
    facts = FactsOfSeveral(
        {"a": EngineFacts(status, output), "b": EngineFacts(lambda: EngineStatus("attached", "http://x"))}
    )
    assert "gone" in facts((*CRASHED, ("instance", "a")))["last_log"]
    assert facts((*CRASHED, ("instance", "b"))) == {}
    assert facts((*CRASHED, ("instance", "box:9108"))) == {}
    assert facts(CRASHED) == {}
    assert facts.facts() == {"engine": "a backoff, b stopped", "model": "llama, lora"}
