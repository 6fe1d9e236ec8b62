"""An engine of an earlier daemon that is not wanted any more: its requests are waited for, then it is stopped."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import aiohttp
import structlog

from exporter.engine.events import Inbox

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.25
"""Between two looks at its page."""
QUIET_PAGES = 2
"""Pages in a row without a request that end the wait: the last tokens leave the gauges before they reach the client."""
_PAGE_LIMIT = 16 << 20
_DEMAND = re.compile(rb"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? +(\S+)", re.MULTILINE)


def demand(page: bytes) -> float:
    """Requests that an engine's page counts. Several API servers show no such gauge before their first request: 0.

    Raises ValueError for a value that is no number.
    """
    return sum(float(value) for value in _DEMAND.findall(page))


async def drain(
    base_url: str,
    http: Callable[[], aiohttp.ClientSession],
    inbox: Inbox,
    *,
    patience: float,
    answer_within: float,
    tls_verify: bool,
) -> None:
    """Wait until the engine at `base_url` has no request left, for `patience` seconds, or until a stop is asked.

    An engine that nobody can reach, or without such a page, is not waited for; one that is too busy to answer within
    `answer_within` seconds is.
    """
    began = time.monotonic()
    quiet = 0
    while not inbox.stops:
        if time.monotonic() - began >= patience:
            log.warning("engine_of_earlier_run_drain_timed_out", seconds=patience)
            return
        try:
            async with asyncio.timeout(min(answer_within, patience)):
                requests = demand(await _page(f"{base_url.rstrip('/')}/metrics", http(), tls_verify))
            quiet = 0 if requests else quiet + 1
        except aiohttp.ClientConnectorError:
            return
        except aiohttp.ClientResponseError as error:
            if error.status < 500:  # it has no such page, and never will
                return
            quiet = 0
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            quiet = 0
        if quiet == QUIET_PAGES:
            log.info("engine_of_earlier_run_drained", seconds=round(time.monotonic() - began, 2))
            return
        await inbox.next(time.monotonic() + LOOK_SECONDS)


async def _page(url: str, session: aiohttp.ClientSession, tls_verify: bool) -> bytes:
    async with session.get(url, allow_redirects=False, ssl=tls_verify) as response:
        response.raise_for_status()
        body = bytearray()
        async for part in response.content.iter_chunked(1 << 16):
            body += part
            if len(body) > _PAGE_LIMIT:
                raise ValueError("the page has no end")
        return bytes(body)
