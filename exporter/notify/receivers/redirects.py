"""Where a redirect may lead: an endpoint that we were told to use must not turn us against this machine.

Followed are 301, 302, 307 and 308, with the same method and body, only to http(s), never from https to http, and never
to a loopback or link-local address (cloud metadata, this host's own services) unless the first address was of that sort.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

MOST = 5
"""Redirects that are followed in a row."""
FOLLOWED = frozenset({301, 302, 307, 308})

Sort = Literal["loopback", "link-local", "other"]


class RedirectError(Exception):
    """A redirect that is not followed; the message names at most a scheme or a sort of address."""


class AddressError(OSError):
    """A name led to an address to which a redirect may not lead."""


def target(at: URL, location: str, allowed: frozenset[Sort]) -> URL:
    """Where a redirect leads from `at`, if it may be followed; `allowed`: the sorts of the first address.

    A name is judged when it is resolved (`GuardedResolver`), an address here.

    Raises:
        RedirectError: it must not be followed.
    """
    try:
        url = at.join(URL(location))
    except ValueError:
        raise RedirectError("redirected to what is no address") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise RedirectError(f"redirected to the scheme {url.scheme[:20]!r}")
    if url.scheme == "http" and at.scheme == "https":
        raise RedirectError("redirected from https to http")
    try:
        sort = sort_of(ip_address(url.host.split("%")[0]))
    except ValueError:
        return url
    if sort != "other" and sort not in allowed:
        raise RedirectError(f"redirected to a {sort} address")
    return url


def sort_of(address: IPv4Address | IPv6Address) -> Sort:
    """What sort an address is; one that stands for "this host" counts as loopback."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.packed[:12] == b"\x00d\xff\x9b" + bytes(8):
            inner = IPv4Address(address.packed[12:])  # NAT64, RFC 6052
        if inner is not None:
            return sort_of(inner)
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    return "link-local" if address.is_link_local else "other"


async def sorts_of(host: str, resolver: AbstractResolver) -> frozenset[Sort]:
    """The sorts of all addresses of a host; none where it does not resolve."""
    try:
        found = await resolver.resolve(host, 0, socket.AF_UNSPEC)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(sort_of(ip_address(place["host"].split("%")[0])) for place in found)


class GuardedResolver(AbstractResolver):
    """Resolves names for redirected requests; addresses that no redirect may lead to are refused.

    The very addresses that are judged are connected to: a name that changes in between changes nothing.
    """

    def __init__(self, resolver: AbstractResolver) -> None:
        self.allowed: frozenset[Sort] = frozenset()
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host; AddressError where one of them must not be used."""
        found = await self._resolver.resolve(host, port, family)
        for place in found:
            sort = sort_of(ip_address(place["host"].split("%")[0]))
            if sort != "other" and sort not in self.allowed:
                raise AddressError(f"redirected to a {sort} address")
        return found

    async def close(self) -> None:
        """Nothing to let go."""
