"""Alertmanager's API v2: the same requests to a real Alertmanager and to ours, and what ours does by itself."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from exporter.notify.config.load import load_config
from exporter.notify.dispatch import Dispatcher
from exporter.notify.model import Alert
from exporter.notify.outbox.outbox import Outbox
from exporter.web.alertmanager.routes import add_routes
from tests.integration.alertmanager import PROGRAM, Alertmanager

CONFIG = """\
global:
  resolve_timeout: 7m
route:
  receiver: team
  group_by: [alertname]
  group_wait: 1h
  routes:
    - matchers: [severity="critical"]
      receiver: pager
      group_by: ["..."]
      continue: true
    - matchers: [severity="critical"]
      receiver: chat
      group_by: [severity]
receivers:
  - name: team
  - name: pager
    webhook_configs: [{url: "http://127.0.0.1:9/secret"}]
  - name: chat
inhibit_rules:
  - source_matchers: [alertname="EngineDown"]
    target_matchers: [alertname="SlowReplies"]
    equal: [instance]
"""


class Site:
    """What stands behind our API."""

    def __init__(self) -> None:
        self.config = load_config(CONFIG, "test.yml")
        self.outbox = Outbox.in_memory()
        self.dispatcher = Dispatcher(self.config, self.outbox, deliver=lambda notifications: None)
        self.delivery: Any = None
        self.started = time.time()


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Site, str]]:
    site, application = Site(), web.Application()
    add_routes(application, site)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    work = asyncio.create_task(site.dispatcher.run())
    try:
        yield site, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await runner.cleanup()


def at(seconds: float) -> str:
    """A time so many seconds from now."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat(timespec="milliseconds")


def alerts() -> list[dict[str, Any]]:
    started, ends = at(-60), at(600)
    return [
        {"labels": {"alertname": "EngineDown", "severity": "critical", "instance": "a"}, "startsAt": started, "endsAt": ends},
        {"labels": {"alertname": "SlowReplies", "severity": "critical", "instance": "a"}, "startsAt": started, "endsAt": ends},
        {
            "labels": {"alertname": "SlowReplies", "severity": "warning", "instance": "b", "empty": ""},
            "annotations": {"summary": "回答太慢", "runbook_url": "https://example.com/b?c=d&e=<f>"},
            "generatorURL": "http://prometheus:9090/graph?g0.expr=a%3Eb&g0.tab=1",
            "startsAt": started,
            "endsAt": ends,
        },
        {"labels": {"alertname": "Queue\n\"长\"", "job": "vllm", "instance": "b"}, "startsAt": started},
        {"labels": {"alertname": "Over"}, "startsAt": started, "endsAt": at(-10)},
    ]  # fmt: skip


SILENCES: list[dict[str, Any]] = [
    {
        "matchers": [{"name": "alertname", "value": "SlowReplies", "isRegex": False}, {"name": "instance", "value": "b|c", "isRegex": True}],
        "startsAt": at(-5), "endsAt": at(3600), "createdBy": "小王", "comment": "维护",
    },
    {
        "matchers": [{"name": "job", "value": "x", "isRegex": False, "isEqual": False}, {"name": "alertname", "value": "Nope.*", "isRegex": True, "isEqual": True}],
        "startsAt": at(1800), "endsAt": at(3600), "createdBy": "b", "comment": "later",
    },
]  # fmt: skip

