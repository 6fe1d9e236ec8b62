"""Sloth's `prometheus/v1` specification of service level objectives, read strictly.

The form is Sloth's (https://sloth.dev/specs/default/, https://pkg.go.dev/github.com/slok/sloth/pkg/prometheus/api/v1),
without its plugins. Ours is one key beside it, `x-vllm-exporter`, which Sloth ignores as it does every key that it does
not know: the same file goes through both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from exporter.alerting.document import DocumentError, Node, parse_document
from exporter.alerting.fields import Reader
from exporter.errors import ConfigError
from exporter.slo.windows import SHORTEST

VERSION = "prometheus/v1"
EXTENSION = "x-vllm-exporter"
NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*[A-Za-z0-9]")
"""Sloth's rule for services and objectives."""
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
WINDOW = re.compile(r"{{ *\.window *}}")
"""The only template variable of a query."""


class SpecError(ConfigError):
    """A specification cannot be used; `problems` has a line `FILE:LINE:COLUMN: what` for each of its mistakes."""


@dataclass(frozen=True, slots=True)
class Events:
    """Bad and all events per second, as queries over `{{.window}}`."""

    error_query: str
    total_query: str


@dataclass(frozen=True, slots=True)
class Raw:
    """The share of bad events, from 0 to 1, as a query over `{{.window}}`."""

    error_ratio_query: str


@dataclass(frozen=True, slots=True)
class Extension:
    """What `x-vllm-exporter` adds to an objective."""

    min_events: Mapping[str, int] = field(default_factory=dict)
    """Fewest events in the long window that make an alert, by severity; `page` and `ticket`."""
    warm_up_seconds: int = 0
    """Events within this time after an engine became ready do not count."""
    sum_by: tuple[str, ...] = ()
    """Labels that are left when the queries' results are summed, after the warm-up was taken out; empty: no sum."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One of the two alerts of an objective."""

    disabled: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective of a service. `percent` is above 0 and below 100; labels are the service's and its own."""

    name: str
    percent: Decimal
    description: str
    labels: Mapping[str, str]
    sli: Events | Raw
    alert_name: str
    page: Alert
    ticket: Alert
    extension: Extension


@dataclass(frozen=True, slots=True)
class Spec:
    """One file."""

    service: str
    objectives: tuple[Objective, ...]


def load_spec(text: str, file: str) -> Spec:
    """The objectives in a specification; SpecError with every mistake in it."""
    reader = Reader(file)
    spec = Spec("", ())
    try:
        root, more = parse_document(text)
        if more:
            reader.problem(root, "the file has several documents; one service a file")
        spec = _spec(root, reader)
    except DocumentError as error:
        reader.problem_at(error.line, error.column, str(error))
    if reader.problems:
        raise SpecError(reader.problems)
    return spec


def _spec(root: Node | None, reader: Reader) -> Spec:
    fields = reader.fields(root, "the file", ("version", "service", "labels", "slos"))
    version = reader.text(fields.get("version"), "version")
    if version != VERSION:
        reader.problem(fields.get("version") or root, f'version is "{version}", expected "{VERSION}"')
    service = _name(
        fields.get("service") or root, reader.text(fields.get("service"), "service"), "service", reader
    )
    labels = _labels(fields.get("labels"), "labels", reader)
    nodes = reader.items(fields.get("slos"), "slos")
    if not nodes:
        reader.problem(fields.get("slos") or root, "slos: no objective")
    objectives: list[Objective] = []
    for number, node in enumerate(nodes, 1):
        objective = _objective(node, f"slo {number}", labels, reader)
        if any(objective.name == other.name for other in objectives):
            reader.problem(node, f'slo "{objective.name}" is there twice')
        objectives.append(objective)
    return Spec(service, tuple(objectives))


def _objective(node: Node, where: str, inherited: Mapping[str, str], reader: Reader) -> Objective:
    known = ("name", "description", "objective", "labels", "sli", "alerting", EXTENSION)
    fields = reader.fields(node, where, known)
    name = reader.text(fields.get("name"), f"{where}: name")
    _name(fields.get("name") or node, name, f"{where}: name", reader)
    where = f'slo "{name}"' if name else where
    alert_name, page, ticket = _alerting(fields.get("alerting") or node, "alerting" in fields, where, reader)
    sli = _sli(fields.get("sli") or node, "sli" in fields, where, reader)
    return Objective(
        name=name,
        percent=_percent(fields.get("objective") or node, "objective" in fields, where, reader),
        description=reader.text(fields.get("description"), f"{where}: description"),
        labels={**inherited, **_labels(fields.get("labels"), f"{where}: labels", reader)},
        sli=sli,
        alert_name=alert_name,
        page=page,
        ticket=ticket,
        extension=_extension(fields.get(EXTENSION), sli, where, reader),
    )


def _percent(node: Node, there: bool, where: str, reader: Reader) -> Decimal:
    """The objective as it was written: 99.9 has no neighbour in binary that is worth printing."""
    text = reader.text(node, f"{where}: objective") if there else ""
    try:
        percent = Decimal(text)
        if not 0 < percent < 100:  # not a number is neither
            raise InvalidOperation
    except InvalidOperation:
        reader.problem(node, f'{where}: objective is "{text}", expected a percentage above 0 and below 100')
        return Decimal(50)
    return percent


