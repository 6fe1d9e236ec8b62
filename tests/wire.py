"""HTTP/1.1 as it stands on the wire, for tests that compare bytes and count how requests ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

LIMIT = 32 << 20
"""Longest line that is read, in bytes."""
UNREACHABLE = ("engine_unreachable", "engine_down", "engine_failed")
"""`code` of the gateway's answers of which the engine's absence is the cause."""
NOTHING = "nothing"
"""Not one byte of an answer came: no gateway that lives does that."""


@dataclass
class Answer:
    """What one client got for one request."""

    sent: float
    """When the request's last byte was handed over (`time.perf_counter`), as all times here."""
    status: int | None = None
    lines: list[bytes] = field(default_factory=list)
    """The status line and the header fields."""
    chunks: list[bytes] = field(default_factory=list)
    """Of a chunked body, as they were framed; any other body is one chunk."""
    trailers: list[bytes] = field(default_factory=list)
    whole: bool = False
    """Whether the end came that HTTP had announced."""
    left: bool = False
    """Whether the client closed before the end."""
    times: list[float] = field(default_factory=list)
    """When each chunk had come."""
    ended: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def fields(self) -> dict[str, str]:
        """Header fields by their name in small letters."""
        pairs = [line.decode("latin-1").partition(":") for line in self.lines[1:]]
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def streams(self) -> bool:
        return self.fields.get("content-type", "").startswith("text/event-stream")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of an answer that is one, or of the last event that tells of one; empty without."""
        with contextlib.suppress(ValueError):
            found = self.events[-1] if self.streams and self.events else json.loads(self.body)
            if isinstance(found, dict) and isinstance(found.get("error"), dict):
                return dict(found["error"])
        return {}

    @property
    def events(self) -> list[Any]:
        """The events of a stream that hold JSON; one that was cut in two is left out."""
        found = []
        for event in self.body.split(b"\n\n"):
            with contextlib.suppress(ValueError):
                found += [json.loads(line[6:]) for line in event.split(b"\n") if line.startswith(b"data: {")]
        return found

    @property
    def finished(self) -> bool:
        """Whether the stream said that it is at its end."""
        if self.body.endswith(b"data: [DONE]\n\n"):
            return True
        last = self.events[-1].get("type") if self.events else None
        return last in ("message_stop", "response.completed", "response.incomplete", "response.failed")

    @property
    def text(self) -> str:
        """What the model said."""
        parts = []
        for event in self.events if self.streams else [self.json]:
            for choice in event.get("choices", ()):
                told = choice.get("delta") or choice.get("message") or choice
                parts.append(told.get("content") or told.get("text") or "")
        return "".join(parts)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens as the engine counted them; empty where it did not say."""
        found = [event.get("usage") for event in (self.events if self.streams else [self.json])]
        return next((usage for usage in reversed(found) if usage), {})

    @property
    def ttft(self) -> float | None:
        """Seconds from the request to the first chunk with content."""
        for chunk, at in zip(self.chunks, self.times, strict=True):
            if _has_content(chunk):
                return at - self.sent
        return None

    @property
    def cause(self) -> str:
        """How it ended, in the words of the label `outcome`, as far as a client can tell."""
        if self.left:
            return "aborted"
        if self.status is None:
            return NOTHING
        code = self.error.get("code")
        if self.status >= 400:
            return _cause_of_status(self.status, code)
        if code == "engine_timeout":
            return "timeout"
        if code == "engine_lost" or not self.whole:
            return "truncated"
        if self.error:
            return "engine_error"
        if self.streams and not self.finished:
            return "truncated"
        return "success"


def _cause_of_status(status: int, code: object) -> str:
    if code in UNREACHABLE:
        return "engine_unreachable"
    if status == 503 or code == "queue_full":
        return "rejected"
    if status == 504:
        return "timeout"
    return "engine_error" if status >= 500 else "client_error"


