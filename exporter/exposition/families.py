"""Which family a sample belongs to: HELP, TYPE and UNIT lines, and the suffixes that each type may have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import get_args

from exporter.exposition.lines import unescape
from exporter.exposition.model import MetricType

TEXT_TYPES: dict[str, MetricType] = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "summary": "summary",
    "untyped": "unknown",
}
OPENMETRICS_TYPES: dict[str, MetricType] = {name: name for name in get_args(MetricType)}
TEXT_SUFFIXES: dict[MetricType, tuple[str, ...]] = {
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}
OPENMETRICS_SUFFIXES: dict[MetricType, tuple[str, ...]] = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "summary": ("", "_count", "_sum", "_created"),
    "info": ("_info",),
}

_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_META = re.compile(
    rf"[ \t]*+#[ \t]++(HELP|TYPE|UNIT)[ \t]++({_QUOTED}|[a-zA-Z_:][a-zA-Z0-9_:]*+)(?:[ \t]++(.*))?\Z",
    re.DOTALL,
)
_KEYWORD = re.compile(r"[ \t]*+#[ \t]++(?:HELP|TYPE)[ \t]")


@dataclass(slots=True)
class FamilyText:
    """What a page says about one family; `name` is as the page writes it, `lines` are its metadata lines from 0.

    `help` is unescaped.
    """

    name: str
    openmetrics: bool
    type: MetricType = "unknown"
    typed: bool = False
    help: str | None = None
    unit: str | None = None
    lines: list[int] = field(default_factory=list)

    @property
    def text_name(self) -> str:
        """The name that text 0.0.4 gives it: a counter's ends in `_total`, an info's in `_info`."""
        if self.openmetrics:
            return self.name + {"counter": "_total", "info": "_info"}.get(self.type, "")
        return self.name


class Families:
    """The families of one page, by name, and by the names of their samples."""

    def __init__(self, *, openmetrics: bool) -> None:
        self.openmetrics = openmetrics
        self.declared: dict[str, FamilyText] = {}
        self._by_sample: dict[str, FamilyText] | None = None

    def read(self, line: str, index: int) -> None:
        """Take in one comment line; ValueError when it is a malformed HELP, TYPE or UNIT line."""
        match = _META.match(line)
        if match is None or (match[1] == "UNIT" and not self.openmetrics):
            if match is None and (self.openmetrics or _KEYWORD.match(line)):
                raise ValueError(f"expected # HELP, # TYPE or # UNIT with a metric name, got {line[:80]!r}")
            return
        keyword, name, rest = match[1], match[2], match[3] or ""
        if name[0] == '"':
            name = unescape(name[1:-1])
        family = self.declared.get(name)
        if family is None:
            family = self.declared[name] = FamilyText(name, self.openmetrics)
        family.lines.append(index)
        if keyword == "TYPE":
            kind = (OPENMETRICS_TYPES if self.openmetrics else TEXT_TYPES).get(rest.strip(" \t"))
            if kind is None:
                raise ValueError(f"{rest[:40]!r} is not a type of metric")
            if not family.typed:
                family.type, family.typed = kind, True
        elif keyword == "HELP":
            if family.help is None:
                family.help = unescape(rest) if self.openmetrics else _unescape_text_help(rest)
        elif family.unit is None:
            family.unit = rest

    def of_sample(self, name: str) -> FamilyText:
        """The family of a sample; one that nobody declared is unknown and has the sample's own name."""
        if self._by_sample is None:
            self._by_sample = self._bind()
        family = self._by_sample.get(name)
        if family is None:
            family = self._by_sample[name] = FamilyText(name, self.openmetrics)
        return family

    def types(self) -> dict[str, MetricType]:
        """Name and type of each declared family."""
        return {family.name: family.type for family in self.declared.values()}

    def _bind(self) -> dict[str, FamilyText]:
        suffixes = OPENMETRICS_SUFFIXES if self.openmetrics else TEXT_SUFFIXES
        bound: dict[str, FamilyText] = {}
        for family in self.declared.values():
            if "" in suffixes.get(family.type, ("",)):
                bound[family.name] = family
        for family in self.declared.values():
            for suffix in suffixes.get(family.type, ()):
                bound.setdefault(family.name + suffix, family)
        return bound


def _unescape_text_help(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\([\\n])", lambda match: "\n" if match[1] == "n" else "\\", text)
