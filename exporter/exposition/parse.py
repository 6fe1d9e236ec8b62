"""The complete parser of metrics pages: text 0.0.4 and OpenMetrics 1.0, as Prometheus reads them.

It is the slow path of `layout.PageReader`, and what the fast path is tested against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from exporter.errors import ExpositionError
from exporter.exposition.families import Families
from exporter.exposition.lines import SampleLine, read_number, read_sample
from exporter.exposition.model import MetricType, Series

SAMPLE_LIMIT = 100_000
LABEL_LIMIT = 64


Pair = tuple[str, str]
"""A label: name and value."""


class Sample(NamedTuple):
    """One sample; the timestamp is in seconds, None when the page gives none."""

    series: Series
    value: float
    timestamp: float | None


class Head(NamedTuple):
    """What stands before a sample's value.

    `text` ends in the space before the value; None when something follows the value, so that the line cannot be read by
    its head alone. `canonical`: the line may be printed as it is in either format.
    """

    series: Series
    text: bytes | None
    canonical: bool


@dataclass(slots=True)
class Memory:
    """What earlier pages of a source taught: heads by their text, one object per series; empty to begin with."""

    heads: dict[bytes, Head] = field(default_factory=dict)
    series: dict[Series, Series] = field(default_factory=dict)
    types: tuple[bool, dict[str, MetricType]] | None = None

    def prepare(self, families: Families, size: int) -> None:
        """Forget all when the families are others now, or when much more is known than a page of `size` lines has."""
        types = (families.openmetrics, families.types())
        if types != self.types or max(len(self.heads), len(self.series)) > 2 * size:
            self.heads.clear()
            self.series.clear()
            self.types = types


@dataclass(slots=True)
class ParsedPage:
    """A whole page. `samples`, `line_of` (from 0) and `heads` run in parallel, in the order of the page.

    Equal series are one object, duplicates included. `lines` are split at the newlines, carriage returns gone.
    """

    openmetrics: bool
    lines: list[bytes]
    families: Families
    samples: list[Sample] = field(default_factory=list)
    line_of: list[int] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)


def parse(
    body: bytes,
    *,
    openmetrics: bool = False,
    sample_limit: int = SAMPLE_LIMIT,
    label_limit: int = LABEL_LIMIT,
) -> ParsedPage:
    """Parse a page; raises ExpositionError with the line and one of the reasons parse, encoding, sample_limit, label_limit."""
    return parse_lines(
        split_lines(body, sample_limit),
        Memory(),
        openmetrics=openmetrics,
        sample_limit=sample_limit,
        label_limit=label_limit,
    )


def split_lines(body: bytes, sample_limit: int) -> list[bytes]:
    """The lines of a page, with CRLF taken as LF; the last one is empty when the page ends in a newline.

    A page of many more lines than `sample_limit` samples could need is refused before it takes memory.
    """
    line_limit = 4 * sample_limit + 1000
    if len(body) > line_limit and body.count(b"\n") > line_limit:
        raise ExpositionError(
            f"the page has more than {line_limit} lines, too many for the limit of {sample_limit} samples: "
            "raise scrape.sample_limit",
            line=line_limit + 1,
            reason="sample_limit",
        )
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n")
    return body.split(b"\n")


def parse_lines(
    lines: list[bytes], memory: Memory, *, openmetrics: bool, sample_limit: int, label_limit: int
) -> ParsedPage:
    """`parse` for a page in lines, with what earlier pages taught."""
    families = Families(openmetrics=openmetrics)
    page = ParsedPage(openmetrics, lines, families)
    page.line_of = _read_metadata(lines, families)
    if len(page.line_of) > sample_limit:
        raise ExpositionError(
            f"the page has {len(page.line_of)} samples, more than the limit of {sample_limit}: raise scrape.sample_limit",
            line=page.line_of[sample_limit] + 1,
            reason="sample_limit",
        )
    memory.prepare(families, len(page.line_of))
    heads, samples = page.heads, page.samples
    known = memory.heads
    pairs: dict[Pair, Pair] = {}
    for index in page.line_of:
        line = lines[index]
        cut = line.rfind(b" ") + 1
        text = line[:cut]
        head = known.get(text)
        if head is not None:
            try:
                samples.append(Sample(head.series, read_number(line[cut:]), None))
            except ValueError:
                pass  # told below, in the words of the complete grammar
            else:
                heads.append(head)
                continue
        try:
            parts = read_sample(line.decode(), openmetrics=openmetrics)
        except UnicodeDecodeError as error:
            raise _encoding_error(error, index) from None
        except ValueError as error:
            raise ExpositionError(str(error), line=index + 1) from None
        if len(parts.labels) > label_limit:
            raise ExpositionError(
                f"{parts.name} has {len(parts.labels)} labels, more than the limit of {label_limit}: raise scrape.label_limit",
                line=index + 1,
                reason="label_limit",
            )
        head = _head(parts, line, families, memory, pairs)
        heads.append(head)
        samples.append(Sample(head.series, parts.value, parts.timestamp))
        if head.text is not None and head.text == text:
            known[head.text] = head
    return page


def _head(
    parts: SampleLine, line: bytes, families: Families, memory: Memory, pairs: dict[Pair, Pair]
) -> Head:
    """What stands before the value; a label that is in `pairs` is the object there, a new one comes to them."""
    labels = tuple(sorted([pairs.get(pair) or _interned(pair, pairs) for pair in parts.labels]))
    name = intern(parts.name)
    family = families.of_sample(name)
    series = Series(name, labels, intern(family.text_name), family.type)
    series = memory.series.setdefault(series, series)
    text = None if parts.tail is None else line[: -parts.tail]  # a value is ASCII: its characters are bytes
    return Head(series, text, parts.canonical)


def _interned(pair: Pair, pairs: dict[Pair, Pair]) -> Pair:
    pair = intern(pair[0]), intern(pair[1])
    pairs[pair] = pair
    return pair


def _read_metadata(lines: list[bytes], families: Families) -> list[int]:
    """Read every comment line, and give the places of the others that are not blank."""
    openmetrics = families.openmetrics
    count = len(lines) - 1 if not lines[-1] else len(lines)
    found: list[int] = []
    for index in range(count):
        line = lines[index]
        first = line[:1]
        if first in b" \t" and not openmetrics:  # an empty line too
            line = line.lstrip(b" \t")
            if not line:
                continue
            first = line[:1]
        if first == b"#":
            if openmetrics and line == b"# EOF":
                if index != count - 1:
                    raise ExpositionError("expected nothing after # EOF", line=index + 2)
                return found
            try:
                families.read(line.decode(), index)
            except UnicodeDecodeError as error:
                raise _encoding_error(error, index) from None
            except ValueError as error:
                raise ExpositionError(str(error), line=index + 1) from None
        elif first:
            found.append(index)
        else:
            raise ExpositionError("OpenMetrics has no blank lines", line=index + 1)
    if openmetrics:
        raise ExpositionError("the page ends without # EOF: it was cut short", line=max(count, 1))
    return found


def _encoding_error(error: UnicodeDecodeError, index: int) -> ExpositionError:
    byte = error.object[error.start]
    return ExpositionError(
        f"byte 0x{byte:02x} at column {error.start + 1} is not valid UTF-8", line=index + 1, reason="encoding"
    )
