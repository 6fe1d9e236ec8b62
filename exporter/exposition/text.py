"""How numbers, names and strings are written in a metrics page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import inf

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_EXACT = 2**53


def format_value(value: float) -> str:
    """A sample's value: integral numbers as integers, others as the shortest text that reads back the same.

    `+Inf`, `-Inf` and `NaN` are spelled as both formats ask for.
    """
    if type(value) is int:
        return str(value)
    if value.is_integer():
        return str(int(value)) if -_EXACT <= value <= _EXACT else repr(value)
    if value != value:
        return "NaN"
    if value == inf:
        return "+Inf"
    if value == -inf:
        return "-Inf"
    return repr(value)


def format_bound(value: float) -> str:
    """A `le` or `quantile` label, as OpenMetrics' canonical numbers are: `1.0`, `0.001`, `1e+06`, `+Inf`."""
    text = repr(float(value))
    if text in ("inf", "-inf", "nan"):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(text, "NaN")
    if "e" in text or abs(value) < 1e6:
        return text
    digits, _, rest = text.lstrip("-").partition(".")
    mantissa = (digits + rest).rstrip("0")
    point = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
    sign = "-" if value < 0 else ""
    return f"{sign}{mantissa[0]}{point}e+{len(digits) - 1:02d}"


def escape_label(value: str) -> str:
    """A label value between its quotes; what UTF-8 cannot carry (a lone surrogate) becomes `?`."""
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode("utf-8")
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def escape_help(text: str, *, openmetrics: bool) -> str:
    """A HELP text; OpenMetrics escapes the double quote too."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if openmetrics else text


def format_series(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """What stands before the value: `name{key="value",…}`.

    A name outside the classic alphabet is quoted and moves into the braces, as Prometheus 3 writes it.
    """
    parts = [
        f'{key if LABEL_NAME.fullmatch(key) else _quote(key)}="{escape_label(value)}"'
        for key, value in labels
    ]
    if not METRIC_NAME.fullmatch(name):
        return "{" + ",".join([_quote(name), *parts]) + "}"
    return f"{name}{{{','.join(parts)}}}" if parts else name


def format_name(name: str) -> str:
    """A family's name in a HELP, TYPE or UNIT line, quoted where it must be."""
    return name if METRIC_NAME.fullmatch(name) else _quote(name)


def _quote(name: str) -> str:
    return f'"{escape_label(name)}"'
