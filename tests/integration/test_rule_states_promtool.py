"""Groups held to Prometheus itself: random histories, played here, are checked by `promtool test rules`."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from exporter import promql
from exporter.alerting.assembly import assemble
from exporter.alerting.conditions import Conditions
from exporter.alerting.rulefile import load_rules
from exporter.promql.model import Budget, Vector
from exporter.storage.bits import STALE
from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.retention import Retention

MINUTES = 40
LOOKBACK_MS = 300_001
"""Debian's promtool is 2.42, where a sample of five minutes ago still counts; in Prometheus 3 it does not."""
STEP_MS = 60_000
SHOWN = '{__name__=~"ALERTS|ALERTS_FOR_STATE|made|made_again"}'

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")


def rules(rng: random.Random) -> str:
    """A group of alerts and records over the series `load`, with random conditions."""

    def duration() -> str:
        return rng.choice(["0s", "1m", "90s", "2m", "3m", "7m", "15m", "20m"])

    alerts = [
        {
            "alert": f"Alert{number % 4}",
            "expr": rng.choice(
                ["load > 5", "sum by (host) (load) > 12", "count(load > 5) > 1", "absent(load)"]
            ),
            "for": duration(),
            "keep_firing_for": duration(),
            "labels": rng.choice(
                [
                    {"number": str(number)},
                    {"number": str(number), "where": "{{ $labels.host }}-{{ $value }}"},
                    {"number": str(number), "host": ""},
                    {"number": str(number), "gone": "{{ $labels.nothing }}"},
                ]
            ),
            "annotations": {"summary": "{{ $value | humanize }} on {{ $labels.host }}"},
        }
        for number in range(6)
    ]
    for alert in alerts:
        if alert["labels"].get("host") == "" and alert["expr"] == "load > 5":
            alert["expr"] = 'load{host="a"} > 5'  # else two alerts would be one, and promtool give up
    records = [
        {"record": "made", "expr": "load > 5", "labels": {"level": "x"}},
        {
            "record": "made_again",
            "expr": 'sum by (level) (made) + on () group_left () count(ALERTS{alertstate="firing"})',
        },
    ]
    groups = [{"name": "g", "rules": alerts + records}]
    return json.dumps({"groups": groups})


def history(rng: random.Random) -> list[str]:
    """Values of one series, as promtool writes them: missing (`_`) and ended (`stale`) ones among them."""
    values: list[str] = []
    while len(values) <= MINUTES:
        kind = rng.choice(["1", "9", "7", "_", "_", "stale", "6"])
        values += [kind] * rng.choice([1, 1, 2, 3, 8])
    return values[: MINUTES + 1]


def play(text: str, series: dict[str, list[str]]) -> list[dict[str, float]]:
    """What the rules' own series show after each minute."""
    head = Head(retention=Retention(86_400_000), memory_limit=64 << 20)
    groups = assemble(load_rules(text, "rules.yml"), head, interval=60).groups
    conditions = Conditions(head=head, lookback_ms=LOOKBACK_MS)
    shown = promql.compile(SHOWN)
    layouts = {host: Layout([(("__name__", "load"), ("host", host))]) for host in series}
    seen = []
    for minute in range(MINUTES + 1):
        at = minute * STEP_MS
        for host, values in series.items():
            if values[minute] == "stale":
                head.stream(host).append(at, layouts[host], [STALE])
            elif values[minute] != "_":
                head.stream(host).append(at, layouts[host], [float(values[minute])])
        for group in groups:
            assert group.evaluate(at, conditions).failures == 0, group.status()
        value = shown.instant(head, at, Budget(samples=1_000_000, timeout=60), lookback=LOOKBACK_MS)
        assert isinstance(value, Vector)
        present = np.ones(len(value.labels), bool) if value.present is None else value.present[:, 0]
        seen.append(
            {
                "{" + ",".join(f"{name}={json.dumps(text)}" for name, text in labels) + "}": float(number)
                for labels, number, here in zip(value.labels, value.values[:, 0], present, strict=True)
                if here
            }
        )
    return seen


@pytest.mark.parametrize("seed", range(12))
def test_promtool_sees_the_same_states_at_the_same_times(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    text = rules(rng)
    series = {host: history(rng) for host in ("a", "b", "c")}
    seen = play(text, series)
    assert any("firing" in labels for moment in seen for labels in moment)
    (tmp_path / "rules.yml").write_text(text)
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'load{{host="{host}"}}', "values": " ".join(values)}
                    for host, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": SHOWN,
                        "eval_time": f"{minute}m",
                        "exp_samples": [
                            {"labels": labels, "value": value} for labels, value in moment.items()
                        ],
                    }
                    for minute, moment in enumerate(seen)
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))
    ran = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, f"{series}\n{ran.stdout}{ran.stderr}"
