"""The rules at work: files are loaded, groups evaluated in the rule thread when they are due, and others told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from exporter.alerting.assembly import Assembly, assemble
from exporter.alerting.conditions import Conditions
from exporter.alerting.due import Timetable, Verdict
from exporter.alerting.files import read_groups
from exporter.alerting.group import Evaluated, LiveGroup, Turn
from exporter.alerting.meters import Meters
from exporter.alerting.needs import needed
from exporter.alerting.readers import Footprint, concerned, footprint
from exporter.alerting.rulefile import Group
from exporter.alerting.status import GroupStatus
from exporter.alerting.transition import Transition
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


class Evaluator:
    """Owns the loaded groups. Event loop only; `statuses` may be called from any thread.

    One thread evaluates; a tick that comes while it is at work is kept, once, until it is done.
    """

    def __init__(
        self,
        settings: RuleSettings,
        head: Head,
        block: Block,
        *,
        external_url: str,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
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
        self._subscribers: list[Callable[[Transition], None]] = []
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rules")

    def load(self) -> None:
        """Read the rule files at the start; ConfigError with every mistake in them."""
        groups, _ = read_groups(self._settings.files, builtin=self._settings.builtin)
        self._adopt(self._assemble(groups, restored=False))
        self._meters.loaded(self._clock())

    async def reload(self) -> Reload:
        """Read the rule files again. A mistake changes nothing, and is told; else what did not change goes on.

        Waits for an evaluation that is at work.
        """
        async with self._working:
            now = round(self._clock() * 1000)
            loop = asyncio.get_running_loop()
            try:
                assembly, files, ends = await loop.run_in_executor(self._thread, self._reassemble, now)
            except ConfigError as error:
                self._meters.not_loaded()
                for problem in error.problems:
                    log.error("rules_not_loaded", problem=problem)
                return Reload(problems=tuple(error.problems))
            self._adopt(assembly)
            self._meters.loaded(self._clock())
            self._tell(ends)
            await self._work_off()
        rules = sum(len(group.rules) for group in self._groups)
        log.info("rules_loaded", files=files, groups=len(self._groups), rules=rules)
        return Reload(files=files, groups=len(self._groups), rules=rules)

    async def tick(self, now: float, *, streams: frozenset[str] | None = None, landed: bool = True) -> None:
        """A scrape landed at `now`, in unix seconds: evaluate the groups that are due, in the rule thread.

        `streams`: an event changed these streams; the fast groups that read them are evaluated, due or not. `landed` false:
        nothing landed, and only what is late is evaluated; see `late_in`. Comes back when the evaluation is done, or at
        once where another one is at work: that one goes on with this tick then.
        """
        tick = _Tick(round(now * 1000), landed and streams is None, streams or frozenset())
        self._waiting = _merged(self._waiting, tick)
        if self._working.locked():
            return
        async with self._working:
            await self._work_off()

    def late_in(self, now: float) -> float:
        """Seconds from `now` until a group is late, should no scrape land; at least a tenth of a second."""
        return max(100, self._timetable.wait(round(now * 1000))) / 1000

    def statuses(self) -> tuple[GroupStatus, ...]:
        """All groups with their rules and alerts, in the order of the files."""
        return tuple(group.status() for group in self._groups)

    def retention(self, *, base_ms: int, recorded_ms: int) -> Retention:
        """What the loaded rules need to be kept: what they read, their own results, and what a restart goes on from."""
        tolerance = round(self._settings.for_outage_tolerance * 1000)
        return needed(self._groups, base_ms=base_ms, recorded_ms=recorded_ms, tolerance_ms=tolerance)

    def subscribe(self, callback: Callable[[Transition], None]) -> None:
        """Call this for each alert that changes its state, on the event loop, after the evaluation."""
        self._subscribers.append(callback)

    def close(self) -> None:
        """End the rule thread; the group that is at work is waited for."""
        self._closing = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _work_off(self) -> None:
        while (tick := self._waiting) is not None:
            self._waiting = None
            await self._evaluate(tick)

    async def _evaluate(self, tick: _Tick) -> None:
        """Everything that is due at a tick, in the rule thread; then what came of it is told."""
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
        if not due:
            return
        work = [(group, due[group.key]) for group in self._groups if group.key in due]
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(self._thread, self._run, work, tick.now)
        for group, verdict, evaluated in done:
            self._meters.evaluated(group, verdict, evaluated)
            for turn in evaluated.turns:
                _log_turn(group, turn)
        self._meters.alerts()
        self._tell([transition for _, _, evaluated in done for transition in evaluated.transitions])

    def _run(
        self, work: Sequence[tuple[LiveGroup, Verdict]], now: int
    ) -> list[tuple[LiveGroup, Verdict, Evaluated]]:
        """Rule thread: one group after another."""
        done = []
        for group, verdict in work:
            if self._closing:
                break
            if verdict.set_back:
                group.set_back(verdict.set_back)
            evaluated = group.evaluate(now, self._conditions)
            if not group.restored:
                self._restore(group, now)
            done.append((group, verdict, evaluated))
        return done

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

    def _reassemble(self, now: int) -> tuple[Assembly, int, list[Transition]]:
        """Rule thread: read, put together, and end what is gone."""
        groups, files = read_groups(self._settings.files, builtin=self._settings.builtin)
        assembly = self._assemble(groups, restored=True)
        for group, stream in assembly.ended:
            stream.end(now - group.offset_ms)
        ends = [end for group, rule in assembly.gone for end in group.forget(rule, now)]
        return assembly, files, ends

    def _adopt(self, assembly: Assembly) -> None:
        self._groups = assembly.groups
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
        loud = [one for one in transitions if "firing" in (one.before, one.after)]
        for one in loud[:LOGGED]:
            log.info(
                "alert_fires" if one.after == "firing" else "alert_ended",
                alert=one.rule,
                labels=dict(one.alert.labels),
                value=one.alert.value,
            )
        if len(loud) > LOGGED:
            log.info("more_alerts_changed", count=len(loud) - LOGGED)
        for transition in transitions:
            for callback in self._subscribers:
                callback(transition)


def _log_turn(group: LiveGroup, turn: Turn) -> None:
    where = {"group": group.key, "rule": turn.rule}
    if turn.crash is not None:
        log.error("rule_crashed", **where, exc_info=turn.crash)
    elif turn.error:
        log.warning("rule_failed", **where, error=turn.error)
    else:
        log.info("rule_recovered", **where)


def _merged(waiting: _Tick | None, tick: _Tick) -> _Tick:
    if waiting is None:
        return tick
    return _Tick(max(tick.now, waiting.now), tick.landed or waiting.landed, tick.streams | waiting.streams)
