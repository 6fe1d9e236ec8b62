"""An engine that costs nothing: `/health`, `/v1/models` and a real, moving metrics page, from memory.

`python -m bench.mock_engine PORT [ENGINES]`: the peer and the daemon scrape the very same thing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import islice

from bench.pages import CAPTURE, evolving

MODELS = json.dumps({"object": "list", "data": [{"id": "tiny-qwen", "object": "model"}]}).encode()


class Connection(asyncio.Protocol):
    """Keep-alive HTTP/1.1, just enough for scrapers that are polite."""

    pages: list[bytes]
    turn = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while b"\r\n\r\n" in self.pending:
            head, _, self.pending = self.pending.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if path == b"/metrics":
                kind = Connection
                kind.turn = (kind.turn + 1) % len(kind.pages)
                self.answer(kind.pages[kind.turn], b"text/plain; version=0.0.4; charset=utf-8")
            elif path == b"/v1/models":
                self.answer(MODELS, b"application/json")
            else:
                self.answer(b"", b"text/plain")

    def answer(self, body: bytes, kind: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
        self.transport.write(head + body)


async def main() -> None:
    """Serve until killed."""
    engines = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    moving = evolving(CAPTURE.read_text(encoding="utf-8"), engines=engines)
    Connection.pages = list(islice(moving, 60))
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
