"""How Go writes a float64.

Source: https://pkg.go.dev/fmt and https://pkg.go.dev/strconv#FormatFloat
"""

from __future__ import annotations

import math
from decimal import Decimal

from exporter.alerting.template.flags import TEXT_LIMIT, Flags, pad, too_long


def shown_float(value: float, verb: str, flags: Flags) -> str | None:
    """A number under a verb; None where the verb is not for numbers."""
    if verb not in "vbgGxXfFeE":
        return None
    if not math.isfinite(value):
        if math.isnan(value):
            sign, shown = "+" if flags.plus else " " if flags.space else "", "NaN"
        else:
            sign, shown = ("+" if value > 0 else "-"), "Inf"
            if value > 0 and flags.space and not flags.plus:
                sign = " "
        return pad(sign + shown, flags.blank)
    if max(flags.width or 0, flags.precision or 0) > TEXT_LIMIT:
        raise too_long()
    digits = _digits_of(abs(value), verb, flags)
    sign = flags.sign(negative=math.copysign(1.0, value) < 0)
    if flags.zero and flags.width is not None:
        digits = digits.rjust(flags.width - len(sign), "0")
    return pad(sign + digits, flags.blank)


def _digits_of(value: float, verb: str, flags: Flags) -> str:
    precision = flags.precision
    alternate = "#" if flags.sharp else ""
    match verb:
        case "f" | "F" | "e" | "E":
            return f"%{alternate}.{6 if precision is None else precision}{verb.replace('F', 'f')}" % value
        case "x" | "X":
            shown = _hexadecimal(value, precision)
            return shown if verb == "x" else shown.upper()
        case "b":
            mantissa, exponent = math.frexp(value)
            return f"{int(mantissa * 2**53)}p{exponent - 53:+d}"
    if precision is not None:
        return f"%{alternate}.{precision}{verb.replace('v', 'g')}" % value
    if alternate:
        return f"%#.{max(6, len(_shortest(value)[0]))}{verb.replace('v', 'g')}" % value
    shown = format_float(value)
    return shown.upper() if verb == "G" else shown


def _shortest(value: float) -> tuple[str, int]:
    """The fewest digits that give the number back, and the exponent of the first."""
    parts = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, parts.digits))
    exponent = int(parts.exponent) + len(digits) - 1
    return digits.rstrip("0") or "0", exponent


def format_float(value: float) -> str:
    """A number as Go's `%v` and `%g` show it: the fewest digits, with an exponent below 1e-4 and from 1e6 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return sign + "0"
    digits, exponent = _shortest(abs(value))
    if exponent < -4 or exponent >= 6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return sign + digits.ljust(exponent + 1, "0")
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"


def _hexadecimal(value: float, precision: int | None) -> str:
    mantissa, exponent = math.frexp(value)
    bits = int(mantissa * 2**53)
    exponent -= 1
    if precision is not None and precision < 13:
        drop = 52 - 4 * precision
        kept, rest = divmod(bits, 1 << drop)
        half = 1 << (drop - 1)
        kept += rest > half or (rest == half and kept & 1 == 1)
        bits = kept << drop
        if bits >> 53:
            bits >>= 1
            exponent += 1
    if bits == 0:
        exponent = 0
    digits = f"{bits & ((1 << 52) - 1):013x}"
    digits = digits.rstrip("0") if precision is None else digits[:precision].ljust(precision, "0")
    return f"0x{bits >> 52}{'.' if digits else ''}{digits}p{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
