"""One value under one verb of Go's `fmt`.

Source: https://pkg.go.dev/fmt#hdr-Printing
"""

from __future__ import annotations

from exporter.alerting.template.flags import TEXT_LIMIT, Flags, gathered, pad, too_long
from exporter.alerting.template.floats import shown_float
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.values import Duration, Object, Root, Sample, Samples, Time, go_type


def shown(value: Object, verb: str, flags: Flags) -> str:
    """A value under a verb; where the verb does not fit, Go's complaint."""
    if verb == "T":
        return pad(go_type(value)[: flags.precision], flags)
    if value is None:
        return pad("<nil>", flags) if verb == "v" else f"%!{verb}(<nil>)"
    text = _by_kind(value, verb, flags)
    if text is None:
        return f"%!{verb}({go_type(value)}={shown(value, 'v', flags)})"
    return text


def _by_kind(value: Object, verb: str, flags: Flags) -> str | None:
    """None: the verb does not fit."""
    if isinstance(value, bool):
        return pad("true" if value else "false", flags) if verb in "tv" else None
    if isinstance(value, int):
        return _integer(value, verb, flags)
    if isinstance(value, float):
        return shown_float(value, verb, flags)
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
        return f"[{gathered((shown(sample, verb, flags) for sample in value), ' ')}]"
    if isinstance(value, Sample):
        return f"&{struct(value, verb, flags)}"
    if isinstance(value, Root):
        return f"{{{gathered((shown(part, verb, flags) for part in value.fields.values()), ' ')}}}"
    return None


def struct(sample: Sample, verb: str, flags: Flags) -> str:
    """What a sample points to."""
    return f"{{{_map(dict(sample.labels), verb, flags)} {shown(sample.value, verb, flags)}}}"


def _map(entries: dict[str, Object] | dict[str, str], verb: str, flags: Flags) -> str:
    parts = (
        f"{shown(key, verb, flags)}:{shown(value, verb, flags)}" for key, value in sorted(entries.items())
    )
    if verb == "v" and flags.go_syntax:
        return f"{go_type(entries)}{{{gathered(parts, ', ')}}}"
    return f"map[{gathered(parts, ' ')}]"


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
            return pad(f"`{text}`", flags)
        return pad(quote_go(text, ascii_only=flags.plus), flags)
    if verb in "sv":
        return pad(text, flags)
    if verb in "xX":
        raw = text.encode("utf-8", "replace")
        raw = raw if flags.precision is None else raw[: flags.precision]
        separator = " " if flags.space else ""
        prefix = "0x" if flags.sharp and raw else ""
        digits = (f" {prefix}" if separator else "").join(f"{byte:02x}" for byte in raw)
        digits = prefix + digits
        return pad(digits if verb == "x" else digits.upper(), flags)
    return None


def _character(value: int, verb: str, flags: Flags) -> str:
    character = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else "\ufffd"
    if verb == "c":
        return pad(character, flags)
    if verb == "q":
        return pad(quote_go(character, "'", ascii_only=flags.plus), flags)
    point = f"U+{value & 0xFFFFFFFFFFFFFFFF:0{max(flags.precision or 4, 4)}X}"
    return pad(f"{point} '{character}'" if flags.sharp and character.isprintable() else point, flags.blank)


def _integer(value: int, verb: str, flags: Flags) -> str | None:
    if max(flags.width or 0, flags.precision or 0) > TEXT_LIMIT:
        raise too_long()
    if verb in "cqU":
        return _character(value, verb, flags)
    base = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(verb)
    if base is None:
        return None
    digits = format(abs(value), base)
    if flags.precision is not None:
        if flags.precision == 0 and value == 0:
            return " " * (flags.width or 0)
        digits = digits.rjust(flags.precision, "0")
    prefix = ""
    if verb == "O":
        prefix = "0o0" if flags.sharp else "0o"
    elif flags.sharp:
        prefix = {"b": "0b", "o": "" if digits.startswith("0") else "0", "x": "0x", "X": "0X"}.get(verb, "")
    sign = flags.sign(negative=value < 0)
    if flags.zero and flags.precision is None and not flags.minus and flags.width is not None:
        digits = digits.rjust(flags.width - len(sign), "0")
    return pad(sign + prefix + digits, flags.blank)