READS = [
    "/api/v2/alerts",
    "/api/v2/alerts?active=false",
    "/api/v2/alerts?silenced=false&inhibited=false",
    "/api/v2/alerts?inhibited=false",
    "/api/v2/alerts?unprocessed=false",
    "/api/v2/alerts?receiver=pager",
    "/api/v2/alerts?receiver=(pa.*|nope)",
    "/api/v2/alerts?receiver=page",
    "/api/v2/alerts?filter=instance%3Db&filter=severity!%3Dcritical",
    "/api/v2/alerts?filter=instance%3D~%22a%7Cb%22&filter=job%3D%22%22",
    "/api/v2/alerts?filter=nope",
    "/api/v2/alerts?filter=a%3D~(",
    "/api/v2/alerts?receiver=(",
    "/api/v2/alerts/groups",
    "/api/v2/alerts/groups?receiver=chat",
    "/api/v2/alerts/groups?silenced=false",
    "/api/v2/alerts/groups?inhibited=false&filter=instance%3Da",
    "/api/v2/alerts/groups?active=false",
    "/api/v2/alerts/groups?filter=%3D",
    "/api/v2/silences",
    "/api/v2/silences?filter=alertname%3DSlowReplies",
    "/api/v2/silences?filter=alertname%3D~%22Nope.*%22&filter=job!%3Dx",
    "/api/v2/silences?filter=alertname%3DNope.*",
    "/api/v2/silences?filter=%7B",
    "/api/v2/silence/00000000-0000-4000-8000-000000000000",
    "/api/v2/receivers",
    "/api/v2/status",
]
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/api/v2/alerts", [{"labels": {}}]),
    ("POST", "/api/v2/alerts", [{"labels": {"a": ""}}]),
    ("POST", "/api/v2/alerts", []),
    ("POST", "/api/v2/alerts", [{"labels": {"alertname": "Taken"}}, {"labels": {"a": "b"}, "startsAt": at(60), "endsAt": at(30)}]),
    ("POST", "/api/v2/silences", SILENCES[0] | {"matchers": [{"name": "a", "value": ".*", "isRegex": True}]}),
    ("POST", "/api/v2/silences", SILENCES[0] | {"matchers": [{"name": "a", "value": "(", "isRegex": True}]}),
    ("POST", "/api/v2/silences", SILENCES[0] | {"matchers": [{"name": "a", "value": "b", "isRegex": True}, {"name": "c", "value": "", "isRegex": False}], "endsAt": at(7200)}),
    ("POST", "/api/v2/silences", SILENCES[0] | {"startsAt": at(100), "endsAt": at(50)}),
    ("POST", "/api/v2/silences", SILENCES[0] | {"startsAt": at(-100), "endsAt": at(-50)}),
    ("POST", "/api/v2/silences", SILENCES[0] | {"id": "00000000-0000-4000-8000-000000000000"}),
]  # fmt: skip
NEWER = ("mutedBy", "routeLabels")
"""Keys of the API that Debian's Alertmanager does not know yet."""


def comparable(value: Any) -> Any:
    """An answer without what is its own of each run."""
    if isinstance(value, Mapping):
        shown = {name: comparable(one) for name, one in value.items() if name not in NEWER}
        for name in ("updatedAt", "uptime", "id", "silenceID"):
            if name in shown:
                assert shown[name]
                shown[name] = "…"
        for name in ("endsAt", "startsAt"):
            if name in shown:
                shown[name] = len(shown[name]), round(datetime.fromisoformat(shown[name]).timestamp() / 20)
        if "matchers" in shown:
            shown.pop("annotations", None)  # of silences: these are newer, too
        if "silencedBy" in shown:
            shown["silencedBy"] = len(shown["silencedBy"])
        if "versionInfo" in shown:
            shown["versionInfo"], shown["config"] = sorted(shown["versionInfo"]), sorted(shown["config"])
        return shown
    return [comparable(one) for one in value] if isinstance(value, list) else value


