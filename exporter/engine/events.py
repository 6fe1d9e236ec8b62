"""What reaches a supervisor's one writer: each event with the life it is about, times in monotonic seconds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from exporter.engine.output.diagnosis import Failure
from exporter.engine.verdict.hang import CanaryOutcome, Progress
from exporter.engine.verdict.probes import HealthAnswer


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody called `stop()`."""


@dataclass(frozen=True, slots=True)
class Scraped:
    """A scrape landed, or failed (None)."""

    progress: Progress | None
    at: float
    token_at: float | None = None
    """When the gateway last saw a token of a user's; None without one."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The root process ended; the code is None when it was not our child."""

    life: int
    code: int | None
    at: float


@dataclass(frozen=True, slots=True)
class Serving:
    """`/health` said 200 and these models are served."""

    life: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody answers before ready, and cannot be used: why."""

    life: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Probed:
    """`/health` was asked after ready."""

    life: int
    answer: HealthAnswer
    at: float


@dataclass(frozen=True, slots=True)
class CanaryEnded:
    """The one-token request came back, or did not."""

    life: int
    outcome: CanaryOutcome
    took: float
    at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A question of our own got its token."""

    life: int
    at: float


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Two questions of our own in a row, the first at `since`, got no answer, and the counters stood still."""

    life: int
    since: float
    at: float


@dataclass(frozen=True, slots=True)
class Loading:
    """The output names a new stage, or a further step of it."""

    life: int
    stage: str | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing of a life's processes is left, and their GPU memory is back (or waited for long enough)."""

    life: int


Seen = Scraped | Probed | CanaryEnded | Answered | Unanswered
"""What a vigil judges."""
Event = StopAsked | Seen | Exited | Serving | Refused | Loading | Cleared


class Inbox:
    """The queue of one writer. Posting never waits; events of a life that is over are dropped on the way out."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.life = 0
        """The life whose events count now."""
        self.stops = 0
        """How often a stop was asked."""

    def ask_stop(self) -> None:
        self.stops += 1
        self.post(StopAsked())

    def post(self, event: Event) -> None:
        self._queue.put_nowait(event)

    async def next(self, until: float | None = None) -> Event | None:
        """The next event of the present life; None once the loop's clock (the monotonic one) shows `until`."""
        while True:
            try:
                async with asyncio.timeout_at(until):
                    event = await self._queue.get()
            except TimeoutError:
                return None
            if getattr(event, "life", self.life) == self.life:
                return event
