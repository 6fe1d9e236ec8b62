"""structlog set-up: events in snake case, JSON or console lines on standard error.

A log is never worth the daemon: lines are written by a thread, so that a reader who stopped reading stalls nothing, and a
line that cannot be written (a closed pipe, a full disk) is lost and counted, not raised.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import deque
from typing import Literal

import structlog

QUEUE_LINES = 10_000
"""Lines that wait for a slow reader; more are lost."""
GATHER_SECONDS = 0.03
"""How long a line of no urgency waits for others, so that many are written at once: what a SIGKILL of the daemon can cost."""
CLOSE_SECONDS = 1.0
"""Longest wait for the last lines at the end."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Outlet:
    """A text file on a descriptor, whose `write` never waits and never fails.

    The thread gathers lines for a moment before it writes: woken for each of a thousand a second, it would cost the event
    loop more than the lines do.
    """

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        """Lines that nobody got."""
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._some = threading.Event()
        self._urgent = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Hand one or more whole lines over."""
        if len(self._lines) < QUEUE_LINES and not self._closing:
            self._lines.append(text)
            if not self._some.is_set():
                self._some.set()
        else:
            self.lost += 1
        return len(text)

    def flush(self) -> None:
        """Have the thread write what waits now."""
        for event in (self._urgent, self._some):
            if not event.is_set():
                event.set()

    def close(self) -> None:
        """Write what waits, but not for long."""
        self._closing = True
        self.flush()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._urgent.wait(GATHER_SECONDS)
            self._some.clear()  # before the lines are taken: who adds one now wakes us again
            self._urgent.clear()
            closing = self._closing
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            try:
                _write_all(self._descriptor, "".join(lines).encode("utf-8", "backslashreplace"))
            except OSError:
                self.lost += len(lines)
            if closing:
                return


class _Lines:
    """What structlog writes to: warnings and errors leave at once, the rest when the outlet has gathered some."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def msg(self, line: str) -> None:
        self._outlet.write(line + "\n")

    def urgent(self, line: str) -> None:
        self._outlet.write(line + "\n")
        self._outlet.flush()

    log = debug = info = msg
    warn = warning = err = error = exception = critical = fatal = failure = urgent


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


_outlet: Outlet | None = None


def lost_lines() -> int:
    """Log lines of this process that could not be written."""
    return _outlet.lost if _outlet is not None else 0


def configure(fmt: Literal["json", "console"], level: str) -> None:
    """Send structlog and the standard library's warnings to standard error, in one format, from `level` up."""
    global _outlet
    outlet = _outlet = Outlet(sys.stderr.fileno())
    atexit.register(outlet.close)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if fmt == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        # With `rich` installed, as beside vLLM, the default shows the local variables, and so secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(outlet),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(outlet)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
