"""When a report is due, by people's clocks: pure, so that DST and clocks that are set can be tried."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal

Every = Literal["daily", "weekly"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Each day, or each week on `weekday` (Monday is 0), at a local time.

    `zone` None: the machine's own. An hour that a change of clocks leaves out comes as late as it would have; one that
    comes twice counts the first time.
    """

    every: Every
    at: time
    zone: tzinfo | None = None
    weekday: int = 0

    def latest(self, now: float) -> float:
        """The last time up to `now` at which a report was due, in unix seconds."""
        day = self._day(now)
        while (when := self._on(day)) > now:
            day -= timedelta(days=self._days)
        return when

    def following(self, now: float) -> float:
        """The first time after `now` at which a report is due."""
        day = self._day(now) - timedelta(days=self._days)
        while (when := self._on(day)) <= now:
            day += timedelta(days=self._days)
        return when

    def start(self, end: float) -> float:
        """When the period began that ends at `end`: at the same local time a day or a week before."""
        moment = self.local(end) - timedelta(days=self._days)
        return datetime.combine(moment.date(), moment.time(), self.zone).timestamp()

    def local(self, at: float) -> datetime:
        """A time as the clock on the wall shows it; without a zone where that is the machine's own."""
        if self.zone is not None:
            return datetime.fromtimestamp(at, self.zone)
        return datetime.fromtimestamp(at, UTC).astimezone().replace(tzinfo=None)

    @property
    def _days(self) -> int:
        return 7 if self.every == "weekly" else 1

    def _day(self, now: float) -> date:
        """A day near `now` on which a report may be due, no sooner than today's or this week's."""
        today = self.local(now).date()
        if self.every == "daily":
            return today
        return today + timedelta(days=(self.weekday - today.weekday()) % 7)

    def _on(self, day: date) -> float:
        return datetime.combine(day, self.at, self.zone).timestamp()


def judge(plan: Plan, last: float | None, now: float, late: float) -> tuple[float | None, float]:
    """Which report is to be made now, as the end of its period, and what is then the last one that is done with.

    `last` None: there was none yet, and the first comes at the next time. One that is more than `late` seconds behind is
    left out. A `last` beyond the next time is of a clock that has been set back since; one a little ahead of `now` is not
    made twice.
    """
    due = plan.latest(now)
    if last is None or last > plan.following(now):
        return None, due
    if due <= last:
        return None, last
    return (due if now - due <= late else None), due
