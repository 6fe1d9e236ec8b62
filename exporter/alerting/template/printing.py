"""Go's `fmt` over a template's values: `Sprintf` with its verbs, flags and complaints, `Sprint`, `Sprintln`.

Source: https://pkg.go.dev/fmt and https://pkg.go.dev/strconv#FormatFloat
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from exporter.alerting.template.errors import FunctionError
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.values import Duration, Object, Root, Sample, Samples, Time, go_type

TEXT_LIMIT = 1 << 18
"""Longest text that one function may make, in characters."""
WIDTH_LIMIT = 1_000_000
"""Largest width and precision, as in Go."""


@dataclass(slots=True)
class Flags:
    """What stands between `%` and the verb."""

    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    go_syntax: bool = False
    """`%#v`"""
    width: int | None = None
    precision: int | None = None


def text_of(value: Object) -> str:
    """How `{{ value }}` shows it, which is `%v`, but for what is missing."""
    if value is None:
        return "<no value>"
    if isinstance(value, Sample):
        return _struct(value, "v", Flags())
    return _format(value, "v", Flags())


def sprint(values: Sequence[Object]) -> str:
    """All values after one another, with a space where neither neighbour is a string."""
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(_format(value, "v", Flags()))
    return _bounded(parts)


def sprintln(values: Sequence[Object]) -> str:
    """All values with spaces between, and a new line."""
    return _bounded([" ".join(_bounded([_format(value, "v", Flags())]) for value in values), "\n"])


def _bounded(parts: Sequence[str]) -> str:
    if sum(map(len, parts)) > TEXT_LIMIT:
        raise FunctionError(f"the text would be longer than {TEXT_LIMIT} characters")
    return "".join(parts)


def sprintf(form: str, values: Sequence[Object]) -> str:
    """Go's `Sprintf`; what does not fit is shown in the text, as there (`%!d(string=hi)`, `%!s(MISSING)`)."""
    return _Printer(form, values).printed()


