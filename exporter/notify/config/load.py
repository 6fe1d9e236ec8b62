"""Loading: a file in Alertmanager's format into the configuration, every mistake at once, and webhooks on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from exporter.alerting.document import DocumentError, Node, parse_document
from exporter.alerting.files import shipped_folder
from exporter.alerting.rulefile import read_rule_file
from exporter.errors import ConfigError
from exporter.notify.config.common import INHERITED, GlobalOptions
from exporter.notify.config.hours import read_intervals
from exporter.notify.config.model import Endpoint, NotifyConfig
from exporter.notify.config.reading import Fields, Reading, given, masked, shown
from exporter.notify.config.receivers import (
    KINDS,
    REFUSED_KINDS,
    Options,
    WebhookOptions,
)
from exporter.notify.config.routes import read_inhibitions, read_route
from exporter.notify.config.values import SECRET_URL_MASK, check_url

DEFAULT_FILE = "alertmanager.yml"
"""The configuration that ships beside the rules, for whoever names none."""

RESOLVE_TIMEOUT = 300.0
"""Alertmanager's default, in seconds."""

_KEYS = (
    "global",
    "route",
    "receivers",
    "inhibit_rules",
    "time_intervals",
    "mute_time_intervals",
    "templates",
)
_REFUSED = {
    "tracing": "leave it out",
    "event_recorder": "leave it out",
}
_SUFFIX = "_configs"
_REFUSED_IN_RECEIVER = {
    "labels": "leave it out",
    **dict.fromkeys(
        (f"{kind}{_SUFFIX}" for kind in REFUSED_KINDS),
        "apprise_configs may reach the same service (https://github.com/caronc/apprise)",
    ),
}


def load_config(text: str, source: str) -> NotifyConfig:
    """The configuration in a text; ConfigError with every mistake, `SOURCE:LINE:COLUMN: what`, and no secret.

    `source` is the file's name; relative paths in it start at its folder, as Alertmanager's do. Files of secrets are
    read now: another load reads them again.
    """
    return _load(text, source, ())


def effective(file: Path | None = None, webhooks: Sequence[SecretStr] = ()) -> NotifyConfig:
    """The configuration of a file, or the shipped one, with webhooks added to the receiver of its root route.

    Raises:
        ConfigError: with every mistake; a webhook is named by its place among them, and not shown.
    """
    if file is None:
        folder = shipped_folder()
        if folder is None:
            raise ConfigError(
                ["the shipped configuration of notifications is missing: reinstall, or set notify.file"]
            )
        file = folder / DEFAULT_FILE
    problems: list[str] = []
    for number, url in enumerate(webhooks, 1):
        try:
            check_url(url.get_secret_value())
        except ValueError as error:
            problems.append(f"notify.webhooks, number {number}: {error}")
    if problems:
        raise ConfigError(problems)
    return _load(read_rule_file(file, regular=True), str(file), webhooks)


def _load(text: str, source: str, webhooks: Sequence[SecretStr]) -> NotifyConfig:
    reading = Reading(source, Path(source).parent)
    try:
        root, more = parse_document(text)
        if more:
            reading.reader.problem_at(0, 0, "more than one YAML document: expected one")
        config = _config(root, reading, webhooks)
    except DocumentError as error:
        if "anchor" in str(error):  # it names the text behind a *, and that may be a password
            error = DocumentError(
                "unknown anchor; a text that begins with * needs quotes", error.line, error.column
            )
        reading.reader.ends(error)
    if reading.reader.problems:
        raise ConfigError(reading.reader.problems)
    return config


