"""Sockets that may wait for each other: told at once while little comes, together while much does, and never lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from exporter.gateway.admission.fleet import Backend
from exporter.gateway.relay.coalescing import BUSY, Coalescing
from exporter.gateway.relay.engine import EngineConnection
from exporter.gateway.relay.polling import READABLE, Poller, RelayLoop, new_event_loop
from exporter.gateway.relay.pool import Pool
from exporter.gateway.relay.sockets import SocketTransport

PERIOD = 0.001


class Sockets:
    """Some that are coalesced, within an epoll."""

    def __init__(self, stack: contextlib.ExitStack, count: int) -> None:
        self.outer = stack.enter_context(select.epoll())
        self.now = 0.0
        self.handled: list[int] = []
        self.coalescing = Coalescing(self.outer, PERIOD, handle=self.handle, clock=lambda: self.now)
        stack.callback(self.coalescing.close)
        self.sockets = []
        self.peers = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            self.coalescing.epoll.register(ours, READABLE)
            self.sockets.append(ours)
            self.peers.append(theirs)

    def handle(self, events: list[tuple[int, int]]) -> None:
        for descriptor, _ in events:
            self.handled.append(descriptor)
            next(ours for ours in self.sockets if ours.fileno() == descriptor).recv(100)

    def hear(self, wakes: int) -> None:
        """As if they had woken us up so often, with one event each."""
        for _ in range(wakes):
            self.peers[0].send(b"x")
            self.coalescing.told(READABLE)

    def make_busy(self) -> None:
        self.hear(int(BUSY / 4) + 1)
        self.now += 0.25
        self.coalescing.pace()
        assert self.coalescing.busy
        self.handled.clear()

    @property
    def tells(self) -> bool:
        """Whether the epoll of all others knows of something."""
        return bool(self.outer.poll(0))


@pytest.fixture
def ten() -> Iterator[Sockets]:
    with contextlib.ExitStack() as stack:
        yield Sockets(stack, 10)


def test_while_little_comes_it_is_told_at_once(ten: Sockets) -> None:
    assert not ten.tells
    for peer in ten.peers:
        peer.send(b"x")
    assert ten.tells
    ten.coalescing.told(READABLE)
    assert len(ten.handled) == 10
    assert not ten.tells


def test_it_depends_on_how_often_they_wake_us_up(ten: Sockets) -> None:
    coalescing = ten.coalescing
    ten.hear(int(BUSY / 4))
    ten.now = 0.25
    coalescing.pace()
    assert not coalescing.busy, "just at the limit"
    ten.hear(int(BUSY / 4) + 1)
    coalescing.pace()
    assert not coalescing.busy, "no time has passed"
    ten.now = 0.5
    coalescing.pace()
    assert coalescing.busy
    ten.peers[0].send(b"x")
    assert not ten.tells, "only asked, from now on"
    for every, still in ((1, True), (3, False)):
        for number in range(300):
            if number % every == 0:
                ten.peers[0].send(b"x")
            ten.now += PERIOD * 1.1
            coalescing.serve(0)
        coalescing.pace()
        assert coalescing.busy is still, f"something in each {every}th period"
    ten.peers[0].send(b"x")
    assert ten.tells


def test_who_speaks_at_the_same_time_is_one_event(ten: Sockets) -> None:
    """Streams of one engine, say: they have been gathered already."""
    for _ in range(100):
        for peer in ten.peers:
            peer.send(b"x")
        ten.coalescing.told(READABLE)
    ten.now = 0.25
    ten.coalescing.pace()
    assert len(ten.handled) / ten.now > BUSY
    assert not ten.coalescing.busy


def test_they_are_served_a_few_at_a_time_and_then_not_for_a_period(ten: Sockets) -> None:
    coalescing = ten.coalescing
    ten.make_busy()
    for peer in ten.peers:
        peer.send(b"x")
    assert coalescing.serve(0) == 0.0, "others have their turn, then the rest"
    assert len(ten.handled) == 4
    assert coalescing.serve(0) == 0.0
    assert len(ten.handled) == 8
    assert coalescing.serve(0) == PERIOD
    assert len(ten.handled) == 10
    ten.now += PERIOD / 4
    ten.peers[0].send(b"x")
    assert coalescing.serve(0) == pytest.approx(PERIOD * 3 / 4)
    assert len(ten.handled) == 10


def test_nobody_s_tokens_wait_for_all_that_others_say(ten: Sockets) -> None:
    ten.make_busy()
    for peer in ten.peers:
        peer.send(b"x")
    ten.coalescing.serve(9)
    assert len(ten.handled) == 9


def test_a_clock_may_begin_at_nought(ten: Sockets) -> None:
    ten.make_busy()
    ten.now = 0.0
    ten.coalescing.serve(0)
    ten.now = 1.0
    ten.peers[0].send(b"x")
    ten.coalescing.serve(0)
    assert len(ten.handled) == 1


class Heard(asyncio.Protocol):
    """Keeps what comes, and says what it takes."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False
        self.fails = False

    def data_received(self, data: bytes) -> None:
        if self.fails:
            raise RuntimeError("on purpose")
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Streams:
    """Coalesced connections in a loop of ours."""

    def __init__(self, stack: contextlib.ExitStack, count: int, *, coalesce: float = PERIOD) -> None:
        self.poller = Poller(asyncio.get_running_loop(), coalesce=coalesce)
        stack.callback(self.poller.close)
        self.peers = []
        self.protocols = []
        self.transports = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            protocol = Heard()
            transport = SocketTransport(self.poller, ours, protocol)
            transport.coalesce(True)
            stack.callback(theirs.close)
            stack.callback(transport.abort)
            self.peers.append(theirs)
            self.protocols.append(protocol)
            self.transports.append(transport)

    async def make_busy(self) -> None:
        """Have them send, one after the other, until they are looked at together."""
        coalescing = self.poller.coalescing
        assert coalescing is not None
        end = time.monotonic() + 10.0
        while not coalescing.busy:
            assert time.monotonic() < end
            for peer in self.peers:
                peer.send(b".")
                await asyncio.sleep(0)
            self.poller.pace()