class _Printer:
    def __init__(self, form: str, values: Sequence[Object]) -> None:
        self._form = form
        self._values = values
        self._at = 0
        self._number = 0
        self._reordered = False
        self._good_index = True
        self._length = 0
        self._parts: list[str] = []

    def printed(self) -> str:
        form = self._form
        while self._at < len(form):
            percent = form.find("%", self._at)
            end = len(form) if percent < 0 else percent
            self._add(form[self._at : end])
            if percent < 0:
                break
            self._at = percent + 1
            self._directive()
        if not self._reordered and self._number < len(self._values):
            extra = (self._typed(value) for value in self._values[self._number :])
            self._add(f"%!(EXTRA {', '.join(extra)})")
        return "".join(self._parts)

    def _add(self, text: str) -> None:
        self._length += len(text)
        if self._length > TEXT_LIMIT:
            raise FunctionError(f"the text would be longer than {TEXT_LIMIT} characters")
        self._parts.append(text)

    def _typed(self, value: Object) -> str:
        return "<nil>" if value is None else f"{go_type(value)}={_format(value, 'v', Flags())}"

    def _peek(self) -> str:
        return self._form[self._at : self._at + 1]

    def _directive(self) -> None:
        flags = Flags()
        self._good_index = True
        while self._peek() and self._peek() in "#0+- ":
            match self._peek():
                case "#":
                    flags.sharp = True
                case "0":
                    flags.zero = not flags.minus
                case "+":
                    flags.plus = True
                case "-":
                    flags.minus, flags.zero = True, False
                case _:
                    flags.space = True
            self._at += 1
        indexed = self._index()
        if self._peek() == "*":
            self._at += 1
            flags.width = self._count()
            if flags.width is None:
                self._add("%!(BADWIDTH)")
            elif flags.width < 0:
                flags.width, flags.minus, flags.zero = -flags.width, True, False
            indexed = False
        else:
            flags.width = self._digits()
            if indexed and flags.width is not None:
                self._good_index = False
        if self._peek() == ".":
            self._at += 1
            if indexed:
                self._good_index = False
            indexed = self._index()
            if self._peek() == "*":
                self._at += 1
                precision = self._count()
                flags.precision = precision if precision is not None and precision >= 0 else None
                if flags.precision is None:
                    self._add("%!(BADPREC)")
                indexed = False
            else:
                flags.precision = self._digits() or 0
        if not indexed:
            self._index()
        self._verb(flags)

    def _verb(self, flags: Flags) -> None:
        verb = self._peek()
        if not verb:
            self._add("%!(NOVERB)")
            return
        self._at += 1
        if verb == "%":
            self._add("%")
        elif not self._good_index:
            self._add(f"%!{verb}(BADINDEX)")
        elif self._number >= len(self._values):
            self._add(f"%!{verb}(MISSING)")
        else:
            value = self._values[self._number]
            self._number += 1
            if verb == "v":
                flags.go_syntax, flags.sharp, flags.plus = flags.sharp, False, False
            self._add(_format(value, verb, flags))

    def _index(self) -> bool:
        """`[n]`: the number of the value that comes next; whether there was one."""
        if self._peek() != "[":
            return False
        self._reordered = True
        end = self._form.find("]", self._at)
        digits = self._form[self._at + 1 : end] if end > 0 else ""
        if end < 0:
            self._good_index = False
            self._at += 1
            return False
        self._at = end + 1
        if digits.isascii() and digits.isdigit() and 1 <= int(digits[:9]) <= len(self._values):
            self._number = int(digits) - 1
        else:
            self._good_index = False
        return True

    def _count(self) -> int | None:
        value = self._values[self._number] if self._number < len(self._values) else None
        self._number += self._number < len(self._values)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > WIDTH_LIMIT:
            return None
        return value

    def _digits(self) -> int | None:
        start = self._at
        while self._peek() and self._peek() in "0123456789":
            self._at += 1
        digits = self._form[start : self._at]
        if not digits:
            return None
        if len(digits) > 9 or int(digits) > WIDTH_LIMIT:
            self._at = len(self._form)  # Go gives up on the rest of the format here
            return None
        return int(digits)


def _format(value: Object, verb: str, flags: Flags) -> str:
    """One value under one verb."""
    if verb == "T":
        return _pad(go_type(value)[: flags.precision], flags)
    if value is None:
        return _pad("<nil>", flags) if verb == "v" else f"%!{verb}(<nil>)"
    shown = _by_kind(value, verb, flags)
    if shown is None:
        return f"%!{verb}({go_type(value)}={_format(value, 'v', flags)})"
    return shown


def _by_kind(value: Object, verb: str, flags: Flags) -> str | None:
    """None: the verb does not fit."""
    if isinstance(value, bool):
        return _pad("true" if value else "false", flags) if verb in "tv" else None
    if isinstance(value, int):
        return _integer(value, verb, flags)
    if isinstance(value, float):
        return _float(value, verb, flags)
    if isinstance(value, str):
        return _string(value, verb, flags)
    if isinstance(value, (Time, Duration)) and verb in "vsxXq":
        return _string(str(value), verb, flags)
    if isinstance(value, Duration):
        return _integer(value.nanoseconds, verb, flags)
    if verb == "p":
        return None
    if isinstance(value, dict):
        return _map(value, verb, flags)
    if isinstance(value, Samples):
        return _bounded(["[", " ".join(_format(sample, verb, flags) for sample in value), "]"])
    if isinstance(value, Sample):
        return f"&{_struct(value, verb, flags)}"
    if isinstance(value, Root):
        return "{" + " ".join(_format(part, verb, flags) for part in value.fields.values()) + "}"
    return None


def _struct(sample: Sample, verb: str, flags: Flags) -> str:
    return f"{{{_map(dict(sample.labels), verb, flags)} {_format(sample.value, verb, flags)}}}"


