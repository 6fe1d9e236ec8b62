"""The families that tell how the rules go; `rule_group` is FILE;GROUP, as in Prometheus."""

from __future__ import annotations

from exporter.exposition.model import Family

_GROUP = ("rule_group",)

RULES = Family("vllm_exporter_rule_group_rules", "gauge", "Rules in a group.", _GROUP)
INTERVAL = Family(
    "vllm_exporter_rule_group_interval_seconds",
    "gauge",
    "Longest time between two evaluations of a group.",
    _GROUP,
    unit="seconds",
)
LAST_EVALUATION = Family(
    "vllm_exporter_rule_group_last_evaluation_timestamp_seconds",
    "gauge",
    "When a group was last evaluated, in seconds since 1970.",
    _GROUP,
    unit="seconds",
)
LAST_DURATION = Family(
    "vllm_exporter_rule_group_last_duration_seconds",
    "gauge",
    "How long the last evaluation of a group took.",
    _GROUP,
    unit="seconds",
)
MISSED = Family(
    "vllm_exporter_rule_group_iterations_missed_total",
    "counter",
    "Evaluations of a group that were due and not made, because an earlier one took too long or nothing ran.",
    _GROUP,
)
EVALUATIONS = Family(
    "vllm_exporter_rule_evaluations_total", "counter", "Evaluations of single rules.", _GROUP
)
FAILURES = Family(
    "vllm_exporter_rule_evaluation_failures_total",
    "counter",
    "Evaluations of single rules that failed.",
    _GROUP,
)
ALERTS = Family("vllm_exporter_alerts", "gauge", "Active alerts by state.", ("state",))
RELOAD_SUCCESS = Family(
    "vllm_exporter_rules_last_reload_success", "gauge", "Whether the last load of the rule files succeeded."
)
RELOAD_TIME = Family(
    "vllm_exporter_rules_last_reload_success_timestamp_seconds",
    "gauge",
    "When rule files were last loaded with success, in seconds since 1970.",
    unit="seconds",
)

FAMILIES = (
    RULES,
    INTERVAL,
    LAST_EVALUATION,
    LAST_DURATION,
    MISSED,
    EVALUATIONS,
    FAILURES,
    ALERTS,
    RELOAD_SUCCESS,
    RELOAD_TIME,
)
BY_GROUP = (
    RULES,
    INTERVAL,
    LAST_EVALUATION,
    LAST_DURATION,
    MISSED,
    EVALUATIONS,
    FAILURES,
)
