"""What an engine's numbers leave for the next daemon: no counter falls, and no crash is forgiven by a restart of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from exporter.engine.adoption import Count, Time
from exporter.engine.verdict.restart import RestartHistory

log = structlog.get_logger(__name__)

Total = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Carried:
    """Saved by one daemon, gone on with by the next."""

    counters: Mapping[str, Mapping[str, Total]] = field(default_factory=dict)
    """Family name to label value to total; see `EngineMetrics.state`."""
    restarts: Mapping[str, Count] = field(default_factory=dict)
    generation: Count = 0
    crashes: tuple[Time, ...] = ()
    """Unix seconds: the monotonic clock starts over with the machine."""
    streak: Count = 0
    never_ready: Count = 0
    mark: str = ""
    """The engine whose output was read up to `output_offset`."""
    output_offset: Count = 0

    def history(self, *, clock_offset: float, now: float) -> RestartHistory:
        """The crashes in monotonic seconds; `clock_offset` is unix minus monotonic time. The future does not count."""
        crashes = sorted(at - clock_offset for at in self.crashes)
        return RestartHistory(tuple(at for at in crashes if at <= now), self.streak, self.never_ready)


_CARRIED = TypeAdapter(Carried)


def read(saved: Mapping[str, Any]) -> Carried:
    """Saved numbers with suspicion: those that make no sense are a warning, and all start over."""
    try:
        return _CARRIED.validate_python(saved)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        log.warning("engine_counts_not_restored", field=".".join(map(str, wrong["loc"])), error=wrong["msg"])
        return Carried()


def at_least(known: Mapping[str, int], saved: Mapping[str, int]) -> dict[str, int]:
    """For each name the larger count: two files that were written at two moments disagree, and no counter falls."""
    return {name: max(known.get(name, 0), saved.get(name, 0)) for name in {**known, **saved}}
