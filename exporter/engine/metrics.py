"""The engine's own series, written from its status."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.engine.output.loglines import STAGES
from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.engine.verdict.hang import CanaryOutcome
from exporter.engine.verdict.health import Health
from exporter.exposition.block import Block, Slot
from exporter.exposition.model import Family

UP = Family(
    "vllm_exporter_engine_up",
    "gauge",
    "Whether the engine is ready: it answers, lists a model and makes progress.",
)
STATE = Family(
    "vllm_exporter_engine_state",
    "gauge",
    "1 for the state that the engine is in, 0 for the others.",
    ("state",),
)
INFO = Family(
    "vllm_exporter_engine_info",
    "info",
    "How the daemon holds the engine: supervised, adopted or attached.",
    ("mode",),
)
GENERATION = Family(
    "vllm_exporter_engine_generation",
    "gauge",
    "Counts the engine processes that were started one after the other.",
)
START_TIME = Family(
    "vllm_exporter_engine_start_time_seconds",
    "gauge",
    "Unix time of the start of the engine process.",
    unit="seconds",
)
READY_TIME = Family(
    "vllm_exporter_engine_ready_time_seconds",
    "gauge",
    "Unix time at which the engine process became ready.",
    unit="seconds",
)
LOAD_DURATION = Family(
    "vllm_exporter_engine_load_duration_seconds",
    "gauge",
    "Time from the start of the engine process to ready; while it loads, absent.",
    unit="seconds",
)
LOAD_PROGRESS = Family(
    "vllm_exporter_engine_load_progress_ratio",
    "gauge",
    "How far loading has come, from 0 to 1, as the engine's output tells it; only before ready.",
    unit="ratio",
)
LOAD_STAGE = Family(
    "vllm_exporter_engine_load_stage",
    "gauge",
    "1 for the stage of loading that the engine is in, 0 for the others; only before ready.",
    ("stage",),
)
RESTARTS = Family(
    "vllm_exporter_engine_restarts_total",
    "counter",
    "Restarts of the engine, by what ended the process before; counted when the restart is decided, before the new start.",
    ("reason",),
)
CRASHES = Family(
    "vllm_exporter_engine_crashes_total",
    "counter",
    "Ends of the engine that nobody asked for, hangs that were ended among them, by reason.",
    ("reason",),
)
LAST_FAILURE = Family(
    "vllm_exporter_engine_last_failure_info",
    "info",
    "Why the engine last ended or could not start.",
    ("reason",),
)
STALLS = Family(
    "vllm_exporter_engine_stalls_total",
    "counter",
    "Times that a ready engine was found unresponsive, by the signal that told.",
    ("signal",),
)
CANARIES = Family(
    "vllm_exporter_engine_canaries_total",
    "counter",
    "One-token canary requests sent to an engine without progress, by outcome.",
    ("outcome",),
)
PROBES = Family(
    "vllm_exporter_engine_probes_total",
    "counter",
    "Probes of the engine's /health after ready, by result.",
    ("result",),
)
PROBE_DURATION = Family(
    "vllm_exporter_engine_probe_duration_seconds",
    "gauge",
    "Time that the last probe of /health took.",
    unit="seconds",
)
INCIDENTS = Family(
    "vllm_exporter_engine_incidents_total", "counter", "Incident folders written, by reason.", ("reason",)
)
LOG_LINES = Family(
    "vllm_exporter_engine_log_lines_total", "counter", "Lines of engine output read, by level.", ("level",)
)
LOG_DROPPED = Family(
    "vllm_exporter_engine_log_lines_dropped_total",
    "counter",
    "Lines of engine output that were not forwarded to the daemon's log, because they came too fast.",
)
LOG_SKIPPED = Family(
    "vllm_exporter_engine_log_bytes_skipped_total",
    "counter",
    "Bytes of engine output that were never read, because more came at once than is kept (engine.log_file_limit).",
)

FAMILIES: tuple[Family, ...] = (
    UP, STATE, INFO, GENERATION, START_TIME, READY_TIME, LOAD_DURATION, LOAD_PROGRESS, LOAD_STAGE, RESTARTS, CRASHES,
    LAST_FAILURE, STALLS, CANARIES, PROBES, PROBE_DURATION, INCIDENTS, LOG_LINES, LOG_DROPPED,
    LOG_SKIPPED,
)  # fmt: skip

COUNTED = {family.name: family for family in FAMILIES if family.type == "counter" and family is not RESTARTS}
"""Counters that are kept here alone; restarts are a part of the status."""

COMMON_REASONS = (
    "crashed",
    "engine_died",
    "exited",
    "hang",
    "health",
    "killed",
    "rpc_timeout",
    "start_timeout",
    "worker_died",
)
"""Reasons that show a 0 before they happen; the diagnosis knows more."""
SIGNALS = ("no_progress", "health")
"""What can tell that a ready engine is unresponsive."""


class EngineMetrics:
    """The slots, and the one place that writes a status into them."""

    def __init__(self, block: Block, *, supervised: bool) -> None:
        self._block = block
        self._up = block.gauge(UP)
        self._states = {state: block.gauge(STATE, state.value) for state in EngineState}
        self._generation = block.gauge(GENERATION)
        self._start_time = block.gauge(START_TIME)
        self._ready_time = block.gauge(READY_TIME)
        self._load_duration = block.gauge(LOAD_DURATION)
        self._load_progress = block.gauge(LOAD_PROGRESS)
        self._stages = {stage: block.gauge(LOAD_STAGE, stage) for stage in STAGES}
        self._counters: dict[str, dict[str, Slot]] = {name: {} for name in COUNTED}
        self._stalls = {signal: self._counter(STALLS, signal) for signal in SIGNALS}
        self._canaries = {outcome: self._counter(CANARIES, outcome.value) for outcome in CanaryOutcome}
        self._probes = {health: self._counter(PROBES, health.value) for health in Health}
        self._probe_duration = block.gauge(PROBE_DURATION)
        self._dropped = self._counter(LOG_DROPPED)
        self._skipped = self._counter(LOG_SKIPPED)
        for counter in (*self._stalls.values(), *self._canaries.values(), *self._probes.values()):
            counter.set(0)
        if supervised:  # a counter that appears with its first increment shows no increase
            for reason in COMMON_REASONS:
                block.counter(RESTARTS, reason).set(0)
                self._counter(CRASHES, reason).set(0)

    def _counter(self, family: Family, label: str = "") -> Slot:
        """The slot of a counter with one label or none."""
        slots = self._counters[family.name]
        if label not in slots:
            slots[label] = self._block.counter(family, *((label,) if family.labels else ()))
        return slots[label]

    def state(self) -> dict[str, dict[str, float]]:
        """Every total, for the next daemon: family name to label value (empty without a label) to total. JSON-able."""
        return {
            name: {label: slot.value for label, slot in slots.items() if slot.value}
            for name, slots in self._counters.items()
        }

    def restore(self, totals: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from saved totals, which are finite and not negative; call it before anybody is shown the page."""
        for name, family in COUNTED.items():
            for label, total in totals.get(name, {}).items():
                slot = self._counter(family, label)
                slot.set(max(slot.value or 0.0, total))

    def show(self, status: EngineStatus) -> None:
        """Write a status; a series that says nothing now is absent."""
        self._up.set(1 if status.serving else 0)
        for state, slot in self._states.items():
            slot.set(1 if state is status.state else 0)
        self._block.clear(INFO)
        self._block.info(INFO, status.mode)
        self._generation.set(status.generation if status.mode != "attached" else None)
        self._start_time.set(status.started_at)
        self._ready_time.set(status.ready_since)
        known = status.started_at is not None and status.ready_since is not None
        self._load_duration.set(
            status.ready_since - status.started_at  # type: ignore[operator]
            if known and status.mode == "supervised"
            else None
        )
        loading = status.state in (EngineState.starting, EngineState.loading)
        self._load_progress.set(status.load_ratio if loading else None)
        for stage, slot in self._stages.items():
            slot.set((1 if stage == status.load_stage else 0) if loading and status.load_stage else None)
        for reason, count in status.restarts.items():
            self._block.counter(RESTARTS, reason).set(count)
        self._block.clear(LAST_FAILURE)
        if status.last_failure is not None:
            self._block.info(LAST_FAILURE, status.last_failure.reason)

    def crashed(self, reason: str) -> None:
        self._counter(CRASHES, reason).inc()

    def stalled(self, signal: str) -> None:
        self._stalls[signal].inc()

    def canary(self, outcome: CanaryOutcome) -> None:
        self._canaries[outcome].inc()

    def probed(self, health: Health, took_seconds: float) -> None:
        self._probes[health].inc()
        self._probe_duration.set(took_seconds)

    def incident(self, reason: str) -> None:
        self._counter(INCIDENTS, reason).inc()

    def log_lines(self, level: str, lines: int) -> None:
        self._counter(LOG_LINES, level).inc(lines)

    def log_dropped(self, lines: int) -> None:
        self._dropped.inc(lines)

    def log_skipped(self, size_bytes: int) -> None:
        self._skipped.inc(size_bytes)
