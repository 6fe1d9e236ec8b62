"""The rules at work: files are loaded, groups evaluated in the rule threads when they are due, and others told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from exporter.alerting.alerts import Alerting
from exporter.alerting.aside import Aside
from exporter.alerting.assembly import Assembly, assemble, unchanged
from exporter.alerting.conditions import Conditions
from exporter.alerting.due import STEP_MS, Timetable, Verdict
from exporter.alerting.files import read_groups
from exporter.alerting.group import Evaluated, LiveGroup, LiveRule, Turn
from exporter.alerting.meters import Meters
from exporter.alerting.needs import needed
from exporter.alerting.readers import Footprint, concerned, footprint
from exporter.alerting.remembered import Remembered, remember
from exporter.alerting.rulefile import Group
from exporter.alerting.state import Alert
from exporter.alerting.status import GroupStatus
from exporter.alerting.transition import Transition
from exporter.alerting.workers import Workers
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.promql.model import QueryError
from exporter.settings import RuleSettings
from exporter.storage.head import Head
from exporter.storage.model import NAME
from exporter.storage.retention import Retention

log = structlog.get_logger(__name__)

EVENT_INTERVAL_MS = 10_000
"""Slower groups do not follow events: nobody waits for them, and sums over what they record count one sample an interval."""

PATIENCE_SECONDS = 1.0
"""A group that is at work for longer is left to its thread, and a tick is over without it."""

READ_SECONDS = 30.0
"""Longest time to read the rule files: a file system that is away may never answer."""

HALT_SECONDS = 10.0
"""Longest time, beyond a query's own limit, that a reload waits for a group that it changes and that is still at work."""

CLOSE_SECONDS = 5.0
"""Longest time that the end waits for the groups that are at work."""

LOGGED = 20
"""Alerts that are logged one by one when many change at once."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a reload; with `problems` nothing changed."""

    problems: tuple[str, ...] = ()
    files: int = 0
    groups: int = 0
    rules: int = 0


@dataclass(frozen=True, slots=True)
class _Tick:
    now: int
    landed: bool
    streams: frozenset[str]


class _Job(NamedTuple):
    group: LiveGroup
    verdict: Verdict


