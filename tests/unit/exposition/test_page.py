from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from exporter.exposition.block import Block
from exporter.exposition.layout import PageReader
from exporter.exposition.model import Family
from exporter.exposition.page import Page, PassThroughBlock, negotiate

CAPTURE = (Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt").read_bytes()
UP = Family("vllm_exporter_engine_up", "gauge", "Whether the engine can serve.")


def test_a_page_is_its_blocks_one_after_the_other() -> None:
    block, source, reader = Block(), PassThroughBlock(), PageReader()
    page = Page([source, block])
    block.gauge(UP).set(1)
    reader.read(CAPTURE)
    source.show(reader.passthrough())
    text = page.render(openmetrics=False, gzip=False)
    assert text == source.render(openmetrics=False) + block.render(openmetrics=False)
    openmetrics = page.render(openmetrics=True, gzip=False)
    assert openmetrics.endswith(b"vllm_exporter_engine_up 1\n# EOF\n")
    assert list(openmetrics_families(openmetrics.decode()))
    for kind, plain in ((False, text), (True, openmetrics)):
        assert gzip.decompress(page.render(openmetrics=kind, gzip=True)) == plain


def test_an_empty_page_is_valid_in_both_formats() -> None:
    page = Page([Block(), PassThroughBlock()])
    assert page.render(openmetrics=False, gzip=False) == b""
    assert page.render(openmetrics=True, gzip=False) == b"# EOF\n"


def test_a_page_is_printed_again_only_after_a_change() -> None:
    block = Block()
    page = Page([block])
    slot = block.gauge(UP)
    slot.set(1)
    first = {kind: page.render(openmetrics=kind[0], gzip=kind[1]) for kind in ((False, False), (True, True))}
    assert all(page.render(openmetrics=kind[0], gzip=kind[1]) is body for kind, body in first.items())
    slot.set(1.0)
    assert all(page.render(openmetrics=kind[0], gzip=kind[1]) is body for kind, body in first.items())
    slot.set(0)
    assert page.render(openmetrics=False, gzip=False) != first[False, False]


def test_a_source_that_is_gone_shows_nothing() -> None:
    source, reader = PassThroughBlock(), PageReader()
    page = Page([source])
    reader.read(b"a 1\n")
    source.show(reader.passthrough())
    assert page.render(openmetrics=False, gzip=False) == b"a 1\n"
    version = source.version
    source.show(reader.passthrough())
    assert source.version == version
    source.show(None)
    assert page.render(openmetrics=False, gzip=False) == b""


def test_a_shown_page_stands_when_the_reader_goes_on() -> None:
    source, reader = PassThroughBlock(), PageReader()
    reader.read(b"a 1\n")
    source.show(reader.passthrough())
    reader.read(b"a 2\n")
    assert source.render(openmetrics=False) == b"a 1\n"


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0", True),
        ("Application/OpenMetrics-Text;Version=1.0.0;charset=UTF-8", True),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.3", False),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
            "text/plain;version=0.0.4;q=0.3",
            False,
        ),
        (";;,,q=1", False),
    ],
)
def test_openmetrics_is_sent_when_it_is_asked_for_before_text(accept: str | None, openmetrics: bool) -> None:
    chosen = negotiate(accept, None)
    assert chosen.openmetrics is openmetrics
    assert chosen.content_type == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if openmetrics
        else "text/plain; version=0.0.4; charset=utf-8"
    )


@pytest.mark.parametrize(
    ("header", "compressed"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br", False),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0,*", False),
        ("identity", False),
        ("x-gzip", True),
        ("gzip;q=2", False),
    ],
)
def test_gzip_is_sent_only_when_it_is_accepted(header: str | None, compressed: bool) -> None:
    assert negotiate(None, header).gzip is compressed
