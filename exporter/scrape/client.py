"""One page over HTTP, within limits of time and size; what a target may do wrong becomes a `ScrapeError` with a reason."""

from __future__ import annotations

import asyncio
import zlib
from typing import NamedTuple

import aiohttp
from yarl import URL

from exporter.errors import ScrapeError

ACCEPT = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
"""Text 0.0.4 first: it is what vLLM's own dashboards show, and passes through byte for byte."""


class FetchedPage(NamedTuple):
    """The body of a metrics page and the format that its Content-Type declares."""

    body: bytes
    openmetrics: bool


async def fetch_page(
    session: aiohttp.ClientSession,
    url: URL,
    *,
    timeout_seconds: float,
    body_limit: int,
    headers: dict[str, str] | None = None,
    tls_verify: bool = True,
) -> FetchedPage:
    """GET one metrics page; `body_limit` is in bytes after decompression.

    Raises:
        ScrapeError: `connect`, `timeout`, `status`, `redirect`, `content_type`, `body_limit`, `encoding` or `protocol`.
    """
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
            if 300 <= response.status < 400:
                where = response.headers.get("Location", "")[:200]
                raise ScrapeError(f"{url} redirects to {where!r}; give the address itself", reason="redirect")
            if response.status != 200:
                raise ScrapeError(f"{url} answered {response.status}, expected 200", reason="status")
            media = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
            if media in ("text/html", "application/json", "application/xhtml+xml"):
                raise ScrapeError(
                    f"{url} serves {media}, not metrics; is it an engine's address?", reason="content_type"
                )
            body = await _read(response, url, body_limit)
            return FetchedPage(body, media == "application/openmetrics-text")
    except TimeoutError as error:
        raise ScrapeError(
            f"{url} gave no whole page within {timeout_seconds:g} s", reason="timeout"
        ) from error
    except aiohttp.ClientConnectionError as error:
        reason = "protocol" if isinstance(error, aiohttp.ServerDisconnectedError) else "connect"
        raise ScrapeError(f"{url}: {error}", reason=reason) from error
    except aiohttp.ClientError as error:
        raise ScrapeError(f"{url}: {type(error).__name__}: {error}", reason="protocol") from error


async def _read(response: aiohttp.ClientResponse, url: URL, body_limit: int) -> bytes:
    """The whole body, decompressed with a bound, so that neither a long body nor a gzip bomb costs more than the limit."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "deflate", ""):
        raise ScrapeError(f"{url} answered in the encoding {encoding!r}", reason="encoding")
    inflate = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        data = chunk
        if inflate is not None:
            try:
                data = inflate.decompress(chunk, body_limit - size + 1)
            except zlib.error as error:
                raise ScrapeError(f"{url}: broken {encoding} body: {error}", reason="encoding") from error
        size += len(data)
        if size > body_limit:
            raise ScrapeError(f"{url}: page larger than {body_limit} bytes", reason="body_limit")
        chunks.append(data)
    if inflate is not None and inflate.unused_data:
        raise ScrapeError(f"{url}: something follows the {encoding} body", reason="encoding")
    if inflate is not None and not inflate.eof:
        raise ScrapeError(f"{url}: {encoding} body ends early", reason="encoding")
    return b"".join(chunks)