def _has_content(chunk: bytes) -> bool:
    for line in chunk.split(b"\n"):
        if line.startswith(b"data: {"):
            with contextlib.suppress(ValueError):
                for choice in json.loads(line[6:]).get("choices", ()):
                    if choice.get("text") or (choice.get("delta") or {}).get("content"):
                        return True
    return False


class Client:
    """One keep-alive connection, made anew where it has ended."""

    def __init__(self, port: int, **fields: str) -> None:
        self.port = port
        self.fields = fields
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave at once, in the middle of an answer, too."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, b"", **options)

    async def post(self, path: str, body: Mapping[str, Any] | bytes, **options: Any) -> Answer:
        return await self.ask("POST", path, body, **options)

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes,
        *,
        fields: Mapping[str, str] | None = None,
        leave_after: int | None = None,
        leave_in: float | None = None,
        limit: float = 60.0,
    ) -> Answer:
        """Send a request and read its answer.

        `leave_after`: close the connection after so many chunks of a stream with content; `leave_in`: after so many
        seconds. TimeoutError: no end within `limit` seconds.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Host": "127.0.0.1", "Content-Type": "application/json", **self.fields, **(fields or {})}
        if data or method == "POST":
            head["Content-Length"] = str(len(data))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=LIMIT)
        reader, writer = self._streams
        answer = Answer(time.perf_counter())
        writer.write("\r\n".join(lines).encode() + data)
        try:
            async with asyncio.timeout(limit):
                try:
                    async with asyncio.timeout(leave_in):
                        await _read(reader, answer, leave_after, method)
                except TimeoutError:
                    if leave_in is None:
                        raise
                    answer.left = True
        except (OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, TimeoutError):
                raise
        answer.ended = time.perf_counter()
        if not answer.whole or answer.fields.get("connection") == "close":
            self.close()
        return answer


async def _read(reader: asyncio.StreamReader, answer: Answer, leave_after: int | None, method: str) -> None:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    answer.lines = head
    answer.status = int(head[0].split(b" ")[1])
    fields = answer.fields
    if fields.get("transfer-encoding") == "chunked":
        await _read_chunks(reader, answer, leave_after)
        return
    length = fields.get("content-length")
    if method == "HEAD" or answer.status in (204, 304):
        length = "0"
    body = await (reader.read() if length is None else reader.readexactly(int(length)))
    answer.chunks.append(body)
    answer.times.append(time.perf_counter())
    answer.whole = True


async def _read_chunks(reader: asyncio.StreamReader, answer: Answer, leave_after: int | None) -> None:
    contents = 0
    while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
        chunk = await reader.readexactly(size + 2)
        answer.chunks.append(chunk[:-2])
        answer.times.append(time.perf_counter())
        if leave_after is not None:
            contents += _has_content(chunk)
            if contents >= leave_after:
                answer.left = True
                return
    while line := (await reader.readuntil(b"\r\n"))[:-2]:
        answer.trailers.append(line)
    answer.whole = True


async def ask(port: int, body: Mapping[str, Any], path: str = "/v1/completions", **options: Any) -> Answer:
    """One request over a connection of its own."""
    async with Client(port) as client:
        return await client.post(path, body, **options)


class Tap:
    """A relay of bytes that keeps what has gone through: what one side sent, whatever the other made of it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self._kept: list[tuple[bytearray, bytearray]] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def exchange(self, marker: bytes) -> tuple[bytes, bytes]:
        """What both sides have said on the connection that carried `marker`; from now on its next exchange is kept."""
        ((sent, answered),) = [kept for kept in self._kept if marker in kept[0]]
        found = bytes(sent), bytes(answered)
        sent.clear()
        answered.clear()
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.target)
        kept = (bytearray(), bytearray())
        self._kept.append(kept)
        ways = [
            asyncio.create_task(_pump(reader, onward_writer, kept[0])),
            asyncio.create_task(_pump(onward_reader, writer, kept[1])),
        ]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for one in (writer, onward_writer):
            one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            kept.extend(data)
            writer.write(data)
            await writer.drain()


async def gather(*work: Awaitable[Answer]) -> list[Answer]:
    """All of them at once."""
    return list(await asyncio.gather(*work))
