"""Where the gateway listens, whether the engine moves out of its way, and why the gateway is off where it is.

An engine moves exactly when it would listen on the gateway's port itself, or where another engine would.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from exporter.engine.command import EngineCommand
from exporter.engine.moving import Unmovable, moved
from exporter.engine.process.ports import port_holder
from exporter.engine.process.procfs import ProcessId
from exporter.errors import ConfigError
from exporter.listening import listening_socket
from exporter.settings import GatewaySettings, parse_listen

BACKLOG = 4096
"""Connections that wait to be accepted; the kernel takes net.core.somaxconn where that is smaller."""

LOOK_SECONDS = 0.25
"""Between two looks at a port that is to become free."""


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
    users = Counter(port for engine in own for port in set(_ports(engine)))
    stay: dict[int, str] = {}
    for engine in own:
        at = next((port for port in _ports(engine) if port == found.port or users[port] > 1), None)
        if at is None:
            continue
        why = _stays(engine, at)
        if why is None:
            moves.add(engine.name)
        elif at == found.port:
            reason = f"port {at} is the engine's own, and it cannot be given another: {why}; set gateway.listen to another port"
            if settings.mode == "on":
                raise ConfigError([f"gateway.listen: {reason}"])
            return GatewayOff(reason)
        elif (other := stay.setdefault(at, engine.name)) != engine.name:
            raise ConfigError(
                [
                    f"engines: {other} and {engine.name} both listen on port {at}, and neither can be given another: {why}"
                ]
            )
    return GatewayOn(found.host, found.port, found.tls_cert_file, found.tls_key_file, frozenset(moves))


def _address(settings: GatewaySettings, own: Sequence[Candidate]) -> GatewayOn | GatewayOff:
    """Where clients come, by the setting or by the first engine's flags, with the certificate of either."""
    cert, key = settings.tls_cert_file, settings.tls_key_file
    known = (e.command.public for e in own if e.command is not None)
    first = next((public for public in known if public is not None), None)
    if settings.listen is not None:
        host, port = parse_listen(settings.listen)
    elif first is not None:
        host, port = first.host, first.port
    else:
        return GatewayOff("nothing says where clients come; set gateway.listen")
    if cert is None and first is not None and first.port == port and first.tls:
        if not (first.tls_cert_file and first.tls_key_file):
            return GatewayOff("the engine's --ssl-certfile and --ssl-keyfile go together")
        cert, key = Path(first.tls_cert_file), Path(first.tls_key_file)
    return GatewayOn(host, port, cert, key)


def _ports(engine: Candidate) -> tuple[int, ...]:
    """Where an engine runs that an earlier daemon left, and where it would listen if nobody moved it."""
    command = engine.command
    assert command is not None, "only engines with a command are asked"
    kept = () if engine.kept_at is None else (_port_of(engine.kept_at),)
    return (*kept, command.public.port if command.public is not None else _port_of(command.base_url))


def _stays(engine: Candidate, port: int) -> str | None:
    """None: it can move away from this port. Else why it cannot."""
    command = engine.command
    assert command is not None, "only engines with a command are asked"
    if engine.kept_at is not None and _port_of(engine.kept_at) == port:
        return f"an earlier daemon left it running at {engine.kept_at}, and it is not stopped for the gateway's sake"
    attempt = moved(command, port)
    return attempt.reason if isinstance(attempt, Unmovable) else None


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


class AddressTakenError(ConfigError):
    """Somebody listens there already. `holder`: who, where that can be seen."""

    def __init__(self, problem: str, holder: ProcessId | None) -> None:
        super().__init__([problem])
        self.holder = holder


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; connections wait in the kernel until somebody accepts.

    Raises AddressTakenError, or ConfigError that says what else is wrong. An engine of an earlier daemon that is about to be
    stopped may be the holder (`exporter.engine.adoption.is_of`): then `listen_when_free` is the way.
    """
    shown = f"gateway.listen: [{host}]:{port}" if ":" in host else f"gateway.listen: {host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError([f"{shown}: cannot resolve the host: {error}"]) from error
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    if host == "::":  # all interfaces, also on a machine without IPv6
        found.append((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("0.0.0.0", port)))  # noqa: S104
    failure: OSError | None = None
    for family, _, _, _, address in found:
        try:
            return listening_socket(family, address, backlog=BACKLOG)
        except OSError as error:
            failure = error
            if error.errno == errno.EADDRINUSE:
                holder = port_holder(host, port)
                who = (
                    f"process {holder.pid}"
                    if holder is not None
                    else "a process that cannot be seen from here"
                )
                problem = (
                    f"{shown}: the port is taken by {who}; stop it, or set gateway.listen to another port"
                )
                raise AddressTakenError(problem, holder) from error
    assert failure is not None, "a name that resolves has an address"
    if failure.errno in (errno.EACCES, errno.EPERM):
        hint = "; ports below 1024 need CAP_NET_BIND_SERVICE"
    elif failure.errno == errno.EADDRNOTAVAIL:
        hint = "; no interface of this machine has this address"
    else:
        hint = ""
    raise ConfigError([f"{shown}: {failure.strerror}{hint}"]) from failure


async def listen_when_free(host: str, port: int) -> socket.socket:
    """The same as soon as nobody else listens there; other errors are raised at once."""
    while True:
        try:
            return await asyncio.to_thread(listen, host, port)
        except AddressTakenError:
            await asyncio.sleep(LOOK_SECONDS)
