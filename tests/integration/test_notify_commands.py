"""`test notify` against real endpoints, and `notify list|resend` against our API with real parts behind it."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from exporter.errors import ConfigError
from exporter.notify.commands import letters
from exporter.notify.commands import test as command
from exporter.notify.config.load import load_config
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.dispatch import Dispatcher
from exporter.notify.model import Alert, Context
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import build
from exporter.web.alertmanager.routes import add_routes

Capture = pytest.CaptureFixture[str]


class Hook:
    """An endpoint on a free port: what it got, and what it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.got: list[Any] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        return web.Response(status=self.status, text=f"{self.status}, it is")


@asynccontextmanager
async def served(setup: Callable[[web.Application], None]) -> AsyncIterator[str]:
    application = web.Application()
    setup(application)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    async with served(
        lambda application: application.router.add_post("/{path:.*}", hook.answer) and None
    ) as url:
        hook.url = url
        yield hook


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("VLLM_EXPORTER_RULES__INSTANCE", "box:8000")


async def run(module: Any, *arguments: str) -> int:
    """A command as the command line runs it: outside of any event loop."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    module.add_arguments(parser)
    args = parser.parse_args(arguments)
    code: int = await asyncio.to_thread(module.main, args)
    return code


CONFIG = """\
route:
  receiver: {first}
receivers:
  - name: {first}
    webhook_configs:
      - url: {url}/first-secret
  - name: other
    webhook_configs:
      - url: {url}/other-secret
        send_resolved: false
  - name: nobody
