"""Alertmanager's own command line against our API, with the real dispatcher behind it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

from exporter.engine.status import EngineStatus
from exporter.exposition.block import Block
from exporter.exposition.page import Page
from exporter.notify.config.load import load_config
from exporter.notify.dispatch import Dispatcher
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.outbox import Outbox
from exporter.settings import RuleSettings, WebSettings
from exporter.storage.head import Head
from exporter.storage.retention import Retention
from exporter.web import WebServer
from exporter.web.api import Api

pytestmark = pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")

CONFIG = """\
route:
  receiver: team
  group_by: [alertname]
  group_wait: 1h
  routes:
    - matchers: [severity="critical"]
      receiver: pager
      group_wait: 0s
receivers:
  - name: team
    webhook_configs: [{url: "http://127.0.0.1:9/team-secret"}]
  - name: pager
    webhook_configs: [{url: "http://127.0.0.1:9/pager-secret"}]
inhibit_rules:
  - source_matchers: [alertname="EngineDown"]
    target_matchers: [alertname="SlowReplies"]
    equal: [instance]
"""


class Site:
    """What stands behind the API."""

    def __init__(self) -> None:
        self.config = load_config(CONFIG, "test.yml")
        self.told: list[Notification] = []
        self.outbox = Outbox.in_memory()
        self.dispatcher = Dispatcher(self.config, self.outbox, deliver=self.told.extend)
        self.delivery: Any = None
        self.started = time.time()
        self.url = ""

    def put(self, name: str, **labels: str) -> Alert:
        """An alert that fires from now on."""
        pairs = tuple(sorted({"alertname": name, **labels}.items()))
        now = time.time()
        alert = Alert(pairs, (("summary", f"{name}: 太慢"),), starts_at=now - 60, updated_at=now)
        self.dispatcher.put([alert])
        return alert

    async def amtool(self, home: Path, *arguments: str) -> Answer:
        """What amtool says."""
        process = await asyncio.create_subprocess_exec(
            "amtool",
            f"--alertmanager.url={self.url}",
            "--no-version-check",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(), err.decode())


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def names(self) -> list[str]:
        """Names of the alerts in an answer in JSON."""
        assert self.code == 0, self.err
        return sorted(alert["labels"]["alertname"] for alert in json.loads(self.out))


@asynccontextmanager
async def running(token: str | None = None) -> AsyncIterator[Site]:
    """The daemon's own face, as far as it is about alerts."""
    site = Site()
    server = WebServer(
        WebSettings(listen="127.0.0.1:0", bearer_token=None if token is None else SecretStr(token)),
        Page([Block()]),
        engine_status=lambda: EngineStatus(mode="supervised", base_url="http://127.0.0.1:8000"),
    )
    server.bind()
    await server.start()
    api = Api(
        RuleSettings(),
        Head(retention=Retention(3_600_000), memory_limit=16 << 20),
        statuses=lambda: (),
        summary=dict,
        reload=lambda: asyncio.sleep(0, ()),
    )
    await server.serve_api(api, site)
    site.url = server.url
    work = asyncio.create_task(site.dispatcher.run())
    try:
        yield site
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await server.stop()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running() as site:
        yield site


async def test_alerts_are_listed_and_chosen_by_matchers_and_receivers(site: Site, tmp_path: Path) -> None:
    site.put("QueueLong", severity="warning", instance="a:8000")
    site.put("EngineCrashed", severity="critical", instance="b:8000")

    async def names(*arguments: str) -> list[str]:
        return (await site.amtool(tmp_path, "-o", "json", "alert", "query", *arguments)).names

    assert await names() == ["EngineCrashed", "QueueLong"]
    assert await names("QueueLong") == ["QueueLong"]
    assert await names("alertname=~Engine.*", 'instance="b:8000"') == ["EngineCrashed"]
    assert await names("severity!=critical") == ["QueueLong"]
    assert await names("--receiver=pag.*") == ["EngineCrashed"]
    assert await names("--silenced") == []
    simple = await site.amtool(tmp_path, "alert", "query")
    assert {line.split()[0] for line in simple.out.splitlines()} == {
        "Alertname",
        "EngineCrashed",
        "QueueLong",
    }
    assert "QueueLong: 太慢" in simple.out
    extended = await site.amtool(tmp_path, "-o", "extended", "alert", "query", "QueueLong")
    assert 'instance="a:8000"' in extended.out