def in_a_loop_of_ours(test: object) -> object:
    def run() -> None:
        async def main() -> None:
            with contextlib.ExitStack() as stack:
                await test(stack)  # type: ignore[operator]
            await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            assert isinstance(runner.get_loop(), RelayLoop)
            runner.run(asyncio.wait_for(main(), 30))

    return run


@in_a_loop_of_ours
async def test_all_that_is_sent_arrives_at_once_or_together(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 20)
    streams.peers[0].send(b"first")
    await asyncio.sleep(0.05)
    assert streams.protocols[0].data == b"first"
    await streams.make_busy()
    before = [len(protocol.data) for protocol in streams.protocols]
    for number in range(100):
        for peer in streams.peers:
            peer.send(b"%02d" % number)
        await asyncio.sleep(0.0005)
    await asyncio.sleep(0.05)
    expected = b"".join(b"%02d" % number for number in range(100))
    for protocol, length in zip(streams.protocols, before, strict=True):
        assert protocol.data[length:].lstrip(b".") == expected


@in_a_loop_of_ours
async def test_timers_and_others_go_on_while_much_comes(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 20)
    await streams.make_busy()
    hasty = streams.transports[7]
    hasty.coalesce(False)
    stop = False

    async def chatter() -> None:
        while not stop:
            for peer in streams.peers[:7]:
                peer.send(b".")
            await asyncio.sleep(0)

    task = asyncio.create_task(chatter())
    length = len(streams.protocols[7].data)
    streams.peers[7].send(b"now")
    await asyncio.sleep(0.05)
    stop = True
    await task
    assert streams.protocols[7].data[length:].lstrip(b".") == b"now"


@in_a_loop_of_ours
async def test_with_nothing_to_do_it_sleeps_and_becomes_calm(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 20)
    await streams.make_busy()
    coalescing = streams.poller.coalescing
    assert coalescing is not None
    await asyncio.sleep(0.1)
    used = time.process_time()
    began = time.monotonic()
    await asyncio.sleep(0.5)
    assert time.process_time() - used < 0.5 * (time.monotonic() - began), "asked a thousand times a second"
    streams.poller.pace()
    assert not coalescing.busy
    streams.protocols[3].data = b""
    streams.peers[3].send(b"again")
    await asyncio.sleep(0.05)
    assert streams.protocols[3].data == b"again"


@in_a_loop_of_ours
async def test_one_that_fails_is_closed_and_the_others_go_on(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 3)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    await streams.make_busy()
    streams.protocols[1].fails = True
    for peer in streams.peers:
        peer.send(b"!")
    await asyncio.sleep(0.05)
    assert [type(error) for error in told] == [RuntimeError]
    assert [protocol.lost for protocol in streams.protocols] == [False, True, False]
    assert streams.protocols[0].data.endswith(b"!")
    assert streams.protocols[2].data.endswith(b"!")


@in_a_loop_of_ours
async def test_the_next_one_with_the_number_of_one_that_is_gone_is_told_at_once(
    stack: contextlib.ExitStack,
) -> None:
    streams = Streams(stack, 1)
    coalescing = streams.poller.coalescing
    assert coalescing is not None
    assert len(coalescing.sockets) == 1
    streams.transports[0].abort()
    assert not coalescing.sockets
    assert streams.transports[0].is_closing()
    streams.transports[0].coalesce(True)
    assert not coalescing.sockets, "what is closed waits for nothing"


