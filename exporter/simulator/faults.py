"""Faults on demand: what may go wrong, as a value, and how it is named on the command line and over HTTP.

One fault is `NAME`, `NAME=VALUE` or either with `@SECONDS`, the time after ready at which it begins:
`wedge`, `slow=4`, `metrics=garbage@30`, `crash=SIGKILL@5`. Over HTTP the same names are keys of a JSON object.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

HEALTH = ("ok", "fail", "silent")
METRICS = ("ok", "garbage", "slow", "huge", "endless", "html", "error", "silent")


@dataclass(frozen=True)
class Faults:
    """Everything that is wrong at a moment; the defaults are a healthy server."""

    wedge: bool = False
    """The engine makes no steps: no tokens, gauges frozen, `/health` 200."""
    slow: float = 1.0
    """Factor on the time of each engine step."""
    error_rate: float = 0.0
    """Share of the requests that fail: status 500, or an error frame in a stream."""
    truncate_rate: float = 0.0
    """Share of the streams whose connection breaks in the middle."""
    health: str = "ok"
    """`fail`: `/health` 503; `silent`: it never answers."""
    silent: bool = False
    """Connections are accepted and nothing is ever answered."""
    metrics: str = "ok"
    """What `/metrics` serves instead of its page; see `METRICS`."""
    metrics_delay: float = 0.0
    """Seconds before `/metrics` answers (`slow` means 10)."""

    log_lines: float = 0.0
    """Lines a second of log that mean nothing."""

    def changed(self, changes: Mapping[str, Any]) -> Faults:
        """These faults with some replaced. ValueError names the key, what it got and what it takes."""
        known = {f.name: f.default for f in fields(self)}
        clean: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown fault {name!r}; there are {', '.join((*known, 'crash'))}")
            clean[name] = _converted(name, value, known[name])
        return replace(self, **clean)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Crash:
    """How the process ends: an exit code, a signal to itself, or the death of the engine core behind the server."""

    exit_code: int | None = None
    signal: signal.Signals | None = None

    @property
    def is_engine_core(self) -> bool:
        return self.exit_code is None and self.signal is None


@dataclass(frozen=True)
class Plan:
    """A change that takes effect `after` seconds."""

    after: float
    changes: Mapping[str, Any]
    crash: Crash | None

    def check(self) -> Plan:
        """Raise ValueError now for what would be wrong later."""
        Faults().changed(self.changes)
        return self


def parse_flag(text: str) -> Plan:
    """The plan of one `--fault` flag. ValueError says what is wrong with it."""
    body, at, delay = text.partition("@")
    name, equals, value = body.partition("=")
    after = _number("the time after @", delay) if at else 0.0
    name = name.strip().replace("-", "_")
    if name == "crash":
        return Plan(after, {}, parse_crash(value if equals else 1))
    return Plan(after, {name: value if equals else True}, None).check()


def parse_body(body: object) -> Plan:
    """The plan of a JSON object as POSTed to `/sim/faults`. ValueError says what is wrong with it."""
    if not isinstance(body, dict):
        raise ValueError("expected a JSON object of fault names and values")
    changes = dict(body)
    after = _number("after", changes.pop("after", 0.0))
    crash = parse_crash(changes.pop("crash")) if "crash" in changes else None
    return Plan(after, changes, crash).check()


def parse_crash(value: object) -> Crash:
    """An exit code (0 to 255), a signal's name, or `engine-core`."""
    text = str(value)
    if text == "engine-core":
        return Crash()
    if text.isdecimal() and int(text) <= 255:
        return Crash(exit_code=int(text))
    try:
        return Crash(
            signal=signal.Signals[text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"]
        )
    except KeyError:
        raise ValueError(
            f"crash takes an exit code, a signal such as SIGKILL, or engine-core; not {text!r}"
        ) from None


def _converted(name: str, value: object, default: object) -> object:
    if name in ("health", "metrics"):
        allowed = HEALTH if name == "health" else METRICS
        if value not in allowed:
            raise ValueError(f"{name} takes one of {', '.join(allowed)}; not {value!r}")
        return value
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "1", "on", "yes"):
            return True
        if str(value).lower() in ("false", "0", "off", "no"):
            return False
        raise ValueError(f"{name} takes true or false; not {value!r}")
    number = _number(name, value)
    if name.endswith("_rate") and number > 1:
        raise ValueError(f"{name} is a share between 0 and 1; not {value!r}")
    if name == "slow" and not number:
        raise ValueError("slow is a factor above 0; wedge is the fault that stops the engine")
    return number


def _number(name: str, value: object) -> float:
    try:
        number = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        )
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} takes a number that is not negative; not {value!r}")
    return number
