from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.simulator.kv_cache import BlockPool
from exporter.simulator.metrics import PageMetrics, cache_config
from exporter.simulator.scheduler import EngineShape, FinishReason, Request, Scheduler
from exporter.simulator.timing import StepCost

CAPTURE = Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt"
SHAPE = EngineShape(blocks=64, block_size=4, max_model_len=128, max_batched_tokens=64, max_sequences=4)


def metrics(model: str = "tiny-qwen", engines: int = 1) -> PageMetrics:
    cache = cache_config(blocks=64, block_size=4, max_model_len=128, prefix_caching=True)
    return PageMetrics(model, engines, cache)


def used_metrics() -> PageMetrics:
    page = metrics()
    page.http(
        method="POST",
        handler="/v1/chat/completions",
        status=200,
        seconds=0.2,
        request_bytes=270,
        response_bytes=0,
    )
    return page


def families(text: str) -> dict[str, tuple[str, str]]:
    """Type and help by name, in the page's order."""
    kinds, helps = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
        elif line.startswith("# HELP "):
            _, _, name, words = line.split(" ", 3)
            helps[name] = words
    return {name: (kind, helps[name]) for name, kind in kinds.items()}


def series(text: str) -> set[tuple[str, tuple[str, ...], str | None, str | None]]:
    """What tells series apart but for the values of their other labels: name, label names, le, and a state or reason."""
    found = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            state = next(
                (labels[n] for n in ("reason", "sleep_state", "source", "finished_reason") if n in labels),
                None,
            )
            found.add((sample.name, tuple(sorted(labels)), labels.get("le"), state))
    return found


def test_the_page_has_the_families_of_the_newest_vllm_with_their_types_and_help_in_its_order() -> None:
    real, ours = families(CAPTURE.read_text()), families(used_metrics().page().decode())
    assert list(ours) == list(real)
    assert ours == real


def test_every_series_has_the_labels_buckets_and_reasons_of_the_newest_vllm() -> None:
    assert series(used_metrics().page().decode()) == series(CAPTURE.read_text())


def label_order(text: str) -> Iterator[tuple[str, ...]]:
    for line in text.splitlines():
        if line.startswith("vllm:") and "{" in line and "cache_config" not in line:
            labels = line[line.index("{") + 1 : line.index("}")]
            yield (line[: line.index("{")], *(part.split("=")[0] for part in labels.split('",')))


def test_labels_stand_in_the_order_of_the_newest_vllm() -> None:
    assert list(label_order(used_metrics().page().decode())) == list(label_order(CAPTURE.read_text()))


def values(page: PageMetrics) -> dict[str, float]:
    """Value by name and the labels other than model and engine."""
    out = {}
    for family in text_string_to_metric_families(page.page().decode()):
        for sample in family.samples:
            labels = [v for k, v in sample.labels.items() if k not in ("model_name", "engine")]
            out[" ".join([sample.name, *labels])] = sample.value
    return out


def serve(page: PageMetrics, requests: list[Request], abort_after: dict[str, int] | None = None) -> None:
    scheduler = Scheduler(SHAPE, StepCost(base=0.01, jitter=0.0))
    for request in requests:
        scheduler.add(request, 0.0)
    now: float | None = 0.0
    step = 0
    while now is not None:
        for name, after in (abort_after or {}).items():
            if step == after and (gone := scheduler.abort(name, now)):
                page.engines[0].finished(gone)
        result = scheduler.step(now)
        page.engines[0].step(result, scheduler)
        now = result.ends_at
        step += 1


def request(name: str, prompt: list[int], max_tokens: int) -> Request:
    return Request(name, prompt, max_tokens, sample=lambda index: index)


def test_a_finished_request_shows_everywhere_that_vllm_shows_it() -> None:
    page = metrics()
    serve(page, [request("a", list(range(16)), 5)])
    serve(page, [request("b", list(range(100, 110)), 3)])
    now = values(page)
    assert now["vllm:prompt_tokens_total"] == 26
    assert now["vllm:generation_tokens_total"] == 8
    assert now["vllm:request_success_total length"] == 2
    assert now["vllm:time_to_first_token_seconds_count"] == 2
    assert now["vllm:inter_token_latency_seconds_count"] == 6
    assert now["vllm:e2e_request_latency_seconds_count"] == 2
    assert now["vllm:request_decode_time_seconds_sum"] == pytest.approx(
        now["vllm:inter_token_latency_seconds_sum"]
    )
    assert now["vllm:iteration_tokens_total_sum"] == 26 + 8
    assert now["vllm:num_requests_running"] == 0
    assert now["vllm:kv_cache_usage_perc"] == 0


def test_prefix_cache_hits_split_the_prompt_tokens_by_source() -> None:
    page = metrics()
    scheduler = Scheduler(SHAPE, StepCost())
    for name in ("a", "b"):
        scheduler.add(request(name, list(range(16)), 1), 0.0)
        now: float | None = 0.0
        while now is not None:
            result = scheduler.step(now)
            page.engines[0].step(result, scheduler)
            now = result.ends_at
    shown = values(page)
    assert shown["vllm:prefix_cache_queries_total"] == 32
    assert shown["vllm:prefix_cache_hits_total"] == 12
    assert shown["vllm:prompt_tokens_by_source_total local_cache_hit"] == 12
    assert shown["vllm:prompt_tokens_by_source_total local_compute"] == 20
    assert shown["vllm:prompt_tokens_total"] == 32
    assert shown["vllm:request_prefill_kv_computed_tokens_sum"] == 20


def test_an_aborted_request_counts_as_abort_even_before_its_first_token() -> None:
    page = metrics()
    requests = [
        request("a", [1, 2, 3], 50),
        request("b", [4, 5, 6], 50),
        *(request(n, [7], 9) for n in "cdef"),
    ]
    serve(page, requests, {"a": 4, "f": 1})
    now = values(page)
    assert now["vllm:request_success_total abort"] == 2
    assert now["vllm:request_success_total length"] == 4
    assert now["vllm:e2e_request_latency_seconds_count"] == 6


def test_each_data_parallel_rank_has_series_of_its_own() -> None:
    page = metrics(engines=3)
    ranks = {
        sample.labels["engine"]
        for family in text_string_to_metric_families(page.page().decode())
        for sample in family.samples
        if "engine" in sample.labels
    }
    assert ranks == {"0", "1", "2"}


def test_a_model_name_of_quotes_newlines_and_emoji_still_parses() -> None:
    name = 'odd "name"\\ \n 模型🦙'
    shown = list(text_string_to_metric_families(metrics(name).page().decode()))
    assert {s.labels["model_name"] for f in shown for s in f.samples if "model_name" in s.labels} == {name}


def test_every_reason_to_finish_has_a_series() -> None:
    shown = values(metrics())
    assert {f"vllm:request_success_total {reason}" for reason in FinishReason} <= set(shown)


def test_usage_is_a_share_of_the_blocks() -> None:
    assert BlockPool(4, 16).usage == 0.0
