"""Rule groups, and their text: the same groups always give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a rule file."""

    kind: Literal["record", "alert"]
    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules that are evaluated one after another; `interval` as a duration of Prometheus."""

    name: str
    interval: str
    rules: Sequence[Rule]


def as_yaml(groups: Sequence[RuleGroup], header: Sequence[str]) -> str:
    """A Prometheus rule file, headed by comment lines. Labels and annotations are sorted by name."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # lists stand in from their key, as in the files by hand

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    body = yaml.dump(
        {"groups": [_group(group) for group in groups]},
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    return "".join(f"# {line}\n" for line in header) + "\n" + body


def _group(group: RuleGroup) -> dict[str, Any]:
    return {"name": group.name, "interval": group.interval, "rules": [_rule(rule) for rule in group.rules]}


def _rule(rule: Rule) -> dict[str, Any]:
    fields: dict[str, Any] = {rule.kind: rule.name, "expr": rule.expr}
    if rule.labels:
        fields["labels"] = dict(sorted(rule.labels.items()))
    if rule.annotations:
        fields["annotations"] = dict(sorted(rule.annotations.items()))
    return fields
