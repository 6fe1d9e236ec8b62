"""Where a redirect may lead: an endpoint that we were told to use must not turn us against this machine.

Followed are 301, 302, 307 and 308, with the same method and body, only to http(s), never from https to http. From a public
address only to a public one; from one of our own networks also to those. To this host itself, to link-local addresses and to
a cloud's metadata only where the first address was of that very sort.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

MOST = 5
"""Redirects that are followed in a row."""
FOLLOWED = frozenset({301, 302, 307, 308})

Sort = Literal["loopback", "link-local", "metadata", "private", "public"]
_METADATA = frozenset(map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))
"""Where clouds tell their machines of themselves, passwords included (Alibaba, Azure, Oracle, AWS), beside 169.254.169.254."""
_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)
"""Before the IPv4 address: https://www.rfc-editor.org/rfc/rfc6052"""
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
"""The same in a network of one's own: https://www.rfc-editor.org/rfc/rfc8215"""


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
    if not may_lead_to(sort, allowed):
        raise RedirectError(f"redirected to a {sort} address")
    return url


def may_lead_to(sort: Sort, first: frozenset[Sort]) -> bool:
    """Whether a redirect may lead to a sort of address; `first`: the sorts of the first address, none if unknown."""
    return sort == "public" or sort in first or (sort == "private" and bool(first - {"public"}))


def sort_of(address: IPv4Address | IPv6Address) -> Sort:
    """What sort an address is; one that stands for "this host" counts as loopback, one that holds another as that."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.packed[:12] in (_NAT64, bytes(12)) and int(address) > 1:
            inner = IPv4Address(address.packed[12:])
        if inner is not None:
            return sort_of(inner)
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address in _METADATA:
        return "metadata"
    local = isinstance(address, IPv6Address) and (address.is_site_local or address in _NAT64_LOCAL)
    return "public" if address.is_global and not address.is_multicast and not local else "private"


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
            if not may_lead_to(sort, self.allowed):
                raise AddressError(f"redirected to a {sort} address")
        return found

    async def close(self) -> None:
        """Nothing to let go."""
