"""A group at work: its rules one after another at one time stamp, each with its health.

Nothing here reads a clock: time stamps are passed in, in milliseconds, and the timer that takes durations is among the
conditions. So a unit test of rules runs it as the daemon does.
Source: `Group.Eval` in https://github.com/prometheus/prometheus/blob/main/rules/group.go
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from exporter.alerting.alerts import ALERT_NAME, Alerting
from exporter.alerting.conditions import Conditions
from exporter.alerting.due import STEP_MS
from exporter.alerting.evidence import Need, about, needs
from exporter.alerting.ground import Ground, Recorder
from exporter.alerting.holding import RULE_GONE, Change, hold, moved, release
from exporter.alerting.recording import Recording
from exporter.alerting.restore import restore
from exporter.alerting.rulefile import Group, Rule
from exporter.alerting.state import Alert, Move, forget, shift
from exporter.alerting.status import AlertStatus, GroupStatus, Health, RuleStatus
from exporter.alerting.transition import Transition
from exporter.promql.model import QueryError
from exporter.promql.query import Query
from exporter.storage.model import Labels
from exporter.storage.stream import Stream
from exporter.storage.trimming import truncate


class Report(NamedTuple):
    """A rule's last evaluation; `at` in unix seconds."""

    health: Health = "unknown"
    error: str = ""
    seconds: float = 0.0
    at: float | None = None


class Turn(NamedTuple):
    """A rule that began to fail, fails in another way, or recovered; `crash` is what no rule should run into."""

    rule: str
    error: str
    crash: Exception | None


class Evaluated(NamedTuple):
    """What one evaluation of a group, at `at` ms, came to."""

    at: int
    seconds: float
    samples: int
    failures: int
    transitions: Sequence[Transition]
    turns: Sequence[Turn]


class LiveRule:
    """A rule with its last report; `report` is replaced whole, and may be read anywhere."""

    __slots__ = ("_need", "_shown", "query", "report", "rule", "work")

    def __init__(self, rule: Rule, query: Query, stream: Stream, *, restored: bool) -> None:
        self.rule = rule
        self.query = query
        self.report = Report()
        self._need: Need | None = None
        self._shown: tuple[Mapping[Labels, Alert], tuple[AlertStatus, ...]] = ({}, ())
        self.work: Recording | Alerting = (
            Recording(rule, query, stream)
            if rule.kind == "recording"
            else Alerting(rule, query, stream, restored=restored)
        )

    @property
    def labels(self) -> Mapping[str, str]:
        """What the rule sets."""
        return self.rule.labels

    @property
    def need(self) -> Need:
        """What must be there for the expression to be judged."""
        if self._need is None:
            self._need = needs(self.query.plan)
        return self._need

    @property
    def works(self) -> bool:
        """Whether the last evaluation succeeded; not before the first."""
        return self.report.health == "ok"

    def status(self) -> RuleStatus:
        """The rule as others see it."""
        report = self.report
        return RuleStatus(
            kind=self.rule.kind,
            name=self.rule.name,
            query=self.rule.expr,
            labels=self.rule.labels,
            annotations=self.rule.annotations,
            duration=self.rule.for_seconds,
            keep_firing_for=self.rule.keep_firing_for,
            alerts=self._alerts(),
            health=report.health,
            last_error=report.error,
            evaluation_seconds=report.seconds,
            last_evaluation=report.at,
        )

    def _alerts(self) -> tuple[AlertStatus, ...]:
        """Put together once after each evaluation: there may be thousands, and many who ask."""
        if not isinstance(self.work, Alerting):
            return ()
        known, alerts = self._shown, self.work.alerts
        if known[0] is not alerts:
            active = tuple(_alert_status(one) for one in alerts.values() if one.state != "inactive")
            known = self._shown = alerts, active
        return known[1]


