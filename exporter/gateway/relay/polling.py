"""Sockets on the event loop's own epoll, past the event loop: asyncio's protocols and transports at a third of their price.

A selector loop spends some 6 µs of Python on a readable socket: a turn of the loop, a selector key, a handle, a context, a
receive buffer of 256 KiB. A relay has two of them for each request and one for each token. So `new_event_loop` makes one whose
selector hands the relay's sockets straight from the kernel's list to their transports, and comes back to the loop when there is
something for it; all else is asyncio's as ever. In any other selector loop the relay has an epoll of its own, nested in the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import select
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, TypeVarTuple

from exporter.gateway.relay.coalescing import Coalescing, Events

_AT_ONCE: Final = 128
"""Events taken from the kernel by one call."""
_ACCEPTS: Final = 64
"""Clients accepted in one go."""
_ACCEPT_PAUSE: Final = 1.0
"""Seconds without accepting after the process ran out of files."""
_OUT_OF_FILES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
READABLE: Final = getattr(select, "EPOLLIN", 1)
WRITABLE: Final = getattr(select, "EPOLLOUT", 4)
HANG_UP: Final = getattr(select, "EPOLLRDHUP", 8192)
"""The other side sends no more; the kernel tells a broken connection unasked."""

Handler = Callable[[int], None]
Ts = TypeVarTuple("Ts")


class _Registered(Mapping[Any, selectors.SelectorKey]):
    """What is registered in a selector, by descriptor or file object: asyncio looks for either."""

    def __init__(self, selector: _Selector) -> None:
        self._selector = selector

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def __iter__(self) -> Iterator[Any]:
        return iter([key.fileobj for key in self._selector.registered()])

    def __len__(self) -> int:
        return len(self._selector.registered())


class _Selector(selectors.BaseSelector):
    """asyncio's selector, which serves the relay's sockets while it looks."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        self.wanted = False
        """Whether something was scheduled in the event loop since it looked here."""
        self.failed: Callable[[Exception], None] = _raise
        self.coalescing: Coalescing | None = None
        self._served = 0
        """Events that the last look at the epoll gave."""
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors`."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, descriptor, events, data)
        self.epoll.register(descriptor, _to_epoll(events))
        self._keys[descriptor] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See `selectors`."""
        key = self._keys.pop(self._descriptor(fileobj))
        with contextlib.suppress(OSError):  # closed before it was unregistered, as in the standard library
            self.epoll.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors`."""
        key = self._keys[self._descriptor(fileobj)]
        if events != key.events:
            self.epoll.modify(key.fd, _to_epoll(events))
        key = self._keys[key.fd] = key._replace(events=events, data=data)
        return key

    def _descriptor(self, fileobj: Any) -> int:
        if isinstance(fileobj, int):
            return fileobj
        descriptor: int = fileobj.fileno()
        if descriptor < 0:
            descriptor = next((fd for fd, key in self._keys.items() if key.fileobj is fileobj), -1)
        return descriptor

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """See `selectors`."""
        return self._keys[self._descriptor(fileobj)]

    def registered(self) -> list[selectors.SelectorKey]:
        """All that is registered."""
        return list(self._keys.values())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """See `selectors`."""
        return _Registered(self)

    def close(self) -> None:
        """See `selectors`."""
        self.stop_coalescing()
        self.epoll.close()
        self._keys.clear()
        self.handlers.clear()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Serve the relay's sockets until there is something for the event loop: another socket, a callback, its time."""
        poll = self.epoll.poll
        handlers = self.handlers
        others: list[tuple[selectors.SelectorKey, int]] = []
        end = 0.0 if timeout is None else monotonic() + timeout
        left = -1.0 if timeout is None else max(timeout, 0.0)
        self.wanted = False
        coalescing = self.coalescing
        while True:
            wait = left
            in_time = True  # for the event loop, where nothing comes
            if coalescing is not None and coalescing.busy:
                pause = coalescing.serve(self._served)
                if self.wanted:
                    pause = 0.0
                if left < 0.0 or pause < left:
                    wait = pause
                    in_time = False
            events = poll(wait, _AT_ONCE)
            self._served = len(events)
            for descriptor, event in events:
                handler = handlers.get(descriptor)
                if handler is not None:
                    try:
                        handler(event)
                    except Exception as error:  # noqa: BLE001  one connection's, and not the end of all
                        self.failed(error)
                    continue
                key = self._keys.get(descriptor)
                if key is not None:
                    others.append((key, _from_epoll(event) & key.events))
            if others or self.wanted or (in_time and not events):
                return others
            if timeout is not None:
                left = end - monotonic()
                if left <= 0.0:
                    return others

    def coalesce(self, period: float) -> None:
        """Have sockets whose events wait for each other, for so many seconds, from now on."""
        coalescing = self.coalescing = Coalescing(self.epoll, period, handle=self._serve, clock=monotonic)
        self.handlers[coalescing.epoll.fileno()] = coalescing.told

    def stop_coalescing(self) -> None:
        """Have none any more."""
        coalescing = self.coalescing
        if coalescing is not None:
            self.coalescing = None
            del self.handlers[coalescing.epoll.fileno()]
            coalescing.close()

    def _serve(self, events: Events) -> None:
        """Hand on what coalesced sockets have."""
        handlers = self.handlers
        for descriptor, event in events:
            handler = handlers.get(descriptor)
            if handler is not None:  # else another's handler closed it
                try:
                    handler(event)
                except Exception as error:  # noqa: BLE001  one connection's, and not the end of all
                    self.failed(error)


