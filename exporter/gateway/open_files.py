"""How many connections the gateway may hold, so that clients never take the files that the daemon itself needs.

Each connection is an open file, and so are the engine's pipes, `/proc`, the samples and every scrape. Most systems give a
process 1,024 of them at first and let it ask for far more (`getrlimit(2)`).
"""

from __future__ import annotations

import contextlib
import resource

import structlog

from exporter.settings.gateway import GatewaySettings

log = structlog.get_logger(__name__)

OWN_FILES = 256
"""Files that are kept for the daemon: some forty at rest, more while it starts an engine, sends alerts, answers queries."""


def wanted(settings: GatewaySettings, engines: int) -> int:
    """Files for as many clients as may come and as many requests as may be at the engines."""
    return settings.max_connections + settings.max_concurrent * engines + OWN_FILES


def connections_within(limit: int, settings: GatewaySettings, engines: int) -> int:
    """How many clients may be connected with so many files: all that were asked for, or else half of what is left, for each
    of them may have a request at an engine."""
    if limit >= wanted(settings, engines):
        return settings.max_connections
    return max(1, min(settings.max_connections, (limit - OWN_FILES) // 2))


def raise_limit(least: int) -> int:
    """Ask for so many open files, where they are more than there are; how many there are now.

    The engine inherits the limit, and is glad of it: vLLM raises it itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < least:
        most = least if hard == resource.RLIM_INFINITY else min(least, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return least if soft == resource.RLIM_INFINITY else soft


def take_files(settings: GatewaySettings, engines: int) -> GatewaySettings:
    """The settings with as many connections as there are files for; says so where those are fewer than asked for."""
    limit = raise_limit(wanted(settings, engines))
    connections = connections_within(limit, settings, engines)
    if connections < settings.max_connections:
        log.warning(
            "gateway_connections_bounded",
            connections=connections,
            open_files=limit,
            advice=f"max_connections is {settings.max_connections}: raise the limit of open files (LimitNOFILE=, ulimit -n)",
        )
    return settings.model_copy(update={"max_connections": connections})
