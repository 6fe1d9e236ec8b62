"""One page over HTTP, within limits of time and size; what a target may do wrong becomes a `ScrapeError` with a reason."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from exporter.errors import ScrapeError
from exporter.scrape.connection import Connection
from exporter.scrape.page import ACCEPT, Body, FetchedPage, is_openmetrics


async def fetch_page(
    session: aiohttp.ClientSession,
    url: URL,
    *,
    timeout_seconds: float,
    body_limit: int,
    headers: dict[str, str] | None = None,
    tls_verify: bool = True,
    connection: Connection | None = None,
) -> FetchedPage:
    """GET one metrics page; `body_limit` is in bytes after decompression.

    `connection`: one to this page with these headers, if it is kept; it is used in the session's place.

    Raises:
        ScrapeError: `connect`, `timeout`, `status`, `redirect`, `content_type`, `body_limit`, `encoding` or `protocol`.
    """
    if connection is not None:
        return await connection.fetch(timeout_seconds=timeout_seconds, body_limit=body_limit)
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            session.get(
                url,
                headers={"Accept": ACCEPT, "Accept-Encoding": "identity", **(headers or {})},
                allow_redirects=False,
                ssl=tls_verify,
            ) as response,
        ):
            given = response.headers
            openmetrics = is_openmetrics(
                url,
                response.status,
                location=given.get("Location", ""),
                content_type=given.get("Content-Type", ""),
            )
            body = Body(url, given.get("Content-Encoding", "identity"), body_limit)
            async for piece in response.content.iter_any():
                body.feed(piece)
            return FetchedPage(body.whole(), openmetrics)
    except TimeoutError as error:
        raise ScrapeError(
            f"{url} gave no whole page within {timeout_seconds:g} s", reason="timeout"
        ) from error
    except aiohttp.ClientConnectionError as error:
        reason = "protocol" if isinstance(error, aiohttp.ServerDisconnectedError) else "connect"
        raise ScrapeError(f"{url}: {error}", reason=reason) from error
    except aiohttp.ClientError as error:
        raise ScrapeError(f"{url}: {type(error).__name__}: {error}", reason="protocol") from error
