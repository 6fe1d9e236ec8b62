"""The text formats, in and out: bytes ↔ samples, no I/O.

In: `PageReader` for a source that is read again and again, `parse` for a single page. Out: `Block` for our own series,
`PassThroughBlock` for the source's, `Page` for all of `/metrics`, `negotiate` for what a client accepts.
"""

from exporter.exposition.block import Block, HistogramSlot, Slot
from exporter.exposition.convert import PassThrough
from exporter.exposition.layout import Layout, PageReader, Row
from exporter.exposition.model import Family, MetricType, Series
from exporter.exposition.negotiation import Format, negotiate
from exporter.exposition.page import Page, PassThroughBlock, Renderable
from exporter.exposition.parse import ParsedPage, Sample, parse

__all__ = [
    "Block",
    "Family",
    "Format",
    "HistogramSlot",
    "Layout",
    "MetricType",
    "Page",
    "PageReader",
    "ParsedPage",
    "PassThrough",
    "PassThroughBlock",
    "Renderable",
    "Row",
    "Sample",
    "Series",
    "Slot",
    "negotiate",
    "parse",
]
