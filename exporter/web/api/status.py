"""What clients ask of a Prometheus besides its data: version, run time, targets, metadata, statistics.

Fields and their order: web/api/v1/api.go in https://github.com/prometheus/prometheus.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exporter import __version__
from exporter.alerting.durations import format_duration
from exporter.settings import RuleSettings, Settings
from exporter.storage.model import NAME, Labels
from exporter.web.api.model import ApiError, Target
from exporter.web.api.numbers import rfc3339
from exporter.web.api.parameters import Form

PROMETHEUS_VERSION = "3.5.0"
"""The Prometheus whose API and PromQL this is: clients choose by it which requests they dare to make."""
STATISTICS_LIMIT = 10_000
"""Most rows of one table of `status/tsdb`."""

_ESCAPE = re.compile(r"\\(.)")


def build_info() -> dict[str, str]:
    """`status/buildinfo`. No `features`: by them Grafana tells a Mimir."""
    return {
        "version": PROMETHEUS_VERSION,
        "revision": __version__,
        "branch": "vllm-exporter",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }


def runtime_info(
    *, now: float, started: float, reloaded: float, reload_good: bool, retention: float
) -> dict[str, Any]:
    """`status/runtimeinfo`; times in unix seconds, `retention` in seconds."""
    return {
        "startTime": rfc3339(started),
        "CWD": "",
        "hostname": socket.gethostname(),
        "serverTime": rfc3339(now),
        "reloadConfigSuccess": reload_good,
        "lastConfigTime": rfc3339(reloaded),
        "corruptionCount": 0,
        "goroutineCount": threading.active_count(),
        "GOMAXPROCS": os.cpu_count() or 1,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": format_duration(retention),
    }


def flags(rules: RuleSettings, retention: float) -> dict[str, str]:
    """`status/flags`: those of Prometheus' that mean something here."""
    return {
        "query.lookback-delta": format_duration(rules.lookback),
        "query.max-concurrency": str(rules.query_concurrency),
        "query.max-samples": str(rules.query_samples),
        "query.timeout": format_duration(rules.query_timeout),
        "rules.alert.for-grace-period": format_duration(rules.for_grace_period),
        "rules.alert.for-outage-tolerance": format_duration(rules.for_outage_tolerance),
        "storage.tsdb.retention.time": format_duration(retention),
        "web.enable-lifecycle": "true",
        "web.enable-admin-api": "false",
        "web.external-url": rules.external_url or "",
    }


def prometheus_config(settings: Settings) -> str:
    """The settings that a prometheus.yml would have, as one."""
    import yaml

    scrape, rules = settings.scrape, settings.rules
    whole = {
        "global": {
            "scrape_interval": format_duration(scrape.interval),
            "scrape_timeout": format_duration(min(scrape.timeout, scrape.interval)),
            "evaluation_interval": format_duration(rules.interval),
            "rule_query_offset": format_duration(rules.query_offset),
            "external_labels": dict(rules.external_labels),
        },
        "rule_files": list(rules.files),
    }
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)


def targets(found: Iterable[Target], form: Form) -> dict[str, Any]:
    """`targets`: everything that is scraped; nothing is ever dropped."""
    pool = form.get("scrapePool")
    state = form.get("state").lower()
    active = [_target(target) for target in found if pool in ("", target.job)]
    return {
        "activeTargets": active if state in ("", "any", "active") else [],
        "droppedTargets": [],
        "droppedTargetCounts": {},
    }


def _target(target: Target) -> dict[str, Any]:
    return {
        "discoveredLabels": dict(target.discovered),
        "labels": dict(sorted(target.labels.items())),
        "scrapePool": target.job,
        "scrapeUrl": target.url,
        "globalUrl": target.url,
        "lastError": target.last_error,
        "lastScrape": rfc3339(target.last_scrape),
        "lastScrapeDuration": target.last_duration,
        "health": target.health,
        "scrapeInterval": format_duration(target.interval),
        "scrapeTimeout": format_duration(target.timeout),
    }


def read_metadata(page: bytes) -> dict[str, dict[str, str]]:
    """Type, help and unit of each family of a page in text 0.0.4, which knows no units."""
    families: dict[str, dict[str, str]] = {}
    for block in (b"\n" + page).split(b"\n# ")[1:]:
        line = block.partition(b"\n")[0].decode("utf-8", "replace")
        keyword, _, rest = line.partition(" ")
        name, _, value = rest.partition(" ")
        if keyword not in ("HELP", "TYPE") or not name:
            continue
        entry = families.setdefault(name, {"type": "unknown", "help": "", "unit": ""})
        if keyword == "HELP":
            entry["help"] = _ESCAPE.sub(lambda found: {"n": "\n"}.get(found[1], found[1]), value)
        else:
            entry["type"] = "unknown" if value == "untyped" else value
    return families


def metadata(families: Mapping[str, dict[str, str]], form: Form) -> dict[str, list[dict[str, str]]]:
    """`metadata`: of one family, or of all."""
    limit = _number(form, "limit")
    _number(form, "limit_per_metric")  # there is one entry for each
    metric = form.get("metric")
    names = [name for name in families if metric in ("", name)]
    return {name: [families[name]] for name in (names if limit < 0 else names[:limit])}


def _number(form: Form, name: str) -> int:
    text = form.get(name)
    if not text:
        return -1
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise ApiError("bad_data", f"{name} must be a number")
    return int(text)


def statistics(
    series: Sequence[Labels], oldest: int | None, newest: int | None, form: Form
) -> dict[str, Any]:
    """`status/tsdb`: how many series there are, and what makes them many. Times in milliseconds."""
    text = form.get("limit")
    if text and not (text.isascii() and text.isdigit() and int(text[:18]) > 0):
        raise ApiError("bad_data", "limit must be a positive number")
    limit = int(text[:18]) if text else 10
    if limit > STATISTICS_LIMIT:
        raise ApiError("bad_data", f"limit must not exceed {STATISTICS_LIMIT}")
    pairs = Counter(pair for labels in series for pair in labels)
    names: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, value in pairs:
        names[name] += 1
        sizes[name] += len(value.encode("utf-8", "replace"))

    def table(counts: Mapping[str, int]) -> list[dict[str, Any]]:
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [{"name": name, "value": count} for name, count in ranked[:limit]]

    return {
        "headStats": {
            "numSeries": len(series),
            "numLabelPairs": len(pairs),
            "chunkCount": 0,
            "minTime": oldest if oldest is not None else 0,
            "maxTime": newest if newest is not None else 0,
        },
        "seriesCountByMetricName": table(
            {value: count for (name, value), count in pairs.items() if name == NAME}
        ),
        "labelValueCountByLabelName": table(names),
        "memoryInBytesByLabelName": table(sizes),
        "seriesCountByLabelValuePair": table(
            {f"{name}={value}": count for (name, value), count in pairs.items()}
        ),
    }