class LiveGroup:
    """A group that is evaluated again and again; rule thread only, but `status`.

    `restored` false: after a restart, until `restore` has looked at what was saved.
    """

    def __init__(
        self,
        group: Group,
        rules: Sequence[LiveRule],
        *,
        interval_ms: int,
        offset_ms: int,
        restored: bool,
    ) -> None:
        self.group = group
        self.rules = rules
        self.key = f"{group.file};{group.name}"
        self.interval_ms = interval_ms
        self.offset_ms = offset_ms
        self.restored = restored
        self.last_ms: int | None = None
        self.seconds = 0.0
        """How long the last evaluation took."""
        self.recorders: Mapping[str, Sequence[Recorder]] = {}
        """Set from outside: the recording rules of all groups, by what they record."""
        self.halted = False
        """Set from outside: an evaluation that is at work ends after the rule that it is at."""
        self._first_ms: int | None = None

    def evaluate(self, now: int, conditions: Conditions) -> Evaluated:
        """Evaluate every rule at `now` ms; one that fails says so in its report, and the others go on."""
        self._follow_clock(now)
        began = conditions.timer()
        transitions: list[Transition] = []
        turns: list[Turn] = []
        samples = failures = 0
        for rule in self.rules:
            if self.halted:
                break
            before = rule.report
            count, changes, crash = self._evaluate_rule(rule, now, conditions)
            after = rule.report
            samples += count
            failures += after.health == "err"
            if changes:
                transitions += self._transitions(rule, changes, now)
            if after.error != before.error:
                turns.append(Turn(rule.rule.name, after.error, crash))
        self.seconds = conditions.timer() - began
        self.last_ms = now
        return Evaluated(now, self.seconds, samples, failures, transitions, turns)

    def restore(self, now: int, conditions: Conditions, *, tolerance_ms: int, grace_ms: int) -> int:
        """After the second evaluation since a restart, go on from what was saved; gives the number of alerts that do.

        Not after the first: what a rule reads may not be there yet.
        """
        if self._first_ms is None:
            self._first_ms = now
        if self.restored or now - self._first_ms < max(self.interval_ms // 2, 1):
            return 0
        count = 0
        for rule in self.rules:
            if isinstance(rule.work, Alerting) and not rule.work.restored:
                count += restore(rule.work, conditions.head, now, tolerance=tolerance_ms, grace=grace_ms)
        self.restored = True
        return count

    def take_over(self, old: LiveGroup) -> None:
        """Go on from the group of the same name, where its rules have been carried over."""
        self.last_ms, self._first_ms, self.seconds = old.last_ms, old._first_ms, old.seconds

    def forget(self, rule: LiveRule, now: int) -> list[Transition]:
        """The alerts of a rule that is gone end."""
        if not isinstance(rule.work, Alerting):
            return []
        changes = [Change(*move, reason=RULE_GONE) for move in forget(rule.work.alerts, now)]
        return self._transitions(rule, [*changes, *release(rule.work.held, now)], now)

    def status(self) -> GroupStatus:
        """The group as others see it."""
        return GroupStatus(
            name=self.group.name,
            file=self.group.file,
            interval=self.interval_ms / 1000,
            limit=self.group.limit,
            query_offset=self.offset_ms / 1000,
            rules=tuple(rule.status() for rule in self.rules),
            evaluation_seconds=self.seconds,
            last_evaluation=None if self.last_ms is None else self.last_ms / 1000,
        )

    def _follow_clock(self, now: int) -> None:
        """The clock was set back since the last evaluation: what has passed counts on, and the future never happened.

        The store forgot the future already; but this group may have been at work then, and have written after that.
        """
        if self.last_ms is None or now >= self.last_ms - STEP_MS:
            return
        by = self.last_ms - now
        for rule in self.rules:
            if isinstance(rule.work, Alerting):
                rule.work.alerts = shift(rule.work.alerts, -by)
                rule.work.held = moved(rule.work.held, -by)
            stream = rule.work.stream
            with stream.lock:
                truncate(stream, now - self.offset_ms - 1)
        self._first_ms = None if self._first_ms is None else self._first_ms - by
        self.last_ms -= by

    def _evaluate_rule(
        self, rule: LiveRule, now: int, conditions: Conditions
    ) -> tuple[int, Sequence[Change], Exception | None]:
        began = conditions.timer()
        samples = 0
        moves: Sequence[Move] = ()
        changes: Sequence[Change] = ()
        error: str | None = None
        crash: Exception | None = None
        try:
            at, limit = now - self.offset_ms, self.group.limit
            if isinstance(rule.work, Recording):
                samples = rule.work.evaluate(at, limit, conditions)
            else:
                samples, moves, error = rule.work.evaluate(now, at, limit, conditions)
        except QueryError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001 - whatever a rule runs into is that rule's failure
            error, crash = f"internal error: {problem!r}", problem
        if isinstance(rule.work, Alerting) and (moves or rule.work.held):
            try:
                changes = self._held_back(rule, rule.work, moves, now, conditions, failed=error is not None)
            except Exception as problem:  # noqa: BLE001 - as above; and then nobody knows what is over
                error, crash = f"internal error: {problem!r}", problem
                changes = self._held_back(rule, rule.work, moves, now, conditions, failed=True)
        rule.report = Report("err" if error else "ok", error or "", conditions.timer() - began, now / 1000)
        return samples, changes, crash

    def _held_back(
        self,
        rule: LiveRule,
        work: Alerting,
        moves: Sequence[Move],
        now: int,
        conditions: Conditions,
        *,
        failed: bool,
    ) -> Sequence[Change]:
        """What others are told: an alert that is not found is over only where its data is there."""
        timeout = conditions.no_data_timeout_ms
        if timeout is None:
            return [Change(*move) for move in moves]
        grounds: dict[int, Ground] = {}

        def ground_at(at: int) -> Ground:
            if at not in grounds:
                grounds[at] = Ground(
                    conditions.head, at - self.offset_ms, conditions.lookback_ms, self.recorders
                )
            return grounds[at]

        ground = ground_at(now)
        need = about(rule.need, (ALERT_NAME, *rule.rule.labels))

        # Its condition held then, however long it was kept firing after that.
        fired = None if self.last_ms is None else self.last_ms - work.terms.keep_firing

        def known(labels: Labels) -> bool:
            held = work.held.get(labels)
            last = fired if held is None else held.last
            before = None if last is None or last >= now else ground_at(last)
            return not failed and ground.bears(need, labels, before)

        def well(labels: Labels) -> bool:
            return not failed and ground.well(need, labels)

        holding = hold(
            work.held, work.alerts, moves, now, timeout=timeout, last=fired, known=known, well=well
        )
        work.held, work.alerts = holding.held, holding.alerts
        return holding.changes

    def _transitions(self, rule: LiveRule, changes: Iterable[Change], now: int) -> list[Transition]:
        at = now / 1000
        return [
            Transition(
                self.group.file,
                self.group.name,
                rule.rule.name,
                rule.rule.expr,
                change.alert,
                change.before,
                change.after,
                at,
                None if change.no_data_since is None else change.no_data_since / 1000,
                change.reason,
            )
            for change in changes
        ]


def _alert_status(alert: Alert) -> AlertStatus:
    assert alert.state != "inactive"
    return AlertStatus(
        labels=dict(alert.labels),
        annotations=dict(alert.annotations),
        state=alert.state,
        active_at=alert.active_at / 1000,
        value=alert.value,
        keep_firing_since=None if alert.keep_firing_since is None else alert.keep_firing_since / 1000,
        fired_at=None if alert.fired_at is None else alert.fired_at / 1000,
    )
