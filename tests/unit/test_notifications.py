"""What is put together for notifications: start, reload, and the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from exporter.alerting.remembered import Remembered
from exporter.alerting.state import Alert as RuleAlert
from exporter.alerting.transition import Transition
from exporter.engine.status import EngineStatus
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.notifications import Notifications
from exporter.notify.engine_facts import EngineFacts
from exporter.notify.model import Alert
from exporter.notify.outbox.outbox import Outbox
from exporter.settings import load_settings
from exporter.storage.head import Head
from exporter.storage.retention import Retention

ROUTE = (
    "route: {{receiver: all, group_wait: 0s, group_by: [alertname]}}\nreceivers: [{{name: all, {hooks}}}]\n"
)


class Rules:
    """No rules."""

    def subscribe(self, callback: Callable[[Sequence[Transition]], None]) -> None:
        """Nothing to tell."""

    def firing(self) -> Iterable[tuple[RuleAlert, str]]:
        return ()

    def hold(self, alerts: Iterable[Remembered]) -> list[Remembered]:
        return []


def hooks(*urls: str) -> str:
    return "webhook_configs: [" + ", ".join(f"{{url: '{url}'}}" for url in urls) + "]"


@contextlib.asynccontextmanager
async def serving(hook: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A server's address."""
    application = web.Application()
    application.router.add_post("/{path:.*}", hook)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[str]]]:
    """A webhook's address, and the alerts that came to it."""
    heard: list[str] = []

    async def hook(request: web.Request) -> web.Response:
        body = await request.json()
        heard.extend(alert["labels"]["alertname"] for alert in body["alerts"])
        return web.Response()

    async with serving(hook) as address:
        yield address, heard


@contextlib.asynccontextmanager
async def notifications(folder: Path, **flags: object) -> AsyncIterator[Notifications]:
    settings = load_settings({f"notify.{name}": value for name, value in flags.items()}, environ={})
    status = EngineStatus("attached", "http://localhost:8000")
    one = Notifications(
        settings, Block(), external_url="http://box", instance="box", facts=EngineFacts(lambda: status)
    )
    await one.start(folder, Rules(), Head(retention=Retention(base_ms=1000), memory_limit=1 << 20))
    task = asyncio.create_task(one.run())
    try:
        yield one
        await one.stop()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await one.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def alert(name: str) -> Alert:
    return Alert((("alertname", name),), (), 1.0)


async def test_after_a_reload_alerts_go_to_the_receivers_that_are_new(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    async with receiver() as (first, told_first), receiver() as (second, told_second):
        file.write_text(ROUTE.format(hooks=hooks(first)))
        async with notifications(tmp_path, file=file) as one:
            one.dispatcher.put([alert("A")])
            await until(lambda: told_first == ["A"])
            file.write_text(ROUTE.format(hooks=hooks(first, second)))
            assert await one.reload() == ()
            one.dispatcher.put([alert("B")])
            await until(lambda: "B" in told_first and "B" in told_second)
            assert not one.outbox.dead()


async def test_a_reload_of_a_file_with_a_mistake_changes_nothing_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    async with receiver() as (address, told):
        file.write_text(ROUTE.format(hooks=hooks(address)))
        async with notifications(tmp_path, file=file) as one:
            file.write_text(ROUTE.format(hooks="webhok_configs: []"))
            (problem,) = await one.reload()
            assert "webhok_configs" in problem
            one.dispatcher.put([alert("A")])
            await until(lambda: told == ["A"])


async def test_what_was_never_sent_goes_out_after_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(ROUTE.format(hooks=hooks("http://127.0.0.1:9/")))
    async with notifications(tmp_path, file=file) as one:
        one.dispatcher.put([alert("A")])
        await one.dispatcher.drain()
    async with receiver() as (address, told):
        file.write_text(ROUTE.format(hooks=hooks(address)))
        async with notifications(tmp_path, file=file):
            await until(lambda: told == ["A"])


async def test_a_receiver_of_the_report_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody-knows"):
        async with notifications(tmp_path, report_receiver="nobody-knows"):
            pass


async def test_reloads_at_the_same_time_leave_one_of_everything(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(
        "route: {receiver: am}\nreceivers: [{name: am, alertmanager_configs: [{urls: ['http://127.0.0.1:9']}]}]\n"
    )
    async with notifications(tmp_path, file=file) as one:
        assert [*await asyncio.gather(one.reload(), one.reload(), one.reload())] == [(), (), ()]

        def forwarding() -> int:
            return [task.get_name() for task in asyncio.all_tasks()].count("notify forward am")

        await until(lambda: forwarding() == 1)


async def test_what_is_decided_when_all_work_has_ended_is_written_down(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(ROUTE.format(hooks=hooks("http://127.0.0.1:9/")))
    async with notifications(tmp_path, file=file) as one:
        pass
    reopened = load(tmp_path)
    assert reopened == []
    async with notifications(tmp_path, file=file) as one:
        for task in [task for task in asyncio.all_tasks() if task.get_name().startswith("notify")]:
            task.cancel()
        one.dispatcher.put([alert("A")])
    assert load(tmp_path) == ["A"]


def load(folder: Path) -> list[str]:
    """The names of the alerts that wait to be told, as the file has them."""
    outbox = Outbox.open(folder / "notify.db")
    return [told.name for one in outbox.load().pending for told in one.alerts]


async def test_after_a_reload_an_alertmanager_is_told_of_the_end_of_what_it_gets_no_more(
    tmp_path: Path,
) -> None:
    file = tmp_path / "alertmanager.yml"
    route = "route: {receiver: nobody, routes: [{matchers: ['alertname=\"%s\"'], receiver: am}]}\n"
    pushed: list[tuple[str, bool]] = []

    async def hook(request: web.Request) -> web.Response:
        for one in await request.json():
            over = datetime.fromisoformat(one["endsAt"]) <= datetime.now(UTC)
            pushed.append((one["labels"]["alertname"], over))
        return web.Response()

    async with serving(hook) as address:
        receivers = (
            f"receivers: [{{name: nobody}}, {{name: am, alertmanager_configs: [{{urls: ['{address}']}}]}}]\n"
        )
        file.write_text(route % "A" + receivers)
        async with notifications(tmp_path, file=file) as one:
            one.dispatcher.put([alert("A"), alert("B")])
            await until(lambda: ("A", False) in pushed)
            file.write_text(route % "B" + receivers)
            assert await one.reload() == ()
            await until(lambda: ("A", True) in pushed and ("B", False) in pushed)


async def test_who_takes_the_place_of_another_webhook_is_told_and_does_not_inherit_what_waits(
    tmp_path: Path,
) -> None:
    """`webhook[0]` is a place in a list; another address may stand there after an edit."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(ROUTE.format(hooks=hooks("http://127.0.0.1:9/")))
    quick = "group_interval: 100ms, "
    async with receiver() as (address, told), notifications(tmp_path, file=file) as one:
        one.dispatcher.put([alert("A")])
        await until(lambda: one.delivery.status()[0].last_attempt)
        file.write_text(ROUTE.replace("group_wait", quick + "group_wait").format(hooks=hooks(address)))
        assert await one.reload() == ()
        one.dispatcher.put([alert("B")])
        await until(lambda: "A" in told and "B" in told)  # by itself: nobody at this address knew of A
        (letter,) = one.outbox.dead()
        assert letter.notification.alerts[0].name == "A"
