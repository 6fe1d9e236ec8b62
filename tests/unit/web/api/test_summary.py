from __future__ import annotations

import json
import math
from typing import Any

import pytest

from exporter.alerting.status import AlertStatus, GroupStatus, RuleStatus
from exporter.exposition.block import Block
from exporter.gpu.reading import GpuReading
from exporter.sli.families import REQUEST_DURATION, REQUESTS
from exporter.sli.summary import Summary
from exporter.web.api.summary import bucket_name, engine_json, summary_json

GIB = 1 << 30


def ask(
    summary: Summary | None = None, block: Block | None = None, gpus: Any = (), groups: Any = ()
) -> dict[str, Any]:
    found = summary_json("ready", summary or Summary(), (block or Block()).columns(), gpus, groups)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_it_has_every_field_of_the_design() -> None:
    found = ask()
    assert list(found) == [
        "status",
        "requests",
        "slo",
        "latency",
        "latency_histogram",
        "tokens",
        "gpu",
        "gpus",
        "errors",
        "alerts_count",
        "alerts",
    ]
    assert list(found["requests"]) == [
        "waiting",
        "running",
        "peak",
        "total",
        "successful",
        "failed",
        "success_rate_percent",
        "error_rate_percent",
        "per_second",
    ]
    assert {key: list(found["slo"][key]) for key in found["slo"]} == {
        "ttft": ["mean", "p50", "p95", "p99"],
        "throughput": ["decoding_mean", "decoding_p50", "total"],
    }
    assert list(found["latency"]) == ["mean", "p50", "p95", "p99", "min", "max"]
    assert list(found["tokens"]) == ["input", "output", "avg_per_request"]
    assert list(found["gpu"]) == ["name", "allocated_gb", "total_gb", "free_gb", "utilization_percent"]
    assert list(found["errors"]) == ["total", "by_type"]


def test_what_is_unknown_is_null_and_never_zero() -> None:
    found = ask()
    values = [*found["requests"].values(), *found["latency"].values(), *found["gpu"].values()]
    assert set(values) == {None}
    assert found["latency_histogram"] is None
    assert found["gpus"] == []
    assert found["alerts_count"] == 0


def test_numbers_come_from_the_summary() -> None:
    found = ask(
        Summary(
            num_waiting_requests=3.0,
            total_requests=12.0,
            ttft_p95=0.25,
            failed_requests=2.0,
            latency_max=math.inf,
        )
    )
    assert found["requests"]["waiting"] == 3
    assert found["requests"]["total"] == 12
    assert found["slo"]["ttft"]["p95"] == 0.25
    assert found["errors"]["total"] == 2
    assert found["latency"]["max"] is None


def test_requests_are_counted_by_how_long_they_took_and_how_they_failed() -> None:
    block = Block()
    bounds = (0.1, 0.8, 1.0, 1.5)
    block.histogram(REQUEST_DURATION, bounds, "m", "engine").load([1, 3, 3, 4], 6, 9.0)
    block.histogram(REQUEST_DURATION, bounds, "n", "engine").load([1, 1, 1, 1], 1, 0.1)
    block.histogram(REQUEST_DURATION, bounds, "m", "gateway").load([9, 9, 9, 9], 9, 0.1)
    for outcome, count in (("success", 5), ("engine_error", 2), ("rejected", 1), ("client_error", 7)):
        block.counter(REQUESTS, "m", "engine", outcome).set(count)
    found = ask(block=block)
    assert found["latency_histogram"] == {
        "0-100ms": 2,
        "100-800ms": 2,
        "800ms-1s": 0,
        "1-1.5s": 1,
        ">1.5s": 2,
    }
    assert found["errors"]["by_type"] == {"engine_error": 2, "rejected": 1}


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (0.0, 0.1, "0-100ms"),
        (0.1, 0.25, "100-250ms"),
        (0.5, 1.0, "500ms-1s"),
        (1.0, 2.5, "1-2.5s"),
        (1920.0, math.inf, ">1920s"),
        (0.0, 2.0, "0-2s"),
        (0.3, math.inf, ">300ms"),
    ],
)
def test_buckets_are_named_by_their_edges(low: float, high: float, name: str) -> None:
    assert bucket_name(low, high) == name


