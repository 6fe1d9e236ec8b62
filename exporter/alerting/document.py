"""YAML as rule files and their unit tests use it: every value with its place, bounded, and read strictly.

The tree is built from the parser's events and never recursively, so that no nesting and no alias bomb costs more than the
limits below. Values are read as Go's yaml package reads them into its types: any scalar may be a string, null is as
good as absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from exporter.alerting.durations import parse_duration_ms

SIZE_LIMIT = 4 << 20
"""Largest file that is read, in bytes: some ten thousand rules."""
DEPTH_LIMIT = 32
NODE_LIMIT = 200_000
"""Most values that are made, and that are visited: an alias is visited each time that it is used."""
PROBLEM_LIMIT = 100

_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y")
_FALSE = ("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N")

_INTEGER = re.compile(r"[-+]?0(?:x[0-9a-fA-F]+|o[0-7]+|b[01]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")

T = TypeVar("T")


class DocumentError(Exception):
    """The text is no YAML, or too much of it; `line` and `column` count from 1, 0 where they are not known."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(slots=True, eq=False)
class Node:
    """One value of a document. `line` and `column` count from 1."""

    kind: Literal["scalar", "list", "mapping"]
    line: int
    column: int
    text: str = ""
    plain: bool = False
    items: list[Node] = field(default_factory=list)
    """A list's values; a mapping's keys and values by turns."""

    @property
    def is_null(self) -> bool:
        """Whether nothing is said here: absent, `~` or `null`."""
        return self.kind == "scalar" and self.plain and self.text in _NULLS

    @property
    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """A mapping's keys with their values."""
        values = iter(self.items)
        return zip(values, values, strict=False)


def parse_document(text: str) -> tuple[Node | None, bool]:
    """The first document of a file, None when there is none, and whether more follow; DocumentError."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise DocumentError(f"the text is not UTF-8 at character {error.start}") from error
    if size > SIZE_LIMIT:
        raise DocumentError(f"the file has {size} bytes, more than {SIZE_LIMIT}")
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _build(iter(yaml.parse(text, Loader=loader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem))) or "bad YAML"
        raise DocumentError(what, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(" ".join(str(error).split()) or "bad YAML") from error


def _build(events: Iterator[object]) -> tuple[Node | None, bool]:
    from yaml import events as kinds

    root: Node | None = None
    open_nodes: list[Node] = []
    anchors: dict[str, Node] = {}
    count = 0
    for event in events:
        if isinstance(event, kinds.DocumentEndEvent):
            return root, isinstance(next(events, None), kinds.DocumentStartEvent)
        if isinstance(event, (kinds.SequenceEndEvent, kinds.MappingEndEvent)):
            open_nodes.pop()
            continue
        if not isinstance(event, kinds.NodeEvent):
            continue
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        count += 1
        if count > NODE_LIMIT:
            raise DocumentError(f"more than {NODE_LIMIT} values", line, column)
        if isinstance(event, kinds.AliasEvent):
            if event.anchor not in anchors:
                raise DocumentError(f'unknown anchor "{event.anchor}" referenced', line, column)
            node = anchors[event.anchor]
        elif isinstance(event, kinds.ScalarEvent):
            node = Node("scalar", line, column, event.value, not event.style)
        else:
            node = Node("list" if isinstance(event, kinds.SequenceStartEvent) else "mapping", line, column)
        if open_nodes:
            open_nodes[-1].items.append(node)
        else:
            root = node
        if isinstance(event, kinds.AliasEvent):
            continue
        if event.anchor:
            anchors[event.anchor] = node
        if not isinstance(event, kinds.ScalarEvent):
            if len(open_nodes) >= DEPTH_LIMIT:
                raise DocumentError(f"nested deeper than {DEPTH_LIMIT} levels", line, column)
            open_nodes.append(node)
    return root, False


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
