"""Events are told apart as the standard says, checked against a line-by-line reading of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.reading.frames import OVERLAP, event_data, event_end, event_name

streams = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"data: x", b"data:", b"data", b": c", b"event: e", b"x\x85\xff"]
    ),
    max_size=14,
).map(b"".join)


def lines_of(stream: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines, and what is left."""
    *lines, rest = re.split(rb"\r\n|\n|\r", stream)
    return lines, rest


def dispatched(stream: bytes) -> list[bytes]:
    """The data of all events, by the letter of section 9.2.6."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in lines_of(stream)[0]:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    return found


def events_of(stream: bytes) -> list[bytes]:
    found, begin = [], 0
    while (end := event_end(stream, begin, returns=b"\r" in stream, last=True)) >= 0:
        found.append(stream[begin:end])
        begin = end
    return found


@given(streams)
def test_data_are_those_of_the_standard(stream: bytes) -> None:
    ours = [data for event in events_of(stream) if (data := event_data(event)) is not None]
    assert ours == dispatched(stream)


@given(streams, st.data())
def test_an_end_once_found_stands_whatever_follows(stream: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(stream)))
    end = event_end(stream[:cut], 0, returns=True)
    whole = event_end(stream, 0, returns=True)
    if end >= 0:
        assert end == whole
    else:
        assert event_end(stream, max(cut - OVERLAP, 0), returns=True) == whole


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  {}\n\n", b" {}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data\n\n", b""),
        (b": keep-alive\n\n", None),
        (b"event: ping\n\n", None),
        (b"\n\n", None),
        (b"database: x\n\n", None),
        (b"id: 1\r\ndata: x\r\n\r\n", b"x"),
        (b"data: x\x0b\x85y\n\n", b"x\x0b\x85y"),
    ],
)
def test_data_of_one_event(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data


def test_the_name_of_an_event_is_read_from_its_start_if_it_is_whole_there() -> None:
    assert event_name(b'event: response.completed\ndata: {"resp') == "response.completed"
    assert event_name(b"event: response.compl") == ""
    assert event_name(b"data: {}") == ""
