"""What clients send: alerts and silences in JSON, into ours. Every mistake is told, and says where it is.

Sources: `postAlertsHandler` in api/v2/api.go, `PostableSilenceToProto` in api/v2/compat.go and `Validate` in
alert/alert.go of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from exporter.notify.model import Alert
from exporter.notify.outbox.model import Silence
from exporter.storage.model import Labels, Matcher
from exporter.web.alertmanager import moments
from exporter.web.alertmanager.model import ApiRefused

MISTAKES = 20
"""So many mistakes of one request are told; the rest is counted."""
ALERT_BYTES = 65_536
"""Of labels, annotations and the link of one alert: alerts are kept, and so is each notification of them."""
_OPERATORS: Mapping[tuple[bool, bool], Literal["=", "!=", "=~", "!~"]] = {
    (True, False): "=",
    (False, False): "!=",
    (True, True): "=~",
    (False, True): "!~",
}
"""By `isEqual` and `isRegex`."""


def read_json(body: bytes) -> Any:
    """A request's body; ApiRefused for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiRefused(400, f"the request body is no JSON: {error}") from error


def read_alerts(data: Any, *, now: float, resolve_timeout: float) -> tuple[list[Alert], list[str]]:
    """The alerts that are right, and the mistakes of the others; ApiRefused where there is no list of alerts.

    One without an end ends after `resolve_timeout` seconds unless it is sent again.
    """
    if not isinstance(data, list):
        raise ApiRefused(400, "expected a list of alerts")
    alerts: list[Alert] = []
    mistakes: list[str] = []
    for number, entry in enumerate(data):
        try:
            alerts.append(_alert(entry, now=now, resolve_timeout=resolve_timeout))
        except ValueError as error:
            mistakes.append(f"alert {number}: {error}")
    return alerts, mistakes


def shortened(mistakes: list[str]) -> str:
    """The mistakes in one text, and how many more there are."""
    shown = mistakes[:MISTAKES]
    if more := len(mistakes) - len(shown):
        shown = [*shown, f"and {more} more"]
    return "\n".join(shown)


def _alert(entry: Any, *, now: float, resolve_timeout: float) -> Alert:
    if not isinstance(entry, dict):
        raise ValueError("expected an object")
    labels = _label_set(entry, "labels")
    if not labels:
        raise ValueError("at least one label pair required")
    annotations = _label_set(entry, "annotations")
    generator_url = _text(entry, "generatorURL", "")
    if (
        sum(len(text.encode()) for pair in (*labels, *annotations, (generator_url,)) for text in pair)
        > ALERT_BYTES
    ):
        raise ValueError(f"labels and annotations are longer than {ALERT_BYTES} bytes")
    starts_at, ends_at = _moment(entry, "startsAt"), _moment(entry, "endsAt")
    if starts_at is None:
        starts_at = now if ends_at is None else ends_at
    elif ends_at is not None and ends_at < starts_at:
        raise ValueError("start time must be before end time")
    return Alert(
        labels,
        annotations,
        starts_at=starts_at,
        ends_at=ends_at,
        updated_at=now,
        generator_url=generator_url,
        until=now + resolve_timeout if ends_at is None else None,
    )


def read_silence(data: Any, *, now: float) -> Silence:
    """A silence as it is wished, without an id where it is a new one; ApiRefused for what is none.

    Whether it may be so is for `Silences` to say.
    """
    try:
        return _silence(data, now)
    except ValueError as error:
        raise ApiRefused(400, f"invalid silence: {error}") from error


def _silence(data: Any, now: float) -> Silence:
    if not isinstance(data, dict):
        raise ValueError("expected an object")
    entries = data.get("matchers")
    if not isinstance(entries, list) or not entries:
        raise ValueError("at least one matcher required")
    starts_at, ends_at = _moment(data, "startsAt"), _moment(data, "endsAt")
    if ends_at is None:
        raise ValueError("endsAt is missing")
    return Silence(
        id=_text(data, "id", ""),
        matchers=tuple(_matcher(entry, number) for number, entry in enumerate(entries)),
        starts_at=now if starts_at is None else starts_at,
        ends_at=ends_at,
        updated_at=now,
        created_by=_text(data, "createdBy"),
        comment=_text(data, "comment"),
    )


def _matcher(entry: Any, number: int) -> Matcher:
    try:
        if not isinstance(entry, dict):
            raise ValueError("expected an object")
        name, value = _text(entry, "name"), _text(entry, "value")
        operator = _OPERATORS[_flag(entry, "isEqual", True), _flag(entry, "isRegex", False)]
        return Matcher(name, operator, value)
    except ValueError as error:
        raise ValueError(f"matcher {number}: {error}") from error


def _label_set(entry: Mapping[str, Any], field: str) -> Labels:
    """A label set without its empty values, sorted."""
    pairs = entry.get(field)
    if pairs is None:
        return ()
    if not isinstance(pairs, dict):
        raise ValueError(f"{field}: expected an object")
    kept: list[tuple[str, str]] = []
    for name, value in pairs.items():
        if not name:
            raise ValueError(f"{field}: a name is empty")
        if not isinstance(value, str):
            raise ValueError(f"{field}: the value of {name[:200]!r} is no text")
        if value:
            kept.append((_utf8(name, field), _utf8(value, field)))
    return tuple(sorted(kept))


def _moment(entry: Mapping[str, Any], field: str) -> float | None:
    text = entry.get(field)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{field} is no text")
    try:
        return moments.read(text)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _text(entry: Mapping[str, Any], field: str, default: str | None = None) -> str:
    value = entry.get(field, default)
    if value is None:
        raise ValueError(f"{field} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{field} is no text")
    return _utf8(value, field)


def _flag(entry: Mapping[str, Any], field: str, default: bool) -> bool:
    value = entry.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{field} is neither true nor false")
    return value


def _utf8(text: str, field: str) -> str:
    """The text; ValueError for half of a pair of surrogates, which JSON may hold and UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{field}: a text is no valid UTF-8") from error
    return text
