"""Names to addresses, in an endpoint's own threads: a name server that hangs delays no other endpoint.

The event loop's shared threads would all hang in `getaddrinfo`, which has no time limit, after a few attempts.
"""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from exporter.notify.receivers.blocking import BusyError, Threads

LONGEST_SECONDS = 60.0
"""Whoever asks has a shorter limit of his own."""


class Resolver(AbstractResolver):
    """The system's resolver; errors are OSError, as for any resolver."""

    def __init__(self, most: int = 4) -> None:
        self._threads = Threads("resolve", most)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: it has none, or earlier questions still have no answer.
        """
        try:
            found = await self._threads.call(
                lambda: socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                ),
                LONGEST_SECONDS,
            )
        except BusyError:
            raise OSError("earlier questions to the name server still have no answer") from None
        return [
            ResolveResult(
                hostname=host,
                host=address_of(place),
                port=int(place[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in found
            if kind in (socket.AF_INET, socket.AF_INET6)
        ]

    async def close(self) -> None:
        """Nothing to let go."""


def address_of(place: tuple[object, ...]) -> str:
    """The address of what `getaddrinfo` found, with its zone where it has one (`fe80::1%2`)."""
    address = str(place[0])
    zone = place[3] if len(place) > 3 else 0
    return f"{address}%{zone}" if zone and "%" not in address else address
