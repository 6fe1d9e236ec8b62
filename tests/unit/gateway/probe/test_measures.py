"""What the probes found, as series."""

from __future__ import annotations

import json

import pytest

from exporter.engine.verdict.question import TokenAnswer, TokenOutcome
from exporter.exposition.block import Block
from exporter.gateway.probe.measures import ProbeMeasures
from exporter.settings import SliSettings

GOOD = TokenAnswer(TokenOutcome.SUCCESS, 0.5, first_token=0.4, input_tokens=1, output_tokens=1)


def shown(block: Block) -> dict[str, float]:
    lines = [
        line for line in block.render(openmetrics=False).decode().splitlines() if not line.startswith("#")
    ]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_model_that_was_never_probed_stands_at_zero_without_a_verdict() -> None:
    block = Block()
    ProbeMeasures(block, SliSettings()).expect("m")
    page = shown(block)
    assert page['vllm_slo_probe_requests_total{model_name="m",outcome="success"}'] == 0
    assert page['vllm_slo_probe_time_to_first_token_seconds_count{model_name="m"}'] == 0
    assert 'vllm_slo_probe_success{model_name="m"}' not in page


def test_an_answered_probe_is_counted_and_timed_to_its_token_and_to_its_end() -> None:
    block = Block()
    ProbeMeasures(block, SliSettings()).take("m", GOOD)
    page = shown(block)
    assert page['vllm_slo_probe_requests_total{model_name="m",outcome="success"}'] == 1
    assert page['vllm_slo_probe_time_to_first_token_seconds_sum{model_name="m"}'] == 0.4
    assert page['vllm_slo_probe_request_duration_seconds_sum{model_name="m"}'] == 0.5
    assert page['vllm_slo_probe_success{model_name="m"}'] == 1


def test_a_wait_in_vain_counts_against_the_time_to_first_token_and_an_error_at_once_does_not() -> None:
    block = Block()
    measures = ProbeMeasures(block, SliSettings())
    measures.take("m", TokenAnswer(TokenOutcome.TIMEOUT, 10.0))
    measures.take("m", TokenAnswer(TokenOutcome.ENGINE_UNREACHABLE, 0.01))
    page = shown(block)
    assert page['vllm_slo_probe_time_to_first_token_seconds_count{model_name="m"}'] == 1
    assert page['vllm_slo_probe_time_to_first_token_seconds_sum{model_name="m"}'] == 10.0
    assert page['vllm_slo_probe_request_duration_seconds_count{model_name="m"}'] == 0
    assert page['vllm_slo_probe_success{model_name="m"}'] == 0


@pytest.mark.parametrize("outcome", [TokenOutcome.REJECTED, TokenOutcome.CLIENT_ERROR])
def test_a_probe_that_was_refused_is_counted_and_takes_the_verdict_away(outcome: TokenOutcome) -> None:
    block = Block()
    measures = ProbeMeasures(block, SliSettings())
    for before in (GOOD, TokenAnswer(TokenOutcome.TIMEOUT, 10.0)):
        measures.take("m", before)
        measures.take("m", TokenAnswer(outcome, 0.01))
        assert not any(name.startswith("vllm_slo_probe_success") for name in shown(block))
    page = shown(block)
    assert page[f'vllm_slo_probe_requests_total{{model_name="m",outcome="{outcome.value}"}}'] == 2
    measures.take("m", GOOD)
    assert shown(block)['vllm_slo_probe_success{model_name="m"}'] == 1


def test_a_verdict_that_is_old_goes_away_and_the_counts_stay() -> None:
    block = Block()
    measures = ProbeMeasures(block, SliSettings())
    measures.take("m", GOOD)
    measures.fade()
    page = shown(block)
    assert not any(name.startswith("vllm_slo_probe_success") for name in page)
    assert page['vllm_slo_probe_requests_total{model_name="m",outcome="success"}'] == 1


def test_the_counts_go_on_in_the_next_daemon() -> None:
    first = ProbeMeasures(Block(), SliSettings())
    first.take("m", GOOD)
    saved = json.loads(json.dumps(first.state()))
    block = Block()
    second = ProbeMeasures(block, SliSettings())
    second.restore(saved)
    second.take("m", GOOD)
    page = shown(block)
    assert page['vllm_slo_probe_requests_total{model_name="m",outcome="success"}'] == 2
    assert page['vllm_slo_probe_time_to_first_token_seconds_count{model_name="m"}'] == 2
    assert second.state()["models"][0]["outcomes"]["success"] == 2


@pytest.mark.parametrize(
    "broken", [{"models": [{}]}, {"models": [{"name": "m", "outcomes": {"success": -1}}]}, {"models": 7}]
)
def test_a_broken_state_is_left_alone(broken: dict[str, object]) -> None:
    block = Block()
    measures = ProbeMeasures(block, SliSettings())
    measures.restore(broken)
    measures.take("m", GOOD)
    assert shown(block)['vllm_slo_probe_requests_total{model_name="m",outcome="success"}'] == 1
