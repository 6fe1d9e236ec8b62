"""Where the gateway listens, whether the engine moves out of its way, and why the gateway is off where it is.

An engine moves exactly when it would listen on the gateway's port itself.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from exporter.engine.command import EngineCommand
from exporter.engine.moving import Unmovable, moved
from exporter.engine.process.ports import port_holder
from exporter.errors import ConfigError
from exporter.settings import GatewaySettings, parse_listen

BACKLOG = 4096
"""Connections that wait to be accepted; the kernel takes net.core.somaxconn where that is smaller."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine, as far as its address goes."""

    name: str
    command: EngineCommand | None
    """None for one that somebody else runs."""
    kept_at: str | None = None
    """Base URL of the same engine where an earlier daemon left it running, unmoved, for this one to adopt."""


@dataclass(frozen=True, slots=True)
class GatewayOff:
    """There is no gateway in this run; `reason` is for the log, empty where that is what was asked for."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class GatewayOn:
    """Where clients come."""

    host: str
    port: int
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    moves: frozenset[str] = frozenset()
    """Names of the engines that get a loopback port of their own."""


def plan(settings: GatewaySettings, engines: Sequence[Candidate]) -> GatewayOn | GatewayOff:
    """What the settings and the engines' own addresses come to.

    Raises ConfigError where `gateway.mode` is `on` and it cannot be: no address, or one that an engine cannot leave.
    """
    own = [engine for engine in engines if engine.command is not None]
    if settings.mode == "off" or (settings.mode == "auto" and not own):
        return GatewayOff()
    found = _address(settings, own)
    if isinstance(found, GatewayOff):
        if settings.mode == "on":
            raise ConfigError([f"gateway.mode: cannot be on: {found.reason}"])
        return found
    moves = set()
    for engine in own:
        why = _stays(engine, found.host, found.port)
        if why is None:
            moves.add(engine.name)
        elif why:
            reason = f"port {found.port} is the engine's own, and it cannot be given another: {why}; set gateway.listen to another port"
            if settings.mode == "on":
                raise ConfigError([f"gateway.listen: {reason}"])
            return GatewayOff(reason)
    return GatewayOn(found.host, found.port, found.tls_cert_file, found.tls_key_file, frozenset(moves))


def _address(settings: GatewaySettings, own: Sequence[Candidate]) -> GatewayOn | GatewayOff:
    """Where clients come, by the setting or by the first engine's flags, with the certificate of either."""
    cert, key = settings.tls_cert_file, settings.tls_key_file
    first = next(
        (e.command.public for e in own if e.command is not None and e.command.public is not None), None
    )
    if settings.listen is not None:
        host, port = parse_listen(settings.listen)
    elif first is not None:
        host, port = first.host, first.port
    else:
        return GatewayOff("nothing says where clients come; set gateway.listen")
    takes_over = first is not None and port == first.port
    if cert is None and takes_over and first is not None and (first.tls_cert_file or first.tls_key_file):
        if not (first.tls_cert_file and first.tls_key_file):
            return GatewayOff("--ssl-certfile and --ssl-keyfile of the engine go together")
        cert, key = Path(first.tls_cert_file), Path(first.tls_key_file)
    return GatewayOn(host, port, cert, key)


def _stays(engine: Candidate, host: str, port: int) -> str | None:
    """None: it moves. Empty: it listens elsewhere anyway. Else why it cannot leave the gateway's port."""
    command = engine.command
    assert command is not None, "only engines with a command are asked"
    if engine.kept_at is not None and _port_of(engine.kept_at) == port:
        return f"it runs since before, at {engine.kept_at}, and is not stopped for that"
    at = command.public.port if command.public is not None else _port_of(command.base_url)
    if at != port:
        return ""
    attempt = moved(command, port)
    return attempt.reason if isinstance(attempt, Unmovable) else None


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ConfigError that says who has the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if family == socket.AF_INET:
            host = socket.gethostbyname(host)
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise ConfigError([f"gateway.listen: {shown}: {error.strerror}"]) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError([f"gateway.listen: {shown}: {_why(error, host, port)}"]) from error
    return listener


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno != errno.EADDRINUSE:
        return os.strerror(error.errno or 0)
    holder = port_holder(host, port)
    who = f"process {holder.pid}" if holder is not None else "a process that cannot be seen from here"
    return f"the port is taken by {who}; stop it, or set gateway.listen"
