"""Series, label names and label values: which there are, not what they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from exporter.storage.model import Labels, Matcher
from exporter.web.api.model import ApiError, Store
from exporter.web.api.parameters import Form, limit_parameter, unescape_name, window
from exporter.web.api.results import in_order, labels_json
from exporter.web.api.selectors import read_selectors

T = TypeVar("T")
TRUNCATED = "results truncated due to limit"


def series(store: Store, form: Form) -> tuple[list[str], list[str]]:
    """The label sets that fit one of the selectors, as JSON, and warnings."""
    if not form.all("match[]"):
        raise ApiError("bad_data", "no match[] parameter provided")
    limit = limit_parameter(form)
    lo, hi = window(form)
    selectors = _selectors(form, 'invalid parameter "match[]": ')
    found: dict[Labels, None] = {}
    for matchers in selectors:
        found.update(dict.fromkeys(store.series(matchers, lo, hi)))
    labels = list(found) if len(selectors) == 1 else in_order(list(found), lambda one: one)
    kept, warnings = _cut(labels, limit)
    return ["[", ",".join(map(labels_json, kept)), "]"], warnings


def label_names(store: Store, form: Form) -> tuple[list[str], list[str]]:
    """The names of the labels of the series that fit one of the selectors, or of all series; and warnings."""
    limit = limit_parameter(form)
    lo, hi = window(form)
    found: set[str] = set()
    for matchers in _selectors(form) or [()]:
        found.update(store.label_names(matchers, lo, hi))
    return _cut(sorted(found), limit)


def label_values(store: Store, escaped_name: str, form: Form) -> tuple[list[str], list[str]]:
    """The values that one label has in these series; and warnings."""
    name = unescape_name(escaped_name)
    if not name or "\ufffd" in name:
        raise ApiError("bad_data", f'invalid label name: "{name}"')
    limit = limit_parameter(form)
    lo, hi = window(form)
    found: set[str] = set()
    for matchers in _selectors(form) or [()]:
        found.update(store.label_values(name, matchers, lo, hi))
    return _cut(sorted(found), limit)


def _selectors(form: Form, prefix: str = "") -> Sequence[Sequence[Matcher]]:
    try:
        return read_selectors(form.all("match[]"))
    except ApiError as error:
        raise ApiError(error.kind, f"{prefix}{error}") from error


def _cut(items: list[T], limit: int) -> tuple[list[T], list[str]]:
    return (items[:limit], [TRUNCATED]) if 0 < limit < len(items) else (items, [])
