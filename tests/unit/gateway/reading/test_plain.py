"""What goes to the client before it is read: never anything that reading it would have kept from it."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_pieces import HEAD, PIECES, chunk, event

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.plain import SHORT, SIZE_LINES, plain_events
from exporter.gateway.relay.answer import Answer, ahead
from exporter.gateway.relay.answer_heads import read_answer_head
from exporter.gateway.relay.bodies import ChunkedBody

ROLE = chunk(
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
)
TOKEN = chunk(event())


def goes_ahead(raw: bytes, *, hides: bool) -> bool:
    events = plain_events(raw)
    if events is None:
        return False
    head = read_answer_head(HEAD)
    fingerprints: dict[str, bytes] = {}
    out = ahead(exchange(), head, HEAD, raw, events, asked_usage=hides, extra=b"", fingerprints=fingerprints)
    assert out in (b"", HEAD + raw) or (hides and not events[-1])
    return out != b""


def exchange(method: str = "POST", dialect: Dialect = Dialect.CHAT) -> Exchange:
    return Exchange(Endpoint("/", dialect, frozenset({method})), method, "id", "127.0.0.1", 0.0)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("raw", [ROLE, TOKEN, ROLE + TOKEN, ROLE + TOKEN + TOKEN, ROLE + TOKEN * 9])
def test_the_beginning_of_a_stream_as_engines_send_it_goes_ahead(raw: bytes, hides: bool) -> None:
    assert goes_ahead(raw, hides=hides)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        TOKEN[:-1],
        TOKEN[:40],
        TOKEN + b"1",
        TOKEN + b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        TOKEN + b"\r\n",
        b"0" + TOKEN,
        TOKEN.replace(b"\r\n", b";a=b\r\n", 1),
        TOKEN.replace(b"\r\n", b" \r\n", 1),
        b"+" + TOKEN,
        b"0x" + TOKEN,
        b"-1\r\n\n\n\r\n",
        b"ffffffff\r\n\n\n\r\n",
        chunk(event() + event()),
        chunk(event()[:-1]),
        chunk(event()[:-2] + b"\r\n\r\n"),
        chunk(event() + b"\n"),
        chunk(b"\n\n\n" + event()),
        chunk(event()[:9] + b"\r" + event()[9:]),
    ],
)
def test_what_is_no_whole_events_in_plain_chunks_is_read_first(raw: bytes, hides: bool) -> None:
    assert not goes_ahead(raw, hides=hides)


@pytest.mark.parametrize(
    "raw",
    [
        chunk(event(finish='"stop"')),
        chunk(event().replace(b"null", b' "length"')),
        chunk(event(more=',"usage":{"prompt_tokens":1,"completion_tokens":2}')),
        chunk(event(more=',"usage" : null')),
        chunk(event(more=r',"us\u0061ge":{"prompt_tokens":1,"completion_tokens":2}')),
        TOKEN + chunk(event(finish='"stop"')),
    ],
)
def test_counts_and_the_end_of_a_choice_are_read_first_where_they_may_have_to_be_hidden(raw: bytes) -> None:
    assert not goes_ahead(raw, hides=True)
    assert goes_ahead(raw, hides=False)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=6).map(b"".join), st.booleans())
def test_what_goes_ahead_is_what_would_have_gone_after_it_was_read(raw: bytes, hides: bool) -> None:
    if not goes_ahead(raw, hides=hides):
        return
    of = exchange()
    answer = Answer(
        of, read_answer_head(HEAD), HEAD, None, modern=True, asked_usage=hides, extra=b"",
        gaps=lambda model: lambda seconds: None, fingerprints={},
    )  # fmt: skip
    answer.head_out = b""
    body = ChunkedBody()
    content = body.feed(raw)
    if body.complete:  # a whole stream: test_repeated's
        return
    out = answer.came(raw, content, False, 1.0)
    assert answer.events is not None
    assert answer.events.calm
    assert ChunkedBody().feed(out) == content
    with pytest.raises(httptools.HttpParserError):
        body.feed(b"no chunk")  # what comes next begins a chunk


@pytest.mark.parametrize(
    ("head", "of"),
    [
        (HEAD.replace(b"200 OK", b"500 Oh"), exchange()),
        (HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 9"), exchange()),
        (HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), exchange()),
        (HEAD, exchange("HEAD")),
        (HEAD, exchange(dialect=Dialect.OPAQUE)),
    ],
)
def test_answers_of_other_kinds_are_read_first(head: bytes, of: Exchange) -> None:
    assert ahead(
        exchange(),
        read_answer_head(HEAD),
        HEAD,
        TOKEN,
        [event()],
        asked_usage=True,
        extra=b"X: y\r\n",
        fingerprints={},
    ) == (HEAD[:-2] + b"X: y\r\n\r\n" + TOKEN)
    assert not ahead(
        of, read_answer_head(head), head, TOKEN, [event()], asked_usage=True, extra=b"", fingerprints={}
    )


def test_a_chunk_s_size_is_the_one_that_its_line_says() -> None:
    """Of every size around those that have a digit more than the one before, and where lines are no longer at hand."""
    for size in [*range(3, 40), *range(240, 280), *range(2030, 2070), *range(4090, 4100), 70_000]:
        whole = b"x" * (size - 2) + b"\n\n"
        assert plain_events(chunk(whole)) == [whole]
        for line in (b"%x" % (size - 1), b"%x" % (size + 1), b"0%x" % size, b"", b"-", b"-" * size):
            assert plain_events(line + b"\r\n" + whole + b"\r\n") is None


def test_lines_at_hand_are_those_of_chunks_and_begin_nothing_else() -> None:
    lengths = {len(chunk(b"x" * size)): b"%x\r\n" % size for size in range(SHORT)}
    for length, line in enumerate(SIZE_LINES):
        if length in lengths:
            assert line == lengths[length]
        else:
            assert len(line) > length, "no chunk is so long: it could begin with a shorter one"
