"""An HTTP endpoint on loopback that answers as it is told, byte by byte; alerts and notifications to send to it."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import KINDS
from exporter.notify.model import Alert, Context, Notification, Receiver
from exporter.notify.receivers.build import build

Misbehave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NOW = 1_700_000_000.0
WORKFLOWS = "flow.example:443"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def response(code: int, body: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} Something", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@dataclass
class Scripted:
    """Each request gets the next answer; the last one is given for ever."""

    answers: list[bytes | Misbehave] = field(default_factory=lambda: [response(200)])
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *rest = head.strip().split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    name.title(): value.strip() for name, _, value in (row.partition(":") for row in rest)
                }
                body = await reader.readexactly(int(headers.get("Content-Length", "0")))
                self.requests.append(Request(method, path, headers, body))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not isinstance(answer, bytes):
                    await answer(reader, writer)
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Scripted]]]:
    """Start an endpoint: `await start(response(500), …)`, each on a free port."""
    servers: list[asyncio.Server] = []
    tasks: list[asyncio.Task[None]] = []

    async def one(*answers: bytes | Misbehave, tls: ssl.SSLContext | None = None) -> Scripted:
        scripted = Scripted(list(answers) or [response(200)], scheme="https" if tls else "http")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            await scripted.serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        scripted.port = server.sockets[0].getsockname()[1]
        return scripted

    yield one
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def alert(name: str = "QueueLong", **changes: Any) -> Alert:
    values: dict[str, Any] = {
        "labels": tuple(sorted({"alertname": name, "severity": "critical", "job": "vllm"}.items())),
        "annotations": (("summary", "重い"),),
        "starts_at": NOW - 60,
        "generator_url": "http://box:9108/graph",
        **changes,
    }
    return Alert(**values)


def notification(*alerts: Alert, **changes: Any) -> Notification:
    values: dict[str, Any] = {
        "number": 1,
        "receiver": "on-call",
        "integration": "webhook[0]",
        "group_key": '{}:{alertname="QueueLong"}',
        "group_labels": (("alertname", "QueueLong"),),
        "alerts": alerts or (alert(),),
        "created_at": NOW,
        **changes,
    }
    return Notification(**values)


@pytest.fixture
def make_alert() -> Callable[..., Alert]:
    return alert


@pytest.fixture
def make_notification() -> Callable[..., Notification]:
    return notification


@pytest.fixture
def context() -> Context:
    return Context("http://box:9108", NOW, {"engine": "vllm"})


@pytest.fixture
def respond() -> Callable[..., bytes]:
    """`respond(429, "slow down", Retry_After="3")`: the bytes of an answer."""
    return response


@pytest.fixture
async def reach(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Receiver]]:
    """A receiver of any kind that speaks HTTP, whose messages end up at a URL: `reach("slack", url, timeout="1s")`."""
    made: list[Receiver] = []

    def one(kind: str, url: str, **more: Any) -> Receiver:
        hook = {"webhook_url": f"{url}/hook/t0ken-t0ken"}
        options: dict[str, dict[str, Any]] = {
            "webhook": {"url": url},
            "alertmanager": {"urls": [url]},
            "pagerduty": {"routing_key": "R0123456789", "url": f"{url}/v2/enqueue"},
            "slack": {"api_url": url},
            "feishu": hook,
            "dingtalk": hook,
            "wecom": hook,
            "telegram": {"bot_token": "123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr", "chat_id": -1001, "api_url": url},
            "discord": {"webhook_url": "https://discord.com/api/webhooks/4242424242/w3bh00k-t0ken"},
            "msteamsv2": {"webhook_url": f"https://{WORKFLOWS}/workflows/w0rkfl0w/triggers/manual/paths/invoke?sig=s1gnature"},
            "apprise": {"url": url.replace("http://", "json://")},
        }  # fmt: skip
        if kind == "discord":
            from apprise.plugins.discord import NotifyDiscord

            monkeypatch.setattr(NotifyDiscord, "notify_url", f"{url}/api/webhooks")
        if kind == "msteamsv2":
            import requests
            from apprise.plugins.workflows import NotifyWorkflows

            def plain(to: str, post: Any = requests.post, **values: Any) -> Any:
                return post(to.replace(f"https://{WORKFLOWS}", url), **values)

            monkeypatch.setattr(sys.modules[NotifyWorkflows.__module__].requests, "post", plain)
        model = KINDS[kind].model_validate({**options[kind], **more})
        made.append(build(Endpoint("people", f"{kind}[0]", kind, True, model)))
        return made[-1]

    yield one
    for receiver in made:
        await receiver.close()
