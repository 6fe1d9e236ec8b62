"""Pages as the released versions show them, written from the table of renames in the project's notes."""

from __future__ import annotations

import pytest

VERSIONS = {
    "0.6.3": (0, 6, 3),
    "0.7": (0, 7, 3),
    "0.8.5": (0, 8, 5),
    "0.9.2": (0, 9, 2),
    "0.10.2": (0, 10, 2),
    "0.11": (0, 11, 0),
    "0.12": (0, 12, 0),
    "0.17": (0, 17, 0),
    "0.32": (0, 32, 0),
}

TTFT = [0.05, 0.3, 0.3, 1.4]
ITL = [0.011, 0.02, 0.02, 0.04]
E2E = [0.4, 1.1, 3.0, 9.0]
QUEUE = [0.31, 0.6]
BOUNDS = [0.01, 0.025, 0.05, 0.1, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0]


def page_of(new_page, version, *, factor=1, labels=None):
    """A page of that version; `factor` scales the counters."""
    who = {"model_name": "m"} if labels is None else labels
    if version >= (0, 8, 3):
        who = {"engine": "0", **who}
    page = new_page()

    def histogram(name, values):
        page.histogram(f"vllm:{name}", BOUNDS, (who, values * factor))

    def counter(name, value):
        page.counter(f"vllm:{name}_total", (who, float(value * factor)))

    def gauge(name, value):
        page.gauge(f"vllm:{name}", (who, value))

    gauge("num_requests_running", 3.0)
    gauge("num_requests_waiting", 2.0)
    if version < (0, 9, 1):
        gauge("num_requests_swapped", 0.0)
        gauge("cpu_cache_usage_perc", 0.7)
        gauge("gpu_prefix_cache_hit_rate", 0.5)
    if version < (0, 7, 0):
        gauge("avg_prompt_throughput_toks_per_s", 5.0)
        gauge("avg_generation_throughput_toks_per_s", 6.0)
    if version < (0, 11, 0):
        gauge("gpu_cache_usage_perc", 0.25)
    if version >= (0, 9, 2):
        gauge("kv_cache_usage_perc", 0.25)
    if (0, 7, 3) <= version < (0, 11, 0):
        counter("gpu_prefix_cache_queries", 80)
        counter("gpu_prefix_cache_hits", 20)
    if version >= (0, 9, 2):
        counter("prefix_cache_queries", 80)
        counter("prefix_cache_hits", 20)
    counter("num_preemptions", 1)
    counter("prompt_tokens", 100)
    counter("generation_tokens", 50)
    reasons = {"stop": 3, "length": 1, "abort": 1}
    if version >= (0, 13, 0):
        reasons["error"] = 2
    if version >= (0, 17, 0):
        reasons["repetition"] = 1
    page.counter(
        "vllm:request_success_total",
        *[({**who, "finished_reason": reason}, float(count * factor)) for reason, count in reasons.items()],
    )
    if version >= (0, 32, 0):
        page.counter(
            "vllm:admission_rejections_total",
            *[({"model_name": "m", "reason": reason}, 2.0 * factor) for reason in ("reqs", "tokens")],
        )
    histogram("iteration_tokens_total", [4.0, 6.0])
    histogram("time_to_first_token_seconds", TTFT)
    histogram("e2e_request_latency_seconds", E2E)
    if version < (0, 12, 0):
        histogram("time_per_output_token_seconds", ITL)
    if version >= (0, 10, 2):
        histogram("inter_token_latency_seconds", ITL)
    if version >= (0, 11, 0):
        histogram("request_time_per_output_token_seconds", [9.0])
    if version <= (0, 9, 0):
        histogram("model_execute_time_milliseconds", [9.0])
    if (0, 6, 4) <= version <= (0, 9, 0):
        histogram("time_in_queue_requests", QUEUE)
    if version >= (0, 6, 4):
        histogram("request_queue_time_seconds", QUEUE)
    return page


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_every_version_shows_the_same_indicators(watch, new_page, version):
    watched = watch().see(page_of(new_page, version))
    assert watched.get("tokens_total", direction="input") == 100
    assert watched.get("tokens_total", direction="output") == 50
    assert watched.get("preemptions_total") == 1
    assert watched.get("requests_running") == 3
    assert watched.get("requests_waiting") == 2
    assert watched.get("kv_cache_usage_ratio") == 0.25
    for name, values in (
        ("time_to_first_token_seconds", TTFT),
        ("inter_token_latency_seconds", ITL),
        ("request_duration_seconds", E2E),
    ):
        assert watched.get(f"{name}_count") == len(values)
        assert watched.get(f"{name}_sum") == pytest.approx(sum(values))
        assert watched.cumulative(name)[-1] == len(values)
    assert watched.get("time_to_first_token_seconds_bucket", le="0.5") == 3
    success = 5 if version >= (0, 17, 0) else 4
    assert watched.requests()["success"] == success
    assert watched.requests()["aborted"] == 1
    assert watched.requests().get("engine_error", 0) == (2 if version >= (0, 13, 0) else 0)
    assert watched.requests().get("rejected", 0) == (4 if version >= (0, 32, 0) else 0)
    assert watched.indicators.progress().counter == 100 + 50 + 2


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_each_indicator_has_one_source_also_where_a_version_shows_two(watch, new_page, version):
    sources = watch().see(page_of(new_page, version)).sources()
    new_itl = version >= (0, 10, 2)
    assert (
        sources["inter_token_latency_seconds"]
        == f"vllm:{'inter_token_latency' if new_itl else 'time_per_output_token'}_seconds"
    )
    prefix = "" if version >= (0, 9, 2) else "gpu_"
    expected = f"vllm:{prefix}prefix_cache_queries_total" if version >= (0, 7, 3) else None
    assert sources.get("prefix_cache_queries") == expected
    assert sources["kv_cache_usage_ratio"] == (
        "vllm:kv_cache_usage_perc" if version >= (0, 9, 2) else "vllm:gpu_cache_usage_perc"
    )
    queue = "vllm:request_queue_time_seconds" if version >= (0, 6, 4) else None
    assert sources.get("queue_duration_seconds") == queue


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_what_a_version_does_not_count_is_absent(watch, new_page, version):
    watched = watch().see(page_of(new_page, version))
    assert watched.get("prefix_cache_queries_total") == (80 if version >= (0, 7, 3) else None)
    assert watched.get("prefix_cache_hits_total") == (20 if version >= (0, 7, 3) else None)
    assert watched.get("queue_duration_seconds_count") == (2 if version >= (0, 6, 4) else None)


