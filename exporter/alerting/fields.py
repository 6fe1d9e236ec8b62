"""Typed values read out of a document strictly: what is wrong is collected, each mistake with its place.

Values are read as Go's yaml package reads them into its types: any scalar may be a string, null is as good as absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import TypeVar

from exporter.alerting.document import NODE_LIMIT, SIZE_LIMIT, DocumentError, Node
from exporter.alerting.durations import parse_duration_ms

PROBLEM_LIMIT = 100
"""Most mistakes that are told one by one."""

_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y")
_FALSE = ("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N")
_INTEGER = re.compile(r"[-+]?0(?:x[0-9a-fA-F]+|o[0-7]+|b[01]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")

T = TypeVar("T")


class Reader:
    """Reads typed values out of nodes; what is wrong is collected, with its place, and reading goes on."""

    def __init__(self, file: str, *, ignore_unknown: bool = False) -> None:
        self._file = file
        self._ignore_unknown = ignore_unknown
        self._visits = 0
        self._characters = 0
        self._unshown = 0
        self._problems: list[tuple[int, int, str]] = []
        self._end: list[str] = []

    @property
    def problems(self) -> list[str]:
        """One line per mistake, `FILE:LINE:COLUMN: what`, in the order of the file, at most `PROBLEM_LIMIT` of them."""
        shown = [
            self._placed(line, column, message)
            for line, column, message in sorted(self._problems, key=lambda problem: problem[:2])
        ]
        more = [f"{self._file}: {self._unshown} more mistakes"] if self._unshown else []
        return [*shown, *more, *self._end]

    def _placed(self, line: int, column: int, message: str) -> str:
        return f"{self._file}:{line}:{column}: {message}" if line else f"{self._file}: {message}"

    def ends(self, error: DocumentError) -> None:
        """Note what ended the reading; it is told however many other mistakes there are."""
        self._end = [self._placed(error.line, error.column, str(error))]

    def problem(self, where: Node | None, message: str) -> None:
        """Note a mistake."""
        self.problem_at(where.line if where else 0, where.column if where else 0, message)

    def problem_at(self, line: int, column: int, message: str) -> None:
        """Note a mistake at a line and column from 1, or in the file as a whole."""
        if len(self._problems) >= PROBLEM_LIMIT:
            self._unshown += 1
        else:
            self._problems.append((line, column, message))

    def visit(self, node: Node) -> None:
        """Count a value that is read; DocumentError when aliases make it too many."""
        self._visits += 1
        if self._visits > NODE_LIMIT:
            raise DocumentError(
                f"more than {NODE_LIMIT} values once aliases are followed", node.line, node.column
            )

    def entries(self, node: Node | None, what: str) -> dict[str, tuple[Node, Node]]:
        """A mapping's keys and values by key; `<<` brings in the entries of another mapping, which never win."""
        if node is None or node.is_null:
            return {}
        if node.kind != "mapping":
            self.problem(node, f"{what} is {_a(node)}, expected a mapping")
            return {}
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key, value in node.pairs:
            self.visit(key)
            if key.kind != "scalar":
                self.problem(key, f"{what} has {_a(key)} as a key")
            elif key.plain and key.text == "<<":
                for source in value.items if value.kind == "list" else [value]:
                    self._merge(source, merged)
            elif key.text in own:
                first = own[key.text][0].line
                self.problem(key, f'{what}: key "{key.text}" is already set in line {first}')
            else:
                own[key.text] = (key, value)
        return {**merged, **own}

    def _merge(self, source: Node, into: dict[str, tuple[Node, Node]]) -> None:
        if source.kind != "mapping":
            self.problem(source, f"<< takes a mapping, or a list of them, not {_a(source)}")
            return
        for key, value in source.pairs:
            self.visit(key)
            if key.kind == "scalar" and key.text != "<<":
                into.setdefault(key.text, (key, value))

    def fields(self, node: Node | None, what: str, known: Collection[str]) -> dict[str, Node]:
        """A mapping with known keys; others are mistakes, and null counts as absent."""
        found: dict[str, Node] = {}
        for name, (key, value) in self.entries(node, what).items():
            if name not in known:
                if self._ignore_unknown:
                    continue
                self.problem(key, f'{what}: unknown field "{name}"; known are {", ".join(sorted(known))}')
            elif not value.is_null:
                found[name] = value
        return found

    def items(self, node: Node | None, what: str) -> list[Node]:
        """A list's values; null is none, as Go has it."""
        if node is None or node.is_null:
            return []
        if node.kind != "list":
            self.problem(node, f"{what} is {_a(node)}, expected a list")
            return []
        for item in node.items:
            self.visit(item)
        return [item for item in node.items if not item.is_null]

    def text(self, node: Node | None, what: str) -> str:
        """A string; any scalar is one."""
        if node is None or node.is_null:
            return ""
        if node.kind != "scalar":
            self.problem(node, f"{what} is {_a(node)}, expected a string")
            return ""
        self._characters += len(node.text)
        if self._characters > 4 * SIZE_LIMIT:
            raise DocumentError("too much text once aliases are followed", node.line, node.column)
        return node.text

    def texts(self, node: Node | None, what: str) -> dict[str, str]:
        """A mapping of strings, such as labels."""
        return {
            name: self.text(value, f"{what}: {name}") for name, (_, value) in self.entries(node, what).items()
        }

    def duration_ms(self, node: Node | None, what: str) -> int | None:
        """A duration in milliseconds; None where none is said, or where it is wrong."""
        return self._converted(node, what, parse_duration_ms)

    def integer(self, node: Node | None, what: str) -> int | None:
        """A whole number."""
        return self._converted(node, what, _integer)

    def number(self, node: Node | None, what: str) -> float | None:
        """A number, `.nan` and `.inf` among them."""
        return self._converted(node, what, _number)

    def flag(self, node: Node | None, what: str) -> bool:
        """True or false; false where nothing is said."""
        return bool(self._converted(node, what, _flag))

    def _converted(self, node: Node | None, what: str, convert: Callable[[str], T]) -> T | None:
        if node is None or node.is_null:
            return None
        if node.kind != "scalar":
            self.problem(node, f"{what} is {_a(node)}, expected a single value")
            return None
        try:
            return convert(node.text)
        except ValueError as error:
            self.problem(node, f"{what}: {error}")
            return None


def _a(node: Node) -> str:
    return {"scalar": f'"{node.text[:50]}"', "list": "a list", "mapping": "a mapping"}[node.kind]


def _integer(text: str) -> int:
    value = _number(text)
    if not math.isfinite(value) or value != int(value) or abs(value) >= 2**63:
        raise ValueError(f'expected a whole number, got "{text[:50]}"')
    return int(value)


def _number(text: str) -> float:
    plain = text.replace("_", "")
    if text in (".nan", ".NaN", ".NAN"):
        return math.nan
    if text.lstrip("+-") in (".inf", ".Inf", ".INF"):
        return -math.inf if text.startswith("-") else math.inf
    try:
        if _INTEGER.fullmatch(plain):
            return float(int(plain, 0))
        if _FLOAT.fullmatch(plain):
            return float(plain)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f'expected a number, got "{text[:50]}"')


def _flag(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'expected true or false, got "{text[:50]}"')
