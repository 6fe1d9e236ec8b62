"""The contract of the engine's life: what each event does from each state.

| state        | start    | load    | serve | stall        | crash   | give_up | stop     | gone    |
|--------------|----------|---------|-------|--------------|---------|---------|----------|---------|
| stopped      | starting | –       | –     | –            | –       | failed  | –        | –       |
| starting     | –        | loading | ready | –            | backoff | failed  | draining | stopped |
| loading      | –        | –       | ready | –            | backoff | failed  | draining | stopped |
| ready        | –        | –       | –     | unresponsive | backoff | failed  | draining | stopped |
| unresponsive | –        | –       | ready | –            | backoff | failed  | draining | stopped |
| draining     | –        | –       | –     | –            | –       | –       | –        | stopped |
| backoff      | starting | –       | –     | –            | –       | failed  | –        | stopped |
| failed       | –        | –       | –     | –            | –       | –       | –        | stopped |

A dash is late or repeated news: it changes nothing. Nothing leads out of `failed` but a stop, and out of `draining`
but the end of the processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class EngineState(StrEnum):
    """Where an engine stands, in the words of `vllm_exporter_engine_state{state}`."""

    starting = "starting"
    loading = "loading"
    ready = "ready"
    unresponsive = "unresponsive"
    draining = "draining"
    stopped = "stopped"
    backoff = "backoff"
    failed = "failed"


class Event(StrEnum):
    """What can happen to an engine."""

    START = "start"
    """A process was started, or a running one adopted."""
    LOAD = "load"
    """Its output names the first stage of loading."""
    SERVE = "serve"
    """It answers, and lists a model; or it answers and makes progress again."""
    STALL = "stall"
    """Demand without progress, or no answer on `/health`."""
    CRASH = "crash"
    """It ended, or has to be ended, without anybody having asked; another start will be tried."""
    GIVE_UP = "give_up"
    """It ended, or cannot be started, and another start would not help."""
    STOP = "stop"
    """The daemon was asked to stop it."""
    GONE = "gone"
    """Nothing of it is left, or it is left to itself, because the daemon was asked to stop."""


_S, _E = EngineState, Event

_END = {_E.CRASH: _S.backoff, _E.GIVE_UP: _S.failed, _E.STOP: _S.draining, _E.GONE: _S.stopped}

TABLE: Mapping[EngineState, Mapping[Event, EngineState]] = MappingProxyType(
    {
        _S.stopped: {_E.START: _S.starting, _E.GIVE_UP: _S.failed},
        _S.starting: {_E.LOAD: _S.loading, _E.SERVE: _S.ready, **_END},
        _S.loading: {_E.SERVE: _S.ready, **_END},
        _S.ready: {_E.STALL: _S.unresponsive, **_END},
        _S.unresponsive: {_E.SERVE: _S.ready, **_END},
        _S.draining: {_E.GONE: _S.stopped},
        _S.backoff: {_E.START: _S.starting, _E.GIVE_UP: _S.failed, _E.GONE: _S.stopped},
        _S.failed: {_E.GONE: _S.stopped},
    }
)
"""The table above; a missing event changes nothing."""

ALIVE = frozenset({_S.starting, _S.loading, _S.ready, _S.unresponsive, _S.draining})
"""States in which the engine's process is expected to exist."""


ATTACHED_TABLE: Mapping[EngineState, Mapping[Event, EngineState]] = MappingProxyType(
    {
        _S.starting: {_E.SERVE: _S.ready, _E.GONE: _S.stopped},
        _S.ready: {_E.STALL: _S.unresponsive, _E.GONE: _S.stopped},
        _S.unresponsive: {_E.SERVE: _S.ready, _E.GONE: _S.stopped},
        _S.stopped: {_E.START: _S.starting, _E.SERVE: _S.ready},
    }
)
"""The shorter contract of an engine that somebody else runs: `gone` means unreachable, `start` that something answers
again. The other states are never entered."""


def after(
    state: EngineState, event: Event, table: Mapping[EngineState, Mapping[Event, EngineState]] = TABLE
) -> EngineState:
    """The state that `event` leads to from `state`; `state` itself where the table has a dash."""
    return table[state].get(event, state)
