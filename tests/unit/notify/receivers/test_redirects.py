"""Where a redirect may lead."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from yarl import URL

from exporter.notify.receivers.redirects import (
    AddressError,
    GuardedResolver,
    RedirectError,
    Sort,
    sort_of,
    sorts_of,
    target,
)
from exporter.notify.receivers.resolving import Resolver

OUTSIDE = frozenset({"public"})
INSIDE = frozenset({"private"})
HERE = frozenset({"loopback"})


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/other?a=b", "https://hooks.example.org/other?a=b"),
        ("https://elsewhere.example.org/x", "https://elsewhere.example.org/x"),
        ("https://93.184.215.14/x", "https://93.184.215.14/x"),
        ("//cdn.example.org/y", "https://cdn.example.org/y"),
    ],
)
def test_other_addresses_may_be_followed(location: str, leads_to: str) -> None:
    assert str(target(URL("https://hooks.example.org/hook"), location, OUTSIDE)) == leads_to


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("gopher://x/", "scheme 'gopher'"),
        ("javascript:alert(1)", "scheme 'javascript'"),
        ("http://hooks.example.org/hook", "https to http"),
        ("https://127.0.0.1:9108/-/reload", "loopback"),
        ("https://127.9.9.9/", "loopback"),
        ("https://0.0.0.0/", "loopback"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:127.0.0.1]/", "loopback"),
        ("https://[::ffff:169.254.169.254]/latest/meta-data", "link-local"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[fe80::1]/", "link-local"),
        ("https://[64:ff9b::a9fe:a9fe]/", "link-local"),
        ("https://[::]/", "loopback"),
        ("https://[::127.0.0.1]/", "loopback"),
        ("https://10.0.0.7/x", "private"),
        ("https://192.168.1.1/", "private"),
        ("https://172.16.0.1/", "private"),
        ("https://100.64.0.1/", "private"),
        ("https://224.0.0.1/", "private"),
        ("https://[fd00::1]/", "private"),
        ("https://[fec0::1]/", "private"),
        ("https://[::ffff:10.0.0.7]/", "private"),
        ("https://[64:ff9b::a00:7]/", "private"),
        ("https://[64:ff9b:1::a00:7]/", "private"),
        ("https://[2002:a00:7::]/", "private"),
        ("https://168.63.129.16/", "metadata"),
        ("https://100.100.100.200/latest/meta-data", "metadata"),
        ("https://192.0.0.192/opc/v2", "metadata"),
        ("https://[fd00:ec2::254]/latest/meta-data", "metadata"),
        ("https://[::ffff:168.63.129.16]/", "metadata"),
        ("https://[64:ff9b::6464:64c8]/", "metadata"),
        ("http://[", "no address"),
    ],
)
def test_dangerous_ones_are_not(location: str, why: str) -> None:
    with pytest.raises(RedirectError, match=why):
        target(URL("https://hooks.example.org/hook"), location, OUTSIDE)


def test_a_first_address_on_loopback_may_lead_to_loopback_but_not_to_link_local() -> None:
    first = URL("http://127.0.0.1:9000/hook")
    assert target(first, "http://127.0.0.1:9001/", HERE).port == 9001
    with pytest.raises(RedirectError, match="link-local"):
        target(first, "http://169.254.169.254/", HERE)


@pytest.mark.parametrize("first", [INSIDE, HERE, frozenset({"private", "public"})])
def test_one_in_a_network_of_ours_may_lead_to_another_there_and_out_but_not_to_metadata(
    first: frozenset[Sort],
) -> None:
    at = URL("http://10.0.0.6/hook")
    assert target(at, "http://10.0.0.7/", first).host == "10.0.0.7"
    assert target(at, "http://[fd00::1]/", first).host == "fd00::1"
    assert target(at, "http://93.184.215.14/", first).host == "93.184.215.14"
    for there in ("168.63.129.16", "169.254.169.254", "[fd00:ec2::254]"):
        with pytest.raises(RedirectError, match=r"metadata|link-local"):
            target(at, f"http://{there}/", first)


def test_one_whose_address_is_not_known_leads_to_public_ones_only() -> None:
    with pytest.raises(RedirectError, match="private"):
        target(URL("http://hooks.example.org/"), "http://10.0.0.7/", frozenset())


@pytest.mark.parametrize(
    ("address", "sort"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("169.254.0.1", "link-local"),
        ("8.8.8.8", "public"),
        ("2606:4700::1", "public"),
        ("64:ff9b::808:808", "public"),
        ("10.1.1.1", "private"),
        ("168.63.129.16", "metadata"),
    ],
)
def test_addresses_are_sorted(address: str, sort: str) -> None:
    assert sort_of(ip_address(address)) == sort


async def test_a_host_is_of_the_sorts_of_its_addresses() -> None:
    assert await sorts_of("localhost", Resolver()) == {"loopback"}
    assert await sorts_of("127.0.0.1", Resolver()) == {"loopback"}
    assert await sorts_of("a..b", Resolver()) == frozenset()


async def test_a_name_that_leads_to_loopback_is_refused_when_it_is_resolved() -> None:
    resolver = GuardedResolver(Resolver())
    with pytest.raises(AddressError, match="loopback"):
        await resolver.resolve("localhost", 80, socket.AF_INET)
    with pytest.raises(AddressError, match="loopback"):
        await resolver.resolve("2130706433", 80, socket.AF_INET)  # 127.0.0.1 as getaddrinfo reads it
    resolver.allowed = HERE
    assert (await resolver.resolve("localhost", 80, socket.AF_INET))[0]["host"] == "127.0.0.1"
    await resolver.close()
