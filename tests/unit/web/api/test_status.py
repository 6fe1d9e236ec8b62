from __future__ import annotations

from urllib.parse import urlencode

import pytest
import yaml

from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.settings import RuleSettings, Settings
from exporter.web.api import status
from exporter.web.api.model import ApiError, Target
from exporter.web.api.parameters import Form


def form(**fields: str) -> Form:
    return Form(urlencode(fields))


def test_grafana_takes_us_for_a_prometheus_3() -> None:
    info = status.build_info()
    assert info["version"].startswith("3.")
    assert "features" not in info


def test_flags_are_texts_without_secrets() -> None:
    shown = status.flags(RuleSettings(query_timeout=90), 3600)
    assert shown["query.timeout"] == "1m30s"
    assert shown["storage.tsdb.retention.time"] == "1h"
    assert all(isinstance(value, str) for value in shown.values())


def test_the_configuration_reads_as_a_prometheus_yml(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(rules=RuleSettings(files=("/etc/*.yml",), external_labels={"box": "机器"}))
    text = status.prometheus_config(settings)
    assert yaml.safe_load(text)["global"]["external_labels"] == {"box": "机器"}
    assert yaml.safe_load(text)["rule_files"] == ["/etc/*.yml"]


TARGETS = (
    Target("vllm", "http://127.0.0.1:8000/metrics", {"job": "vllm"}, "up", 1.0, 5.0, "", 10.0, 0.01),
    Target("self", "http://127.0.0.1:9108/metrics", {"job": "self"}, "down", 1.0, 5.0, "refused"),
)


def test_targets_can_be_chosen() -> None:
    everything = status.targets(TARGETS, form())
    assert [one["scrapePool"] for one in everything["activeTargets"]] == ["vllm", "self"]
    assert everything["activeTargets"][0] == {
        "discoveredLabels": {},
        "labels": {"job": "vllm"},
        "scrapePool": "vllm",
        "scrapeUrl": "http://127.0.0.1:8000/metrics",
        "globalUrl": "http://127.0.0.1:8000/metrics",
        "lastError": "",
        "lastScrape": "1970-01-01T00:00:10Z",
        "lastScrapeDuration": 0.01,
        "health": "up",
        "scrapeInterval": "1s",
        "scrapeTimeout": "5s",
    }
    assert status.targets(TARGETS, form(scrapePool="self"))["activeTargets"][0]["lastError"] == "refused"
    assert status.targets(TARGETS, form(state="dropped"))["activeTargets"] == []


def test_metadata_comes_from_the_page() -> None:
    block = Block()
    block.gauge(Family("queue", "gauge", 'Says "how long"\\and\nwhere.')).set(1)
    block.counter(Family("seen_total", "counter", "Seen.")).set(1)
    page = block.render(openmetrics=False) + b"# TYPE bare untyped\nbare 1\n# a comment\n# HELP only\n"
    found = status.read_metadata(page)
    assert found["queue"] == {"type": "gauge", "help": 'Says "how long"\\and\nwhere.', "unit": ""}
    assert found["seen_total"]["type"] == "counter"
    assert found["bare"] == {"type": "unknown", "help": "", "unit": ""}
    assert found["only"]["help"] == ""
    assert list(status.metadata(found, form(metric="queue"))) == ["queue"]
    assert len(status.metadata(found, form(limit="2"))) == 2
    assert status.metadata(found, form(limit="0")) == {}
    assert len(status.metadata(found, form(limit="-1"))) == len(found)
    for name in ("limit", "limit_per_metric"):
        with pytest.raises(ApiError, match=f"{name} must be a number"):
            status.metadata(found, form(**{name: "x"}))


SERIES = tuple(
    (("__name__", "a" if number < 7 else "b"), ("instance", "i"), ("number", str(number)))
    for number in range(10)
)


def test_statistics_say_what_makes_many_series() -> None:
    found = status.statistics(SERIES, 1, 2, form(limit="2"))
    assert found["headStats"] == {
        "numSeries": 10,
        "numLabelPairs": 13,
        "chunkCount": 0,
        "minTime": 1,
        "maxTime": 2,
    }
    assert found["seriesCountByMetricName"] == [{"name": "a", "value": 7}, {"name": "b", "value": 3}]
    assert found["labelValueCountByLabelName"][0] == {"name": "number", "value": 10}
    assert found["seriesCountByLabelValuePair"][0] == {"name": "instance=i", "value": 10}
    for text in ("0", "x", "-1", "99999", "9" * 50):
        with pytest.raises(ApiError, match="limit must"):
            status.statistics(SERIES, None, None, form(limit=text))
