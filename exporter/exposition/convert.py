"""How a source's page is printed again, in its own format or in the other one.

A plan is made once for a page's structure. Most of what it prints are the source's own lines as they came, so that
printing a page is picking lines and joining them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.exposition.families import FamilyText
from exporter.exposition.grouping import OutputFamily, for_openmetrics, for_text
from exporter.exposition.parse import ParsedPage
from exporter.exposition.text import escape_help, format_name, format_series, format_value

_WITH_CREATED = frozenset({"counter", "histogram", "summary"})


class Rewrite(NamedTuple):
    """A source line whose head is printed differently: its place, the bytes to cut, what comes instead."""

    place: int
    cut: int
    head: bytes


class Plan:
    """What to print of a page: source lines by place, lines of our own, and rewritten ones."""

    def __init__(self, entries: Iterable[int | bytes | Rewrite]) -> None:
        self._pieces: list[slice | bytes | Rewrite] = []
        start = stop = 0
        for entry in entries:
            if isinstance(entry, int) and entry == stop and start < stop:
                stop += 1
                continue
            if start < stop:
                self._pieces.append(slice(start, stop))
            start = stop = 0
            if isinstance(entry, int):
                start, stop = entry, entry + 1
            else:
                self._pieces.append(entry)
        if start < stop:
            self._pieces.append(slice(start, stop))

    def render(self, lines: list[bytes]) -> bytes:
        """The page, made from its present lines."""
        if not self._pieces:
            return b""
        printed: list[bytes] = []
        for piece in self._pieces:
            if isinstance(piece, slice):
                printed += lines[piece]
            elif isinstance(piece, bytes):
                printed.append(piece)
            else:
                printed.append(piece.head + lines[piece.place][piece.cut :])
        printed.append(b"")  # closes the page with a newline
        return b"\n".join(printed)


class Conversion:
    """The plans for one page structure; `kept` are the samples to consider, duplicates left out already.

    Not printed: families with a reserved prefix (ours), and the `*_created` series of counters, histograms and
    summaries. `reserved` counts the samples that a prefix kept out.
    """

    def __init__(self, page: ParsedPage, kept: Sequence[int], reserved_prefixes: tuple[str, ...]) -> None:
        self._openmetrics = page.openmetrics
        self._families = page.families
        self._count = len(page.lines) - (not page.lines[-1])
        self._places = array("i", page.line_of)
        self._heads = page.heads
        self._whole = {k: page.samples[k] for k, head in enumerate(page.heads) if head.text is None}
        """Samples of lines that are not printed by their heads alone."""
        self._plans: dict[bool, Plan] = {}
        self._fates = _Fates(page, reserved_prefixes)
        fates = [self._fates.of_sample(page.samples[k].series.name) for k in kept]
        self._kept = array("i", [k for k, fate in zip(kept, fates, strict=True) if fate == "kept"])
        self.reserved = fates.count("reserved")

    def plan(self, *, openmetrics: bool) -> Plan:
        """The plan for one of the two formats, made when first asked for."""
        plan = self._plans.get(openmetrics)
        if plan is None:
            same = not openmetrics and not self._openmetrics
            entries = self._verbatim() if same else self._converted(openmetrics=openmetrics)
            plan = self._plans[openmetrics] = Plan(entries)
        return plan

    def _verbatim(self) -> list[int | bytes | Rewrite]:
        """Text 0.0.4 from text 0.0.4: every line that does not belong to something left out."""
        left_out = set(self._places).difference(self._places[k] for k in self._kept)
        for family in self._families.declared.values():
            if self._fates.of_family(family) != "kept":
                left_out.update(family.lines)
        return [place for place in range(self._count) if place not in left_out]

    def _converted(self, *, openmetrics: bool) -> list[int | bytes | Rewrite]:
        grouped: dict[int, tuple[FamilyText, list[int]]] = {}
        for k in self._kept:
            family = self._families.of_sample(self._heads[k].series.name)
            grouped.setdefault(id(family), (family, []))[1].append(k)
        group = for_openmetrics if openmetrics else for_text
        entries: list[int | bytes | Rewrite] = []
        for output in group([*grouped.values()], [head.series for head in self._heads]):
            entries.append(_header(output, openmetrics=openmetrics))
            entries += [self._line(k, output, openmetrics=openmetrics) for k in output.samples]
        return entries

    def _line(self, k: int, output: OutputFamily, *, openmetrics: bool) -> int | bytes | Rewrite:
        head, place = self._heads[k], self._places[k]
        series = head.series
        labels = series.labels
        if openmetrics and output.type == "histogram":
            labels = tuple(
                (key, "+Inf" if key == "le" and _is_infinite(text) else text) for key, text in labels
            )
        if head.text is not None:
            if head.canonical and labels == series.labels:
                return place
            return Rewrite(place, len(head.text), f"{format_series(series.name, labels)} ".encode())
        if openmetrics and self._openmetrics:
            return place
        _, value, timestamp = self._whole[k]
        line = f"{format_series(series.name, labels)} {format_value(value)}"
        if timestamp is not None:
            line += f" {timestamp:.3f}" if openmetrics else f" {round(timestamp * 1000)}"
        return line.encode()


class PassThrough:
    """One page of a source, to print; it stays as it is when the next one comes."""

    def __init__(self, conversion: Conversion, lines: list[bytes]) -> None:
        self._conversion = conversion
        self._lines = lines

    def render(self, *, openmetrics: bool) -> bytes:
        """The page's text; without OpenMetrics' closing `# EOF`."""
        return self._conversion.plan(openmetrics=openmetrics).render(self._lines)


class _Fates:
    """Which samples and families are `kept`, which are `created` series, and which are `reserved`."""

    def __init__(self, page: ParsedPage, reserved_prefixes: tuple[str, ...]) -> None:
        self._families = page.families
        self._prefixes = reserved_prefixes
        self._known: dict[str, str] = {}
        families = {page.families.of_sample(name).name for name in {s.series.name for s in page.samples}}
        families.update(page.families.declared)
        self._created = set()
        for name in families:
            family = page.families.declared.get(name)
            if family is not None and family.type in _WITH_CREATED:
                base = name.removesuffix("_total") if family.type == "counter" else name
                self._created.add(f"{base}_created")

    def of_sample(self, name: str) -> str:
        fate = self._known.get(name)
        if fate is None:
            family = self._families.of_sample(name)
            fate = self._known[name] = self.of_family(family)
            if fate == "kept" and family.name != name and name.endswith("_created"):
                fate = self._known[name] = "created"
        return fate

    def of_family(self, family: FamilyText) -> str:
        if family.text_name.startswith(self._prefixes):
            return "reserved"
        if family.type == "gauge" and family.name in self._created:
            return "created"
        return "kept"


def _header(family: OutputFamily, *, openmetrics: bool) -> bytes:
    name = format_name(family.name)
    lines = []
    if family.help is not None:
        lines.append(f"# HELP {name} {escape_help(family.help, openmetrics=openmetrics)}")
    lines.append(f"# TYPE {name} {family.type}")
    if openmetrics and family.unit and family.name.endswith(f"_{family.unit}"):
        lines.append(f"# UNIT {name} {family.unit}")
    return "\n".join(lines).encode()


def _is_infinite(bound: str) -> bool:
    return bound.lower() in ("inf", "+inf", "infinity", "+infinity")
