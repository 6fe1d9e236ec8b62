"""The families that tell how notifications go, and what fills them.

What an alert is counted as, and why a notification is suppressed, is named as Alertmanager's own metrics name it
(`notify/notify.go` and `provider/mem/mem.go` of https://github.com/prometheus/alertmanager).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.notify.outbox.stats import OutboxStats

_RECEIVER = ("receiver",)
_ENDPOINT = ("receiver", "integration")

NOTIFICATIONS = Family(
    "vllm_exporter_notifications_total",
    "counter",
    "What became of notifications: delivered, superseded (by a newer one, or over before it got through), dead (refused or given up); failed counts attempts that failed, but for a first one that is made again.",
    ("receiver", "outcome"),
)
ATTEMPTS = Family(
    "vllm_exporter_notification_attempts_total",
    "counter",
    "Attempts to send a notification to an endpoint, by result: delivered, retry or refused.",
    (*_ENDPOINT, "result"),
)
ATTEMPT_DURATION = Family(
    "vllm_exporter_notification_attempt_duration_seconds",
    "histogram",
    "How long attempts took until the endpoint had answered or the time was up.",
    _RECEIVER,
    unit="seconds",
)
DELAY = Family(
    "vllm_exporter_notification_delay_seconds",
    "histogram",
    "Time from a notification's being written down until its receiver had it.",
    _RECEIVER,
    unit="seconds",
)
PENDING = Family(
    "vllm_exporter_notifications_pending",
    "gauge",
    "Notifications that an endpoint has not taken yet.",
    _ENDPOINT,
)
DEAD = Family(
    "vllm_exporter_notifications_dead_letters",
    "gauge",
    "Notifications that were refused or given up, and are kept to be looked at or sent again.",
)
DEAD_DROPPED = Family(
    "vllm_exporter_notifications_dead_letters_dropped_total",
    "counter",
    "Dead letters that had to make room for newer ones.",
)
CIRCUIT = Family(
    "vllm_exporter_notification_circuit_state",
    "gauge",
    "Whether an endpoint is tried: closed, open (it failed too often) or half_open (one trial is under way). 1 for the present state.",
    (*_ENDPOINT, "state"),
)
SUPPRESSED = Family(
    "vllm_exporter_notifications_suppressed_total",
    "counter",
    "Alerts that were left out of notifications: inhibition, silence, mute_time_interval or active_time_interval.",
    ("reason",),
)
RECEIVED = Family(
    "vllm_exporter_notify_alerts_received_total",
    "counter",
    "Alerts that came in to be told of, from the rules and by the API.",
    ("status",),
)
DROPPED = Family(
    "vllm_exporter_notify_alerts_dropped_total",
    "counter",
    "Alerts that were pushed and found no room, or had to leave for one of a rule.",
)
ALERTS = Family(
    "vllm_exporter_notify_alerts",
    "gauge",
    "Alerts that are known, by state: active, suppressed or unprocessed.",
    ("state",),
)
GROUPS = Family("vllm_exporter_notify_groups", "gauge", "Groups of alerts.")
SILENCES = Family(
    "vllm_exporter_silences", "gauge", "Silences by state: active, pending or expired.", ("state",)
)
RELOAD_SUCCESS = Family(
    "vllm_exporter_notify_config_last_reload_success",
    "gauge",
    "Whether the last load of the receivers' configuration succeeded.",
)
RELOAD_TIME = Family(
    "vllm_exporter_notify_config_last_reload_success_timestamp_seconds",
    "gauge",
    "When the receivers' configuration was last loaded with success, in seconds since 1970.",
    unit="seconds",
)
OUTBOX_WRITES = Family(
    "vllm_exporter_outbox_writes_total", "counter", "Transactions of the file of notifications."
)
OUTBOX_FAILURES = Family(
    "vllm_exporter_outbox_failures_total",
    "counter",
    "Tries to write the file of notifications, or to read it, that failed, by reason; sending goes on from memory.",
    ("reason",),
)
OUTBOX_SET_ASIDE = Family(
    "vllm_exporter_outbox_files_set_aside_total",
    "counter",
    "Files of notifications that could not be read and were begun anew, by reason.",
    ("reason",),
)
OUTBOX_BYTES = Family(
    "vllm_exporter_outbox_file_bytes", "gauge", "Size of the file of notifications on disk.", unit="bytes"
)

FAMILIES = (
    NOTIFICATIONS,
    ATTEMPTS,
    ATTEMPT_DURATION,
    DELAY,
    PENDING,
    DEAD,
    DEAD_DROPPED,
    CIRCUIT,
    SUPPRESSED,
    RECEIVED,
    DROPPED,
    ALERTS,
    GROUPS,
    SILENCES,
    RELOAD_SUCCESS,
    RELOAD_TIME,
    OUTBOX_WRITES,
    OUTBOX_FAILURES,
    OUTBOX_SET_ASIDE,
    OUTBOX_BYTES,
)

OUTCOMES = ("delivered", "failed", "dead", "superseded")
RESULTS = ("delivered", "retry", "refused")
CIRCUIT_STATES = ("closed", "open", "half_open")
SUPPRESSIONS = ("inhibition", "silence", "mute_time_interval", "active_time_interval")
ALERT_STATES = ("active", "suppressed", "unprocessed")
SILENCE_STATES = ("active", "pending", "expired")
FAILURES = ("cannot_open", "full", "io", "locked", "read_only", "slow")

ATTEMPT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DELAY_BOUNDS = (0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


class NotifyMetrics:
    """Shows how notifications go; event loop only. Without a block of the page it counts for nobody."""

    def __init__(self, block: Block | None = None) -> None:
        self._block = block if block is not None else Block()
        self._endpoints: set[tuple[str, str]] = set()
        for status in ("firing", "resolved"):
            self._block.counter(RECEIVED, status).set(0)
        for reason in SUPPRESSIONS:
            self._block.counter(SUPPRESSED, reason).set(0)
        self.dropped(0)
        self.dead_letters(0)
        self._block.counter(DEAD_DROPPED).set(0)

    def endpoints(self, keys: Iterable[tuple[str, str]]) -> None:
        """These `(receiver, integration)` are there from now on: their counters show from 0, those of others go."""
        new = set(keys)
        receivers = {receiver for receiver, _ in new}
        for receiver in {receiver for receiver, _ in self._endpoints} - receivers:
            for outcome in OUTCOMES:
                self._block.remove(self._block.counter(NOTIFICATIONS, receiver, outcome))
            self._block.remove(self._block.histogram(ATTEMPT_DURATION, ATTEMPT_BOUNDS, receiver))
            self._block.remove(self._block.histogram(DELAY, DELAY_BOUNDS, receiver))
        for receiver, integration in self._endpoints - new:
            self._block.remove(self._block.gauge(PENDING, receiver, integration))
            for result in RESULTS:
                self._block.remove(self._block.counter(ATTEMPTS, receiver, integration, result))
            for state in CIRCUIT_STATES:
                self._block.remove(self._block.gauge(CIRCUIT, receiver, integration, state))
        for receiver in sorted(receivers):
            for outcome in OUTCOMES:
                self._block.counter(NOTIFICATIONS, receiver, outcome).inc(0)
        old, self._endpoints = self._endpoints, new
        for key in sorted(new - old):
            for result in RESULTS:
                self._block.counter(ATTEMPTS, *key, result).inc(0)
            self.pending(key, 0)
            self.circuit(key, "closed")

    def attempted(self, key: tuple[str, str], result: str, seconds: float) -> None:
        """One attempt has come to its end."""
        if key in self._endpoints:
            self._block.counter(ATTEMPTS, *key, result).inc()
            self._block.histogram(ATTEMPT_DURATION, ATTEMPT_BOUNDS, key[0]).observe(seconds)

    def became(self, key: tuple[str, str], outcome: str) -> None:
        """One notification came to one of OUTCOMES."""
        if key in self._endpoints:
            self._block.counter(NOTIFICATIONS, key[0], outcome).inc()

    def delayed(self, key: tuple[str, str], seconds: float) -> None:
        """A receiver has a notification, so long after it was written down."""
        if key in self._endpoints:
            self._block.histogram(DELAY, DELAY_BOUNDS, key[0]).observe(max(0.0, seconds))

    def pending(self, key: tuple[str, str], count: int) -> None:
        """So many notifications wait for an endpoint."""
        if key in self._endpoints:
            self._block.gauge(PENDING, *key).set(count)

    def circuit(self, key: tuple[str, str], state: str) -> None:
        """The circuit of an endpoint is in one of CIRCUIT_STATES."""
        if key in self._endpoints:
            for one in CIRCUIT_STATES:
                self._block.gauge(CIRCUIT, *key, one).set(1 if one == state else 0)

    def dead_letters(self, count: int, dropped: int = 0) -> None:
        """So many dead letters are kept; so many more had to go."""
        self._block.gauge(DEAD).set(count)
        if dropped:
            self._block.counter(DEAD_DROPPED).inc(dropped)

    def received(self, status: str, count: int = 1) -> None:
        """Alerts came in."""
        self._block.counter(RECEIVED, status).inc(count)

    def dropped(self, count: int) -> None:
        """Alerts found no room."""
        self._block.counter(DROPPED).inc(count)

    def suppressed(self, reason: str, count: int = 1) -> None:
        """Alerts were left out of a notification for one of SUPPRESSIONS."""
        self._block.counter(SUPPRESSED, reason).inc(count)

    def alerts(self, states: Mapping[str, int]) -> None:
        """So many alerts are in each of ALERT_STATES."""
        for state in ALERT_STATES:
            self._block.gauge(ALERTS, state).set(states.get(state, 0))

    def groups(self, count: int) -> None:
        """So many groups are there."""
        self._block.gauge(GROUPS).set(count)

    def silences(self, states: Mapping[str, int]) -> None:
        """So many silences are in each of SILENCE_STATES."""
        for state in SILENCE_STATES:
            self._block.gauge(SILENCES, state).set(states.get(state, 0))

    def reloaded(self, now: float) -> None:
        """The configuration was read."""
        self._block.gauge(RELOAD_SUCCESS).set(1)
        self._block.gauge(RELOAD_TIME).set(now)

    def not_reloaded(self) -> None:
        """The configuration has mistakes, and receivers stay as they were."""
        self._block.gauge(RELOAD_SUCCESS).set(0)

    def outbox(self, stats: OutboxStats) -> None:
        """How the file of notifications does."""
        self._block.counter(OUTBOX_WRITES).set(stats.writes)
        for family, counts, always in (
            (OUTBOX_FAILURES, stats.failures, FAILURES),
            (OUTBOX_SET_ASIDE, stats.set_aside, ("corrupt", "version")),
        ):
            for reason in {**dict.fromkeys(always, 0), **counts}:
                self._block.counter(family, reason).set(counts.get(reason, 0))
        self._block.gauge(OUTBOX_BYTES).set(stats.file_bytes)
