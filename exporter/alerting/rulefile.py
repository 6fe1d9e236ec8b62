"""Prometheus rule files: read, and checked as Prometheus 3 checks them before anything is evaluated.

What Prometheus refuses is refused here, and all of it at once, each mistake with its place. Beyond that, expressions and
templates must be such that this program can evaluate them.
Source: https://github.com/prometheus/prometheus/blob/main/model/rulefmt/rulefmt.go
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from exporter.alerting.document import SIZE_LIMIT, DocumentError, Node, parse_document
from exporter.alerting.fields import Reader
from exporter.errors import ConfigError

_FILE_FIELDS = ("groups",)
_GROUP_FIELDS = ("name", "interval", "query_offset", "limit", "rules", "labels")
_RULE_FIELDS = ("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class RuleFileError(ConfigError):
    """A rule file cannot be used; `problems` has a line `FILE:LINE:COLUMN: what` for each of its mistakes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Durations in seconds; `labels` has the group's labels too, where the rule does not set its own."""

    kind: Literal["alerting", "recording"]
    name: str
    expr: str
    for_seconds: float = 0.0
    keep_firing_for: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after another, at the same time stamp. `interval` and `query_offset` in seconds."""

    name: str
    file: str
    interval: float | None = None
    """None: as the settings say."""
    limit: int = 0
    """Most series that a recording rule, and alerts that an alerting rule, may make; 0 is any number."""
    query_offset: float | None = None
    """None: as the settings say."""
    labels: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


def load_rule_file(path: Path) -> tuple[Group, ...]:
    """The groups of a file on disk; RuleFileError, also where it cannot be read."""
    return load_rules(read_rule_file(path), str(path))


def read_rule_file(path: Path, *, regular: bool = False) -> str:
    """A rule file's text; RuleFileError where it cannot be read.

    `regular`: only a file is read. Whoever opens a pipe waits until somebody else does, and a daemon must not; somebody
    at a shell may, as in `check rules <(make-rules)`.
    """
    try:
        with _opened(path) if regular else path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        if len(raw) > SIZE_LIMIT:
            raise RuleFileError([f"{path}: the file has more than {SIZE_LIMIT} bytes"])
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise RuleFileError([f"{path}: cannot be read: {error}"]) from error


def _opened(path: Path) -> BinaryIO:
    """A regular file; anything else is not even opened, since that alone may wait, or rewind a tape."""
    _refuse_special(path.stat().st_mode)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb")
    try:
        _refuse_special(os.fstat(file.fileno()).st_mode)  # it may have been replaced since
    except OSError:
        file.close()
        raise
    return file


def _refuse_special(mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"it is {what}, and no file")


def load_rules(text: str, file: str, *, ignore_unknown: bool = False) -> tuple[Group, ...]:
    """The groups of a rule file; RuleFileError with every mistake in it. Only the first YAML document counts."""
    reader = Reader(file, ignore_unknown=ignore_unknown)
    groups: tuple[Group, ...] = ()
    try:
        root, _ = parse_document(text)
        groups = _groups(root, file, reader)
    except DocumentError as error:
        reader.ends(error)
    if reader.problems:
        raise RuleFileError(reader.problems)
    return groups


def _groups(root: Node | None, file: str, reader: Reader) -> tuple[Group, ...]:
    fields = reader.fields(root, "the file", _FILE_FIELDS)
    groups: list[Group] = []
    names: set[str] = set()
    for node in reader.items(fields.get("groups"), "groups"):
        group = _group(node, file, reader)
        if not group.name and node.kind == "mapping":
            reader.problem(node, "the group has no name")
        elif group.name in names:
            reader.problem(node, f'group "{group.name}" is repeated in the same file')
        names.add(group.name)
        groups.append(group)
    return tuple(groups)


def _group(node: Node, file: str, reader: Reader) -> Group:
    fields = reader.fields(node, "a group", _GROUP_FIELDS)
    name = reader.text(fields.get("name"), "the group's name")
    where = f'group "{name}"'
    labels = reader.texts(fields.get("labels"), f"{where}: labels")
    interval = reader.duration_ms(fields.get("interval"), f"{where}: interval")
    offset = reader.duration_ms(fields.get("query_offset"), f"{where}: query_offset")
    limit = reader.integer(fields.get("limit"), f"{where}: limit")
    nodes = reader.items(fields.get("rules"), f"{where}: rules")
    rules = [_rule(rule, f"{where}, rule {number}", labels, reader) for number, rule in enumerate(nodes, 1)]
    _check_labels(fields.get("labels"), labels, where, reader)
    if any(rule.kind == "alerting" for rule in rules):
        _check_templates(fields.get("labels"), labels, "label", where, reader)
    return Group(
        name=name,
        file=file,
        interval=interval / 1000 if interval else None,
        limit=max(limit or 0, 0),
        query_offset=offset / 1000 if offset is not None else None,
        labels=labels,
        rules=tuple(rules),
    )


def _rule(node: Node, where: str, group_labels: Mapping[str, str], reader: Reader) -> Rule:
    fields = reader.fields(node, where, _RULE_FIELDS)
    if node.kind != "mapping":
        return Rule("alerting", "", "")
    record = reader.text(fields.get("record"), f"{where}: record")
    alert = reader.text(fields.get("alert"), f"{where}: alert")
    named = fields.get("alert") or fields.get("record") or node
    where = f'{where}, "{alert or record}"'
    pending = reader.duration_ms(fields.get("for"), f"{where}: for") or 0
    keeping = reader.duration_ms(fields.get("keep_firing_for"), f"{where}: keep_firing_for") or 0
    labels = reader.texts(fields.get("labels"), f"{where}: labels")
    annotations = reader.texts(fields.get("annotations"), f"{where}: annotations")
    expr = reader.text(fields.get("expr"), f"{where}: expr")
    if record and alert:
        reader.problem(named, f"{where}: only one of 'record' and 'alert' must be set")
    if not record and not alert:
        reader.problem(named, f"{where}: one of 'record' or 'alert' must be set")
    _check_expression(fields.get("expr") or node, expr, where, reader)
    if record:
        used = {"annotations": annotations, "for": pending, "keep_firing_for": keeping}
        for name, value in used.items():
            if value:
                reader.problem(fields[name], f"{where}: invalid field '{name}' in recording rule")
        if not is_metric_name(record):
            reader.problem(named, f"{where}: invalid recording rule name: {record}")
        if "{" in record or "}" in record:
            reader.problem(named, f"{where}: braces in the name of a recording rule; do they belong to expr?")
    _check_labels(fields.get("labels"), labels, where, reader)
    for name in annotations:
        if not is_label_name(name):
            reader.problem(_entry(fields["annotations"], name), f"{where}: invalid annotation name: {name}")
    if alert:
        _check_templates(fields.get("labels"), labels, "label", where, reader)
        _check_templates(fields.get("annotations"), annotations, "annotation", where, reader)
    return Rule(
        kind="alerting" if alert else "recording",
        name=alert or record,
        expr=expr,
        for_seconds=pending / 1000,
        keep_firing_for=keeping / 1000,
        labels={**group_labels, **labels},
        annotations=annotations,
        line=named.line,
    )


def is_metric_name(name: str) -> bool:
    """Whether Prometheus 3 takes it for a metric: any UTF-8 but nothing."""
    return bool(name) and is_utf8(name)


def is_label_name(name: str) -> bool:
    """Whether Prometheus 3 takes it for a label: any UTF-8 but nothing."""
    return bool(name) and is_utf8(name)


def is_utf8(text: str) -> bool:
    """Whether a string has no half of a surrogate pair; YAML escapes can bring one in."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_labels(node: Node | None, labels: Mapping[str, str], where: str, reader: Reader) -> None:
    for name, value in labels.items():
        if not is_label_name(name) or name == "__name__":
            reader.problem(_entry(node, name), f"{where}: invalid label name: {name}")
        if not is_utf8(value):
            reader.problem(_entry(node, name), f"{where}: invalid label value: {value!a}")


def _check_expression(node: Node, expr: str, where: str, reader: Reader) -> None:
    if not expr:
        reader.problem(node, f"{where}: field 'expr' must be set in rule")
        return
    from exporter import promql
    from exporter.promql.model import QueryError

    try:
        promql.compile(expr)
    except QueryError as error:
        reader.problem(node, f"{where}: could not parse expression: {error}")


def _check_templates(
    node: Node | None, texts: Mapping[str, str], what: str, where: str, reader: Reader
) -> None:
    from exporter.alerting.template import Template, TemplateError

    for name, text in texts.items():
        try:
            Template(text)
        except TemplateError as error:
            reader.problem(_entry(node, name), f'{where}: {what} "{name}": {error}')


def _entry(node: Node | None, name: str) -> Node | None:
    """The value of a mapping's key; the mapping itself where the key came from somewhere else."""
    if node is None or node.kind != "mapping":
        return node
    return next((value for key, value in node.pairs if key.text == name), node)