class Evaluator:
    """Owns the loaded groups. Event loop only; `statuses` may be called from any thread.

    Normally one thread evaluates what is due, in order, and a tick that comes meanwhile is kept, once, until it is done.
    A group that keeps its thread busy is left to it after a while, and is not due again before it is done; others go on
    in other threads. `wake` is called when such a group is done, and asks for a `tick`. `patience` in seconds.

    An alert whose data goes away while it fires is not over: it is held until the data is back and says otherwise, or for
    `no_data_timeout` seconds, where that is not 0.
    """

    def __init__(
        self,
        settings: RuleSettings,
        head: Head,
        block: Block,
        *,
        external_url: str,
        wake: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE_SECONDS,
        no_data_timeout: float = 0.0,
    ) -> None:
        self._settings = settings
        self._conditions = Conditions(
            head=head,
            external_labels=settings.external_labels,
            external_url=settings.external_url or external_url,
            lookback_ms=round(settings.lookback * 1000),
            query_timeout=settings.query_timeout,
            query_samples=settings.query_samples,
            timer=timer,
            no_data_timeout_ms=round(no_data_timeout * 1000),
        )
        self._head = head
        self._clock = clock
        self._meters = Meters(block)
        self._groups: tuple[LiveGroup, ...] = ()
        self._footprints: Sequence[Footprint] = ()
        self._timetable = Timetable()
        self._landed_at: int | None = None
        self._waiting: _Tick | None = None
        self._working = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._subscribers: list[Callable[[Sequence[Transition]], None]] = []
        self._wake = wake
        self._patience = patience
        self._now = 0
        """What groups are evaluated for that begin now."""
        self._held: set[str] = set()
        """The groups that are left to their threads."""
        self._freed = False
        """Whether one of them is done since the last evaluation."""
        self._awaited: set[str] = set()
        """Those of them that a reload is waiting for; they do not begin again before it."""
        self._moved: set[asyncio.Future[None]] = set()
        """Whoever waits for a job to be done."""
        self._reading: Aside[tuple[list[Group], int]] | None = None
        self._closing = False
        self._workers: Workers[_Job, Evaluated] = Workers(self._work, self._noticed)

    async def load(self) -> None:
        """Read the rule files at the start; ConfigError with every mistake in them."""
        groups, _ = await self._read()
        self._adopt(self._assemble(groups, restored=False))
        self._meters.loaded(self._clock())

    async def reload(self) -> Reload:
        """Read the rule files again. A mistake changes nothing, and is told; else what did not change goes on.

        Evaluations go on meanwhile; only a group that changes is waited for while it is at work, and not for ever.
        """
        async with self._reloading:
            try:
                groups, files = await self._read()
                await self._exchange(groups)
            except ConfigError as error:
                self._meters.not_loaded()
                for problem in error.problems:
                    log.error("rules_not_loaded", problem=problem)
                return Reload(problems=tuple(error.problems))
        rules = sum(len(group.rules) for group in self._groups)
        log.info("rules_loaded", files=files, groups=len(self._groups), rules=rules)
        return Reload(files=files, groups=len(self._groups), rules=rules)

    async def tick(self, now: float, *, streams: frozenset[str] | None = None, landed: bool = True) -> None:
        """A scrape landed at `now`, in unix seconds: evaluate the groups that are due, in the rule thread.

        `streams`: an event changed these streams; the fast groups that read them are evaluated, due or not. `landed` false:
        nothing landed, and only what is late is evaluated; see `late_in`. Comes back when the evaluation is done, but for
        groups that take long; or at once where another tick is at work: that one goes on with this tick then.
        """
        tick = _Tick(round(now * 1000), landed and streams is None, streams or frozenset())
        self._waiting = _merged(self._waiting, tick)
        if self._working.locked():
            return
        async with self._working:
            await self._catch_up()
            await self._work_off()

    def late_in(self, now: float) -> float:
        """Seconds from `now` until a group is late, should no scrape land; at least a tenth of a second."""
        return max(100, self._timetable.wait(round(now * 1000))) / 1000

    def statuses(self) -> tuple[GroupStatus, ...]:
        """All groups with their rules and alerts, in the order of the files."""
        return tuple(group.status() for group in self._groups)

    def firing(self) -> Iterator[tuple[Alert, str]]:
        """Every alert that fires now, with its rule's expression."""
        for group in self._groups:
            for rule in group.rules:
                if isinstance(rule.work, Alerting):
                    for alert in rule.work.alerts.values():
                        if alert.state == "firing":
                            yield alert, rule.rule.expr

    def retention(self, *, base_ms: int, recorded_ms: int) -> Retention:
        """What the loaded rules need to be kept: what they read, their own results, and what a restart goes on from."""
        tolerance = round(self._settings.for_outage_tolerance * 1000)
        return needed(self._groups, base_ms=base_ms, recorded_ms=recorded_ms, tolerance_ms=tolerance)

    def subscribe(self, callback: Callable[[Sequence[Transition]], None]) -> None:
        """Call this with all alerts that changed their state, on the event loop, after the evaluation."""
        self._subscribers.append(callback)

    def hold(self, alerts: Iterable[Remembered]) -> list[Remembered]:
        """Alerts that fired when the daemon went down: they are held until their rules say more.

        Gives those that no rule can have made: these are over. Call it after `load`, before the first tick.
        """
        timeout = self._conditions.no_data_timeout_ms or 0
        return remember(self._groups, alerts, round(self._clock() * 1000), timeout=timeout)

    def close(self) -> None:
        """End the rule threads. A group that is at work ends after its rule; one that does not is left behind at last."""
        self._closing = True
        for job in self._workers.unfinished():
            job.group.halted = True
        if not self._workers.close(CLOSE_SECONDS):
            left = [job.group.key for job in self._workers.unfinished()]
            log.warning("rules_still_at_work", groups=left, seconds=CLOSE_SECONDS)

    # --- evaluating

    async def _catch_up(self) -> None:
        """What became of earlier jobs."""
        await self._prompt_ones()
        self._collect()

    async def _work_off(self) -> None:
        """The tick that waits; and a group that took long, and missed the last scrape by that, is evaluated for it."""
        while True:
            if self._freed and self._landed_at is not None:
                tick = _Tick(self._landed_at, True, frozenset())
            elif self._waiting is not None:
                tick, self._waiting = self._waiting, None
            else:
                break
            self._freed = False
            await self._evaluate(tick)

    async def _evaluate(self, tick: _Tick) -> None:
        """Everything that is due at a tick, in the rule threads; then what came of it is told."""
        spacing = 0
        if tick.landed:
            spacing = 0 if self._landed_at is None else tick.now - self._landed_at
            self._landed_at = tick.now
        events = {
            self._groups[place].key
            for place in concerned(self._footprints, self._names(tick.streams))
            if self._groups[place].interval_ms <= EVENT_INTERVAL_MS
        }
        due = self._timetable.due(tick.now, landed=tick.landed, spacing=spacing, events=events)
        if due or tick.landed:
            self._now = tick.now
        if not due:
            return
        prompt: list[_Job] = []
        slow: list[_Job] = []
        for group in self._groups:
            if group.key in due:
                (slow if group.seconds > self._patience else prompt).append(_Job(group, due[group.key]))
        self._hold(slow)
        self._workers.add(prompt, slow)
        await self._prompt_ones()
        self._collect()

    async def _prompt_ones(self) -> None:
        """Wait until the jobs that do not take long are done; those that do are found out, and left to their threads."""
        loop = asyncio.get_running_loop()
        while self._workers.prompt_at_work():
            timer = loop.call_later(self._patience, self._noticed)
            try:
                await self._moving()
            finally:
                timer.cancel()
            self._hold(self._workers.set_aside(self._patience))
        self._hold(self._workers.waiting())

    def _hold(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            if job.group.key not in self._held:
                self._held.add(job.group.key)
                self._timetable.hold(job.group.key)

    def _noticed(self) -> None:
        """A job was done, or ought to be: whoever waits looks, or is asked to come and look."""
        for one in self._moved:
            if not one.done():
                one.set_result(None)
        if not self._working.locked():
            self._wake()

    async def _moving(self) -> None:
        """Wait for a job to be done."""
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moved.add(moved)
        try:
            await moved
        finally:
            self._moved.remove(moved)

    def _work(self, job: _Job) -> Evaluated:
        """Rule threads: one group."""
        group, now = job.group, self._now
        evaluated = group.evaluate(now, self._conditions)
        if not group.restored and not group.halted:
            self._restore(group, now)
        return evaluated

    def _collect(self) -> None:
        """Tell what came of the jobs that are done."""
        done = self._workers.collect()
        if not done:
            return
        transitions: list[Transition] = []
        for job, evaluated, error in done:
            if error is not None or evaluated is None:
                raise RuntimeError(f"group {job.group.key}: {error!r}") from error
            missed = job.verdict.missed
            if job.group.key in self._held and job.group.key not in self._awaited:
                self._held.remove(job.group.key)
                missed += self._timetable.release(job.group.key, evaluated.at)
                self._freed = True
            self._meters.evaluated(job.group, missed, evaluated)
            for turn in evaluated.turns:
                _log_turn(job.group, turn)
            transitions += evaluated.transitions
        self._meters.alerts()
        self._tell(transitions)

    def _restore(self, group: LiveGroup, now: int) -> None:
        try:
            count = group.restore(
                now,
                self._conditions,
                tolerance_ms=round(self._settings.for_outage_tolerance * 1000),
                grace_ms=round(self._settings.for_grace_period * 1000),
            )
        except Exception:
            log.exception("alerts_not_restored", group=group.key)
        else:
            if count:
                log.info("alerts_restored", group=group.key, alerts=count)

    def _assemble(self, groups: Sequence[Group], *, restored: bool) -> Assembly:
        try:
            return assemble(
                groups,
                self._head,
                interval=self._settings.interval,
                query_offset=self._settings.query_offset,
                restored=restored,
                previous=self._groups,
            )
        except QueryError as error:
            raise ConfigError([str(error)]) from error

    # --- loading

    async def _read(self) -> tuple[list[Group], int]:
        """The groups of all files, and how many files; ConfigError, also when it takes too long."""
        if self._reading is not None and self._reading.at_work:
            raise ConfigError(["rules.files: an earlier attempt to read them still waits for a file system"])
        files, builtin = self._settings.files, self._settings.builtin
        self._reading = Aside(lambda: read_groups(files, builtin=builtin), name="rule-files")
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await self._reading.result
        except TimeoutError as error:
            problem = (
                f"rules.files: they are not read after {READ_SECONDS:g} s: does a file system not answer?"
            )
            raise ConfigError([problem]) from error

    async def _exchange(self, groups: Sequence[Group]) -> None:
        """Put new groups in the place of the old ones, when none that changes is at work."""
        loop = asyncio.get_running_loop()
        limit = self._settings.query_timeout + HALT_SECONDS
        until = loop.time() + limit
        try:
            while True:
                async with self._working:
                    await self._catch_up()
                    busy = self._busy(groups)
                    if not busy:
                        assembly, ends = await Aside(lambda: self._reassemble(groups), name="reload").result
                        self._collect()
                        self._adopt(assembly)
                        self._meters.loaded(self._clock())
                        self._tell(ends)
                        await self._work_off()
                        return
                    self._awaited |= {group.key for group in busy}
                    for group in busy:
                        group.halted = True
                    await self._work_off()
                if loop.time() >= until:
                    names = ", ".join(sorted(group.key for group in busy))
                    raise ConfigError([f"still at work after {limit:g} s, so nothing was changed: {names}"])
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._moving()
        finally:
            self._unhalt()
            if self._waiting is not None:
                self._wake()

    def _busy(self, groups: Sequence[Group]) -> list[LiveGroup]:
        """The groups at work that would not stay as they are."""
        unfinished = {job.group.key: job.group for job in self._workers.unfinished()}
        if not unfinished:
            return []
        same = unchanged(
            groups,
            interval=self._settings.interval,
            query_offset=self._settings.query_offset,
            previous=self._groups,
        )
        return [group for key, group in unfinished.items() if key not in same]

    def _unhalt(self) -> None:
        """The groups that were waited for are due again, those that are still at work when they are done."""
        unfinished = {job.group.key for job in self._workers.unfinished()}
        for group in self._groups:
            group.halted = self._closing
        for key in self._awaited - unfinished:
            self._held.discard(key)
            self._timetable.release(key, 0)
        self._awaited.clear()

    def _reassemble(self, groups: Sequence[Group]) -> tuple[Assembly, list[Transition]]:
        """In a thread of its own, while no group that changes is at work: put together, and end what is gone."""
        assembly = self._assemble(groups, restored=True)
        now = round(self._clock() * 1000)
        for group, stream in assembly.ended:
            stream.end(now - group.offset_ms)
        ends = [end for group, rule in assembly.gone for end in group.forget(rule, now)]
        return assembly, ends

    def _adopt(self, assembly: Assembly) -> None:
        self._groups = assembly.groups
        recorders: dict[str, list[LiveRule]] = {}
        for group in assembly.groups:
            group.recorders = recorders
            for rule in group.rules:
                if rule.rule.kind == "recording":
                    recorders.setdefault(rule.rule.name, []).append(rule)
        self._footprints = [footprint(group) for group in assembly.groups]
        self._timetable.adopt({group.key: group.interval_ms for group in assembly.groups})
        self._meters.groups(assembly.groups)
        self._meters.alerts()

    def _names(self, streams: frozenset[str]) -> set[str]:
        """The metric names in these streams."""
        return {
            value
            for stream in streams
            for labels in self._head.stream(stream).labels
            for name, value in labels or ()
            if name == NAME
        }

    def _tell(self, transitions: Sequence[Transition]) -> None:
        if not transitions:
            return
        loud = [one for one in transitions if {"firing", "held"} & {one.before, one.after}]
        for one in loud[:LOGGED]:
            log.info(
                _EVENTS.get(one.after, "alert_ended"),
                alert=one.rule,
                labels=dict(one.alert.labels),
                value=one.alert.value,
            )
        if len(loud) > LOGGED:
            log.info("more_alerts_changed", count=len(loud) - LOGGED)
        for callback in self._subscribers:
            callback(transitions)


_EVENTS = {"firing": "alert_fires", "held": "alert_without_data"}


def _log_turn(group: LiveGroup, turn: Turn) -> None:
    where = {"group": group.key, "rule": turn.rule}
    if turn.crash is not None:
        log.error("rule_crashed", **where, exc_info=turn.crash)
    elif turn.error:
        log.warning("rule_failed", **where, error=turn.error)
    else:
        log.info("rule_recovered", **where)


def _merged(waiting: _Tick | None, tick: _Tick) -> _Tick:
    """Both in one, at the later time; where the clock was set back, at the new time."""
    if waiting is None:
        return tick
    now = tick.now if tick.now < waiting.now - STEP_MS else max(tick.now, waiting.now)
    return _Tick(now, tick.landed or waiting.landed, tick.streams | waiting.streams)
