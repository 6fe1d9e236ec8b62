from __future__ import annotations

import json
import shutil
import subprocess
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.sli import FAMILIES
from exporter.sli.families import SUMMARY

BOUNDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]


class Work:
    """An engine's life so far, shown as a page."""

    def __init__(self, new_page, model="m") -> None:
        self.new_page = new_page
        self.who = {"engine": "0", "model_name": model}
        self.done = {"stop": 0, "error": 0, "abort": 0}
        self.prompt = self.generated = 0
        self.ttft: list[float] = []
        self.took: list[float] = []
        self.running = self.waiting = 0

    def serve(self, *, stop=0, error=0, abort=0, prompt=0, generated=0, ttft=(), took=()):
        for reason, count in (("stop", stop), ("error", error), ("abort", abort)):
            self.done[reason] += count
        self.prompt += prompt
        self.generated += generated
        self.ttft += ttft
        self.took += took
        return self.page

    @property
    def page(self):
        page = self.new_page()
        page.gauge("vllm:num_requests_running", (self.who, float(self.running)))
        page.gauge("vllm:num_requests_waiting", (self.who, float(self.waiting)))
        page.gauge("vllm:kv_cache_usage_perc", (self.who, 0.5))
        page.counter("vllm:prompt_tokens_total", (self.who, float(self.prompt)))
        page.counter("vllm:generation_tokens_total", (self.who, float(self.generated)))
        page.counter(
            "vllm:request_success_total",
            *[({**self.who, "finished_reason": reason}, float(n)) for reason, n in self.done.items()],
        )
        page.histogram("vllm:time_to_first_token_seconds", BOUNDS, (self.who, self.ttft))
        page.histogram("vllm:e2e_request_latency_seconds", BOUNDS, (self.who, self.took))
        return page


@pytest.fixture
def work(new_page):
    return Work(new_page)


def test_every_family_of_the_design_is_declared():
    names = {family.name for family in FAMILIES}
    assert {
        "vllm_slo_time_to_first_token_seconds",
        "vllm_slo_inter_token_latency_seconds",
        "vllm_slo_request_duration_seconds",
        "vllm_slo_queue_duration_seconds",
        "vllm_slo_output_tokens_per_second",
        "vllm_slo_error_ratio",
        "vllm_slo_requests_total",
        "vllm_slo_tokens_total",
        "vllm_slo_preemptions_total",
        "vllm_slo_prefix_cache_queries_total",
        "vllm_slo_prefix_cache_hits_total",
        "vllm_slo_requests_running",
        "vllm_slo_requests_waiting",
        "vllm_slo_kv_cache_usage_ratio",
        "vllm_exporter_source_info",
        "vllm_exporter_sli_series_dropped_total",
        *(f"vllm_{name}" for name in SUMMARY),
    } == names
    assert len(names) == len(FAMILIES)
    assert all(family.help.endswith(".") for family in FAMILIES)


