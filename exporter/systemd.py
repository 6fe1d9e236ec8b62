"""What systemd is told: ready, reloading, stopping, a status line, and that the event loop is alive.

The protocol is sd_notify(3)'s: one datagram of `KEY=value` lines to the socket in `NOTIFY_SOCKET`. Without that
variable everything here does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

import structlog

log = structlog.get_logger(__name__)

SEND_TIMEOUT_SECONDS = 0.2
"""The datagram goes into systemd's queue at once; only a systemd that is itself stuck makes us wait."""

BEATS_PER_WATCHDOG = 3
"""Keep-alives per `WatchdogSec`. sd_watchdog_enabled(3) advises half the time; a third forgives one late beat."""


class Notifier:
    """Speaks to the service manager; every method returns whether the message was delivered, and never raises."""

    def __init__(self, address: str | None = None, *, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        """Longest silence that systemd accepts; None without a watchdog."""
        self._address = _socket_address(address) if address else None
        self._last_status = ""
        self._next_beat = float("-inf")
        self._failed = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Notifier:
        """What systemd left in the environment, which is taken out of it: the engine must not speak in our name."""
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant_for = environ.pop("WATCHDOG_PID", "")
        watchdog = None
        if microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0:
            watchdog = int(microseconds) / 1e6
        if meant_for and meant_for != str(os.getpid()):
            watchdog = None
        return cls(address, watchdog_seconds=watchdog)

    @property
    def enabled(self) -> bool:
        """Whether somebody listens."""
        return self._address is not None

    def ready(self, status: str | None = None) -> bool:
        """Start-up, or a reload, is complete."""
        return self._send("READY=1", *_status(status))

    def status(self, text: str) -> bool:
        """Show one line in `systemctl status`; the same line again is not sent."""
        if text == self._last_status:
            return self.enabled
        self._last_status = text
        return self._send(*_status(text))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> bool:
        """The end has begun."""
        return self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for this much more time, from now, before systemd loses patience with a start or a stop."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def beat(self, now: float) -> bool:
        """Keep the watchdog quiet; sends only when due. `now`: monotonic. Only the event loop's heartbeat may call it."""
        if self.watchdog_seconds is None or now < self._next_beat:
            return False
        self._next_beat = now + self.watchdog_seconds / BEATS_PER_WATCHDOG
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(SEND_TIMEOUT_SECONDS)
                out.connect(self._address)
                out.sendall("\n".join(lines).encode("utf-8", "replace"))
        except OSError as error:
            if not self._failed:
                log.warning("systemd_not_notified", message=lines[0], error=str(error))
            self._failed = True
            return False
        self._failed = False
        return True


def _socket_address(address: str) -> str | None:
    """A path, or `@name` for an abstract socket; other kinds (vsock) are for virtual machines' own init."""
    if address.startswith("@"):
        return "\0" + address[1:]
    if address.startswith("/"):
        return address
    log.warning("systemd_not_notified", error=f"NOTIFY_SOCKET {address!r} is neither a path nor abstract")
    return None


def _status(text: str | None) -> tuple[str, ...]:
    """One line: a newline inside would start another variable."""
    return () if text is None else (f"STATUS={' '.join(text.split())}",)
