"""Pieces of streams as an engine may send them, and as none should."""

from __future__ import annotations

from hypothesis import strategies as st

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(text: str = "a", key: str = "content", finish: str = "null", more: str = "") -> bytes:
    return (
        f'data: {{"id":"c-1","choices":[{{"index":0,"delta":{{"{key}":"{text}"}},"finish_reason":{finish}}}]{more}}}\n\n'
    ).encode("utf-8", "surrogatepass")


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


COUNTS = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
PIECES = st.one_of(
    st.text(max_size=8).map(lambda text: chunk(event(text))),
    st.integers(90, 300).map(lambda size: chunk(event("x" * size))),
    st.text(max_size=4).map(lambda text: chunk(event(text, "reasoning"))),
    st.sampled_from(
        [
            chunk(event(finish='"stop"')),
            chunk(event(more=',"usage":{"prompt_tokens":1,"completion_tokens":2}')),
            chunk(event(r"\n")),
            chunk(event("\n")),
            chunk(event('b","role":"c')),
            chunk(event("")),
            chunk(event("a") + event("b")),
            chunk(event("a")[:40]) + chunk(event("a")[40:]),
            chunk(b"data: [DONE]\n\n"),
            chunk(b": comment\n\n"),
            chunk(event() + b"\n"),
            chunk(b"\n"),
            chunk(b'data: {"choices":[],"us\\u0061ge":{"prompt_tokens":1,"completion_tokens":2}}\n\n'),
            chunk(COUNTS),
            chunk(chunk(event("inner"))),
            b"00" + chunk(event("zeros")),
            b"5;a=b\r\ndata:\r\n",
        ]
    ),
    st.binary(max_size=9).map(lambda text: chunk(event("#").replace(b"#", text))),
)
