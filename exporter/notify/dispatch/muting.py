"""What holds an alert back: another alert, a silence, or the hour.

Source: `MuteStage` and the order of the stages in `notify/notify.go` of https://github.com/prometheus/alertmanager. Unlike
there an alert that has ended gets past inhibition where it was told as firing: there whoever was told of it waits for its
end in vain, though nobody asked for silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.notify.dispatch.alerts import Alerts
from exporter.notify.dispatch.hours import muted_by
from exporter.notify.dispatch.known import Group, Known
from exporter.notify.intervals import TimeInterval
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.silences import Silences


class Heard(NamedTuple):
    """The alerts of a group that may be told; `ends`: to those who were told that they fire, and only to those."""

    alerts: list[Known]
    ends: list[Known]


class Muting:
    """Asked at each look at a group, and counts what it holds back."""

    def __init__(
        self,
        alerts: Alerts,
        silences: Silences,
        intervals: Mapping[str, TimeInterval],
        metrics: NotifyMetrics,
    ) -> None:
        self._alerts = alerts
        self._silences = silences
        self._intervals = intervals
        self._metrics = metrics

    def unmuted(self, group: Group, now: float) -> Heard:
        """The alerts of a group that may be told."""
        uninhibited: list[Known] = []
        ends: list[Known] = []
        for known in group.alerts.values():
            if not self.inhibited_by(known):
                uninhibited.append(known)
            elif not known.fires:
                ends.append(known)
        self._held("inhibition", len(group.alerts) - len(uninhibited))
        muted = muted_by(group.route, self._intervals, now)
        if muted is not None:
            self._held(muted.reason, len(uninhibited))
            return Heard([], [])
        heard = [known for known in uninhibited if not self.silenced_by(known, now)]
        self._held("silence", len(uninhibited) - len(heard))
        return Heard(heard, [known for known in ends if not self.silenced_by(known, now)])

    def inhibited_by(self, known: Known) -> tuple[int, ...]:
        """The fingerprint of an alert that holds it back, if there is one."""
        source = self._alerts.inhibitor(known.values)
        return () if source is None else (source,)

    def silenced_by(self, known: Known, now: float) -> tuple[str, ...]:
        """Ids of the silences that hold it back."""
        ids, known.seen = self._silences.silencing(known.values, known.seen, now)
        return ids

    def hours(self, group: Group, now: float) -> tuple[str, ...]:
        """Names of the time intervals that mute a whole group."""
        muted = muted_by(group.route, self._intervals, now)
        return () if muted is None else muted.by

    def _held(self, reason: str, count: int) -> None:
        if count:
            self._metrics.suppressed(reason, count)
