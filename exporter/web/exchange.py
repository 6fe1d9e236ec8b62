"""Bodies of requests and answers of the APIs: how much is taken in, and how much waits for slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter.web.api.envelope import PIECE_BYTES, Answer
from exporter.web.limits import FORM_BYTES, REQUEST_SECONDS

SENDING_BYTES = 128 << 20
"""Large answers that wait for slow readers, all together; one more is refused rather than held in memory."""
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "vllm-exporter",
    "Vary": "Accept-Encoding",
}


class BodyRefused(Exception):  # noqa: N818
    """A request's body is not taken; the message says why."""


async def read_body(request: web.Request) -> bytes:
    """The whole body of a request, which has its limits; BodyRefused."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BodyRefused("a request body is taken as it is, without a Content-Encoding")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for part in request.content.iter_any():
                size += len(part)
                if size > FORM_BYTES:
                    raise BodyRefused(f"the request body is longer than {FORM_BYTES} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise BodyRefused("the request body did not arrive in time") from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise BodyRefused("the request body cannot be read") from error
    return b"".join(parts)


class Sending:
    """Brings answers to their clients, and knows how many bytes of large ones are on their way."""

    def __init__(self) -> None:
        self._bytes = 0

    async def send(self, request: web.Request, answer: Answer, refusal: Answer) -> web.StreamResponse:
        """An answer, or where too many wait already, the small `refusal`."""
        if answer.size <= PIECE_BYTES:
            return _small(answer)
        if self._bytes and self._bytes + answer.size > SENDING_BYTES:
            return _small(refusal)
        self._bytes += answer.size
        try:
            return await _in_pieces(request, answer)
        finally:
            self._bytes -= answer.size


def _small(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=b"".join(answer.pieces),
        content_type=answer.content_type,
        headers=_headers(answer),
    )


async def _in_pieces(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    response.content_type = answer.content_type
    response.content_length = answer.size
    await response.prepare(request)
    if request.method != "HEAD":
        for piece in answer.pieces:
            await response.write(piece)
    await response.write_eof()
    return response


def _headers(answer: Answer) -> dict[str, str]:
    return {**HEADERS, "Content-Encoding": "gzip"} if answer.gzip else dict(HEADERS)