def _sli(node: Node, there: bool, where: str, reader: Reader) -> Events | Raw:
    fields = reader.fields(node if there else None, f"{where}: sli", ("events", "raw", "plugin"))
    if "plugin" in fields:
        reader.problem(
            fields["plugin"], f"{where}: Sloth's SLI plugins are not supported; write the queries out"
        )
    elif len(fields) != 1:
        reader.problem(node, f"{where}: sli needs either events or raw")
    elif "raw" in fields:
        return Raw(*_queries(fields["raw"], f"{where}: sli.raw", ("error_ratio_query",), reader))
    else:
        return Events(
            *_queries(fields["events"], f"{where}: sli.events", ("error_query", "total_query"), reader)
        )
    return Events("", "")


def _queries(node: Node, where: str, names: tuple[str, ...], reader: Reader) -> list[str]:
    fields = reader.fields(node, where, names)
    queries = []
    for name in names:
        query = reader.text(fields.get(name), f"{where}.{name}").strip()
        _check_query(fields.get(name) or node, query, f"{where}.{name}", reader)
        queries.append(query)
    return queries


def _check_query(node: Node, query: str, where: str, reader: Reader) -> None:
    if not query:
        reader.problem(node, f"{where} is missing")
        return
    if not WINDOW.search(query):
        reader.problem(node, f"{where} has no {{{{.window}}}}: it could look at one window only")
    plain = WINDOW.sub(SHORTEST, query)
    if "{{" in plain:
        reader.problem(node, f"{where}: {{{{.window}}}} is the only variable there is")
        return
    from exporter import promql
    from exporter.promql.model import QueryError

    try:
        promql.compile(plain)
    except QueryError as error:
        reader.problem(node, f"{where}: {error}")


def _alerting(node: Node, there: bool, where: str, reader: Reader) -> tuple[str, Alert, Alert]:
    known = ("name", "labels", "annotations", "page_alert", "ticket_alert")
    fields = reader.fields(node if there else None, f"{where}: alerting", known)
    name = reader.text(fields.get("name"), f"{where}: alerting.name")
    labels = _labels(fields.get("labels"), f"{where}: alerting.labels", reader)
    annotations = _labels(fields.get("annotations"), f"{where}: alerting.annotations", reader)
    alerts = []
    for kind in ("page_alert", "ticket_alert"):
        place = f"{where}: alerting.{kind}"
        own = reader.fields(fields.get(kind), place, ("disable", "labels", "annotations"))
        alerts.append(
            Alert(
                disabled=reader.flag(own.get("disable"), f"{place}.disable"),
                labels={**labels, **_labels(own.get("labels"), f"{place}.labels", reader)},
                annotations={
                    **annotations,
                    **_labels(own.get("annotations"), f"{place}.annotations", reader),
                },
            )
        )
    page, ticket = alerts
    if not name and not (page.disabled and ticket.disabled):
        reader.problem(node, f"{where}: alerting has no name, and its alerts are not disabled")
    return name, page, ticket


def _extension(node: Node | None, sli: Events | Raw, where: str, reader: Reader) -> Extension:
    where = f"{where}: {EXTENSION}"
    fields = reader.fields(node, where, ("min_events", "warm_up", "sum_by"))
    if node is not None and isinstance(sli, Raw):
        reader.problem(node, f"{where}: a raw SLI has no events; write it as events")
    warm_up_ms = reader.duration_ms(fields.get("warm_up"), f"{where}: warm_up") or 0
    if warm_up_ms < 0 or warm_up_ms % 1000:
        reader.problem(fields.get("warm_up"), f"{where}: warm_up takes whole seconds")
    sum_by = []
    for item in reader.items(fields.get("sum_by"), f"{where}: sum_by"):
        label = reader.text(item, f"{where}: sum_by")
        if not LABEL.fullmatch(label):
            reader.problem(item, f'{where}: sum_by: "{label}" is no label name')
        sum_by.append(label)
    return Extension(
        min_events=_min_events(fields.get("min_events"), f"{where}: min_events", sli, reader),
        warm_up_seconds=warm_up_ms // 1000,
        sum_by=tuple(sum_by),
    )


def _min_events(node: Node | None, where: str, sli: Events | Raw, reader: Reader) -> dict[str, int]:
    """A number for both alerts, or one for each."""
    if node is None:
        return {}
    if node.kind == "mapping":
        given = reader.fields(node, where, ("page", "ticket"))
    else:
        given = {"page": node, "ticket": node}
    numbers = {name: reader.integer(value, where) or 0 for name, value in given.items()}
    if any(number < 0 for number in numbers.values()):
        reader.problem(node, f"{where} is a number of events, 0 or more")
    if isinstance(sli, Events) and "increase(" in sli.total_query:
        reader.problem(
            node, f"{where} needs events per second: total_query uses increase, where rate is wanted"
        )
    return numbers


def _labels(node: Node | None, where: str, reader: Reader) -> dict[str, str]:
    labels = reader.texts(node, where)
    for name in labels:
        if not LABEL.fullmatch(name):
            reader.problem(node, f'{where}: "{name}" is no label name')
    return labels


def _name(node: Node | None, name: str, where: str, reader: Reader) -> str:
    if not NAME.fullmatch(name):
        wanted = "letters, digits, '-', '_' and '.', with a letter or digit at both ends"
        reader.problem(node, f'{where} is "{name}", expected {wanted}')
    return name
