from __future__ import annotations

from exporter.exposition.block import Block
from exporter.web.api.api import ENDPOINTS
from exporter.web.metrics import DURATION_BOUNDS, HttpMetrics


def test_counts_reach_the_page_when_published_and_not_before() -> None:
    metrics, block = HttpMetrics(), Block()
    metrics.publish(block)
    version = block.version
    metrics.count("/metrics", 200, 0.0003)
    metrics.count("/metrics", 200, 7.0)
    assert block.version == version
    metrics.publish(block)
    text = block.render(openmetrics=False).decode()
    assert 'vllm_exporter_http_requests_total{path="/metrics",code="200"} 2' in text
    assert 'request_duration_seconds_bucket{path="/metrics",le="0.00025"} 0' in text
    assert 'request_duration_seconds_bucket{path="/metrics",le="0.0005"} 1' in text
    assert 'request_duration_seconds_bucket{path="/metrics",le="+Inf"} 2' in text
    assert 'request_duration_seconds_sum{path="/metrics"} 7.0003' in text


def test_unknown_paths_share_one_series() -> None:
    metrics, block = HttpMetrics(), Block()
    for number in range(1000):
        metrics.count(f"/{number}", 404, 0.001)
    metrics.publish(block)
    text = block.render(openmetrics=False).decode()
    assert 'vllm_exporter_http_requests_total{path="other",code="404"} 1000' in text
    assert text.count("vllm_exporter_http_requests_total{") == 1


def test_publishing_twice_without_requests_changes_nothing() -> None:
    metrics, block = HttpMetrics(), Block()
    metrics.count("/metrics", 200, 0.001)
    metrics.publish(block)
    version = block.version
    metrics.publish(block)
    assert block.version == version


def test_a_time_on_a_bound_counts_in_its_bucket() -> None:
    metrics, block = HttpMetrics(), Block()
    metrics.count("/", 200, DURATION_BOUNDS[3])
    metrics.publish(block)
    assert f'le="{DURATION_BOUNDS[3]}"}} 1' in block.render(openmetrics=False).decode()


def test_every_path_of_the_api_has_a_name_and_labels_share_one() -> None:
    metrics = HttpMetrics()
    for path in ENDPOINTS:
        metrics.count(path.replace("{name}", "__name__"), 200, 0.001)
    assert {path for path, _ in metrics.requests} == {path.replace("{name}", ":name") for path in ENDPOINTS}
