"""The shipped configuration and the shipped rules know each other's names."""

from __future__ import annotations

import re

import pytest

from exporter.alerting.files import read_groups
from exporter.notify.config.load import effective
from exporter.notify.matchers import matches
from exporter.storage.model import Labels

RULES = [
    rule for group in read_groups([], builtin=True)[0] for rule in group.rules if rule.kind == "alerting"
]
SHIPPED = effective()


def labels(name: str, severity: str) -> Labels:
    return (("alertname", name), ("instance", "box:9108"), ("job", "vllm"), ("severity", severity))


def inhibits(source: str, target: Labels) -> bool:
    return any(
        matches(one.source, labels(source, "critical")) and matches(one.target, target)
        for one in SHIPPED.inhibitions
    )


def test_every_name_in_an_inhibition_is_one_of_a_rule():
    names = {rule.name for rule in RULES}
    for inhibition in SHIPPED.inhibitions:
        for matcher in inhibition.source + inhibition.target:
            if matcher.name != "alertname":
                continue
            spelled = re.sub(
                r"(\w+)\(([^()]+)\)",
                lambda found: "|".join(found[1] + end for end in found[2].split("|")),
                matcher.value,
            )
            for pattern in spelled.split("|"):
                assert any(re.fullmatch(pattern, name) for name in names), pattern


@pytest.mark.parametrize(
    "source", ["VLLMEngineDown", "VLLMEngineCrashed", "VLLMEngineUnresponsive", "VLLMEngineFailed"]
)
def test_an_engine_that_does_not_serve_silences_what_follows_from_it(source: str):
    for name in ("VLLMHighQueueLength", "VLLMHighTTFT", "VLLMHighErrorRate", "VLLMTTFTBudgetBurn", "VLLMAvailabilityBudgetBurn", "VLLMGatewayHighErrorRate", "VLLMGatewayAbandonedWaits", "VLLMProbeFailing"):  # fmt: skip
        assert inhibits(source, labels(name, "warning"))
        assert inhibits(source, labels(name, "critical"))
    for name in ("VLLMGPULost", "VLLMGPUXID", "VLLMExporterRulesFailing", "Watchdog", source):
        assert not inhibits(source, labels(name, "critical"))


def test_no_alert_silences_itself():
    for rule in RULES:
        own = labels(rule.name, rule.labels["severity"])
        for inhibition in SHIPPED.inhibitions:
            assert not (matches(inhibition.source, own) and matches(inhibition.target, own))


def test_every_shipped_alert_reaches_the_default_receiver_but_the_watchdog():
    for rule in RULES:
        receivers = [
            route.receiver for route in SHIPPED.route.matching(labels(rule.name, rule.labels["severity"]))
        ]
        assert receivers == (["nobody"] if rule.name == "Watchdog" else ["default"])
