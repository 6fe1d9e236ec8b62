"""Coalescing, as network cards do with their interrupts: where thousands of tokens pass in a second, their sockets are looked at together.

One token wakes us up, is passed on, wakes its client up, and all three go to sleep again, which costs more than the rest. So the sockets
of long streams have an epoll of their own. While little comes it stands in that of all others and tells at once; while much comes it is
asked once a period. What somebody waits for, an answer's beginning before all, is never in it.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

BUSY: Final = 2000.0
"""Events a second from which on they are looked at together: at fewer, looking each millisecond would cost more than it saves."""
CALM: Final = 1000.0
"""Events a second under which they are told at once again."""
_AT_ONCE: Final = 4
"""Served in a row before others have their turn: an answer's beginning waits for so many tokens at most."""


class Coalescing:
    """Sockets whose events may wait for each other, within `outer`, the epoll of all others."""

    __slots__ = ("_outer", "_paced_at", "_period", "_told", "due", "epoll", "sockets")

    def __init__(self, outer: select.epoll, period: float, now: float) -> None:
        """`period`, `now`: seconds, on a monotonic clock, as everywhere here."""
        self.epoll = select.epoll()
        self.sockets: set[int] = set()
        self.due = 0.0
        """When they are looked at next; 0 while `outer` tells of them at once."""
        self._outer = outer
        self._period = period
        self._told = 0
        self._paced_at = now
        outer.register(self.epoll.fileno(), select.EPOLLIN)

    def look(self) -> list[tuple[int, int]]:
        """A few of the sockets that are ready, and for what."""
        events = self.epoll.poll(0, _AT_ONCE)
        self._told += len(events)
        return events

    def serve(self, handle: Callable[[list[tuple[int, int]]], None], clock: Callable[[], float]) -> float:
        """Serve a few of those that are ready if it is time. Returns the seconds until it is again: 0 where there may be more."""
        pause = self.due - clock()
        if pause > 0.0:
            return pause
        events = self.look()
        handle(events)
        if len(events) == _AT_ONCE:
            return 0.0
        self.due = clock() + self._period
        return self._period

    def pace(self, now: float) -> None:
        """See how much comes: to be called several times a second."""
        took = now - self._paced_at
        if took <= 0.0:
            return
        rate = self._told / took
        self._told = 0
        self._paced_at = now
        if rate > BUSY and not self.due:
            self.due = now
            self._outer.modify(self.epoll.fileno(), 0)
        elif rate < CALM and self.due:
            self.due = 0.0
            self._outer.modify(self.epoll.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Stop for good."""
        self._outer.unregister(self.epoll.fileno())
        self.epoll.close()
