"""What the gateway's Python costs, without sockets: its two protocols driven in one process, each call timed many times.

`python -m bench.gateway.in_process` prints µs a short request (its head seen before, its head new), a stream of ten tokens, and
a chunk of a long stream: the least of several runs, which differs little from one time to the next where whole proxies differ much.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from typing import Any

from exporter.exposition.block import Block
from exporter.gateway.admission.fleet import Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.measuring.recorder import Recorder
from exporter.gateway.relay.client import ClientConnection
from exporter.gateway.relay.engine import EngineConnection
from exporter.gateway.relay.pool import Pool
from exporter.gateway.relay.server import Relay
from exporter.gateway.routes import Routes
from exporter.settings import SliSettings
from exporter.settings.gateway import GatewaySettings

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 1.99.1\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.1\r\n"
    b"X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
    b"X-Stainless-Runtime-Version: 3.11.2\r\nAuthorization: Bearer none\r\nX-Stainless-Async: false\r\n"
    b"x-stainless-retry-count: 0\r\n%bx-stainless-read-timeout: 600\r\nContent-Length: %d\r\n\r\n"
)
BODY = (
    b'{"messages":[{"role":"user","content":"Say one word."}],"model":"tiny-qwen","max_tokens":1,"stream":%b}'
)
ANSWER_BODY = (
    b'{"id":"chatcmpl-3a0c","object":"chat.completion","created":1763000000,"model":"tiny-qwen","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Yes","refusal":null,"tool_calls":[]},"logprobs":null,'
    b'"finish_reason":"length","stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":null,'
    b'"usage":{"prompt_tokens":14,"total_tokens":15,"completion_tokens":1,"prompt_tokens_details":null},'
    b'"prompt_logprobs":null,"kv_transfer_params":null}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Fri, 14 Nov 2025 10:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\n"
    b"content-type: application/json\r\n\r\n%b" % (len(ANSWER_BODY), ANSWER_BODY)
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Fri, 14 Nov 2025 10:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = b'data: {"id":"chatcmpl-3a0c","object":"chat.completion.chunk","created":1763000000,"model":"tiny-qwen",%b}\n\n'


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


ROLE = _chunk(
    _EVENT
    % b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
)
TOKENS = [
    _chunk(
        _EVENT
        % b'"choices":[{"index":0,"delta":{"content":" %b"},"logprobs":null,"finish_reason":null,"token_ids":null}]'
        % (b"word" * (1 + n % 3))
    )
    for n in range(7)
]
FINISH = _chunk(
    _EVENT % b'"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length"}]'
)
USAGE = _chunk(_EVENT % b'"choices":[],"usage":{"prompt_tokens":14,"total_tokens":24,"completion_tokens":10}')
END = FINISH + USAGE + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: Any) -> None:
        """Keep what was said last."""
        self.last = data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """An address."""
        return ("127.0.0.1", 50000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Never."""
        return False


def _connections() -> tuple[ClientConnection, EngineConnection]:
    settings = GatewaySettings()
    backend = Backend("engine", "127.0.0.1", 1, models=["tiny-qwen"], standing=Standing.READY)
    fleet = Fleet([backend])
    loop = asyncio.new_event_loop()
    relay = Relay(
        settings,
        routes=Routes(),
        keys=None,
        gate=Gate(settings, fleet, later=loop.call_later),
        fleet=fleet,
        recorder=Recorder(Block(), Block(), SliSettings(), model_limit=100, patience=2.0),
        local=lambda exchange, target: None,
    )
    relay.loop = loop
    pool = backend.pool = Pool(backend, connect_timeout=1.0, loop=loop, poller=None)
    engine = EngineConnection(pool)
    engine.connection_made(_Wire())
    pool.put(engine, 0.0)
    client = ClientConnection(relay)
    client.connection_made(_Wire())
    loop.close()
    return client, engine


def _request(stream: bytes = b"false", extra: bytes = b"") -> bytes:
    body = BODY % stream
    return HEAD % (extra, len(body)) + body


def short(traced: bool) -> Callable[[int], None]:
    """Short requests; `traced`: each with a head that was never seen before."""
    client, engine = _connections()

    def run(times: int) -> None:
        if traced:
            requests = [_request(extra=b"traceparent: 00-%032x-%016x-01\r\n" % (n, n)) for n in range(times)]
        else:
            requests = [_request()] * times
        asked, answered = client.data_received, engine.data_received
        begin = time.perf_counter()
        for request in requests:
            asked(request)
            answered(ANSWER)
        run.seconds = time.perf_counter() - begin  # type: ignore[attr-defined]
        assert client.transport.last.endswith(ANSWER_BODY)  # type: ignore[attr-defined]

    return run


def streams(tokens: int) -> Callable[[int], None]:
    """Streams of so many tokens, each in a read of its own."""
    client, engine = _connections()
    pieces = [STREAM_HEAD, ROLE, *[TOKENS[n % len(TOKENS)] for n in range(tokens)], END]
    request = _request(b"true")

    def run(times: int) -> None:
        asked, answered = client.data_received, engine.data_received
        begin = time.perf_counter()
        for _ in range(times):
            asked(request)
            for piece in pieces:
                answered(piece)
        run.seconds = time.perf_counter() - begin  # type: ignore[attr-defined]
        assert client.transport.last.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")  # type: ignore[attr-defined]

    return run


CASES: dict[str, tuple[Callable[[], Callable[[int], None]], int, int]] = {
    "short": (lambda: short(traced=False), 200, 1),
    "traced": (lambda: short(traced=True), 200, 1),
    "stream10": (lambda: streams(10), 30, 1),
    "chunk": (lambda: streams(1000), 1, 1000),
}


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default=",".join(CASES))
    arguments.add_argument("--runs", type=int, default=200)
    arguments.add_argument("--profile", action="store_true", help="by function, of the first case")
    options = arguments.parse_args()
    print(sys.version.split()[0])
    for name in options.only.split(","):
        make, times, parts = CASES[name]
        run = make()
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(run, times)
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
            return
        taken = []
        for _ in range(options.runs):
            run(times)
            taken.append(run.seconds / times / parts)  # type: ignore[attr-defined]
        print(f"{name:10} {min(taken) * 1e6:7.2f} µs")


if __name__ == "__main__":
    main()
