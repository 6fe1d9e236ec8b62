"""Go's `fmt` over a template's values: `Sprintf` with its verbs, flags and complaints, `Sprint`, `Sprintln`.

Source: https://pkg.go.dev/fmt and https://pkg.go.dev/strconv#FormatFloat
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.alerting.template.flags import TEXT_LIMIT, Flags, gathered, too_long
from exporter.alerting.template.values import Object, Sample, go_type
from exporter.alerting.template.verbs import shown, struct

WIDTH_LIMIT = 1_000_000
"""Largest width and precision, as in Go."""


def text_of(value: Object) -> str:
    """How `{{ value }}` shows it, which is `%v`, but for what is missing."""
    if value is None:
        return "<no value>"
    if isinstance(value, Sample):
        return struct(value, "v", Flags())
    return shown(value, "v", Flags())


def sprint(values: Sequence[Object]) -> str:
    """All values after one another, with a space where neither neighbour is a string."""

    def apart(number: int) -> bool:
        return number > 0 and not any(isinstance(one, str) for one in values[number - 1 : number + 1])

    return gathered(
        (" " if apart(number) else "") + shown(value, "v", Flags()) for number, value in enumerate(values)
    )


def sprintln(values: Sequence[Object]) -> str:
    """All values with spaces between, and a new line."""
    return gathered((shown(value, "v", Flags()) for value in values), " ") + "\n"


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
            raise too_long()
        self._parts.append(text)

    def _typed(self, value: Object) -> str:
        return "<nil>" if value is None else f"{go_type(value)}={shown(value, 'v', Flags())}"

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
            self._add(shown(value, verb, flags))

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