async def test_an_alert_that_is_added_is_told_and_ends_when_it_is_said_to(site: Site, tmp_path: Path) -> None:
    added = await site.amtool(
        tmp_path, "alert", "add", "Manual", "severity=critical", "--annotation=summary=by hand",
        "--generator-url=http://example.com/why",
    )  # fmt: skip
    assert added.code == 0, added.err
    (alert,) = json.loads((await site.amtool(tmp_path, "-o", "json", "alert", "query")).out)
    assert alert["labels"] == {"alertname": "Manual", "severity": "critical"}
    assert alert["annotations"] == {"summary": "by hand"}
    assert alert["generatorURL"] == "http://example.com/why"
    assert alert["receivers"] == [{"name": "pager"}]
    assert alert["startsAt"] < alert["endsAt"]
    await site.dispatcher.drain()
    assert [(told.receiver, told.status) for told in site.told] == [("pager", "firing")]

    ended = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 1))
    over = await site.amtool(tmp_path, "alert", "add", "Manual", "severity=critical", f"--end={ended}")
    assert over.code == 0, over.err
    assert (await site.amtool(tmp_path, "-o", "json", "alert", "query")).names == []


async def test_a_silence_is_added_found_and_ended(site: Site, tmp_path: Path) -> None:
    site.put("QueueLong", severity="warning")
    site.put("SlowReplies", severity="warning")
    added = await site.amtool(
        tmp_path, "silence", "add", "QueueLong", "severity=~warn.*", "-c", "维护", "-a", "小王", "-d", "2h"
    )
    assert added.code == 0, added.err
    silence_id = added.out.strip()

    (silence,) = json.loads((await site.amtool(tmp_path, "-o", "json", "silence", "query")).out)
    assert silence["id"] == silence_id
    assert (silence["comment"], silence["createdBy"]) == ("维护", "小王")
    assert silence["status"] == {"state": "active"}
    assert {(matcher["name"], matcher["isRegex"]) for matcher in silence["matchers"]} == {
        ("alertname", False),
        ("severity", True),
    }
    assert (await site.amtool(tmp_path, "silence", "query", "-q", "QueueLong")).out.split() == [silence_id]
    assert (await site.amtool(tmp_path, "silence", "query", "-q", "Other")).out.split() == []
    assert (await site.amtool(tmp_path, "silence", "query", "-q", "--created-by=other")).out.split() == []
    assert "维护" in (await site.amtool(tmp_path, "-o", "extended", "silence", "query")).out

    assert (await site.amtool(tmp_path, "-o", "json", "alert", "query")).names == ["SlowReplies"]
    silenced = await site.amtool(tmp_path, "-o", "json", "alert", "query", "-s", "QueueLong")
    assert [alert["status"] for alert in json.loads(silenced.out)] == [
        {"inhibitedBy": [], "silencedBy": [silence_id], "state": "suppressed"}
    ]

    assert (await site.amtool(tmp_path, "silence", "expire", silence_id)).code == 0
    assert (await site.amtool(tmp_path, "silence", "query", "-q")).out.split() == []
    assert (await site.amtool(tmp_path, "silence", "query", "-q", "--expired")).out.split() == [silence_id]
    assert (await site.amtool(tmp_path, "-o", "json", "alert", "query")).names == ["QueueLong", "SlowReplies"]
    twice = await site.amtool(tmp_path, "silence", "expire", silence_id)
    assert twice.code == 0


