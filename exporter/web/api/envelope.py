"""The form of every answer: status, data, errors, warnings; as bytes, compressed where the client takes that."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.web.api.model import ApiError

GZIP_BYTES = 1024
"""Smaller answers leave as they are."""
PIECE_BYTES = 1 << 18
"""Answers are put together in pieces of about this size, so that no single call holds the interpreter for long."""
_GZIP_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; `pieces` make up its body."""

    status: int
    pieces: Sequence[bytes]
    content_type: str = "application/json"
    gzip: bool = False

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.pieces))


def success(
    data: Any = None, *, printed: Iterable[str] = (), warnings: Sequence[str] = (), gzip: bool = False
) -> Answer:
    """Data, or JSON that was `printed` before."""
    pieces = list(printed) or [to_json(data)]
    tail = f',"warnings":{to_json(list(warnings))}' if warnings else ""
    return pack(200, ['{"status":"success","data":', *pieces, f"{tail}}}"], gzip=gzip)


def failure(error: ApiError) -> Answer:
    """What a client gets instead of data."""
    body = {"status": "error", "errorType": error.kind, "error": str(error)}
    return pack(error.status, [to_json(body)], gzip=False)


def pack(status: int, texts: Iterable[str], *, gzip: bool, content_type: str = "application/json") -> Answer:
    """An answer of these texts, one after the other."""
    pieces = list(_gathered(texts))
    if gzip and (len(pieces) > 1 or len(pieces[0]) >= GZIP_BYTES):
        pieces = list(_gathered_bytes(_compressed(pieces)))
        return Answer(status, pieces, content_type, gzip=True)
    return Answer(status, pieces, content_type)


def to_json(data: Any) -> str:
    """Compact JSON in UTF-8."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _gathered(texts: Iterable[str]) -> Iterable[bytes]:
    return _gathered_bytes(text.encode("utf-8", "replace") for text in texts)


def _gathered_bytes(parts: Iterable[bytes]) -> Iterable[bytes]:
    """The same bytes in fewer pieces."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _compressed(pieces: Iterable[bytes]) -> Iterable[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()
