"""What a group has to tell its endpoints: pure decisions over who fires, who has ended, and what was told before.

Source: `Dispatcher.flush` in `dispatch/dispatch.go` and `RetryStage` in `notify/retry_stage.go` of
https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from exporter.notify.config.model import Endpoint
from exporter.notify.dispatch.dedup import Reason, Told, reason_to_tell
from exporter.notify.dispatch.known import Known
from exporter.notify.dispatch.ordering import in_order
from exporter.notify.model import Alert


@dataclass(frozen=True)
class Said:
    """The alerts of a group that nothing mutes, as they are now."""

    alerts: Sequence[Known]
    now: float

    @cached_property
    def firing(self) -> frozenset[int]:
        """Fingerprints of those that fire."""
        return frozenset(known.alert.fingerprint for known in self.alerts if known.fires)

    @cached_property
    def resolved(self) -> frozenset[int]:
        """Fingerprints of those that have ended."""
        return frozenset(known.alert.fingerprint for known in self.alerts if not known.fires)

    @cached_property
    def told(self) -> tuple[Alert, ...]:
        """All of them in their order, as they are written down."""
        return tuple(in_order(as_told(known.alert, known.fires, self.now) for known in self.alerts))

    @cached_property
    def told_firing(self) -> tuple[Alert, ...]:
        """Those that fire, for who does not want to hear of the end of others."""
        return tuple(alert for alert in self.told if alert.ends_at is None)

    def reason(self, endpoint: Endpoint, told: Told | None, repeat_interval: float, timer: float) -> Reason:
        """Why an endpoint is told, or that it is not."""
        return reason_to_tell(
            told,
            self.firing,
            self.resolved,
            send_resolved=endpoint.send_resolved,
            repeat_interval=repeat_interval,
            timer=timer,
        )

    def alerts_for(self, endpoint: Endpoint) -> tuple[Alert, ...]:
        """What an endpoint is told of; nothing where only alerts have ended and it does not want to hear of that."""
        return self.told if endpoint.send_resolved else self.told_firing


def as_told(alert: Alert, fires: bool, now: float) -> Alert:
    """An alert as it stands in a notification: one that fires has no end, one that has ended has none ahead."""
    if fires:
        return (
            alert
            if alert.ends_at is None and alert.until is None
            else replace(alert, ends_at=None, until=None)
        )
    if alert.ends_at is not None and alert.ends_at <= now:
        return alert
    return replace(alert, ends_at=now, until=None)


def fingerprints(alerts: Iterable[Known]) -> frozenset[int]:
    """Of some alerts."""
    return frozenset(known.alert.fingerprint for known in alerts)