async def test_a_silence_is_made_longer_and_moved_to_another_place(site: Site, tmp_path: Path) -> None:
    added = await site.amtool(tmp_path, "silence", "add", "a=b", "-c", "first")
    silence_id = added.out.strip()
    updated = await site.amtool(tmp_path, "silence", "update", "-d", "5h", "-c", "second", silence_id)
    assert updated.code == 0, updated.err
    kept = await site.amtool(tmp_path, "-o", "json", "silence", "query")
    (silence,) = json.loads(kept.out)
    assert (silence["id"], silence["comment"]) == (silence_id, "second")

    file = tmp_path / "silences.json"
    file.write_text(kept.out, encoding="utf-8")
    async with running() as other:
        imported = await other.amtool(tmp_path, "silence", "import", str(file))
        assert imported.code == 0, imported.err
        (moved,) = json.loads((await other.amtool(tmp_path, "-o", "json", "silence", "query")).out)
        assert moved["id"] == imported.out.strip() != silence_id
        assert (moved["matchers"], moved["endsAt"]) == (silence["matchers"], silence["endsAt"])
        assert [one.id for one in other.dispatcher.silences.query()] == [moved["id"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("silence", "add", "a=~", "-c", "all"), "must not match the empty string"),
        (("silence", "add", "a=b", "-c", "past", "--start=2020-01-01T00:00:00Z", "--end=2020-01-02T00:00:00Z"), "in the past"),
        (("silence", "expire", "00000000-0000-4000-8000-000000000000"), "404"),
        (("silence", "update", "-d", "1h", "00000000-0000-4000-8000-000000000000"), "404"),
        (("alert", "query", "--receiver=("), "receiver"),
        (("alert", "add", "A", "b="), ""),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_said(
    site: Site, tmp_path: Path, arguments: Sequence[str], words: str
) -> None:
    answer = await site.amtool(tmp_path, *arguments)
    if words:
        assert answer.code != 0
        assert words in answer.err
    else:
        assert answer.code == 0


async def test_inhibited_alerts_say_by_which(site: Site, tmp_path: Path) -> None:
    down = site.put("EngineDown", severity="critical", instance="a")
    site.put("SlowReplies", severity="warning", instance="a")
    site.put("SlowReplies", severity="warning", instance="b")
    active = await site.amtool(tmp_path, "-o", "json", "alert", "query")
    assert [alert["labels"]["instance"] for alert in json.loads(active.out)].count("a") == 1
    inhibited = await site.amtool(
        tmp_path, "-o", "json", "alert", "query", "--inhibited", "SlowReplies", "instance=a"
    )
    (alert,) = json.loads(inhibited.out)
    assert alert["status"]["inhibitedBy"] == [f"{down.fingerprint:016x}"]
    assert alert["status"]["state"] == "suppressed"


async def test_the_configuration_is_shown_without_secrets_and_its_routes_can_be_asked(
    site: Site, tmp_path: Path
) -> None:
    shown = await site.amtool(tmp_path, "config", "show")
    assert "receiver: team" in shown.out
    assert "secret>" in shown.out
    assert "-secret" not in shown.out
    extended = await site.amtool(tmp_path, "-o", "extended", "config", "show")
    assert extended.code == 0, extended.err
    routes = await site.amtool(tmp_path, "config", "routes")
    assert 'severity="critical"' in routes.out, routes.err
    tested = await site.amtool(tmp_path, "config", "routes", "test", "severity=critical")
    assert tested.out.strip() == "pager", tested.err
    cluster = await site.amtool(tmp_path, "cluster", "show")
    assert "disabled" in cluster.out


async def test_a_token_opens_the_door_to_amtool(tmp_path: Path) -> None:
    async with running(token="open-sesame") as site:
        site.put("QueueLong", severity="warning")
        refused = await site.amtool(tmp_path, "alert", "query")
        assert refused.code != 0
        assert "401" in refused.err
        http = tmp_path / "http.yml"
        http.write_text("authorization: {credentials: open-sesame}\n")
        shown = await site.amtool(tmp_path, f"--http.config.file={http}", "-o", "json", "alert", "query")
        assert shown.names == ["QueueLong"]
        added = await site.amtool(
            tmp_path, f"--http.config.file={http}", "silence", "add", "QueueLong", "-c", "x"
        )
        assert added.code == 0, added.err
        assert len(site.dispatcher.silences.query()) == 1
