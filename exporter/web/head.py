"""The short way in: request heads so plain that they need no general parser.

A scraper sends `GET /metrics HTTP/1.1` with a handful of plain headers, the same bytes each time. Whatever is in any
way unusual is not judged here: `read_head` gives None and the general parser decides.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from exporter.web.limits import HEAD_BYTES, HEADERS

_REQUEST_LINE = re.compile(rb"GET (/metrics(?:/prometheus)?) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x20-\x7e\t]*)")
_UNUSUAL = frozenset(
    {"content-length", "transfer-encoding", "expect", "upgrade", "trailer", "proxy-connection"}
)
_ONCE = frozenset({"host", "authorization", "connection"})


class Head(NamedTuple):
    """What the answer depends on."""

    path: str
    close: bool
    accept: str | None
    accept_encoding: str | None
    authorization: str | None


def read_head(head: bytes) -> Head | None:
    """Read one complete head, with its empty line at the end; None when it is not of the plain kind."""
    if len(head) > HEAD_BYTES or not head.endswith(b"\r\n\r\n"):
        return None
    line, *fields = head[:-4].split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None or len(fields) > HEADERS:
        return None
    values: dict[str, str] = {}
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is None:
            return None
        name, value = match[1].decode().lower(), match[2].decode().strip()
        if name in _UNUSUAL or (name in _ONCE and name in values):
            return None
        values[name] = f"{values[name]}, {value}" if name in values else value
    connection = values.get("connection", "keep-alive").lower()
    if not values.get("host") or connection not in ("keep-alive", "close"):
        return None
    return Head(
        path=request[1].decode(),
        close=connection == "close",
        accept=values.get("accept"),
        accept_encoding=values.get("accept-encoding"),
        authorization=values.get("authorization"),
    )