@in_a_loop_of_ours
async def test_where_the_kernel_watches_no_more_it_is_told_at_once_as_before(
    stack: contextlib.ExitStack,
) -> None:
    streams = Streams(stack, 1)
    coalescing = streams.poller.coalescing
    assert coalescing is not None
    transport = streams.transports[0]
    transport.coalesce(False)

    class Full:
        def register(self, descriptor: int, events: int) -> None:
            raise OSError(errno.ENOSPC, "too many are watched")

    inner = coalescing.epoll
    coalescing.epoll = Full()  # type: ignore[assignment]
    transport.coalesce(True)
    coalescing.epoll = inner
    assert not coalescing.sockets
    streams.peers[0].send(b"x")
    await asyncio.sleep(0.05)
    assert streams.protocols[0].data == b"x"


@in_a_loop_of_ours
async def test_one_that_is_not_read_for_a_while_loses_nothing(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 2)
    await streams.make_busy()
    await asyncio.sleep(0.05)
    transport, protocol = streams.transports[0], streams.protocols[0]
    transport.pause_reading()
    protocol.data = b""
    streams.peers[0].send(b"kept")
    await asyncio.sleep(0.05)
    assert protocol.data == b""
    transport.resume_reading()
    await asyncio.sleep(0.05)
    assert protocol.data == b"kept"


@in_a_loop_of_ours
async def test_without_a_period_nothing_waits(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 2, coalesce=0.0)
    assert streams.poller.coalescing is None
    streams.poller.pace()
    streams.peers[0].send(b"x")
    await asyncio.sleep(0.05)
    assert streams.protocols[0].data == b"x"


@in_a_loop_of_ours
async def test_an_engine_s_connection_waits_for_others_until_its_answer_is_over(
    stack: contextlib.ExitStack,
) -> None:
    poller = Poller(asyncio.get_running_loop(), coalesce=PERIOD)
    stack.callback(poller.close)
    assert poller.coalescing is not None
    pool = Pool(
        Backend("engine", "127.0.0.1", 1),
        connect_timeout=1.0,
        loop=asyncio.get_running_loop(),
        poller=poller,
    )
    ours, theirs = socket.socketpair()
    stack.callback(theirs.close)
    engine = EngineConnection(pool)
    SocketTransport(poller, ours, engine)
    stack.callback(engine.abort)
    engine.coalesce(True)
    assert ours.fileno() in poller.coalescing.sockets
    pool.put(engine, 0.0)
    assert not engine.coalesced
    assert ours.fileno() not in poller.coalescing.sockets


@in_a_loop_of_ours
async def test_what_outlives_the_poller_ends_like_any_other(stack: contextlib.ExitStack) -> None:
    """TLS clients say that they are gone after the relay has stopped: their engines' connections are to be closed all the same."""
    streams = Streams(stack, 2)
    await streams.make_busy()
    streams.poller.close()
    for transport in streams.transports:
        transport.abort()
    await asyncio.sleep(0.01)
    assert all(protocol.lost for protocol in streams.protocols)


@in_a_loop_of_ours
async def test_a_second_poller_leaves_the_first_one_s_alone(stack: contextlib.ExitStack) -> None:
    streams = Streams(stack, 1)
    second = Poller(asyncio.get_running_loop(), coalesce=PERIOD)
    assert second.coalescing is None
    second.close()
    await streams.make_busy()
    streams.protocols[0].data = b""
    streams.peers[0].send(b"x")
    await asyncio.sleep(0.05)
    assert streams.protocols[0].data.lstrip(b".") == b"x"


@in_a_loop_of_ours
async def test_tokens_have_their_share_beside_others_that_keep_the_event_loop_busy(
    stack: contextlib.ExitStack,
) -> None:
    """As many of them are served as of others, also where each turn goes back to the event loop."""
    streams = Streams(stack, 40)
    loop = asyncio.get_running_loop()
    served = [0, 0]

    def handler(kind: int) -> Callable[[int], None]:
        def serve(_event: int) -> None:
            served[kind] += 1
            loop.call_soon(lambda: None)

        return serve

    for number in range(40):
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        stack.callback(theirs.close)
        theirs.send(b"x")  # and it is never read
        streams.poller.watch(ours.fileno(), READABLE, handler(number % 2))
        stack.callback(streams.poller.ignore, ours.fileno())
        streams.poller.coalesce(ours.fileno(), READABLE, on=bool(number % 2))
    for transport in streams.transports:
        transport.abort()
    coalescing = streams.poller.coalescing
    assert coalescing is not None
    coalescing.busy = True
    streams.poller.epoll.modify(coalescing.epoll.fileno(), 0)
    await asyncio.sleep(0.3)
    assert served[1] > served[0] / 2
