"""The plain way to write a streaming relay in Python: aiohttp on both sides. `python -m bench.gateway.aiohttp_relay PORT ENGINE_PORT`."""

from __future__ import annotations

import sys

import aiohttp
from aiohttp import web

HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


async def relay(request: web.Request) -> web.StreamResponse:
    """One request: its body whole, its answer as it comes."""
    session: aiohttp.ClientSession = request.app["session"]
    body = await request.read()
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    url = request.app["engine"] + request.path_qs
    async with session.request(request.method, url, data=body, headers=headers) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        if answer.content_length is not None:
            return web.Response(status=answer.status, headers=kept, body=await answer.read())
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


def main() -> None:
    """Serve until killed."""
    app = web.Application(client_max_size=1 << 30)
    app["engine"] = f"http://127.0.0.1:{sys.argv[2]}"
    app.router.add_route("*", "/{path:.*}", relay)

    async def session(app: web.Application):  # type: ignore[no-untyped-def]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as app["session"]:
            yield

    app.cleanup_ctx.append(session)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
