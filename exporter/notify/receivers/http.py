"""One POST to an endpoint, within limits of time and size; whatever the endpoint does wrong becomes an `Answer`.

No exception of the library leaves this module: they hold addresses, and a webhook's address is a secret.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from exporter import __version__
from exporter.notify.config.values import DEFAULT_TIMEOUT
from exporter.notify.receivers.answers import Answer, retry_after
from exporter.notify.receivers.masking import Masker
from exporter.notify.receivers.redirects import (
    FOLLOWED,
    MOST,
    AddressError,
    GuardedResolver,
    RedirectError,
    sorts_of,
    target,
)
from exporter.notify.receivers.resolving import Resolver

ANSWER_BYTES = 4096
"""How much of an answer is read."""
ANSWER_SECONDS = 2.0
"""How long an answer's body is waited for once its head is there."""
KEEP_ALIVE_SECONDS = 1.0
"""A connection is kept for a storm's next message, and no longer: an old one may turn out to be closed when it counts."""

SessionFactory = Callable[[AbstractResolver], aiohttp.ClientSession]


class Transport(NamedTuple):
    """How to talk to an endpoint: what `http_config` says, with secrets read and files loaded.

    `headers` go to the first host only, where a redirect leads elsewhere. `timeout` in seconds.
    """

    headers: Mapping[str, str] = {}
    tls: ssl.SSLContext | bool = True
    server_name: str | None = None
    follow_redirects: bool = False
    timeout: float = DEFAULT_TIMEOUT
    masker: Masker = Masker()

    def __repr__(self) -> str:
        """Without the values of headers, which may be secrets."""
        return f"Transport(headers={list(self.headers)}, timeout={self.timeout})"


def open_session(resolver: AbstractResolver) -> aiohttp.ClientSession:
    """A session without cookies, proxies, decompression or time limits of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, keepalive_timeout=KEEP_ALIVE_SECONDS
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        headers={"User-Agent": f"vllm-exporter/{__version__}", "Accept-Encoding": "identity"},
    )


class HttpClient:
    """Posts to one endpoint; connections are its own, so that no other endpoint waits for them."""

    def __init__(self, transport: Transport, session_factory: SessionFactory = open_session) -> None:
        self.transport = transport
        self._open = session_factory
        self._session: aiohttp.ClientSession | None = None
        self._guarded: aiohttp.ClientSession | None = None
        self._resolver = Resolver()
        self._guard = GuardedResolver(self._resolver)

    @property
    def longest(self) -> float:
        """Longest time in seconds of one attempt, reading included: for who enforces it from outside."""
        return self.transport.timeout + ANSWER_SECONDS

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, now: float) -> Answer:
        """One attempt; `now` (unix seconds) is for a Retry-After that names a date."""
        first = _parsed(url)
        if first is None:
            return Answer(None, "its address is no URL", final=True)
        try:
            async with asyncio.timeout(self.transport.timeout) as limit:
                return await self._post(first, body, headers, now, limit)
        except TimeoutError:
            return Answer(None, f"{place(first)} gave no answer within {self.transport.timeout:g} s")
        except RedirectError as error:
            return Answer(None, f"{place(first)} {error}, which is not followed", final=True)
        except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
            if isinstance(error.__cause__, AddressError):
                return Answer(
                    None, f"{place(first)} {error.__cause__.args[0]}, which is not followed", final=True
                )
            return Answer(None, problem_of(error, first))

    async def close(self) -> None:
        """Let connections go."""
        sessions, self._session, self._guarded = (self._session, self._guarded), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    async def _post(
        self, first: URL, body: bytes, headers: Mapping[str, str], now: float, limit: asyncio.Timeout
    ) -> Answer:
        url = first
        for _ in range(MOST + 1):
            at_home = url.host == first.host and (url.port == first.port or url.scheme == "https")
            sent = CIMultiDict(headers)
            if at_home:
                sent.update(self.transport.headers)
            async with self._session_for(url, first).post(
                url.with_user(None) if "Authorization" in sent else url,  # the header goes first, as in Go
                data=io.BytesIO(body),
                headers=sent,
                allow_redirects=False,
                ssl=self.transport.tls,
                server_hostname=self.transport.server_name if at_home and url.scheme == "https" else None,
            ) as response:
                location = response.headers.get("Location", "")
                if response.status not in FOLLOWED or not location or not self.transport.follow_redirects:
                    # The head has come: from here on the time limits what is read, and not what became of it.
                    end = limit.when()
                    assert end is not None
                    limit.reschedule(end + ANSWER_SECONDS)
                    return await self._read(response, now, end)
                response.close()
            if not self._guard.allowed:
                self._guard.allowed = await sorts_of(first.host or "", self._resolver)
            url = target(url, location, self._guard.allowed)
        raise RedirectError(f"redirected more than {MOST} times")

    def _session_for(self, url: URL, first: URL) -> aiohttp.ClientSession:
        if url is first:
            if self._session is None:
                self._session = self._open(self._resolver)
            return self._session
        if self._guarded is None:
            self._guarded = self._open(self._guard)
        return self._guarded

    async def _read(self, response: aiohttp.ClientResponse, now: float, end: float) -> Answer:
        body = bytearray()
        whole = False
        try:
            async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + ANSWER_SECONDS)):
                while len(body) < ANSWER_BYTES:
                    piece = await response.content.read(ANSWER_BYTES - len(body))
                    if not piece:
                        whole = True
                        break
                    body += piece
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            pass
        if not response.content.at_eof():
            response.close()
        return Answer(
            code=response.status,
            retry_after=retry_after(response.headers.get("Retry-After", ""), now),
            text=self.transport.masker.answer(bytes(body), whole=whole),
            body=bytes(body),
        )


def _parsed(url: str) -> URL | None:
    """The address; None for what is none, or has no host."""
    try:
        parsed = URL(url)
    except ValueError:
        return None
    return parsed if parsed.host else None


def place(url: URL) -> str:
    """Host and port: all of an address that may be shown."""
    host = url.host or ""
    return f"{f'[{host}]' if ':' in host else host}:{url.port}"


def problem_of(error: Exception, url: URL) -> str:
    """What went wrong, in words of ours."""
    who = place(url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "it does not fit"
        return f"the certificate of {who} is not trusted: {why}"
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        cause = getattr(error, "os_error", error)
        return f"TLS with {who} failed: {getattr(cause, 'reason', None) or type(cause).__name__}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name of {who} does not resolve"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{who} closed the connection without an answer"
    if isinstance(error, OSError):
        did = (
            "cannot connect to"
            if isinstance(error, aiohttp.ClientConnectorError)
            else "lost the connection to"
        )
        return f"{did} {who}: {_words(error.errno)}"
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return f"{who} answered what is not HTTP"
    return f"the request to {who} failed with {type(error).__name__}"


def _words(number: int | None) -> str:
    return os.strerror(number).lower() if number is not None and number > 0 else "the network failed"
