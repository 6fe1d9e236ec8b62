"""Who listens on a TCP port, from /proc/net: the engine's own port must be free before a start and after a stop."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

from exporter.engine.procfs import ProcessId, identify, pids

_LISTEN = "0A"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """`0100007F` or 32 hex digits: 4-byte words in the machine's own byte order."""
    words = bytes.fromhex(text)
    if sys.byteorder == "little":
        words = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    address = ipaddress.ip_address(words)
    return getattr(address, "ipv4_mapped", None) or address


def _listeners(port: int) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """Local address and socket inode of each listening TCP socket on that port."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, number = fields[1].rpartition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                found.append((_address(host), int(fields[9])))
    return found


def _wanted(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
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
        for address, inode in _listeners(port)
        if any_of_all or address.is_unspecified or address in wanted
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
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    if os.readlink(entry.path) in targets:  # noqa: PTH115  thousands of them: no object for each
                        return identify(pid)
        except OSError:
            continue
    return None
