"""The shipped rule files beside each other: names, labels, the runbook, and that each alert is tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from exporter.alerting.rulefile import Rule, load_rule_file
from exporter.sli import FAMILIES
from exporter.slo import command

RULES = Path(__file__).parents[3] / "rules"
FILES = sorted(RULES.glob("*.rules.yml"))
TESTS = sorted(RULES.glob("*.test.yml"))
ALERTS = [
    (file, rule)
    for file in FILES
    for group in load_rule_file(file)
    for rule in group.rules
    if rule.kind == "alerting"
]


def alert(name: str) -> Rule:
    return next(rule for _, rule in ALERTS if rule.name == name)


def test_the_generated_rules_are_those_of_the_objectives():
    source = RULES / "slos.yml"
    assert (RULES / "slos.rules.yml").read_text() == command.rule_file([(source.name, source.read_text())]), (
        "run: vllm-exporter rules generate rules/slos.yml --output rules/slos.rules.yml"
    )


@pytest.mark.parametrize(
    ("file", "rule"), ALERTS, ids=[f"{rule.name}-{rule.labels.get('severity')}" for _, rule in ALERTS]
)
def test_each_alert_says_what_it_is_and_has_its_section_in_the_runbook(file: Path, rule: Rule):
    assert rule.labels["severity"] in ("critical", "warning", "none")
    assert rule.annotations["summary"]
    assert rule.annotations["summary"][-1] != "."
    assert "{{" not in rule.annotations["summary"]
    assert rule.annotations["description"].endswith((".", "may."))
    assert rule.annotations["runbook_url"] == f"{{{{ $externalURL }}}}/rules/RUNBOOK.md#{rule.name.lower()}"
    section = re.search(
        rf"^## {rule.name}\n(.*?)(?=^#|\Z)", (RULES / "RUNBOOK.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert section, f"{rule.name} of {file.name} has no section"
    assert re.findall(r"^\*\*(.+?)\.\*\*", section[1], re.MULTILINE) == ["Means", "Look at", "Do"]


def test_the_runbook_has_no_section_without_an_alert_and_no_dead_link():
    text = (RULES / "RUNBOOK.md").read_text()
    sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert sorted(sections) == sorted({rule.name for _, rule in ALERTS})
    for link in re.findall(r"\]\(#([^)]*)\)", text):
        assert link in {section.lower() for section in sections}


def _without_thresholds(rule: Rule) -> bool:
    """Whether the description needs no number: the alert is a state."""
    states = ("Watchdog", "VLLMEngineDown", "VLLMEngineUnresponsive", "VLLMEngineFailed", "VLLMGPULost")
    states += ("VLLMEngineCrashed",)
    return rule.name in (*states, "VLLMExporterScrapeFailing")


def test_descriptions_have_the_numbers():
    for _, rule in ALERTS:
        assert _without_thresholds(rule) or "$value" in rule.annotations["description"], rule.name


def test_each_alert_is_tried_firing_and_not_firing():
    """In the files beside the rules; that it resolves is a not firing after a firing."""
    fires: dict[str, list[bool]] = {}
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                fires.setdefault(case["alertname"], []).append(bool(case.get("exp_alerts")))
            for case in test.get("promql_expr_test", ()):
                if case["expr"].startswith("count by (alertname, sloth_severity) (ALERTS"):
                    for sample in case["exp_samples"]:
                        fires.setdefault(re.findall(r'alertname="(\w+)"', sample["labels"])[0], []).append(
                            True
                        )
                elif case["expr"].startswith("ALERTS") and not case.get("exp_samples"):
                    for name in {rule.name for _, rule in ALERTS if "BudgetBurn" in rule.name}:
                        fires.setdefault(name, []).append(False)
    for name in {rule.name for _, rule in ALERTS} - {"Watchdog"}:
        seen = fires[name]
        assert True in seen, name
        assert False in seen[seen.index(True) :], f"{name} is never seen to end"


def test_the_three_alerts_of_old_keep_their_names_thresholds_and_severities():
    queue, ttft, errors = alert("VLLMHighQueueLength"), alert("VLLMHighTTFT"), alert("VLLMHighErrorRate")
    assert (queue.for_seconds, queue.labels["severity"]) == (60, "warning")
    assert (ttft.for_seconds, ttft.labels["severity"]) == (300, "warning")
    assert (errors.for_seconds, errors.labels["severity"]) == (300, "critical")
    assert [rule.expr.strip().rsplit(maxsplit=1)[-1] for rule in (queue, ttft, errors)] == ["5", "3", "0.1"]


def test_only_recorded_series_are_read_further_back_than_an_hour_and_a_half():
    for file in FILES:
        for group in load_rule_file(file):
            for rule in group.rules:
                for name, window in re.findall(r"([\w:]+)(?:\{[^}]*\})?\[(\w+)\]", rule.expr):
                    assert ":" in name or window in ("5m", "10m", "15m", "1h"), rule.name


def test_whoever_reads_an_indicator_that_two_sources_measure_says_which():
    """A sum over both would count each request twice."""
    both = {family.name for family in FAMILIES if "source" in family.labels}
    beside_gateway = "unless on (job, instance, source) label_replace(vllm_exporter_gateway_requests_running"
    for file in FILES:
        for group in load_rule_file(file):
            for rule in group.rules:
                for name, selector in re.findall(r"(vllm_slo_\w+)(\{[^}]*\})?", rule.expr):
                    if re.sub(r"_(bucket|count|sum)$", "", name) in both:
                        assert 'source="' in selector or beside_gateway in rule.expr, f"{rule.name}: {name}"
