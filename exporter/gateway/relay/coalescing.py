"""Coalescing, as network cards do with their interrupts: where thousands of tokens pass in a second, their sockets are looked at together.

One token wakes us up, is passed on, wakes its client up, and all three go to sleep again, which costs more than the rest. So the sockets
of long streams have an epoll of their own. While they seldom wake us up, it stands in that of all others and tells at once; while they do
so all the time, it is asked once a period. What somebody waits for, an answer's beginning before all, is never in it.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

BUSY: Final = 2000.0
"""Wake-ups a second from which on they are looked at together: at fewer, looking each millisecond would cost more than it saves.
An engine whose streams all speak at the same time wakes us up once for all of them."""
_FOUND: Final = 0.5
"""Share of the periods that have to bring something, else they are told at once again."""
_SHORTEST: Final = 0.1
"""Seconds that tell how often something comes."""
_AT_ONCE: Final = 128
"""Served in a row where nothing was gathered."""
_IN_TURN: Final = 4
"""Served in a row of what was gathered, or as many as others were before: an answer's beginning waits for so many tokens at most, and
no token for all that others have to say."""

Events = list[tuple[int, int]]


class Coalescing:
    """Sockets whose events may wait for each other, within `outer`, the epoll of all others."""

    __slots__ = (
        "_clock",
        "_due",
        "_found",
        "_handle",
        "_outer",
        "_paced_at",
        "_period",
        "_periods",
        "_some",
        "busy",
        "epoll",
        "sockets",
    )

    def __init__(
        self,
        outer: select.epoll,
        period: float,
        *,
        handle: Callable[[Events], None],
        clock: Callable[[], float],
    ) -> None:
        """`period`: seconds; `handle` is called with what is ready; `clock`: monotonic seconds."""
        self.epoll = select.epoll()
        self.sockets: set[int] = set()
        self.busy = False
        """Whether they are looked at together, by `serve`; else `outer` says when to call `told`."""
        self._outer = outer
        self._period = period
        self._handle = handle
        self._clock = clock
        self._due = 0.0
        self._found = 0
        """How often there was something since the last look at that."""
        self._periods = 0
        """How many periods there were."""
        self._some = False
        """Whether there was something in this period."""
        self._paced_at = clock()
        outer.register(self.epoll.fileno(), select.EPOLLIN)

    def told(self, event: int) -> None:
        """Serve what is ready: `outer` has said that something is."""
        events = self.epoll.poll(0, _AT_ONCE)
        self._found += 1
        self._handle(events)

    def serve(self, others: int) -> float:
        """Serve some of what is ready if it is time; `others` were served since the last call. Returns the seconds until it is time
        again: 0 where there may be more.
        """
        pause = self._due - self._clock()
        if pause > 0.0:
            return pause
        room = max(_IN_TURN, others)
        events = self.epoll.poll(0, room)
        self._handle(events)
        self._some = self._some or bool(events)
        if len(events) == room:
            return 0.0
        self._periods += 1
        self._found += self._some
        self._some = False
        self._due = self._clock() + self._period
        return self._period

    def pace(self) -> None:
        """See how often something comes, and whether that calls for another way: to be called now and then."""
        now = self._clock()
        took = now - self._paced_at
        if took < _SHORTEST:
            return
        found, periods = self._found, self._periods
        self._found = self._periods = 0
        self._paced_at = now
        if not self.busy and found > BUSY * took:
            self.busy = True
            self._due = now
            self._outer.modify(self.epoll.fileno(), 0)
        elif self.busy and found <= _FOUND * periods:
            self.busy = False
            self._outer.modify(self.epoll.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Stand in `outer` no more; sockets can still be taken out."""
        self._outer.unregister(self.epoll.fileno())