def _raise(error: Exception) -> None:
    raise error


def _to_epoll(events: int) -> int:
    return (READABLE if events & selectors.EVENT_READ else 0) | (
        WRITABLE if events & selectors.EVENT_WRITE else 0
    )


def _from_epoll(events: int) -> int:
    return (selectors.EVENT_WRITE if events & ~READABLE else 0) | (
        selectors.EVENT_READ if events & ~WRITABLE else 0
    )


class RelayLoop(asyncio.SelectorEventLoop):
    """An event loop that serves a relay's sockets without a detour."""

    def __init__(self) -> None:
        self.own_selector = _Selector()
        super().__init__(self.own_selector)
        self.own_selector.failed = self._connection_failed

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See asyncio; and the selector gives way."""
        self.own_selector.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio; and the selector gives way."""
        self.own_selector.wanted = True
        return super().call_at(when, callback, *args, context=context)

    def _connection_failed(self, error: Exception) -> None:
        self.call_exception_handler({"message": "in a connection of the gateway", "exception": error})


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop for a daemon with a gateway, as `loop_factory` of `asyncio.Runner`; asyncio's own where there is no epoll."""
    return RelayLoop() if hasattr(select, "epoll") else asyncio.new_event_loop()


class Poller:
    """The relay's sockets in a running event loop."""

    __slots__ = ("_own", "_selector", "coalescing", "epoll", "handlers", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, coalesce: float = 0.0) -> None:
        """`coalesce`: seconds for which events may wait for each other, where that is allowed; 0, or another loop than ours, for none."""
        self.loop = loop
        self._own: _Selector | None = None
        self.coalescing: Coalescing | None = None
        if isinstance(loop, RelayLoop):
            selector = loop.own_selector
            if coalesce and selector.coalescing is None:
                selector.coalesce(coalesce)
                self.coalescing = selector.coalescing
        else:
            selector = self._own = _Selector()
            selector.failed = self._failed
            loop.add_reader(selector.epoll.fileno(), selector.select, 0)
        self._selector = selector
        self.handlers = selector.handlers
        self.epoll = selector.epoll

    def _failed(self, error: Exception) -> None:
        self.loop.call_exception_handler({"message": "in a connection of the gateway", "exception": error})

    def watch(self, descriptor: int, events: int, handler: Handler) -> None:
        """Call `handler` with what has happened when the socket is ready for one of `events`, or has failed."""
        if descriptor in self.handlers:
            self._epoll_of(descriptor).modify(descriptor, events)
        else:
            self.epoll.register(descriptor, events)
            self.handlers[descriptor] = handler

    def ignore(self, descriptor: int) -> None:
        """Hear no more of a socket."""
        if self.handlers.pop(descriptor, None) is not None:
            epoll = self._epoll_of(descriptor)
            if self.coalescing is not None:
                self.coalescing.sockets.discard(descriptor)
            epoll.unregister(descriptor)

    def coalesce(self, descriptor: int, events: int, *, on: bool) -> None:
        """Whether what a socket has may wait for others, from now on; `events` as it is watched. Nothing for one that is ignored."""
        coalescing = self.coalescing
        if coalescing is None or descriptor not in self.handlers or on is (descriptor in coalescing.sockets):
            return
        here, there = (self.epoll, coalescing.epoll) if on else (coalescing.epoll, self.epoll)
        try:
            there.register(descriptor, events)
        except OSError:
            return  # the kernel takes no more: it is heard where it is
        here.unregister(descriptor)
        (coalescing.sockets.add if on else coalescing.sockets.discard)(descriptor)

    def _epoll_of(self, descriptor: int) -> select.epoll:
        coalescing = self.coalescing
        return self.epoll if coalescing is None or descriptor not in coalescing.sockets else coalescing.epoll

    def pace(self) -> None:
        """See how much comes from coalesced sockets: to be called now and then."""
        if self.coalescing is not None:
            self.coalescing.pace()

    def listen(
        self,
        listener: socket.socket,
        accepted: Callable[[socket.socket], object],
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """Accept connections from now on. `make_room` is asked to close some where no more files may be opened."""
        listener.setblocking(False)

        def accept(event: int) -> None:
            for _ in range(_ACCEPTS):
                try:
                    connection, _address = listener.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    return
                except OSError as error:
                    if error.errno not in _OUT_OF_FILES:
                        raise
                    self.ignore(listener.fileno())
                    self.loop.call_later(0.0 if make_room() else _ACCEPT_PAUSE, watch)
                    return
                accepted(connection)

        def watch() -> None:
            if listener.fileno() >= 0:
                self.watch(listener.fileno(), READABLE, accept)

        watch()

    def close(self) -> None:
        """Stop for good; what is still watched can still be ignored."""
        if self.coalescing is not None:
            self._selector.stop_coalescing()
        if self._own is not None:
            self.loop.remove_reader(self.epoll.fileno())
            self._own.close()
