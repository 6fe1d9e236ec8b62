"""What the parts of notification share: alerts, notifications, and what became of an attempt. Times: unix seconds.

Sources: `alert/`, `notify/` and `template/` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from exporter.notify.fingerprint import fingerprint
from exporter.storage.model import Labels

Status = Literal["firing", "resolved"]

ANNOUNCEMENT = "announcement:"
"""Begins the group key of what happens once, such as a report: it is told when it happens, and has no end."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as others are told of it; `labels` and `annotations` are sorted by name, and have no empty values.

    `ends_at` None while it fires. `no_data_since`: its series went away while it fired, and nobody can say whether it
    still would; it counts as firing. `until`: of a pushed alert, when it ends unless it is pushed again.
    """

    labels: Labels
    annotations: Labels
    starts_at: float
    ends_at: float | None = None
    updated_at: float = 0.0
    generator_url: str = ""
    no_data_since: float | None = None
    until: float | None = None
    fingerprint: int = field(init=False, compare=False)
    """64 bits of the labels, as Alertmanager computes it; shown as 16 hexadecimal digits."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.labels))

    def status(self, now: float) -> Status:
        """Whether it fires at a time."""
        return "resolved" if self.ends_at is not None and self.ends_at <= now else "firing"

    @property
    def name(self) -> str:
        """Its `alertname`; empty where it has none."""
        return next((value for label, value in self.labels if label == "alertname"), "")


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to one receiver about one group of alerts, as it is written down before the first attempt.

    `alerts` are in Alertmanager's order. `receiver` is the name in the configuration; `integration` names one of its
    endpoints, as in `webhook[0]`. `number` grows with each notification of this daemon's life, restarts included.
    """

    number: int
    receiver: str
    integration: str
    group_key: str
    group_labels: Labels
    alerts: tuple[Alert, ...]
    created_at: float
    repeated: bool = False
    """Nothing changed: it is only time to say it again."""

    @property
    def status(self) -> Status:
        """Firing while any of its alerts is; all of them were judged at `created_at`."""
        return (
            "firing"
            if any(alert.status(self.created_at) == "firing" for alert in self.alerts)
            else "resolved"
        )

    @property
    def is_announcement(self) -> bool:
        """Whether it tells of something that happens once."""
        return self.group_key.startswith(ANNOUNCEMENT)


class Outcome(NamedTuple):
    """What became of one attempt.

    `delivered`: the receiver has it. `retry`: it may take it later, after `retry_after` seconds where it said so; neither:
    it never will. `detail` says it in words and shows no secret; `answer` is the first 500 characters that came back,
    with every secret masked.
    """

    result: Literal["delivered", "retry", "refused"]
    detail: str
    code: int | None = None
    retry_after: float | None = None
    answer: str = ""


class Receiver(Protocol):
    """One endpoint: sends a notification once. Retrying, order, circuits and counting are not its business.

    No failure of the endpoint is raised: it is an Outcome. Any other exception is a bug.
    """

    @property
    def kind(self) -> str:
        """`webhook`, `slack`, …"""

    @property
    def send_resolved(self) -> bool:
        """Whether it wants to know when alerts end."""

    @property
    def timeout(self) -> float:
        """Longest time in seconds of one attempt; the caller enforces it."""

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt."""

    async def close(self) -> None:
        """Let connections go."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a message may speak of beyond its alerts.

    `external_url`: under which people reach this daemon, without a slash at the end. `now`: of this attempt.
    """

    external_url: str
    now: float
    facts: Mapping[str, str] = field(default_factory=dict)
    """About the box, shown in messages where they are there: `engine`, `model`, `instance`."""
