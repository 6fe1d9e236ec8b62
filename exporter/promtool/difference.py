"""What a rule test expected beside what it got, as promtool shows it, and what exactly differs.

Alerts and samples are pairs of sorted labels with their annotations or value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from exporter.alerting.template.literals import quote_go
from exporter.storage.model import Labels

RELATIVE = 1e-6
"""How far two values may lie apart under `fuzzy_compare`."""

Alerts = Sequence[tuple[Labels, Labels]]
Sampled = Sequence[tuple[Labels, float]]

_PLAIN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def same_value(expected: float, got: float, *, fuzzy: bool) -> bool:
    """Whether two values count as equal; NaN equals NaN."""
    if expected == got or (math.isnan(expected) and math.isnan(got)):
        return True
    if not fuzzy or not (math.isfinite(expected) and math.isfinite(got)):
        return False
    return abs(expected - got) <= RELATIVE * max(abs(expected), abs(got))


def same_samples(expected: Sampled, got: Sampled, *, fuzzy: bool) -> bool:
    """Whether an expression gave what it should; both are sorted by labels."""
    return len(expected) == len(got) and all(
        one[0] == other[0] and same_value(one[1], other[1], fuzzy=fuzzy)
        for one, other in zip(expected, got, strict=True)
    )


def shown_labels(labels: Labels) -> str:
    """A label set as promtool prints it, the name of the metric among its labels."""
    pairs = (
        f"{name if _PLAIN.fullmatch(name) else quote_go(name)}={quote_go(value)}" for name, value in labels
    )
    return "{" + ", ".join(pairs) + "}"


def shown_value(value: float) -> str:
    """A number in the notation with an exponent that promtool uses: `3E+00`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    digits, exponent = next(
        (f"{value:.{places}E}".split("E") for places in range(17) if float(f"{value:.{places}E}") == value),
        f"{value:.17E}".split("E"),
    )
    return f"{digits}E{exponent}"


def shown_samples(samples: Sampled) -> str:
    """All samples in one line."""
    return ", ".join(f"{shown_labels(labels)} {shown_value(value)}" for labels, value in samples) or "nil"


def shown_alerts(alerts: Alerts, indent: str) -> str:
    """Alerts as promtool prints them, all lines but the first indented."""
    if not alerts:
        return "[]"
    parts = [
        f"{indent}{number}:\n{indent}  Labels:{shown_labels(labels)}\n{indent}  Annotations:{shown_labels(annotations)}"
        for number, (labels, annotations) in enumerate(alerts)
    ]
    return "[\n" + ",\n".join(parts) + f"\n{indent}]"


def sample_differences(expected: Sampled, got: Sampled, *, fuzzy: bool) -> Iterator[str]:
    """One line for each sample that is missing, wrong or too much."""
    found = dict(got)
    wanted = dict(expected)
    for labels, value in expected:
        if labels not in found:
            yield f"missing: {shown_labels(labels)} {shown_value(value)}"
        elif not same_value(value, found[labels], fuzzy=fuzzy):
            yield f"{shown_labels(labels)}: expected {value!r}, got {found[labels]!r}"
    for labels, value in got:
        if labels not in wanted:
            yield f"unexpected: {shown_labels(labels)} {shown_value(value)}"


def alert_differences(expected: Alerts, got: Alerts) -> Iterator[str]:
    """One line for each alert, label or annotation that is missing, wrong or too much."""
    missing = [one for one in expected if one not in got]
    unexpected = [one for one in got if one not in expected]
    for one in missing:
        other = max(unexpected, key=lambda candidate: _likeness(one, candidate), default=None)
        if other is None or not _likeness(one, other):
            yield f"missing: {shown_labels(one[0])}"
            continue
        unexpected.remove(other)
        where = shown_labels(other[0])
        yield from _pair_differences("label", where, dict(one[0]), dict(other[0]))
        yield from _pair_differences("annotation", where, dict(one[1]), dict(other[1]))
    for one in unexpected:
        yield f"unexpected: {shown_labels(one[0])}"


def _likeness(one: tuple[Labels, Labels], other: tuple[Labels, Labels]) -> float:
    """How many labels two alerts share, beside their name; the same labels are the closest."""
    if one[0] == other[0]:
        return math.inf
    return len(set(one[0]) & set(other[0])) - 1


def _pair_differences(
    what: str, where: str, expected: Mapping[str, str], got: Mapping[str, str]
) -> Iterator[str]:
    for name in sorted({*expected, *got}):
        if expected.get(name) != got.get(name):
            wanted = quote_go(expected[name]) if name in expected else "none"
            found = quote_go(got[name]) if name in got else "none"
            yield f"{where}: {what} {name}: expected {wanted}, got {found}"