def test_everything_shown_is_a_declared_family(watch, capture):
    watched = watch().see(capture).miss()
    printed = {
        line.split()[2]
        for line in watched.block.render(openmetrics=False).decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert printed <= {family.name for family in FAMILIES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_remark(watch, work):
    watched = watch().see(work.page)
    work.running = 1
    watched.see(work.serve(stop=9, error=1, prompt=5, generated=5, ttft=[0.1], took=[0.2]))
    page = watched.block.render(openmetrics=False)
    for name in (
        "vllm_ttft_p99",
        "vllm_latency_min",
        "vllm_avg_tokens_per_request",
        "vllm_error_rate_percent",
    ):
        assert name.encode() in page
    found = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def test_an_interval_with_output_is_one_observation_of_tokens_per_second(watch, work):
    watched = watch().see(work.serve(generated=1_000_000))
    assert watched.get("output_tokens_per_second_count") == 0
    watched.see(work.serve(generated=50), after=0.5)
    watched.see(work.page)
    watched.see(work.serve(generated=300), after=2.0)
    assert watched.get("output_tokens_per_second_count") == 2
    assert watched.get("output_tokens_per_second_sum") == 100 + 150
    assert watched.shown["vllm_decoding_throughput_mean"] == 125
    assert watched.shown["vllm_decoding_throughput_p50"] == 125


def test_missed_scrapes_make_the_interval_longer_not_the_speed_higher(watch, work):
    watched = watch().see(work.page).miss(down=False).miss(down=False).see(work.serve(generated=300))
    assert watched.get("output_tokens_per_second_sum") == 100


def test_no_speed_is_observed_over_a_restart_or_a_gap_of_the_series(watch, work, new_page):
    watched = watch().see(work.serve(generated=10)).see(work.page, epoch="second")
    assert watched.get("output_tokens_per_second_count") == 0
    text = work.serve(generated=1000).text
    watched.see(
        "".join(line for line in text.splitlines(True) if "generation_tokens" not in line), epoch="second"
    )
    watched.see(text, epoch="second")
    assert watched.get("output_tokens_per_second_count") == 0
    watched.see(work.serve(generated=5), epoch="second")
    assert watched.get("output_tokens_per_second_sum") == 5


def test_an_interval_with_traffic_is_one_observation_of_the_error_ratio(watch, work):
    watched = watch().see(work.serve(stop=100, error=50))
    assert watched.get("error_ratio_count") == 0
    watched.see(work.serve(stop=3, error=1)).see(work.page).see(work.serve(abort=5)).see(work.serve(stop=2))
    assert watched.get("error_ratio_count") == 2
    assert watched.get("error_ratio_sum") == 0.25
    assert watched.get("error_ratio_bucket", le="0.0") == 1
    assert watched.get("error_ratio_bucket", le="0.2") == 1
    assert watched.get("error_ratio_bucket", le="0.5") == 2


def test_time_with_the_engine_down_is_all_error(watch, work):
    watched = watch().see(work.page).miss(down=True).miss(down=True).miss(down=False)
    assert watched.get("error_ratio_count") == 2
    assert watched.get("error_ratio_sum") == 2
    assert watched.shown["vllm_error_rate_percent"] == 100
    assert watched.shown["vllm_success_rate_percent"] == 0


def test_an_engine_that_never_came_up_is_down_under_the_empty_name(watch):
    watched = watch().miss(down=True)
    assert watched.get("error_ratio_sum", "") == 1


def test_a_page_of_an_engine_that_serves_nobody_is_error_unless_somebody_was_served(watch, work):
    watched = watch().see(work.page).see(work.page, serving=False)
    assert watched.get("error_ratio_sum") == 1
    watched.see(work.serve(stop=1), serving=False)
    assert watched.get("error_ratio_count") == 2
    assert watched.get("error_ratio_sum") == 1


def test_gauges_go_away_with_the_page_and_counters_stay(watch, work):
    work.running, work.waiting = 4, 2
    watched = watch().see(work.serve(generated=7))
    assert watched.indicators.progress().running == 4
    assert watched.sources()
    watched.miss()
    for name in ("requests_running", "requests_waiting", "kv_cache_usage_ratio"):
        assert watched.get(name) is None
    assert "vllm_num_running_requests" not in watched.shown
    assert watched.sources() == {}
    assert watched.indicators.progress() == type(watched.indicators.progress())(None, None, None)
    assert watched.get("tokens_total", direction="output") == 7
    assert watched.shown["vllm_peak_concurrent_requests"] == 6
    watched.see(work.page)
    assert watched.get("requests_running") == 4
    assert watched.sources()


def test_a_gauge_that_vanishes_from_the_page_or_is_no_number_goes_away(watch, work):
    text = work.page.text
    watched = watch().see(text)
    watched.see(text.replace('vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5', ""))
    assert watched.get("kv_cache_usage_ratio") is None
    watched.see(text.replace("} 0.5", "} NaN"))
    assert watched.get("kv_cache_usage_ratio") is None
    assert watched.see(text).get("kv_cache_usage_ratio") == 0.5


def test_nothing_is_shown_before_the_first_page_but_what_was_dropped(watch):
    assert set(watch().shown) == {
        'vllm_exporter_sli_series_dropped_total{reason="model_limit"}',
        'vllm_exporter_sli_series_dropped_total{reason="series_limit"}',
    }


def test_a_summary_without_traffic_has_no_rates(watch, work):
    shown = watch().see(work.serve(stop=5, ttft=[0.1], took=[1.0])).see(work.page).shown
    for name in ("ttft_mean", "ttft_p99", "latency_min", "success_rate_percent", "avg_tokens_per_request"):
        assert f"vllm_{name}" not in shown
    assert shown["vllm_requests_per_second"] == 0
    assert shown["vllm_total_requests"] == 5


def test_the_summary_says_what_happened_in_the_window(watch, work):
    watched = watch().see(work.serve(stop=1000, ttft=[9.0] * 1000, took=[9.0] * 1000))
    work.running, work.waiting = 3, 1
    watched.see(
        work.serve(
            stop=8, error=2, abort=1, prompt=100, generated=60, ttft=[0.2] * 8, took=[0.3] * 4 + [2.0] * 4
        ),
        after=10.0,
    )
    shown = watched.shown
    summary = watched.indicators.summary()
    assert shown["vllm_total_requests"] == 1011
    assert shown["vllm_successful_requests"] == 1008
    assert shown["vllm_failed_requests"] == 2
    assert shown["vllm_success_rate_percent"] == pytest.approx(80)
    assert shown["vllm_error_rate_percent"] == pytest.approx(20)
    assert shown["vllm_requests_per_second"] == pytest.approx(1.1)
    assert shown["vllm_total_throughput"] == pytest.approx(16)
    assert shown["vllm_avg_tokens_per_request"] == 20
    assert shown["vllm_ttft_mean"] == pytest.approx(0.2)
    assert 0.1 < shown["vllm_ttft_p50"] <= 0.25
    assert shown["vllm_latency_mean"] == pytest.approx(1.15)
    assert shown["vllm_latency_min"] <= 0.3
    assert 2.0 <= shown["vllm_latency_max"] <= 2.5
    assert shown["vllm_total_input_tokens"] == 100
    assert shown["vllm_total_output_tokens"] == 60
    for name in SUMMARY:
        assert getattr(summary, name) == pytest.approx(shown[f"vllm_{name}"])


def test_what_is_older_than_the_window_no_longer_counts(watch, work):
    watched = watch(window=60.0).see(work.page).see(work.serve(error=5, took=[0.2] * 5))
    assert watched.shown["vllm_error_rate_percent"] == 100
    for _ in range(70):
        watched.see(work.serve(stop=1, took=[0.2]))
    assert watched.shown["vllm_error_rate_percent"] == 0
    assert watched.shown["vllm_requests_per_second"] == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 9.0), min_size=1, max_size=60))
