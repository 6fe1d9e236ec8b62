"""What clients get: alerts, groups, silences, receivers and the status, as JSON values.

Shapes: api/v2/openapi.yaml, order and states: api/v2/api.go and compat.go of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporter import __version__
from exporter.notify import fingerprint
from exporter.notify.receivers.payload import with_no_data
from exporter.notify.silences import state_of
from exporter.web.alertmanager import moments

if TYPE_CHECKING:
    from exporter.notify.dispatch.views import AlertView, GroupView
    from exporter.notify.model import Alert
    from exporter.notify.outbox.model import Silence
    from exporter.storage.model import Matcher

ALERTMANAGER_VERSION = "0.28.1"
"""Whose API v2 this is: clients choose by it what they ask for. Our own version is the `revision`."""
_MASKED_URL = re.compile(r"^( *(?:- )?url: )<secret>$", re.MULTILINE)
"""A webhook's address, which amtool before 0.26 reads as one: there it needs a scheme."""


def alert(view: AlertView, *, now: float, resolve_timeout: float) -> dict[str, Any]:
    """A `gettableAlert`."""
    one = with_no_data(view.alert)
    return {
        "annotations": dict(one.annotations),
        "endsAt": moments.show(_ends_at(one, now, resolve_timeout)),
        "fingerprint": fingerprint.show(one.fingerprint),
        "receivers": [{"name": name} for name in view.receivers],
        "startsAt": moments.show(one.starts_at),
        "status": {
            "inhibitedBy": [fingerprint.show(number) for number in view.inhibited_by],
            "mutedBy": list(view.muted_by),
            "silencedBy": list(view.silenced_by),
            "state": "suppressed" if view.muted_by else view.state,
        },
        "updatedAt": moments.show(one.updated_at),
        **({"generatorURL": one.generator_url} if one.generator_url else {}),
        "labels": dict(one.labels),
    }


def groups(
    chosen: Sequence[tuple[GroupView, Sequence[AlertView]]], *, now: float, resolve_timeout: float
) -> Iterator[dict[str, Any]]:
    """Every `alertGroup`, of chosen alerts in chosen groups; an alert's receivers are those of these groups."""
    receivers: defaultdict[int, set[str]] = defaultdict(set)
    for view, alerts in chosen:
        for one in alerts:
            receivers[one.alert.fingerprint].add(view.receiver)
    for view, alerts in chosen:
        told = (replace(one, receivers=tuple(sorted(receivers[one.alert.fingerprint]))) for one in alerts)
        yield {
            "alerts": [alert(one, now=now, resolve_timeout=resolve_timeout) for one in told],
            "labels": dict(view.labels),
            "receiver": {"name": view.receiver},
            "routeLabels": {},
        }


def silence(one: Silence, now: float) -> dict[str, Any]:
    """A `gettableSilence`."""
    return {
        "annotations": {},
        "id": one.id,
        "status": {"state": state_of(one, now)},
        "updatedAt": moments.show(one.updated_at),
        "comment": one.comment,
        "createdBy": one.created_by,
        "endsAt": moments.show(one.ends_at),
        "matchers": [matcher(each) for each in one.matchers],
        "startsAt": moments.show(one.starts_at),
    }


def matcher(one: Matcher) -> dict[str, Any]:
    """A `matcher`."""
    return {
        "isEqual": one.op in ("=", "=~"),
        "isRegex": one.op in ("=~", "!~"),
        "name": one.name,
        "value": one.value,
    }


def receivers(names: Sequence[str]) -> list[dict[str, Any]]:
    """Every `receiver`."""
    return [{"name": name} for name in names]


def status(config: str, started: float) -> dict[str, Any]:
    """The `alertmanagerStatus`; `config` is the file's text, which shows no secret."""
    return {
        "cluster": {"peers": [], "status": "disabled"},
        "config": {"original": _MASKED_URL.sub(r"\1http://<secret>", config)},
        "uptime": moments.show(started),
        "versionInfo": {
            "branch": "vllm-exporter",
            "buildDate": "",
            "buildUser": "",
            "goVersion": "",
            "revision": __version__,
            "version": ALERTMANAGER_VERSION,
        },
    }


def _ends_at(one: Alert, now: float, resolve_timeout: float) -> float:
    """When it ended, or would end if nobody spoke of it any more: Alertmanager's alerts always have an end."""
    if one.ends_at is not None:
        return one.ends_at
    if one.until is not None:
        return one.until
    due = one.updated_at + resolve_timeout
    return due if due > now else now + resolve_timeout
