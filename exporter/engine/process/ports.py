"""Who listens on a TCP port, from /proc/net: the engine's own port must be free before a start and after a stop."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter.engine.process.procfs import ProcessId, identify, pids

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LISTEN = "0A"


def _address(text: str) -> _Address:
    """`0100007F` or 32 hex digits: 4-byte words in the machine's own byte order."""
    words = bytes.fromhex(text)
    if sys.byteorder == "little":
        words = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    address = ipaddress.ip_address(words)
    return getattr(address, "ipv4_mapped", None) or address


def _listeners() -> Iterator[tuple[_Address, int, int]]:
    """Local address, port and socket inode of each listening TCP socket."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                host, _, number = fields[1].rpartition(":")
                yield _address(host), int(number, 16), int(fields[9])


def _wanted(host: str) -> list[_Address]:
    """The addresses that `host` stands for; empty when it cannot be resolved."""
    host = host.strip("[]")
    try:
        return [ipaddress.ip_address(host.partition("%")[0])]
    except ValueError:
        pass
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list({ipaddress.ip_address(str(a[4][0]).partition("%")[0]) for a in answers})


def _inodes(host: str, port: int) -> set[int]:
    wanted = _wanted(host)
    any_of_all = any(address.is_unspecified for address in wanted)
    return {
        inode
        for address, number, inode in _listeners()
        if number == port and (any_of_all or address.is_unspecified or address in wanted)
    }


def port_is_free(host: str, port: int) -> bool:
    """Whether nobody listens where the engine will; connections still closing (TIME_WAIT) do not count."""
    return not _inodes(host, port)


def port_holder(host: str, port: int) -> ProcessId | None:
    """The process that listens there; None when nobody does, or it cannot be seen (another user, another container)."""
    targets = {f"socket:[{inode}]" for inode in _inodes(host, port)}
    if not targets:
        return None
    for pid in pids():
        if not targets.isdisjoint(_sockets(pid)):
            return identify(pid)
    return None


def listening(members: Iterable[ProcessId]) -> list[tuple[str, int]]:
    """Where these processes listen for TCP, as addresses to connect to: those open to the network first.

    Blocks for some milliseconds: call it in a thread.
    """
    held: set[str] = set()
    for member in members:
        sockets = _sockets(member.pid)
        if sockets and identify(member.pid) == member:
            held |= sockets
    found = {
        (not address.is_unspecified, address.is_loopback, _reachable(address), port)
        for address, port, inode in _listeners()
        if f"socket:[{inode}]" in held
    }
    return [(host, port) for *_, host, port in sorted(found)]


def _reachable(address: _Address) -> str:
    if not address.is_unspecified:
        return str(address)
    return "127.0.0.1" if address.version == 4 else "::1"


def _sockets(pid: int) -> set[str]:
    """The sockets that a process holds open, as `socket:[INODE]`; none where it may not be looked at."""
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                target = os.readlink(entry.path)  # noqa: PTH115  thousands of them: no object for each
                if target.startswith("socket:"):
                    found.add(target)
    except OSError:
        pass
    return found
