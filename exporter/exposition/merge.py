"""Several sources on one page: each family in one piece, and every line with the labels of its source.

A daemon with several engines shows all of their pages. Text 0.0.4 and OpenMetrics want the lines of a family together
(https://prometheus.io/docs/instrumenting/exposition_formats/), and without a label of its own a series of one engine
could not be told from the same one of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from exporter.exposition.block import Block
from exporter.exposition.page import PassThroughBlock
from exporter.exposition.text import escape_label


class MergedBlocks:
    """Blocks that share families, as one part of the page."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = tuple(blocks)

    @property
    def version(self) -> int:
        """Rises when the text of any of them changes."""
        return sum(block.version for block in self._blocks)

    def render(self, *, openmetrics: bool) -> bytes:
        """The text of every family once, in the order in which the blocks first have them."""
        families: dict[str, list[bytes]] = {}
        for block in self._blocks:
            for name, header, text in block.texts(openmetrics=openmetrics):
                families.setdefault(name, [header]).append(text)
        return b"".join([part for parts in families.values() for part in parts])


class LabelledSource(NamedTuple):
    """One source's page, and the label that its lines get."""

    name: str
    value: str
    page: PassThroughBlock


class MergedPages:
    """The pages of several sources as one part of the page.

    A line that has the label already keeps its own under `exported_NAME`, as `honor_labels: false` does.
    """

    def __init__(self, sources: Sequence[LabelledSource]) -> None:
        self._sources = tuple(sources)
        self._kept: dict[tuple[str, bool], tuple[int, Families]] = {}

    @property
    def version(self) -> int:
        """Rises when any of the pages changes."""
        return sum(source.page.version for source in self._sources)

    def render(self, *, openmetrics: bool) -> bytes:
        """The text of every family once; comments are the first source's that has them."""
        families: dict[bytes, tuple[bytes, list[bytes]]] = {}
        for source in self._sources:
            for family, (comments, lines) in self._labelled(source, openmetrics=openmetrics).items():
                families.setdefault(family, (comments, []))[1].append(lines)
        return b"".join([part for comments, lines in families.values() for part in (comments, *lines)])

    def _labelled(self, source: LabelledSource, *, openmetrics: bool) -> Families:
        """A source's families with its label; made once for each page of the source."""
        kept = self._kept.get((source.value, openmetrics))
        if kept is None or kept[0] != source.page.version:
            text = source.page.render(openmetrics=openmetrics)
            kept = source.page.version, label_page(text, source.name, source.value)
            self._kept[source.value, openmetrics] = kept
        return kept[1]


Families = dict[bytes, tuple[bytes, bytes]]
"""Comments and sample lines by the name of the family."""


def label_page(page: bytes, name: str, value: str) -> Families:
    """Each line of a page with one more label, by family; lines without comments are a family of their own name."""
    label = f'{name}="{escape_label(value)}"'.encode()
    clash = f'{name}="'.encode()
    comments: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    family = b""
    for line in page.split(b"\n"):
        if not line:
            continue
        if line.startswith(b"#"):
            words = line.split(b" ", 3)
            if len(words) > 2 and words[1] in (b"HELP", b"TYPE", b"UNIT"):
                family = words[2]
                comments.setdefault(family, []).append(line)
                samples.setdefault(family, [])
            continue
        own = _sample_name(line)
        where = family if family and own.startswith(family) else own
        samples.setdefault(where, []).append(_with_label(line, len(own), label, clash, name.encode()))
    return {
        family: (_lines(comments.get(family, [])), _lines(lines))
        for family, lines in samples.items()
        if lines
    }


def _lines(lines: list[bytes]) -> bytes:
    return b"\n".join([*lines, b""])


def _sample_name(line: bytes) -> bytes:
    """What stands before the labels or the value."""
    brace, space = line.find(b"{"), line.find(b" ")
    return line[: brace if 0 <= brace < space else space]


def _with_label(line: bytes, place: int, label: bytes, clash: bytes, name: bytes) -> bytes:
    if line[place : place + 1] != b"{":
        return b"%b{%b}%b" % (line[:place], label, line[place:])
    if clash in line:
        line = line.replace(b"{" + clash, b"{exported_" + clash, 1).replace(
            b"," + clash, b",exported_" + clash, 1
        )
    head, rest = line[:place], line[place + 1 :]
    if not head:  # a name that is not of the old kind stands first among the labels: {"name",…}
        end = rest.find(b'"', 1) + 1
        return b"{%b,%b%b" % (rest[:end], label, rest[end:])
    comma = b"" if rest.startswith(b"}") else b","
    return b"%b{%b%b%b" % (head, label, comma, rest)