def test_the_first_gpu_is_the_gpu() -> None:
    gpus = (
        GpuReading(1, "GPU-b", "NVIDIA B", memory_used_bytes=GIB),
        GpuReading(
            0,
            "GPU-a",
            "NVIDIA A",
            memory_used_bytes=60 * GIB,
            memory_total_bytes=80 * GIB,
            memory_free_bytes=20 * GIB,
            utilization_ratio=0.974,
        ),
    )
    found = ask(gpus=gpus)
    assert found["gpu"] == {
        "name": "NVIDIA A",
        "allocated_gb": 60.0,
        "total_gb": 80.0,
        "free_gb": 20.0,
        "utilization_percent": 97.4,
    }
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA A", "NVIDIA B"]
    assert found["gpus"][1]["total_gb"] is None


def test_alerts_say_how_bad_since_when_and_what() -> None:
    alert = AlertStatus({"severity": "critical"}, {"summary": "it is down"}, "firing", 1435781451.0, 1.0)
    bare = AlertStatus({}, {}, "pending", 0.0, 1.0)
    watchdog = AlertStatus({"severity": "none"}, {}, "firing", 0.0, 1.0)
    active = (alert, bare, watchdog)
    rule = RuleStatus("alerting", "Down", "up == 0", {}, {}, 0.0, 0.0, active, "ok", "", 0.0, None)
    found = ask(groups=[GroupStatus("g", "f.yml", 5.0, 0, 0.0, (rule,), 0.0, None)])
    assert found["alerts_count"] == 2, "the one that says that all is well does not count"
    assert found["alerts"] == [
        {
            "name": "Down",
            "severity": "critical",
            "message": "it is down",
            "state": "firing",
            "since": "2015-07-01T20:10:51Z",
        },
        {
            "name": "Down",
            "severity": None,
            "message": None,
            "state": "pending",
            "since": "1970-01-01T00:00:00Z",
        },
    ]


def test_one_of_several_engines_has_its_figures_and_neither_gpus_nor_alerts() -> None:
    block = Block((("instance", "a"),))
    block.counter(REQUESTS, "m", "engine", "rejected").set(2)
    found = engine_json("a", "ready", Summary(successful_requests=3.0), block.columns())
    assert (found["name"], found["status"]) == ("a", "ready")
    assert found["requests"]["successful"] == 3
    assert found["errors"]["by_type"] == {"rejected": 2}
    assert not {"gpu", "gpus", "alerts"} & found.keys()


def test_series_of_all_engines_are_added_up() -> None:
    blocks = [Block((("instance", name),)) for name in ("a", "b")]
    for block in blocks:
        block.counter(REQUESTS, "m", "engine", "rejected").set(2)
    columns = [block.columns() for block in blocks]
    series = [one for found, _ in columns for one in found]
    values = [value for _, found in columns for value in found]
    whole = summary_json("degraded", Summary(), (series, values), (), ())
    assert whole["errors"]["by_type"] == {"rejected": 4}


def test_alerts_may_be_asked_for_of_one_instance() -> None:
    labels = [{"alertname": "X", "severity": "critical", "instance": name} for name in ("a", "b")]
    alerts = tuple(AlertStatus(one, {}, "firing", 1000.0, 1.0) for one in labels)
    rule = RuleStatus("alerting", "X", "up == 0", {}, {}, 0.0, 0.0, alerts, "ok", "", 0.0, None)
    groups = [GroupStatus("g", "f.yml", 5.0, 0, 0.0, (rule,), 0.0, None)]
    assert summary_json("ready", Summary(), Block().columns(), (), groups)["alerts_count"] == 2
    found = summary_json("ready", Summary(), Block().columns(), (), groups, instance="b")
    assert found["alerts_count"] == 1
