"""Sockets on the event loop's epoll: they do what asyncio's own transports do."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from exporter.gateway.relay.polling import Poller, RelayLoop, new_event_loop
from exporter.gateway.relay.sockets import SocketTransport, connect

PATIENCE = 5.0


class Recording(asyncio.Protocol):
    """A protocol that keeps what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.told: list[str] = []
        self.news = asyncio.Event()
        self.error: Exception | None = None
        self.transport: asyncio.Transport
        self.fails = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.say("made")

    def data_received(self, data: bytes) -> None:
        if self.fails:
            raise RuntimeError("on purpose")
        self.data += data
        self.news.set()

    def eof_received(self) -> None:
        self.say("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.say("lost")

    def pause_writing(self) -> None:
        self.say("pause")

    def resume_writing(self) -> None:
        self.say("resume")

    def say(self, what: str) -> None:
        self.told.append(what)
        self.news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                self.news.clear()
                await self.news.wait()


Both = Callable[[Poller, SocketTransport, Recording, socket.socket], Coroutine[Any, Any, None]]


def on_both_loops(test: Both) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            ours, theirs = socket.socketpair()
            poller = Poller(asyncio.get_running_loop())
            protocol = Recording()
            transport = SocketTransport(poller, ours, protocol)
            theirs.setblocking(False)
            try:
                await test(poller, transport, protocol, theirs)
            finally:
                transport.abort()
                theirs.close()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                poller.close()

        for factory in (new_event_loop, asyncio.SelectorEventLoop):
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(main())

    return run


def test_there_is_a_loop_for_it() -> None:
    loop = new_event_loop()
    assert isinstance(loop, RelayLoop)
    loop.close()


@on_both_loops
async def test_what_comes_is_received_and_what_is_written_goes_out(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    peer.send(b"hello")
    await protocol.until(lambda: protocol.data == b"hello")
    transport.write(b"world")
    assert await loop.sock_recv(peer, 10) == b"world"


@on_both_loops
async def test_a_great_deal_is_written_as_fast_as_it_is_read(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    data = bytes(range(256)) * 16384
    transport.write(data[:1000])
    transport.write(data[1000:])
    assert protocol.told[-1] == "pause"
    assert transport.get_write_buffer_size() > 0
    transport.close()
    got = b""
    while piece := await loop.sock_recv(peer, 1 << 16):
        got += piece
    assert got == data
    await protocol.until(lambda: protocol.told[-1] == "lost")
    assert "resume" in protocol.told
    assert protocol.error is None


@on_both_loops
async def test_the_end_of_the_other_side_is_told(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    peer.send(b"last")
    peer.close()
    await protocol.until(lambda: "lost" in protocol.told)
    assert protocol.data == b"last"
    assert protocol.told == ["made", "eof", "lost"]
    transport.write(b"nobody reads this")
    assert transport.is_closing()


@on_both_loops
async def test_nothing_is_read_while_reading_is_paused(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    transport.pause_reading()
    peer.send(b"abc")
    await asyncio.sleep(0.01)
    assert protocol.data == b""
    transport.resume_reading()
    await protocol.until(lambda: protocol.data == b"abc")


@on_both_loops
async def test_a_paused_connection_that_hangs_up_is_told_of_once_and_costs_no_time(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    transport.pause_reading()
    peer.send(b"last")
    peer.close()
    await protocol.until(lambda: "eof" in protocol.told)
    assert poller.handlers == {}
    assert protocol.told == ["made", "eof"]
    transport.resume_reading()
    await protocol.until(lambda: "lost" in protocol.told)
    assert protocol.data == b"last"


@on_both_loops
async def test_the_end_of_ours_comes_after_all_that_was_written(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    transport.write(b"x" * (1 << 20))
    transport.write_eof()
    size = 0
    while piece := await loop.sock_recv(peer, 1 << 16):
        size += len(piece)
    assert size == 1 << 20
    peer.send(b"answer")
    await protocol.until(lambda: protocol.data == b"answer")


@on_both_loops
async def test_a_protocol_that_fails_loses_its_connection_and_nothing_else(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    protocol.fails = True
    peer.send(b"x")
    await protocol.until(lambda: "lost" in protocol.told)
    assert isinstance(failures[0]["exception"], RuntimeError)


@on_both_loops
async def test_the_event_loop_has_its_turn_while_sockets_are_busy(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def talk() -> None:
        peer.setblocking(True)
        while not stop.is_set():
            peer.send(b"x" * 100)

    chatter = threading.Thread(target=talk)
    chatter.start()
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(10):
                await asyncio.sleep(0.001)
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        called = asyncio.Event()
        threading.Thread(target=lambda: loop.call_soon_threadsafe(called.set)).start()
        await asyncio.wait_for(called.wait(), PATIENCE)
    finally:
        stop.set()
        chatter.join()
    assert protocol.data


@on_both_loops
async def test_connections_are_accepted_and_made(
    poller: Poller, transport: SocketTransport, protocol: Recording, peer: socket.socket
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[Recording] = []

    def accept(connection: socket.socket) -> None:
        accepted.append(Recording())
        SocketTransport(poller, connection, accepted[-1])

    poller.listen(listener, accept)
    port = listener.getsockname()[1]
    mine = await connect(poller, "127.0.0.1", port, Recording)
    named = await connect(poller, "localhost", port, Recording)
    mine.transport.write(b"hi")
    while len(accepted) < 2:
        await asyncio.sleep(0)
    await accepted[0].until(lambda: accepted[0].data == b"hi")
    assert accepted[0].transport.get_extra_info("peername") == mine.transport.get_extra_info("sockname")
    poller.ignore(listener.fileno())
    listener.close()
    with pytest.raises(OSError):
        await connect(poller, "127.0.0.1", port, Recording)
    for one in (mine, named, *accepted):
        one.transport.abort()
    await asyncio.sleep(0)


class Crowded:
    """A listener whose process may open no more files, but for so many."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.free = 0

    def setblocking(self, flag: bool) -> None:
        self.listener.setblocking(flag)

    def fileno(self) -> int:
        return self.listener.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.free:
            raise OSError(errno.EMFILE, "Too many open files")
        self.free -= 1
        return self.listener.accept()


def test_without_files_others_make_room_for_who_comes() -> None:
    async def main() -> None:
        poller = Poller(asyncio.get_running_loop())
        accepted: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        with socket.create_server(("127.0.0.1", 0)) as real:
            listener = Crowded(real)

            def make_room() -> bool:
                listener.free += 1
                return True

            poller.listen(cast("socket.socket", listener), accepted.set_result, make_room)
            with socket.create_connection(real.getsockname()):
                async with asyncio.timeout(0.9):  # not the pause of a second
                    (await accepted).close()
            poller.ignore(real.fileno())
        poller.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def test_other_sockets_are_looked_up_by_object_and_by_descriptor() -> None:
    loop = new_event_loop()
    ours, theirs = socket.socketpair()
    try:
        assert isinstance(loop, RelayLoop)
        told: list[int] = []
        loop.add_reader(ours, told.append, 1)
        loop.add_reader(ours, told.append, 2)
        registered = loop.own_selector.get_map()
        assert registered[ours] is registered[ours.fileno()]
        assert registered.get(theirs) is None
        assert ours in list(registered)
        theirs.send(b"x")
        loop.run_until_complete(asyncio.sleep(0.01))
        assert set(told) == {2}
        assert loop.remove_reader(ours)
        assert not loop.remove_reader(ours)
    finally:
        ours.close()
        theirs.close()
        loop.close()


@on_both_loops
async def test_what_is_closed_is_gone_without_a_look_for_garbage(
    poller: Poller, _transport: SocketTransport, _protocol: Recording, _peer: socket.socket
) -> None:
    """A thousand clients that come and go would else hold some MB until then."""
    own, other = socket.socketpair()
    other.close()
    protocol = Recording()
    SocketTransport(poller, own, protocol)
    gone = weakref.ref(protocol)
    del protocol
    gc.disable()
    try:
        async with asyncio.timeout(PATIENCE):
            while gone() is not None:
                await asyncio.sleep(0.001)
    finally:
        gc.enable()
