"""Numbers and times as people read them; Prometheus' words and roundings.

Source: https://github.com/prometheus/prometheus/blob/main/template/template.go and
https://github.com/prometheus/common/blob/main/helpers/templates/time.go
"""

from __future__ import annotations

import math

from exporter.alerting.template.values import Object, to_float, to_time


def four_digits(value: float) -> str:
    """Go's `%.4g`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.4g}"


def humanize(value: Object) -> str:
    """With a metric prefix: 1.235k, 12m."""
    number = to_float(value)
    if number == 0 or not math.isfinite(number):
        return four_digits(number)
    if abs(number) < 1:
        return _small(number)
    number, prefix = _reduced(number, 1000, ("k", "M", "G", "T", "P", "E", "Z", "Y"))
    return four_digits(number) + prefix


def humanize1024(value: Object) -> str:
    """With a binary prefix: 1.5Ki."""
    number = to_float(value)
    if abs(number) <= 1 or not math.isfinite(number):
        return four_digits(number)
    number, prefix = _reduced(number, 1024, ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"))
    return four_digits(number) + prefix


def humanize_percentage(value: Object) -> str:
    """A ratio as a percentage."""
    return f"{four_digits(to_float(value) * 100)}%"


def humanize_duration(value: Object) -> str:
    """Seconds as days, hours, minutes and seconds; below a minute with four digits."""
    number = to_float(value)
    if not math.isfinite(number):
        return four_digits(number)
    if number == 0:
        return f"{four_digits(number)}s"
    if abs(number) < 1:
        return f"{_small(number)}s"
    sign = "-" if number < 0 else ""
    number = abs(number)
    whole = int(number) if number < 2**63 else 2**63 - 1
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{sign}{four_digits(number)}s"


def humanize_timestamp(value: Object) -> str:
    """A unix time as a date and time in UTC."""
    number = to_float(value)
    if not math.isfinite(number):
        return four_digits(number)
    return str(to_time(number))


def _reduced(number: float, base: int, prefixes: tuple[str, ...]) -> tuple[float, str]:
    shown = ""
    for prefix in prefixes:
        if abs(number) < base:
            break
        shown = prefix
        number /= base
    return number, shown


def _small(number: float) -> str:
    shown = ""
    for prefix in ("m", "u", "n", "p", "f", "a", "z", "y"):
        if abs(number) >= 1:
            break
        shown = prefix
        number *= 1000
    return four_digits(number) + shown
