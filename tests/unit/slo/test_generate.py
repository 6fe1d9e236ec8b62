from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml

from exporter.alerting.rulefile import load_rules
from exporter.errors import ConfigError
from exporter.slo import command
from exporter.slo.spec import SpecError
from exporter.slo.windows import BURNS, PAGE_INTERVAL_SECONDS

SPEC = """\
version: prometheus/v1
service: shop
labels: {team: web}
slos:
  - name: availability
    objective: 99.9
    sli:
      events:
        error_query: sum(rate(errors_total[{{.window}}]))
        total_query: sum(rate(requests_total[{{.window}}]))
    alerting:
      name: ShopDown
      page_alert: {labels: {severity: critical}}
      ticket_alert: {labels: {severity: warning}}
"""


def made(text: str = SPEC) -> dict[str, list[dict]]:
    """Rules by name of what is recorded, or of the alert."""
    rules: dict[str, list[dict]] = {}
    for group in yaml.safe_load(command.rule_file([("shop.yml", text)]))["groups"]:
        for rule in group["rules"]:
            rules.setdefault(rule.get("record") or rule["alert"], []).append(rule)
    return rules


def test_every_window_and_every_series_that_sloths_dashboards_read_is_recorded():
    rules = made()
    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
    for window in windows:
        (rule,) = rules[f"slo:sli_error:ratio_rate{window}"]
        assert rule["labels"] == {
            "team": "web",
            "sloth_id": "shop-availability",
            "sloth_service": "shop",
            "sloth_slo": "availability",
            "sloth_window": window,
        }
    for name in (
        "slo:objective:ratio",
        "slo:error_budget:ratio",
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "slo:period_error_budget_remaining:ratio",
        "sloth_slo_info",
    ):
        assert len(rules[name]) == 1
    assert rules["sloth_slo_info"][0]["labels"]["sloth_objective"] == "99.9"


def test_the_numbers_are_those_of_the_workbook():
    assert [(burn.severity, burn.short, burn.long, burn.factor) for burn in BURNS] == [
        ("page", "5m", "1h", "14.4"),
        ("page", "30m", "6h", "6"),
        ("ticket", "2h", "1d", "3"),
        ("ticket", "6h", "3d", "1"),
    ]
    page, ticket = made()["ShopDown"]
    found = [
        re.findall(r"ratio_rate(\w+)\{.*?\} > \(([\d.]+) \* 0\.001\)", rule["expr"])
        for rule in (page, ticket)
    ]
    assert found == [
        [("5m", "14.4"), ("1h", "14.4"), ("30m", "6"), ("6h", "6")],
        [("2h", "3"), ("1d", "3"), ("6h", "1"), ("3d", "1")],
    ]
    assert (page["labels"]["sloth_severity"], ticket["labels"]["sloth_severity"]) == ("page", "ticket")


def test_objectives_keep_their_decimals():
    rules = made(SPEC.replace("99.9", "99.95"))
    assert rules["slo:objective:ratio"][0]["expr"] == "vector(0.9995)"
    assert rules["slo:error_budget:ratio"][0]["expr"] == "vector(0.0005)"


def test_nothing_reads_raw_samples_over_a_long_window():
    for name, rules in made().items():
        for rule in rules:
            for selector, window in re.findall(r"([\w:]+)(?:\{[^}]*\})?\[(\w+)\]", rule["expr"]):
                assert selector.startswith("slo:") or window == "5m", name


def test_a_floor_on_traffic_stands_in_both_pairs_of_an_alert():
    page, ticket = made(SPEC + "    x-vllm-exporter: {min_events: {page: 20}}\n")["ShopDown"]
    for window in ("1h", "6h"):
        events = f'sum_over_time(slo:sli_total:events_rate5m{{sloth_id="shop-availability"}}[{window}])'
        assert f"{events} * {PAGE_INTERVAL_SECONDS} >= 20" in page["expr"]
    assert ">=" not in ticket["expr"]