def _config(root: Node | None, reading: Reading, webhooks: Sequence[SecretStr]) -> NotifyConfig:
    fields = reading.known(reading.entries(root, "the file"), "", _KEYS, _REFUSED)
    nodes = {name: value for name, (_, value) in fields.items()}
    for item in reading.items(nodes.get("templates"), "templates"):
        reading.problem(item, "templates", "Go templates are not carried out here; leave it empty")
    common = reading.entries(nodes.get("global"), "global")
    if "global" in nodes:
        reading.part(GlobalOptions, nodes["global"], common, "global")
    common = given(common)
    names, endpoints = _receivers(nodes.get("receivers"), common, reading)
    intervals = read_intervals(nodes.get("mute_time_intervals"), "mute_time_intervals", reading)
    for name, interval in read_intervals(nodes.get("time_intervals"), "time_intervals", reading).items():
        if name in intervals:
            reading.problem(
                nodes["time_intervals"], "time_intervals", f"{name[:60]} is in mute_time_intervals, too"
            )
        intervals[name] = interval
    route = read_route(nodes.get("route"), reading, names, intervals)
    endpoints += [
        Endpoint(route.receiver, f"webhook[{number}]", "webhook", True, WebhookOptions(url=url))
        for number, url in enumerate(
            webhooks, sum((one.receiver, one.kind) == (route.receiver, "webhook") for one in endpoints)
        )
    ]
    return NotifyConfig(
        route=route,
        endpoints=tuple(endpoints),
        receivers=tuple(names),
        inhibitions=read_inhibitions(nodes.get("inhibit_rules"), reading),
        intervals=intervals,
        resolve_timeout=_resolve_timeout(common, reading),
        shown="" if root is None or reading.reader.problems else _shown(root, route.receiver, len(webhooks)),
    )


def _resolve_timeout(common: Fields, reading: Reading) -> float:
    if "resolve_timeout" not in common:
        return RESOLVE_TIMEOUT
    node = common["resolve_timeout"][1]
    milliseconds = reading.reader.duration_ms(node, "global.resolve_timeout")
    return RESOLVE_TIMEOUT if milliseconds is None else milliseconds / 1000


def _receivers(node: Node | None, common: Fields, reading: Reading) -> tuple[list[str], list[Endpoint]]:
    names: list[str] = []
    endpoints: list[Endpoint] = []
    known = ("name", *(f"{kind}{_SUFFIX}" for kind in KINDS))
    for at, item in enumerate(reading.items(node, "receivers")):
        what = f"receivers[{at}]"
        fields = reading.known(reading.entries(item, what), what, known, _REFUSED_IN_RECEIVER)
        name = reading.text(fields.pop("name")[1], f"{what}.name") if "name" in fields else ""
        if not name and item.kind == "mapping":
            reading.problem(item, what, "name is missing")
        if name in names:
            reading.problem(item, what, f"there is another receiver {name[:60]}")
        names.append(name)
        for key, (_, configs) in fields.items():
            kind = key.removesuffix(_SUFFIX)
            for number, config in enumerate(reading.items(configs, f"{what}.{key}")):
                made = _options(kind, config, common, reading, f"{what}.{key}[{number}]")
                if made is not None:
                    endpoints.append(Endpoint(name, f"{kind}[{number}]", kind, made.send_resolved, made))
    return names, endpoints


def _options(kind: str, node: Node, common: Fields, reading: Reading, what: str) -> Options | None:
    if node.kind != "mapping":
        reading.problem(node, what, "expected a mapping")
        return None
    model = KINDS[kind]
    fields = reading.entries(node, what)
    for option, name in INHERITED.get(kind, {}).items():
        if not given(fields).keys() & {option, f"{option}_file"}:
            fields |= {
                option + suffix: common[name + suffix] for suffix in ("", "_file") if name + suffix in common
            }
    if "http_config" in common and "http_config" in model.refused:
        reading.problem(
            node,
            what,
            f"global.http_config is not carried out for {kind}{_SUFFIX}; set it in the receivers that need it",
        )
    return reading.part(model, node, fields, what)


def _shown(root: Node, receiver: str, webhooks: int) -> str:
    """The file once more, without its comments, for those may hold an old secret."""
    import yaml

    data: dict[str, Any] = shown(root)
    if "global" in data:
        data["global"] = masked(GlobalOptions, data["global"])
    data["receivers"] = [_receiver_shown(one) for one in data.get("receivers") or ()]
    for one in data["receivers"]:
        if one["name"] == receiver and webhooks:
            one["webhook_configs"] = [
                *(one.get("webhook_configs") or ()),
                *({"url": SECRET_URL_MASK} for _ in range(webhooks)),
            ]
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=110))


def _receiver_shown(data: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(data)
    for key in found.keys() - {"name"}:
        found[key] = [masked(KINDS[key.removesuffix(_SUFFIX)], one) for one in found[key] or ()]
    for one in found.get("webhook_configs", ()):
        if "url" in one:
            one["url"] = SECRET_URL_MASK
    return found
