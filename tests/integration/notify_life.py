"""Lives of a small daemon that tells of a script of transitions, each cut short by `kill -9` at a moment of the caller's.

The real dispatcher, outbox, delivery and webhook. Lives are forked from a process that has imported everything, so that
hundreds of them take seconds. On standard input come lines of JSON, one per life: `folder`, `url` of the sink, and
`seconds` after which it is killed, or null. For each a line is printed: `killed`, or `done` with the exit code.

A life takes the script up where the one before left it, as the rules do after a restart: what they cannot know to have
been put down, they say again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from exporter.notify.config.load import load_config
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.delivery.pace import Pace
from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.model import Alert, Context, Notification, Outcome
from exporter.notify.outbox import rows
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import build

TRANSITIONS = 50
GROUPS = 7
"""So many that no group ever has a crowd of notifications waiting."""
START = 1_790_000_000.0

QUICK = Pace(first_wait=0.02, longest_wait=0.05, first_trial=0.02, longest_trial=0.05)
"""What fails is tried again many times in a life."""

CONFIG = """
route: {{receiver: sink, group_by: [group], group_wait: 0s, group_interval: 1ms, repeat_interval: 1h}}
receivers: [{{name: sink, webhook_configs: [{{url: "{url}"}}]}}]
"""


class Marks:
    """Counters in a file that outlives the process: transitions put down, and commits and requests begun and ended."""

    FIELDS = ("transitions", "commits", "commits_ended", "requests", "requests_ended")

    @classmethod
    def begin(cls, path: Path) -> Marks:
        """All of them at 0; before the first life, so that no kill finds the file half made."""
        path.write_bytes(bytes(8 * len(cls.FIELDS)))
        return cls(path)

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 0)

    def __getitem__(self, field: str) -> int:
        return int(struct.unpack_from("q", self._map, 8 * self.FIELDS.index(field))[0])

    def __setitem__(self, field: str, value: int) -> None:
        struct.pack_into("q", self._map, 8 * self.FIELDS.index(field), value)

    def count(self, field: str) -> None:
        self[field] += 1


class Marked:
    """A receiver whose requests are counted."""

    def __init__(self, receiver: Any, marks: Marks) -> None:
        self._receiver, self._marks = receiver, marks
        self.kind, self.send_resolved, self.timeout = receiver.kind, receiver.send_resolved, receiver.timeout

    async def send(self, notification: Notification, context: Context) -> Outcome:
        self._marks.count("requests")
        try:
            return await self._receiver.send(notification, context)
        finally:
            self._marks.count("requests_ended")

    async def close(self) -> None:
        await self._receiver.close()


def transition(number: int) -> tuple[str, bool]:
    """The group of a transition, and whether its alert fires after it; each group's alert fires and ends in turn."""
    turn, group = divmod(number, GROUPS)
    return f"g{group}", turn % 2 == 0


def alert_after(number: int) -> Alert:
    """A group's alert as it is after a transition."""
    group, fires = transition(number)
    labels = (("alertname", "Trouble"), ("group", group))
    annotations = (("number", str(number)),)
    starts = number if fires else number - GROUPS
    return Alert(
        labels,
        annotations,
        START + starts,
        None if fires else START + number,
        updated_at=START + number,
        generator_url="http://box:9108/graph",
    )


def count_commits(marks: Marks) -> None:
    """Have every transaction counted; each takes up to two milliseconds more, as on a slow disk."""
    real = rows.transaction

    @contextlib.contextmanager
    def counted(connection: Any) -> Iterator[None]:
        marks.count("commits")
        with real(connection):
            yield
            time.sleep(random.uniform(0.0, 0.002))
        marks["commits_ended"] = marks["commits"]

    rows.transaction = counted


async def live(folder: Path, url: str) -> None:
    """One life, to the script's end and until all of it has arrived."""
    marks = Marks(folder / "marks")
    count_commits(marks)
    config = load_config(CONFIG.format(url=url), "alertmanager.yml")
    outbox = Outbox.open(folder / "notify.db")
    assert not outbox.stats.set_aside and outbox.stats.problem is None, outbox.stats
    saved = outbox.load()
    delivery = Delivery(
        {(one.receiver, one.integration): Marked(build(one), marks) for one in config.endpoints},
        outbox,
        pace=QUICK,
        context=lambda: Context("http://box:9108", time.time()),
    )
    told: set[int] = set()

    def deliver(notifications: Any) -> None:
        told.update(int(alert.annotations[0][1]) for one in notifications for alert in one.alerts)
        delivery.take(notifications)

    dispatcher = Dispatcher(config, outbox, deliver=deliver)
    dispatcher.restore(saved)
    delivery.take(saved.pending)
    tasks = [asyncio.create_task(work) for work in (dispatcher.run(), delivery.run())]
    fires = {entry.group_key: bool(entry.firing) for entry in saved.log}
    for number in range(marks["transitions"], TRANSITIONS):
        group, firing = transition(number)
        known = fires.get(f'{{}}:{{group="{group}"}}', False) is firing
        dispatcher.put([alert_after(number)])
        # Put down in the life before, and killed before that could be noted: it is not told again.
        while not known and number not in told:
            await asyncio.sleep(0.0005)
        fires[f'{{}}:{{group="{group}"}}'] = firing
        marks["transitions"] = number + 1
    while outbox.load().pending:
        await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await outbox.close()


def one_life(order: dict[str, Any]) -> str:
    """Fork, kill in time, and say what it came to."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            asyncio.run(live(Path(order["folder"]), order["url"]))
            code = 0
        except BaseException:  # noqa: BLE001 - it is printed, and told by the code
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    seconds = 60.0 if order["seconds"] is None else order["seconds"]
    if signal.sigtimedwait({signal.SIGCHLD}, seconds) is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    # What came between the time's end and the kill is no news of the next.
    signal.sigtimedwait({signal.SIGCHLD}, 0)
    return "killed" if os.WIFSIGNALED(status) else f"done {os.waitstatus_to_exitcode(status)}"


def main() -> None:
    """Lives, as they are ordered."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        print(one_life(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