def test_the_warm_up_of_each_engine_is_taken_out_before_the_sum():
    rules = made(SPEC + "    x-vllm-exporter: {warm_up: 5m, sum_by: [job]}\n")
    for name in ("slo:sli_error:events_rate5m", "slo:sli_total:events_rate5m"):
        expr = " ".join(rules[name][0]["expr"].split())
        assert expr.startswith("sum by (job) ( ( sum(rate(")
        # Five minutes of warm-up, and the window that began in it; also of an engine that ended in it.
        ready = "last_over_time(vllm_exporter_engine_ready_time_seconds[10m])"
        assert f"unless on (job, instance) (time() - {ready} < 600) )" in expr


def test_a_given_ratio_is_averaged_over_longer_windows():
    text = SPEC[: SPEC.index("      events:")] + (
        "      raw: {error_ratio_query: 'errors:ratio{{.window}}'}\n" + SPEC[SPEC.index("    alerting:") :]
    )
    rules = made(text)
    assert "slo:sli_total:events_rate5m" not in rules
    assert " ".join(rules["slo:sli_error:ratio_rate5m"][0]["expr"].split()) == "( errors:ratio5m ) >= 0"
    assert rules["slo:sli_error:ratio_rate3d"][0]["expr"].startswith(
        "avg_over_time(slo:sli_error:ratio_rate5m{"
    )


def test_alerts_that_are_not_wanted_are_not_made():
    text = SPEC.replace("page_alert: {", "page_alert: {disable: true, ").replace("name: ShopDown", "name: ''")
    text = text.replace("ticket_alert: {", "ticket_alert: {disable: true, ")
    assert all("alert" not in rule for rules in made(text).values() for rule in rules)


def test_what_is_made_is_a_rule_file_and_the_same_each_time():
    text = command.rule_file([("shop.yml", SPEC)])
    assert text == command.rule_file([("shop.yml", SPEC)])
    assert text.startswith("# Made from shop.yml by `vllm-exporter rules generate`.")
    groups = load_rules(text, "shop.rules.yml")
    assert [group.name for group in groups] == ["slo-shop-availability", "slo-shop-availability-budget"]
    assert [group.interval for group in groups] == [60.0, 120.0]


def test_several_specifications_make_one_file_or_none():
    other = SPEC.replace("shop", "cart")
    assert len(load_rules(command.rule_file([("a.yml", SPEC), ("b.yml", other)]), "x")) == 4
    with pytest.raises(SpecError) as caught:
        command.rule_file([("a.yml", SPEC), ("b.yml", SPEC), ("c.yml", "")])
    assert any("b.yml: group slo-shop-availability is made twice" in one for one in caught.value.problems)
    assert any(one.startswith("c.yml") for one in caught.value.problems)


def test_a_template_that_no_rule_file_may_have_is_refused():
    with pytest.raises(SpecError, match="the rules made from shop"):
        made(SPEC.replace("name: ShopDown", "name: ShopDown\n      annotations: {summary: '{{ nonsense }}'}"))


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_writes_the_file_whole_or_to_the_terminal(tmp_path: Path, capsys):
    spec, rules = tmp_path / "shop.yml", tmp_path / "shop.rules.yml"
    spec.write_text(SPEC)
    assert command.main(arguments(str(spec))) == 0
    assert capsys.readouterr().out == command.rule_file([("shop.yml", SPEC)])
    rules.write_text("old")
    assert command.main(arguments(str(spec), "--output", str(rules))) == 0
    assert rules.read_text() == command.rule_file([("shop.yml", SPEC)])
    spec.write_text("nonsense: true")
    with pytest.raises(ConfigError):
        command.main(arguments(str(spec), "--output", str(rules)))
    assert rules.read_text() == command.rule_file([("shop.yml", SPEC)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.rules.yml", "shop.yml"]


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        command.main(arguments(str(tmp_path / "none.yml")))
    spec = tmp_path / "shop.yml"
    spec.write_text(SPEC)
    with pytest.raises(ConfigError, match="cannot write"):
        command.main(arguments(str(spec), "--output", str(tmp_path / "no" / "x.yml")))