def test_summary_quantiles_lie_in_the_bucket_of_the_exact_ones(watch, new_page, values):
    work = Work(new_page)
    watched = watch(time_to_first_token_buckets=tuple(BOUNDS)).see(work.page).see(work.serve(ttft=values))
    shown = watched.shown
    ordered = sorted(values)
    for q in (50, 95, 99):
        exact = ordered[max(0, -(-q * len(values) // 100) - 1)]
        upper = min(bound for bound in BOUNDS if bound >= exact)
        lower = max((bound for bound in BOUNDS if bound < exact), default=0.0)
        assert lower - 1e-9 <= shown[f"vllm_ttft_p{q}"] <= upper + 1e-9
    assert shown["vllm_ttft_mean"] == pytest.approx(fmean(values))


def test_progress_counts_tokens_and_steps_and_never_falls(watch, work):
    watched = watch().see(work.serve(prompt=10, generated=5))
    assert watched.indicators.progress().counter == 15
    other = Work(work.new_page)
    assert watched.see(other.serve(prompt=1), epoch="second").indicators.progress().counter == 16


def test_a_page_without_token_counters_has_no_progress_to_tell(watch, new_page):
    watched = watch().see(new_page().gauge("vllm:num_requests_running", ({"model_name": "m"}, 1.0)))
    assert watched.indicators.progress().counter is None
    assert watched.indicators.progress().running == 1


def test_samples_of_the_last_seconds_are_json(watch, work):
    watched = watch()
    assert watched.indicators.recent_samples(60) == []
    for _ in range(10):
        watched.see(work.serve(stop=1, generated=10))
    watched.miss()
    samples = json.loads(json.dumps(watched.indicators.recent_samples(3.0)))
    assert [sample["up"] for sample in samples] == [True, True, True, False]
    assert [sample["output_tokens"] for sample in samples] == [80, 90, 100, 100]
    assert samples[-1]["requests_running"] is None


def many_models(new_page, names):
    page = new_page()
    return page.counter(
        "vllm:generation_tokens_total", *[({"engine": "0", "model_name": name}, 1.0) for name in names]
    )


def dropped(watched, reason):
    return watched.shown[f'vllm_exporter_sli_series_dropped_total{{reason="{reason}"}}']


def test_models_past_the_limit_are_counted_and_dropped(watch, new_page):
    watched = watch(model_limit=2).see(many_models(new_page, "abcd")).see(many_models(new_page, "abcd"))
    assert [watched.get("tokens_total", model, direction="output") for model in "abcd"].count(None) == 2
    assert dropped(watched, "model_limit") == 2


def test_a_model_of_an_earlier_engine_makes_room(watch, new_page):
    watched = watch(model_limit=2).see(many_models(new_page, "ab"))
    watched.see(many_models(new_page, "c"), epoch="second")
    assert watched.get("tokens_total", "c", direction="output") == 1
    assert dropped(watched, "model_limit") == 0
    shown = [key for key in watched.shown if 'model_name="a"' in key]
    assert shown == []
    assert watched.get("tokens_total", "b", direction="output") == 1


def test_series_past_the_limit_are_counted_and_dropped(watch, new_page):
    watched = watch(series_limit=3).see(many_models(new_page, "abcde"))
    assert dropped(watched, "series_limit") == 2


def test_a_source_that_changes_its_labels_each_time_cannot_grow_memory_without_end(watch, new_page):
    watched = watch(series_limit=50, model_limit=5)
    for index in range(200):
        page = new_page().counter(
            "vllm:generation_tokens_total", ({"engine": str(index), "model_name": "m"}, 1.0)
        )
        watched.see(page)
    assert watched.get("tokens_total", direction="output") == 50
    assert len(watched.indicators.state()["continuity"]["memory"]["scopes"]) <= 51


def test_the_state_is_json_and_brings_back_what_was_observed(watch, work):
    first = (
        watch().see(work.page).see(work.serve(stop=3, error=1, generated=20, ttft=[0.3], took=[0.7])).miss()
    )
    state = json.loads(json.dumps(first.indicators.state(), allow_nan=False))
    second = watch()
    second.indicators.restore(state)
    kept = {key: value for key, value in first.shown.items() if key.startswith("vllm_slo_")}
    assert {key: value for key, value in second.shown.items() if key.startswith("vllm_slo_")} == kept
    second.see(work.serve(stop=1))
    assert second.get("error_ratio_count") == first.get("error_ratio_count")
    assert second.shown["vllm_successful_requests"] == 4
    assert second.shown["vllm_peak_concurrent_requests"] == 0


def test_an_unchanged_page_changes_nothing_that_is_printed(watch, capture):
    watched = watch().see(capture).see(capture)
    for _ in range(3):
        before = watched.block.render(openmetrics=False)
        assert watched.see(capture).block.render(openmetrics=False) == before


def test_an_engine_that_was_put_to_sleep_is_known_to_be(watch, capture):
    asleep = capture.replace('sleep_state="awake"} 1.0', 'sleep_state="awake"} 0.0')
    assert asleep != capture
    watched = watch().see(capture)
    assert not watched.indicators.progress().asleep
    assert watched.see(asleep).indicators.progress().asleep
    assert not watched.miss().indicators.progress().asleep
