"""What stands between `%` and a verb, and what it means for every kind of value.

Source: https://pkg.go.dev/fmt
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.alerting.template.errors import FunctionError

TEXT_LIMIT = 1 << 18
"""Longest text that one function may make, in characters."""


@dataclass(slots=True)
class Flags:
    """Flags, width and precision of one verb."""

    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    go_syntax: bool = False
    """`%#v`"""
    width: int | None = None
    precision: int | None = None

    @property
    def blank(self) -> Flags:
        """The same width, filled with spaces."""
        return Flags(minus=self.minus, width=self.width)

    def sign(self, *, negative: bool) -> str:
        """What stands before a number."""
        return "-" if negative else "+" if self.plus else " " if self.space else ""


def pad(text: str, flags: Flags) -> str:
    """The text at the width that is asked for."""
    if flags.width is None or len(text) >= flags.width:
        return text
    if flags.width > TEXT_LIMIT:
        raise too_long()
    if flags.minus:
        return text.ljust(flags.width)
    return text.rjust(flags.width, "0" if flags.zero else " ")


def gathered(parts: Iterable[str], between: str = "") -> str:
    """The parts as one text; FunctionError as soon as it gets too long."""
    found: list[str] = []
    length = 0
    for part in parts:
        length += len(part) + len(between)
        if length > TEXT_LIMIT:
            raise too_long()
        found.append(part)
    return between.join(found)


def too_long() -> FunctionError:
    """The error of a text that grows over the limit."""
    return FunctionError(f"the text would be longer than {TEXT_LIMIT} characters")
