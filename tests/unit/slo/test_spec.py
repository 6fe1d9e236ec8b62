from __future__ import annotations

from decimal import Decimal

import pytest

from exporter.slo.spec import Events, Raw, SpecError, load_spec

GOOD = """\
version: "prometheus/v1"
service: shop
labels: {team: web}
slos:
  - name: availability
    objective: 99.9
    description: It works.
    labels: {tier: "1"}
    sli:
      events:
        error_query: sum(rate(http_requests_total{code=~"5.."}[{{.window}}]))
        total_query: sum(rate(http_requests_total[{{ .window }}]))
    alerting:
      name: ShopDown
      labels: {category: availability}
      annotations: {runbook: somewhere}
      page_alert:
        labels: {severity: critical}
      ticket_alert:
        disable: true
"""


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(text, "shop.yml")
    return caught.value.problems


def test_a_specification_of_sloth_is_read_as_it_stands():
    spec = load_spec(GOOD, "shop.yml")
    (one,) = spec.objectives
    assert (spec.service, one.name, one.percent) == ("shop", "availability", Decimal("99.9"))
    assert one.labels == {"team": "web", "tier": "1"}
    assert isinstance(one.sli, Events)
    assert one.alert_name == "ShopDown"
    assert one.page.labels == {"category": "availability", "severity": "critical"}
    assert one.page.annotations == {"runbook": "somewhere"}
    assert one.ticket.disabled
    assert one.extension.min_events == {}


def test_a_ratio_may_be_given_as_it_is():
    text = GOOD[: GOOD.index("      events:")] + (
        "      raw: {error_ratio_query: 'job:errors:ratio_rate{{.window}}'}\n"
        + GOOD[GOOD.index("    alerting:") :]
    )
    assert load_spec(text, "shop.yml").objectives[0].sli == Raw("job:errors:ratio_rate{{.window}}")


def test_our_own_key_stands_beside_those_of_sloth():
    text = GOOD + "    x-vllm-exporter: {min_events: 20, warm_up: 5m, sum_by: [job, model_name]}\n"
    extension = load_spec(text, "shop.yml").objectives[0].extension
    assert extension.min_events == {"page": 20, "ticket": 20}
    assert extension.warm_up_seconds == 300
    assert extension.sum_by == ("job", "model_name")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "prometheus/v1",
            "prometheus/v2",
            'shop.yml:1:10: version is "prometheus/v2", expected "prometheus/v1"',
        ),
        ("service: shop", "service: my shop", 'shop.yml:2:10: service is "my shop", expected letters'),
        ("labels: {team: web}", "labels: {a-b: web}", 'shop.yml:3:9: labels: "a-b" is no label name'),
        ("objective: 99.9", "objective: 100", 'shop.yml:6:16: slo "availability": objective is "100"'),
        ("objective: 99.9", "objective: many", 'shop.yml:6:16: slo "availability": objective is "many"'),
        ("    objective: 99.9\n", "", 'slo "availability": objective is ""'),
        ("objective:", "objectve:", 'shop.yml:6:5: slo 1: unknown field "objectve"'),
        ("[{{.window}}]", "[5m]", "has no {{.window}}"),
        ("[{{.window}}]", "[{{.windows}}]", "{{.window}} is the only variable there is"),
        ("sum(rate(http", "sum(rate((http", "shop.yml:11:22: "),
        ("error_query:", "errors:", 'unknown field "errors"'),
        ("      events:", "      plugin: {id: x}\n      events:", "SLI plugins are not supported"),
        ("name: ShopDown", "labels: {}", "alerting has no name"),
        ("disable: true", "disable: maybe", 'expected true or false, got "maybe"'),
        ("  - name: availability", "  - name: a b", 'shop.yml:5:11: slo 1: name is "a b"'),
    ],
)
def test_a_mistake_is_told_with_its_place(old, new, problem):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    assert any(problem in one for one in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("extension", "problem"),
    [
        ("{min_event: 3}", 'unknown field "min_event"'),
        ("{min_events: -1}", "is a number of events, 0 or more"),
        ("{min_events: {page: 2, tickets: 3}}", 'unknown field "tickets"'),
        ("{warm_up: 5 minutes}", "warm_up"),
        ("{warm_up: 1500ms}", "whole seconds"),
        ("{sum_by: job}", "expected a list"),
        ("{sum_by: [a-b]}", '"a-b" is no label name'),
    ],
)
def test_a_mistake_in_our_own_key_is_one_too(extension, problem):
    found = problems(GOOD + f"    x-vllm-exporter: {extension}\n")
    assert len(found) == 1
    assert problem in found[0]


def test_a_floor_on_events_needs_rates():
    text = GOOD.replace(
        "sum(rate(http_requests_total[{{ .window", "sum(increase(http_requests_total[{{ .window"
    )
    assert "total_query uses increase" in problems(text + "    x-vllm-exporter: {min_events: 20}\n")[0]


def test_all_mistakes_are_told_at_once():
    text = GOOD.replace("99.9", "0").replace("[{{.window}}]", "[5m]").replace("team: web", "a-b: web")
    assert len(problems(text)) == 3


def test_two_objectives_of_one_name_are_a_mistake():
    text = GOOD + GOOD[GOOD.index("  - name") :]
    assert 'slo "availability" is there twice' in problems(text)[0]


@pytest.mark.parametrize("text", ["", "[]", "version: prometheus/v1", "{", "slos: 3", "a: &a [*a]", "\x00"])
def test_what_is_no_specification_is_refused(text):
    assert problems(text)
