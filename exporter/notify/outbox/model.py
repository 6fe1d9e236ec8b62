"""What is written down and read back: the notification log, silences, letters. Times: unix seconds, wall clock.

Source of the log's and the silences' fields: `nflogpb/nflog.proto` and `silencepb/silence.proto` of
https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.notify.model import Alert, Notification, Outcome
from exporter.storage.model import Matcher


class LogEntry(NamedTuple):
    """What an endpoint was last told of a group: the fingerprints that fired, and those that had ended.

    One entry lives per `(group_key, receiver, integration)`; a newer one takes its place.
    """

    group_key: str
    receiver: str
    integration: str
    firing: frozenset[int]
    resolved: frozenset[int]
    at: float


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts that fit all matchers are not told of while `starts_at <= now < ends_at`; `id` is a UUID."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: float
    ends_at: float
    updated_at: float
    created_by: str
    comment: str


class Change(NamedTuple):
    """One transaction: all of it is written, or nothing."""

    notifications: tuple[Notification, ...] = ()
    log: tuple[LogEntry, ...] = ()
    alerts: tuple[Alert, ...] = ()
    """New or changed; an alert's labels are its key."""
    gone: tuple[int, ...] = ()
    """Fingerprints of alerts that nobody needs any more."""
    silences: tuple[Silence, ...] = ()
    """New or changed, by `id`; an expired one is kept like any other."""
    expired_silences: tuple[str, ...] = ()
    """Ids of silences that are so long over that they are forgotten."""
    gone_log: tuple[tuple[str, str, str], ...] = ()
    """`(group_key, receiver, integration)` of entries that are too old to matter."""


class Identities(NamedTuple):
    """Who the endpoints are: hashes of their addresses, by `(receiver, integration)`, and the random key of the hash."""

    key: bytes
    of: Mapping[tuple[str, str], str]


class DeadLetter(NamedTuple):
    """A notification that no attempt will be made for any more, unless somebody asks for it."""

    notification: Notification
    outcome: Outcome
    """Of the last attempt."""
    attempts: int
    at: float
    """When it was given up."""


class Saved(NamedTuple):
    """What the daemon before left behind."""

    alerts: tuple[Alert, ...] = ()
    log: tuple[LogEntry, ...] = ()
    silences: tuple[Silence, ...] = ()
    pending: tuple[Notification, ...] = ()
    """Written down and neither delivered nor given up, by number."""
    dead: tuple[DeadLetter, ...] = ()
    next_number: int = 1