"""


@pytest.fixture
def config(hook: Hook, tmp_path: Path) -> Path:
    (tmp_path / "alertmanager.yml").write_text(CONFIG.format(first="团队", url=hook.url), encoding="utf-8")
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"notify:\n  file: {tmp_path}/alertmanager.yml\n", encoding="utf-8")
    return settings


pytestmark = pytest.mark.usefixtures("no_settings")


async def test_every_endpoint_gets_a_marked_alert_and_its_end(
    hook: Hook, config: Path, capsys: Capture
) -> None:
    assert await run(command, "--config", str(config)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("团队 webhook[0]: firing delivered: ")
    assert lines[0].endswith(
        "answered 200; resolved delivered: " + hook.url.removeprefix("http://") + " answered 200"
    )
    assert lines[1].startswith("other webhook[0]: firing delivered: ")
    assert "resolved" not in lines[1]
    assert "secret" not in "".join(lines)
    told = sorted((body["receiver"], body["status"]) for body in hook.got)
    assert told == [("other", "firing"), ("团队", "firing"), ("团队", "resolved")]
    for body in hook.got:
        (alert,) = body["alerts"]
        assert alert["labels"] == {
            "alertname": "VLLMExporterTest", "instance": "box:8000", "severity": "info", "test": "true",
        }  # fmt: skip
        assert "nothing is wrong" in alert["annotations"]["summary"]


async def test_one_receiver_alone_can_be_tried(hook: Hook, config: Path, capsys: Capture) -> None:
    assert await run(command, "other", "--config", str(config)) == 0
    assert [body["receiver"] for body in hook.got] == ["other"]
    assert await run(command, "团队", "--firing-only", "--config", str(config)) == 0
    assert [(body["receiver"], body["status"]) for body in hook.got[1:]] == [("团队", "firing")]
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("status", "words"), [(503, "`run` would try it again: 503, it is"), (404, "answered 404: 404, it is")]
)
async def test_an_endpoint_that_fails_is_tried_once_and_said(
    hook: Hook, capsys: Capture, status: int, words: str
) -> None:
    hook.status = status
    assert await run(command, "--webhook", f"{hook.url}/my-secret") == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert words in out
    assert "my-secret" not in out
    assert len(hook.got) == 1


async def test_alertmanagers_of_the_settings_are_tried_too(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("VLLM_EXPORTER_NOTIFY__ALERTMANAGERS", f"{hook.url}/am")
    assert await run(command) == 0
    assert capsys.readouterr().out.startswith("notify.alertmanagers alertmanager[0]: firing delivered")
    assert [body[0]["labels"]["test"] for body in hook.got] == ["true", "true"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nobody is told of alerts: give --webhook URL"),
        (("nope", "--webhook", "http://127.0.0.1:9/x"), "no receiver 'nope'; there are: "),
        (("--webhook", "no-url-secret"), "notify.webhooks"),
    ],
)
async def test_what_cannot_be_tried_is_a_mistake_of_the_configuration(
    arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        await run(command, *arguments)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_an_address_of_an_alertmanager_that_cannot_be_is_such_a_mistake_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_EXPORTER_NOTIFY__ALERTMANAGERS", "no-url-secret")
    with pytest.raises(ConfigError) as refused:
        await run(command)
    assert refused.value.problems == [
        "notify.alertmanagers, number 1: expected an http or https URL with a host"
    ]


async def test_names_that_are_nearly_right_are_hinted_at(config: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'other'"):
        await run(command, "othr", "--config", str(config))
    with pytest.raises(ConfigError, match="tells nobody"):
        await run(command, "nobody", "--config", str(config))


class Site:
    """What stands behind the API: all of it real, with one webhook."""

    def __init__(self, hook: Hook) -> None:
        self.config = load_config(CONFIG.format(first="team", url=hook.url), "test.yml")
        self.outbox = Outbox.in_memory()
        receivers = {(one.receiver, one.integration): build(one) for one in self.config.endpoints}
        self.delivery = Delivery(receivers, self.outbox, context=lambda: Context("http://box", time.time()))
        self.dispatcher = Dispatcher(self.config, self.outbox, deliver=self.delivery.take)
        self.started = time.time()


@asynccontextmanager
async def running(hook: Hook) -> AsyncIterator[tuple[Site, str]]:
    site = Site(hook)
    work = [asyncio.create_task(site.dispatcher.run()), asyncio.create_task(site.delivery.run())]
    try:
        async with served(lambda application: add_routes(application, site)) as url:
            yield site, url
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_dead_letters_are_shown_and_sent_again(hook: Hook, capsys: Capture) -> None:
    hook.status = 400
    async with running(hook) as (site, url):
        now = time.time()
        labels = (("alertname", "引擎停了"), ("severity", "critical"))
        site.dispatcher.put([Alert(labels, (), starts_at=now - 60, updated_at=now)])
        await until(lambda: len(site.outbox.dead()) == 1)

        assert await run(letters, "list", "--url", url) == 0
        shown = capsys.readouterr().out
        assert "Dead letters:" in shown
        assert "1 (引擎停了)" in shown
        assert "400, it is" in shown
        assert "secret" not in shown
        assert await run(letters, "list", "--json", "--url", url) == 0
        data = json.loads(capsys.readouterr().out)
        (letter,) = data["dead_letters"]
        assert letter["outcome"]["code"] == 400
        assert (letter["receiver"], letter["integration"], letter["status"]) == (
            "team",
            "webhook[0]",
            "firing",
        )
        assert {one["receiver"] for one in data["endpoints"]} == {"team", "other"}

        hook.status = 200
        number = str(letter["number"])
        assert await run(letters, "resend", number, "--url", url) == 0
        await until(lambda: len(hook.got) == 2)
        assert hook.got[0]["alerts"] == hook.got[1]["alerts"]
        assert site.outbox.dead() == ()
        assert await run(letters, "resend", number, "--url", url) == 1
        assert f"{number}: not_found: there is no dead letter {number}" in capsys.readouterr().err
        assert await run(letters, "resend", "--all", "--url", url) == 0


async def test_a_letter_to_an_endpoint_that_is_gone_stays(hook: Hook, capsys: Capture) -> None:
    hook.status = 400
    async with running(hook) as (site, url):
        now = time.time()
        site.dispatcher.put([Alert((("alertname", "A"),), (), starts_at=now - 60, updated_at=now)])
        await until(lambda: len(site.outbox.dead()) == 1)
        await site.delivery.replace({})
        assert await run(letters, "resend", "--all", "--url", url) == 1
        assert "team webhook[0], which is not configured any more" in capsys.readouterr().err
        assert len(site.outbox.dead()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("list", "--url", "nowhere"), 2, "is no URL"),
        (("list", "--url", "http://127.0.0.1:9"), 1, "nobody listens at"),
        (("resend",), 2, "--all"),
        (("resend", "7", "--all"), 2, "--all"),
        (("list", "--timeout", "0s"), 2, "longer than nothing"),
    ],
)
async def test_what_cannot_be_asked_is_said(
    capsys: Capture, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert await run(letters, *arguments) == code
    assert words in capsys.readouterr().err


async def test_a_page_of_another_site_cannot_have_letters_sent(hook: Hook) -> None:
    async with running(hook) as (_, url), ClientSession() as client:
        for body in ({"data": {"a": "b"}}, {"data": "x", "headers": {"Content-Type": "text/plain"}}, {}):
            async with client.post(f"{url}/api/v1/notifications/1/resend", **body) as answer:  # type: ignore[arg-type]
                assert answer.status == 415
