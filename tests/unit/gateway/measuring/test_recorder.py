"""What clients saw, counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.exposition.block import Block
from exporter.gateway.measuring.recorder import KEY_SERIES_LIMIT, Recorder
from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome
from exporter.settings import SliSettings

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))
HEALTH = Endpoint("/health", Dialect.OPAQUE, frozenset({"GET"}), counted=False)


class Seen:
    """A recorder and its blocks."""

    def __init__(self, *, model_limit: int = 10) -> None:
        self.indicators, self.daemon = Block(), Block()
        self.recorder = Recorder(
            self.indicators, self.daemon, SliSettings(), model_limit=model_limit, patience=2.0
        )

    def values(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float | None]:
        self.recorder.publish(connections=1, running={"a": 2}, queued=3, takes=True)
        found: dict[tuple[str, tuple[tuple[str, str], ...]], float | None] = {}
        for block in (self.indicators, self.daemon):
            series, values = block.columns()
            found |= {(one.name, one.labels): value for one, value in zip(series, values, strict=True)}
        return found

    def value(self, name: str, **labels: str) -> float | None:
        values = [
            value
            for (found, pairs), value in self.values().items()
            if found == name and labels.items() <= dict(pairs).items() and value is not None
        ]
        return sum(values) if values else None


def exchange(endpoint: Endpoint = CHAT, **facts: Any) -> Exchange:
    made = Exchange(endpoint, "POST", "id", "::1", 100.0)
    made.model = "m"
    made.outcome = Outcome.SUCCESS
    made.ended = 103.0
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def streamed(**facts: Any) -> Exchange:
    return exchange(
        **{
            "stream": True, "first_token": 100.5, "last_token": 103.0, "tokens_seen": 3, "received": 100.0,
            "sent_at": 100.25, "input_tokens": 7, "output_tokens": 3, **facts,
        }
    )  # fmt: skip


def finish(recorder: Recorder, one: Exchange) -> None:
    recorder.begin(one)
    gap = recorder.gap(one.model)
    for _ in range(one.tokens_seen - 1):
        gap(0.25)
    recorder.end(one)


def test_a_stream_counts_its_tokens_its_gaps_its_wait_and_its_end() -> None:
    seen = Seen()
    finish(seen.recorder, streamed())
    labels = {"model_name": "m", "source": "gateway"}
    assert seen.value("vllm_slo_requests_total", outcome="success", **labels) == 1
    assert seen.value("vllm_slo_tokens_total", direction="input", **labels) == 7
    assert seen.value("vllm_slo_tokens_total", direction="output", **labels) == 3
    assert seen.value("vllm_slo_time_to_first_token_seconds_sum", **labels) == 0.5
    assert seen.value("vllm_slo_time_to_first_token_seconds_bucket", le="0.5", **labels) == 1
    assert seen.value("vllm_slo_time_to_first_token_seconds_bucket", le="0.25", **labels) == 0
    assert seen.value("vllm_slo_inter_token_latency_seconds_count", **labels) == 2
    assert seen.value("vllm_slo_request_duration_seconds_sum", **labels) == 3.0
    assert seen.value("vllm_slo_queue_duration_seconds_sum", **labels) == 0.25
    assert seen.recorder.running == 0


@pytest.mark.parametrize(
    ("told", "total"),
    [
        (None, 3),  # the engine did not say: what was seen
        (3, 3),
        (5, 5),  # several tokens in one event
        (0, 2),  # the engine says nonsense: what has been counted stays
    ],
)
def test_output_tokens_are_counted_while_they_come_and_are_the_engines_in_the_end(
    told: int | None, total: int
) -> None:
    seen = Seen()
    finish(seen.recorder, streamed(output_tokens=told))
    assert seen.value("vllm_slo_tokens_total", direction="output") == total


def test_an_answer_that_is_no_stream_counts_its_usage_and_no_time_to_first_token() -> None:
    seen = Seen()
    finish(seen.recorder, exchange(input_tokens=4, output_tokens=9))
    assert seen.value("vllm_slo_tokens_total", direction="output") == 9
    assert seen.value("vllm_slo_time_to_first_token_seconds_count") in (0, None)
    assert seen.value("vllm_slo_request_duration_seconds_count") == 1


def test_one_who_gives_up_after_silence_counts_with_the_wait_and_one_who_closes_at_once_does_not() -> None:
    seen = Seen()
    left = {"outcome": Outcome.ABORTED, "first_token": None, "tokens_seen": 0, "output_tokens": None}
    finish(seen.recorder, streamed(**left, ended=130.0))
    finish(seen.recorder, streamed(**left, ended=100.5))
    finish(seen.recorder, streamed(outcome=Outcome.ABORTED, ended=130.0))
    assert seen.value("vllm_slo_requests_total", outcome="aborted") == 3
    assert seen.value("vllm_slo_time_to_first_token_seconds_count") == 2
    assert seen.value("vllm_slo_time_to_first_token_seconds_sum") == 30.5
    assert seen.value("vllm_exporter_gateway_abandoned_seconds_total", model_name="m") == 30.5
    assert seen.value("vllm_exporter_gateway_abandoned_waits_total", model_name="m") == 1
    assert seen.value("vllm_slo_request_duration_seconds_count") in (0, None)


def test_a_scrape_interval_observes_its_speed_and_its_share_of_errors() -> None:
    seen = Seen()
    recorder = seen.recorder
    recorder.know(["m"])
    recorder.interval(10.0)
    for outcome in (
        Outcome.SUCCESS, Outcome.TRUNCATED, Outcome.ABORTED, Outcome.CLIENT_ERROR, Outcome.SUCCESS, Outcome.TIMEOUT,
    ):  # fmt: skip
        finish(recorder, streamed(outcome=outcome))
    recorder.interval(12.0)
    recorder.interval(13.0)  # nothing happened: no observation
    assert seen.value("vllm_slo_error_ratio_count", model_name="m") == 1
    assert seen.value("vllm_slo_error_ratio_sum", model_name="m") == 0.5
    assert seen.value("vllm_slo_output_tokens_per_second_count") == 1
    assert seen.value("vllm_slo_output_tokens_per_second_sum") == 18 / 2


def test_what_an_engine_lists_stands_at_zero_before_the_first_request() -> None:
    seen = Seen()
    seen.recorder.know(["m"])
    assert seen.value("vllm_slo_requests_total", model_name="m", outcome="timeout") == 0


def test_health_checks_are_nobodys_requests() -> None:
    seen = Seen()
    finish(seen.recorder, exchange(HEALTH))
    assert not seen.value("vllm_slo_requests_total")
    assert seen.recorder.running == 0


def test_more_models_than_may_be_count_together() -> None:
    seen = Seen(model_limit=2)
    for name in ("a", "b", "c", "d"):
        finish(seen.recorder, exchange(model=name))
    assert seen.value("vllm_slo_requests_total", outcome="success") == 4
    assert seen.value("vllm_slo_requests_total", outcome="success", model_name="") == 2


def test_each_key_has_its_own_figures_and_there_is_an_end_to_them() -> None:
    seen = Seen()
    finish(seen.recorder, streamed(key="team-a"))
    finish(seen.recorder, exchange(key="team-a", outcome=Outcome.CLIENT_ERROR))
    assert seen.value("vllm_slo_key_requests_total", key="team-a", outcome="success") == 1
    assert seen.value("vllm_slo_key_tokens_total", key="team-a", direction="output") == 3
    assert seen.value("vllm_slo_key_time_to_first_token_seconds_sum", key="team-a") == 0.5
    for number in range(KEY_SERIES_LIMIT + 5):
        finish(seen.recorder, exchange(key=f"k{number}"))
    assert seen.value("vllm_slo_key_requests_total", key="other") == 6


def test_refusals_retries_and_what_the_gateway_is_at_are_shown() -> None:
    seen = Seen()
    seen.recorder.refused("queue_full")
    finish(seen.recorder, exchange(tries=3))
    assert seen.value("vllm_exporter_gateway_refusals_total", reason="queue_full") == 1
    assert seen.value("vllm_exporter_gateway_retries_total") == 2
    assert seen.value("vllm_exporter_gateway_requests_running", engine_name="a") == 2
    assert seen.value("vllm_exporter_gateway_requests_queued") == 3
    assert seen.value("vllm_exporter_gateway_up") == 1


def test_totals_go_on_in_the_next_daemon() -> None:
    first, second = Seen(), Seen()
    finish(first.recorder, streamed(key="team-a"))
    first.recorder.refused("queue_full")
    first.recorder.interval(1.0)
    second.recorder.restore(json.loads(json.dumps(first.recorder.state())))
    assert second.values() == first.values()
    second.recorder.interval(2.0)  # what was before the restart is no speed and no error of now
    second.recorder.interval(3.0)
    assert second.value("vllm_slo_output_tokens_per_second_count") in (0, None)


@pytest.mark.parametrize(
    "broken",
    [
        {"version": 2},
        {"version": 1},
        {"version": 1, "models": [{}], "keys": [], "refusals": {}, "retries": 0},
        {"version": 1, "models": [], "keys": [3], "refusals": {}, "retries": 0},
        {"version": 1, "models": [], "keys": [], "refusals": [], "retries": 0},
    ],
)
def test_a_broken_state_is_left_alone(broken: dict[str, Any]) -> None:
    seen = Seen()
    seen.recorder.restore(broken)
    finish(seen.recorder, streamed())
    assert seen.value("vllm_slo_requests_total", outcome="success") == 1


def test_other_bounds_begin_anew_and_counters_go_on() -> None:
    first, second = Seen(), Seen()
    finish(first.recorder, streamed())
    state = first.recorder.state()
    state["models"][0]["distributions"]["vllm_slo_time_to_first_token_seconds"]["bounds"] = [1.0]
    second.recorder.restore(state)
    assert second.value("vllm_slo_requests_total", outcome="success") == 1
    assert second.value("vllm_slo_time_to_first_token_seconds_count") in (0, None)


def test_whatever_changes_a_total_changes_the_version() -> None:
    seen = Seen()
    for change in (lambda: finish(seen.recorder, streamed()), lambda: seen.recorder.refused("queue_full")):
        before = seen.recorder.version
        change()
        assert seen.recorder.version > before


def test_refusals_for_want_of_room_stand_at_zero_before_the_first_one_and_go_on_after_a_restart() -> None:
    seen = Seen()
    assert seen.value("vllm_exporter_gateway_refusals_total", reason="queue_full") == 0
    seen.recorder.refused("queue_full")
    again = Seen()
    again.recorder.restore(seen.recorder.state())
    assert again.value("vllm_exporter_gateway_refusals_total", reason="queue_full") == 1
    assert again.value("vllm_exporter_gateway_refusals_total", reason="bodies_full") == 0


def test_what_an_engine_got_stands_among_its_own_series_where_it_has_an_instance_of_its_own() -> None:
    of_a, daemon = Block((("instance", "a"),)), Block()
    recorder = Recorder(Block(), daemon, SliSettings(), model_limit=10, patience=2.0, engines={"a": of_a})
    for backend in ("a", "a", "b", ""):
        made = exchange(backend=backend)
        recorder.begin(made)
        recorder.end(made)
    recorder.end(exchange(HEALTH, backend="a"))
    recorder.publish(connections=0, running={"a": 1, "b": 0}, queued=0, takes=True)
    page = of_a.render(openmetrics=False).decode()
    assert 'vllm_exporter_gateway_engine_requests_total{instance="a",engine_name="a"} 2\n' in page
    assert 'vllm_exporter_gateway_requests_running{instance="a",engine_name="a"} 1\n' in page
    page = daemon.render(openmetrics=False).decode()
    assert 'vllm_exporter_gateway_engine_requests_total{engine_name="b"} 1\n' in page
    assert 'engine_name="a"' not in page
    after = Seen()
    after.recorder.restore(recorder.state())
    assert after.value("vllm_exporter_gateway_engine_requests_total", engine_name="a") == 2


def test_a_token_of_a_running_stream_that_is_shown_changes_the_version() -> None:
    """What is shown is saved first, and what has not changed is not saved."""
    seen = Seen()
    gap = seen.recorder.gap("m")
    seen.values()
    before = seen.recorder.version
    gap(0.25)
    assert seen.value("vllm_slo_tokens_total", direction="output") == 1
    assert seen.recorder.version > before