def near(ours: Any, theirs: Any) -> bool:
    """Equal, but for times that fell to both sides of a border."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(near(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(near(*pair) for pair in zip(ours, theirs, strict=True))
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1
    return bool(ours == theirs)


async def ask(client: ClientSession, url: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body)
    headers = {} if body is None else {"Content-Type": "application/json"}
    async with client.request(method, url, data=data, headers=headers) as response:
        text = await response.text()
        if response.status >= 400:
            return response.status, bool(text.strip())  # whose words they are is each one's own
        return response.status, comparable(json.loads(text)) if text.strip() else ""


def differences(got: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [
        f"{what}\n  ours:   {ours}\n  theirs: {theirs}"
        for what, ours, theirs in got
        if not near(list(ours), list(theirs))
    ]


@pytest.mark.skipif(PROGRAM is None, reason="prometheus-alertmanager is not installed")
async def test_it_answers_as_alertmanager_does(tmp_path: Path) -> None:
    real = Alertmanager(tmp_path, CONFIG)
    try:
        await asyncio.to_thread(real.__enter__)
        async with running() as (_, url), ClientSession() as client:
            posted = alerts()
            for base in (url, real.url):
                assert (await ask(client, f"{base}/api/v2/alerts", "POST", posted)) == (200, "")
                for silence in SILENCES:
                    assert (await ask(client, f"{base}/api/v2/silences", "POST", silence))[0] == 200
            async with asyncio.timeout(20):  # its dispatcher takes alerts a little later
                while len((await ask(client, f"{real.url}/api/v2/alerts/groups"))[1]) < 4:
                    await asyncio.sleep(0.02)

            async def both(method: str, path: str, body: Any = None) -> tuple[str, Any, Any]:
                ours, theirs = [await ask(client, base + path, method, body) for base in (url, real.url)]
                return f"{method} {path} {body}", ours, theirs

            assert differences([await both("GET", path) for path in READS]) == []
            assert not differences([await both(*write) for write in WRITES])
            assert not differences(
                [await both("GET", path) for path in ("/api/v2/alerts", "/api/v2/silences")]
            )
    finally:
        real.__exit__(None, None, None)


async def test_mistakes_are_told_in_words_that_amtool_shows() -> None:
    async with running() as (site, url), ClientSession() as client:
        entries = [
            {"labels": {"alertname": "Good"}},
            {"labels": {}},
            {"labels": {"a": "b"}, "endsAt": "soon"},
        ]
        async with client.post(f"{url}/api/v2/alerts", json=entries) as response:
            assert response.status == 400
            assert (await response.json()).splitlines() == [
                "alert 1: at least one label pair required",
                "alert 2: endsAt: 'soon' is no RFC 3339 time",
            ]
        assert [view.alert.name for view in site.dispatcher.alerts()] == ["Good"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"[]", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"[]", 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b"[]"), 400),
        ({"Content-Type": "application/json"}, b" " * (1 << 20) + b"[]", 400),
        ({"Content-Type": "application/json"}, b"", 400),
        ({"Content-Type": "application/json; charset=utf-8"}, b"[]", 200),
    ],
)
async def test_bodies_have_their_limits(headers: dict[str, str], body: bytes, status: int) -> None:
    async with running() as (_, url), ClientSession() as client:
        response = await client.post(f"{url}/api/v2/alerts", data=io.BytesIO(body), headers=headers)
        assert response.status == status


async def test_a_silence_has_its_limit() -> None:
    async with running() as (_, url), ClientSession() as client:
        wish = SILENCES[0] | {"comment": "x" * 65_536}
        async with client.post(f"{url}/api/v2/silences", json=wish) as response:
            assert response.status == 400
            assert await response.json() == "a silence is longer than 65536 bytes"


async def test_thousands_of_alerts_are_listed_while_others_are_answered() -> None:
    async with running() as (site, url), ClientSession() as client:
        now = time.time()
        site.dispatcher.put(
            [
                Alert(
                    (("alertname", "Many"), ("number", f"{number:04}")),
                    (),
                    starts_at=now - 60,
                    updated_at=now,
                )
                for number in range(3000)
            ]
        )

        async def count(path: str) -> int:
            async with client.get(f"{url}{path}") as response:
                assert response.headers["Content-Encoding"] == "gzip"
                answer = await response.json()
            return len(answer) if path.endswith("alerts") else sum(len(group["alerts"]) for group in answer)

        paths = ["/api/v2/alerts", "/api/v2/alerts/groups"] * 3
        assert await asyncio.gather(*map(count, paths)) == [3000] * 6
        async with client.get(f"{url}/api/v2/alerts?filter=number%3D0042") as response:
            assert [alert["labels"]["number"] for alert in await response.json()] == ["0042"]


async def test_a_thousand_alerts_are_taken_at_once() -> None:
    async with running() as (site, url), ClientSession() as client:
        entries = [
            {"labels": {"alertname": "Many", "number": f"{number}"}, "annotations": {"summary": "x" * 100}}
            for number in range(1000)
        ]
        assert await ask(client, f"{url}/api/v2/alerts", "POST", entries) == (200, "")
        assert len(site.dispatcher.alerts()) == 1000


async def test_what_was_answered_is_in_the_outbox() -> None:
    async with running() as (site, url), ClientSession() as client:
        await ask(client, f"{url}/api/v2/alerts", "POST", [{"labels": {"alertname": "Kept"}}])
        assert [alert.name for alert in site.outbox.load().alerts] == ["Kept"]
        async with client.post(f"{url}/api/v2/silences", json=SILENCES[0]) as response:
            silence_id = (await response.json())["silenceID"]
        assert [silence.id for silence in site.outbox.load().silences] == [silence_id]
        async with client.delete(f"{url}/api/v2/silence/{silence_id}") as response:
            assert (response.status, await response.read()) == (200, b"")
        (silence,) = site.outbox.load().silences
        assert silence.ends_at <= time.time()


async def test_head_has_the_headers_of_get() -> None:
    async with running() as (_, url), ClientSession() as client:
        for path in ("/api/v2/alerts", "/api/v2/status"):
            async with client.head(url + path) as response:
                assert (response.status, response.content_type) == (200, "application/json")
                assert response.headers["Cache-Control"] == "no-store"
                assert await response.read() == b""


async def test_what_breaks_inside_is_not_shown() -> None:
    async with running() as (site, url), ClientSession() as client:
        site.config = None  # type: ignore[assignment]
        async with client.get(f"{url}/api/v2/status") as response:
            assert response.status == 500
            assert await response.json() == "internal error; the daemon's log says more"