def _map(entries: dict[str, Object] | dict[str, str], verb: str, flags: Flags) -> str:
    go_syntax = verb == "v" and flags.go_syntax
    parts = [
        f"{_format(key, verb, flags)}:{_format(value, verb, flags)}" for key, value in sorted(entries.items())
    ]
    if go_syntax:
        return f"{go_type(entries)}{{{', '.join(parts)}}}"
    return f"map[{' '.join(parts)}]"


def _pad(text: str, flags: Flags) -> str:
    if flags.width is None or len(text) >= flags.width:
        return text
    if flags.minus:
        return text.ljust(flags.width)
    return text.rjust(flags.width, "0" if flags.zero else " ")


def _string(text: str, verb: str, flags: Flags) -> str | None:
    quoted = verb == "q" or (verb == "v" and flags.go_syntax)
    if verb in "svq" and flags.precision is not None:
        text = text[: flags.precision]
    if quoted:
        if (
            flags.sharp
            and verb == "q"
            and "`" not in text
            and all(c.isprintable() or c == "\t" for c in text)
        ):
            return _pad(f"`{text}`", flags)
        return _pad(quote_go(text, ascii_only=flags.plus), flags)
    if verb in "sv":
        return _pad(text, flags)
    if verb in "xX":
        raw = text.encode("utf-8", "replace")
        raw = raw if flags.precision is None else raw[: flags.precision]
        separator = " " if flags.space else ""
        prefix = "0x" if flags.sharp and raw else ""
        digits = (f" {prefix}" if separator else "").join(f"{byte:02x}" for byte in raw)
        shown = prefix + digits
        return _pad(shown if verb == "x" else shown.upper(), flags)
    return None


def _integer(value: int, verb: str, flags: Flags) -> str | None:
    if verb == "c" or verb == "U" or verb == "q":
        character = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else "\ufffd"
        if verb == "c":
            return _pad(character, flags)
        if verb == "q":
            return _pad(quote_go(character, "'", ascii_only=flags.plus), flags)
        shown = f"U+{value & 0xFFFFFFFFFFFFFFFF:0{max(flags.precision or 4, 4)}X}"
        return _pad(
            f"{shown} '{character}'" if flags.sharp and character.isprintable() else shown, _blank(flags)
        )
    base = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(verb)
    if base is None:
        return None
    digits = format(abs(value), base)
    if flags.precision is not None:
        digits = "" if flags.precision == 0 and value == 0 else digits.rjust(flags.precision, "0")
        if not digits:
            return " " * (flags.width or 0)
    sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
    prefix = ""
    if verb == "O":
        prefix = "0o0" if flags.sharp else "0o"
    elif flags.sharp:
        prefix = {"b": "0b", "o": "" if digits.startswith("0") else "0", "x": "0x", "X": "0X"}.get(verb, "")
    if flags.zero and flags.precision is None and not flags.minus and flags.width is not None:
        digits = digits.rjust(flags.width - len(sign), "0")
    return _pad(sign + prefix + digits, _blank(flags))


def _blank(flags: Flags) -> Flags:
    """The same, padded with spaces."""
    return Flags(minus=flags.minus, width=flags.width)


def _float(value: float, verb: str, flags: Flags) -> str | None:
    if verb not in "vbgGxXfFeE":
        return None
    if not math.isfinite(value):
        if math.isnan(value):
            sign, shown = "+" if flags.plus else " " if flags.space else "", "NaN"
        else:
            sign, shown = ("+" if value > 0 else "-"), "Inf"
            if value > 0 and flags.space and not flags.plus:
                sign = " "
        return _pad(sign + shown, _blank(flags))
    negative = math.copysign(1.0, value) < 0
    digits = _digits_of(abs(value), verb, flags)
    sign = "-" if negative else "+" if flags.plus else " " if flags.space else ""
    if flags.zero and flags.width is not None:
        digits = digits.rjust(flags.width - len(sign), "0")
    return _pad(sign + digits, _blank(flags))


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
