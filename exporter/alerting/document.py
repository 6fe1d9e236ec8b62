"""YAML as rule files and their unit tests use it: every value with its place, and bounded.

The tree is built from the parser's events and never recursively, so that no nesting and no alias bomb costs more than the
limits below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

SIZE_LIMIT = 4 << 20
"""Largest file that is read, in bytes: some ten thousand rules."""
DEPTH_LIMIT = 32
NODE_LIMIT = 200_000
"""Most values that are made, and that are visited: an alias is visited each time that it is used."""

_NULLS = ("", "~", "null", "Null", "NULL")


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
