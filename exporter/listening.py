"""A listening TCP socket: what the web's and the gateway's have in common."""

from __future__ import annotations

import socket


def listening_socket(
    family: int, address: object, *, backlog: int, send_buffer: int | None = None
) -> socket.socket:
    """Listen at an address as `getaddrinfo` gives it, non-blocking. `backlog` in connections, `send_buffer` in bytes for each of
    them, the kernel's own size where it is None. `::` listens on both kinds of address. Raises OSError.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if family == socket.AF_INET6:
            dual = isinstance(address, tuple) and address[0] == "::"
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