def test_an_upgrade_goes_on_with_the_same_totals(watch, new_page):
    watched = watch()
    total = 0
    for index, version in enumerate(VERSIONS.values()):
        for factor in (1, 3):
            watched.see(page_of(new_page, version, factor=factor), epoch=str(index))
        total += 3 * 50
        assert watched.get("tokens_total", direction="output") == total
        assert watched.get("inter_token_latency_seconds_count") == 12 * (index + 1)


def test_of_two_sources_the_first_one_stays_when_the_other_vanishes_for_a_while(watch, new_page):
    both = page_of(new_page, (0, 10, 2))
    only_old = "\n".join(line for line in both.lines if "inter_token_latency" not in line) + "\n"
    watched = watch().see(both).see(only_old).see(both).see(page_of(new_page, (0, 10, 2), factor=2))
    assert watched.get("inter_token_latency_seconds_count") == 8
    assert watched.get("kv_cache_usage_ratio") == 0.25


def test_a_source_that_replaces_another_counts_from_where_it_stands(watch, new_page):
    who = {"engine": "0", "model_name": "m"}
    watched = watch().see(new_page().counter("vllm:gpu_prefix_cache_hits_total", (who, 10.0)))
    watched.see(new_page().counter("vllm:prefix_cache_hits_total", (who, 500.0)))
    watched.see(new_page().counter("vllm:prefix_cache_hits_total", (who, 507.0)))
    assert watched.get("prefix_cache_hits_total") == 17


def test_ranks_are_summed_and_models_kept_apart(watch, new_page):
    page = new_page()
    ranks = [({"engine": str(k), "model_name": model}, k) for model in ("a", "b") for k in range(4)]
    page.counter("vllm:generation_tokens_total", *[(who, 10.0 * (k + 1)) for who, k in ranks])
    page.gauge("vllm:num_requests_running", *[(who, float(k)) for who, k in ranks])
    page.gauge("vllm:kv_cache_usage_perc", *[(who, k / 10) for who, k in ranks])
    page.histogram("vllm:time_to_first_token_seconds", BOUNDS, *[(who, TTFT) for who, _ in ranks])
    watched = watch().see(page)
    for model in ("a", "b"):
        assert watched.get("tokens_total", model, direction="output") == 100
        assert watched.get("requests_running", model) == 6
        assert watched.get("kv_cache_usage_ratio", model) == 0.3
        assert watched.get("time_to_first_token_seconds_count", model) == 16
    assert watched.shown["vllm_num_running_requests"] == 12
    assert watched.shown["vllm_total_output_tokens"] == 200


def test_engines_with_different_buckets_add_up(watch, new_page):
    page = new_page()
    for engine, bounds in (("0", [0.1, 1.0, 10.0]), ("1", [0.5, 1.0, 2.5])):
        page.histogram(
            "vllm:time_to_first_token_seconds",
            bounds,
            ({"engine": engine, "model_name": "m"}, [0.05, 0.7, 2.0]),
        )
    watched = watch().see(page)
    assert watched.get("time_to_first_token_seconds_count") == 6
    assert watched.get("time_to_first_token_seconds_bucket", le="1.0") == 4
    assert watched.get("time_to_first_token_seconds_bucket", le="60.0") == 6


def test_commas_quotes_and_newlines_in_labels_stay_where_they_are(watch, new_page):
    name = 'a,"b"}\n{x="1"\\'
    page = new_page().gauge(
        "vllm:lora_requests_info",
        ({"running_lora_adapters": "sql,chat,{x}", "max_lora": "4", "waiting_lora_adapters": ""}, 1.7e9),
    )
    page.counter("vllm:generation_tokens_total", ({"engine": "0", "model_name": name}, 7.0))
    assert watch().see(page).get("tokens_total", name, direction="output") == 7


def test_the_real_page_of_0_32_is_read_whole(watch, capture):
    watched = watch().see(capture)
    model = "tiny-qwen"
    assert watched.get("tokens_total", model, direction="input") == 8500
    assert watched.get("tokens_total", model, direction="output") == 4096
    assert watched.requests(model) == {"success": 64, "client_error": 2}
    assert watched.get("prefix_cache_hits_total", model) == 3840
    assert watched.get("inter_token_latency_seconds_count", model) == 4032
    assert watched.get("request_duration_seconds_sum", model) == pytest.approx(9.182532548904419)
    assert len(watched.sources()) == 16
    assert watched.indicators.progress().counter == 8500 + 4096 + 263


def test_openmetrics_says_the_same_as_text(watch, capture):
    plain = watch().see(capture)
    openmetrics = plain.reader.passthrough().render(openmetrics=True) + b"# EOF\n"
    other = watch()
    row = other.reader.read(openmetrics, openmetrics=True)
    other.indicators.apply(row, now=plain.now, epoch="first")
    assert other.shown == plain.shown
