"""Clients must not take the daemon's own files: out of them, it once ended and took its engine along."""

from __future__ import annotations

import subprocess
import sys

import pytest

from exporter.gateway.open_files import OWN_FILES, connections_within, wanted
from exporter.settings import GatewaySettings

SETTINGS = GatewaySettings(max_connections=1000, max_concurrent=100)


def test_with_files_enough_all_may_come() -> None:
    assert wanted(SETTINGS, 2) == 1000 + 200 + OWN_FILES
    assert connections_within(wanted(SETTINGS, 2), SETTINGS, 2) == 1000


@pytest.mark.parametrize(("limit", "connections"), [(1024, 384), (300, 22), (10, 1), (1_000_000, 1000)])
def test_with_fewer_files_as_many_as_leave_the_daemon_its_own(limit: int, connections: int) -> None:
    assert connections_within(limit, SETTINGS, 2) == connections


def test_the_limit_is_raised_as_far_as_it_goes_and_no_further() -> None:
    program = """
import resource
from exporter.gateway.open_files import take_files
from exporter.settings import GatewaySettings
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 2000))
enough = take_files(GatewaySettings(max_connections=1000, max_concurrent=100), 1)
print(enough.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(take_files(GatewaySettings(max_connections=5000, max_concurrent=100), 1).max_connections)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    lines = [line for line in done.stdout.splitlines() if "gateway_connections_bounded" not in line]
    assert lines == ["1000 1356", "872"]
    assert "open_files=2000" in done.stdout
