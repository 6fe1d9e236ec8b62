"""Taking the port, before anything else is started."""

from __future__ import annotations

import errno
import socket

from exporter.engine.process.ports import port_holder
from exporter.errors import ConfigError
from exporter.listening import listening_socket
from exporter.settings import parse_listen
from exporter.web.limits import BACKLOG, SEND_BUFFER_BYTES


def bind(listen: str) -> socket.socket:
    """Listen on `HOST:PORT`; connections wait in the kernel until somebody accepts. ConfigError says what to change."""
    host, port = parse_listen(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError([f"web.listen {listen}: cannot resolve the host {host!r}: {error}"]) from error
    failure: OSError | None = None
    # A name such as localhost may have both kinds of address: the older kind is the one that scrape configs spell out.
    for family, _, _, _, address in sorted(found, key=lambda info: info[0] != socket.AF_INET):
        try:
            return _listen(family, address)
        except OSError as error:
            failure = error
            if error.errno == errno.EADDRINUSE:
                break  # somebody is there: to listen beside them, on another address, would only confuse
    if (
        host == "::" and failure is not None and failure.errno != errno.EADDRINUSE
    ):  # all interfaces, on a machine without IPv6
        try:
            return _listen(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104
        except OSError as error:
            failure = error
    assert failure is not None
    raise ConfigError([f"web.listen {listen}: {_explain(failure, host, port)}"]) from failure


def _listen(family: int, address: object) -> socket.socket:
    return listening_socket(family, address, backlog=BACKLOG, send_buffer=SEND_BUFFER_BYTES)


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(host, port)
        who = (
            f"process {holder.pid}" if holder else f"a process that `ss -ltnp sport = :{port}` names to root"
        )
        return (
            f"the port is taken by {who}, perhaps another vllm-exporter. Stop it, or choose another port with "
            f"--listen or web.listen"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"no right to listen on port {port}: ports below 1024 need CAP_NET_BIND_SERVICE. Choose a higher port "
            f"with --listen or web.listen"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this machine has this address (`ip address` lists them). Use one of them, or :PORT for all"
    return f"cannot listen: {error.strerror or error}"
