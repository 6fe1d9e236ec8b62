"""Endpoints that do everything wrong: no notification is lost, each group keeps its order, and nobody else waits."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from bad_receiver import (
    BadReceiver,
    Fault,
    answers,
    answers_half,
    closes,
    drips,
    fails_at_length,
    hangs,
    has_an_endless_head,
    resets,
    talks_nonsense,
)
from structlog.testing import capture_logs

from exporter.notify.config.load import load_config
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.delivery.pace import Pace
from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.model import Alert, Context, Notification, Outcome
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import build

GROUPS = ("a", "b", "c")
ROUNDS = 4
QUICK = Pace(first_wait=0.02, longest_wait=0.05, first_trial=0.02, longest_trial=0.05)
TIMEOUT = "300ms"
"""Of an attempt: what hangs costs so much each time."""

CONFIG = """
route:
  receiver: bad
  group_by: [group]
  group_wait: 0s
  group_interval: 1ms
  repeat_interval: 1h
  routes:
    - {{receiver: good, continue: true}}
    - receiver: bad
receivers:
  - name: good
    webhook_configs: [{{url: "{good}"}}]
  - name: bad
    webhook_configs: [{{url: "{bad}", timeout: {timeout}, http_config: {{{http}}}}}]
"""


class Way:
    """Everything between an alert and two endpoints: one that may misbehave, and one that does not."""

    def __init__(
        self, bad: BadReceiver, good: BadReceiver, path: Path, *, pace: Pace, http: str, url: str
    ) -> None:
        self.bad, self.good = bad, good
        text = CONFIG.format(good=good.url, bad=url or bad.url, timeout=TIMEOUT, http=http)
        config = load_config(text, "alertmanager.yml")
        self.outbox = Outbox.open(path)
        self.outcomes: list[tuple[Notification, Outcome]] = []
        self.delivery = Delivery(
            {(one.receiver, one.integration): build(one) for one in config.endpoints},
            self.outbox,
            context=lambda: Context("http://box:9108", time.time()),
            observe=lambda notification, outcome: self.outcomes.append((notification, outcome)),
            give_up_after=600.0,
            pace=pace,
        )
        self.dispatcher = Dispatcher(config, self.outbox, deliver=self.delivery.take)
        self.expected: dict[str, list[tuple[str, str]]] = {}
        self._alerts: dict[str, Alert] = {}
        self.longest_stall = 0.0

    async def watch_the_loop(self) -> None:
        """How long at most nothing else of this process could have run."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_stall = max(self.longest_stall, time.monotonic() - before)

    def of_bad(self) -> list[Outcome]:
        """What became of each attempt at the endpoint that misbehaves."""
        return [outcome for notification, outcome in self.outcomes if notification.receiver == "bad"]

    async def change(self, group: str) -> None:
        """One more transition: the group's alert fires, or it ends."""
        before = self._alerts.get(group)
        number = str(len(self.expected.setdefault(group, [])))
        labels = (("alertname", "Trouble"), ("group", group), ("severity", "critical"))
        now = time.time()
        if before is None or before.ends_at is not None:
            alert = Alert(labels, (("number", number),), now, updated_at=now)
        else:
            alert = replace(before, annotations=(("number", number),), ends_at=now, updated_at=now)
        self._alerts[group] = alert
        self.expected[group].append((alert.status(now), number))
        self.dispatcher.put([alert])
        await self.dispatcher.drain()
        await asyncio.sleep(0.003)  # of its own in time, and after group_interval

    def told(self, receiver: BadReceiver, group: str) -> list[tuple[str, str]]:
        """What a receiver has taken of a group, in its order."""
        return [
            (alert["status"], alert["annotations"]["number"])
            for one in list(receiver.taken)
            for alert in one.body["alerts"]
            if alert["labels"]["group"] == group
        ]

    def good_has_all(self) -> bool:
        return all(self.told(self.good, group) == expected for group, expected in self.expected.items())

    async def until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(40):
                while not condition():
                    await asyncio.sleep(0.003)
        except TimeoutError:
            pytest.fail(f"{self.expected} {self.of_bad()[-5:]} {self.delivery.status()}")


@asynccontextmanager
async def way(
    bad: BadReceiver, good: BadReceiver, folder: Path, *, pace: Pace = QUICK, http: str = "", url: str = ""
) -> AsyncIterator[Way]:
    one = Way(bad, good, folder / "notify.db", pace=pace, http=http, url=url)
    tasks = [
        asyncio.create_task(work) for work in (one.dispatcher.run(), one.delivery.run(), one.watch_the_loop())
    ]
    try:
        yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one.outbox.close()


@pytest.fixture
def bad() -> Iterator[BadReceiver]:
    with BadReceiver() as server:
        yield server


@pytest.fixture
def good() -> Iterator[BadReceiver]:
    with BadReceiver() as server:
        yield server


def assert_nothing_lost(one: Way) -> None:
    """Each group: what arrived is in order, the last state is there, and what is not was superseded after a failure."""
    failed = {notification.number for notification, outcome in one.outcomes if outcome.result == "retry"}
    delivered = {
        notification.number for notification, outcome in one.outcomes if outcome.result == "delivered"
    }
    for notification, _ in one.outcomes:
        assert notification.number in delivered or notification.number in failed
    assert one.outbox.dead() == () and one.outbox.load().pending == ()
    for group, expected in one.expected.items():
        told = one.told(one.bad, group)
        once = list(
            dict.fromkeys(told)
        )  # a resend of what had arrived, and whose answer was lost, is in its place
        assert told == sorted(told, key=lambda state: int(state[1])), f"out of order: {told}"
        assert set(once) <= set(expected)
        assert once[-1] == expected[-1], f"the last state of {group} did not arrive: {told}"
        superseded = [state for state in expected if state not in once]
        tried = {
            alert.annotations[0][1]
            for notification, _ in one.outcomes
            if notification.receiver == "bad" and notification.number in failed
            for alert in notification.alerts
            if dict(alert.labels)["group"] == group
        }
        assert {number for _, number in superseded} <= tried, "what was never tried was dropped"


FAULTS: dict[str, tuple[Fault, ...]] = {
    "resets": (resets,) * 4,
    "closes": (closes,) * 4,
    "500s for a while": (answers(500, "no"),) * 8,
    "answers of a proxy": (answers(502), answers(503), answers(504), answers(408), answers(425)),
    "429 with Retry-After": (answers(429, "slow down", Retry_After="1"),),
    "503 with a nonsense Retry-After": (answers(503, Retry_After="soon"),) * 2,
    "hangs": (hangs,) * 3,
    "drips": (drips,) * 3,
    "half an answer": (answers_half,) * 4,
    "a 500 of any size": (fails_at_length,) * 3,
    "a head of any size": (has_an_endless_head,) * 3,
    "no HTTP": (talks_nonsense,) * 4,
    "everything": (resets, answers(500), hangs, drips, closes, talks_nonsense, fails_at_length, answers_half),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_after_any_fault_all_is_told_in_order_and_nobody_else_waits(
    kind: str, bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.misbehave(*FAULTS[kind])
    async with way(bad, good, tmp_path) as one:
        for round_ in range(ROUNDS):
            for group in GROUPS:
                await one.change(group)
            if round_ == 0:
                # The other has its messages while this one has answered nothing well.
                await one.until(lambda: one.good_has_all())
        await one.until(lambda: not one.outbox.load().pending)
        assert one.good_has_all() and len(one.of_bad()) >= len(FAULTS[kind])
        assert_nothing_lost(one)
        assert one.longest_stall < 2.0, "an evaluation would have waited"


async def test_an_endpoint_that_is_not_there_for_a_while_gets_all_when_it_is(
    bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.go_away()
    async with way(bad, good, tmp_path) as one:
        for _ in range(ROUNDS):
            for group in GROUPS:
                await one.change(group)
        await one.until(one.good_has_all)
        await one.until(lambda: one.delivery.status()[1].circuit == "open")
        assert "cannot connect" in one.of_bad()[-1].detail
        bad.come_back()
        await one.until(lambda: not one.outbox.load().pending)
        assert_nothing_lost(one)


async def test_what_could_not_be_sent_before_a_restart_is_sent_after_it(
    bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.go_away()
    async with way(bad, good, tmp_path) as first:
        for group in GROUPS:
            await first.change(group)
        await first.until(lambda: first.good_has_all() and len(first.of_bad()) >= len(GROUPS))
        await first.until(lambda: len(first.outbox.load().pending) == len(GROUPS))
    bad.come_back()
    async with way(bad, good, tmp_path) as second:
        saved = second.outbox.load()
        assert len(saved.pending) == len(GROUPS)
        second.dispatcher.restore(saved)
        second.delivery.take(saved.pending)
        await second.until(lambda: not second.outbox.load().pending)
        assert sorted(bad.values("number")) == ["0"] * 3
        assert len(good.taken) == 3, "what was told is not told again"


async def test_retry_after_is_waited_for(bad: BadReceiver, good: BadReceiver, tmp_path: Path) -> None:
    bad.misbehave(answers(429, Retry_After="1"))
    async with way(bad, good, tmp_path) as one:
        started = time.monotonic()
        await one.change("a")
        await one.until(lambda: bool(bad.taken))
        assert bad.requests == 2
        assert bad.taken[0].at - started >= 1.0


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "gopher://127.0.0.1:70/", "/elsewhere"],
)  # fmt: skip
async def test_without_leave_to_follow_a_redirect_leaves_a_dead_letter(
    place: str, bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.misbehave(answers(307, "go there", Location=place))
    async with way(bad, good, tmp_path, http="follow_redirects: false") as one:
        await one.change("a")
        await one.until(lambda: len(one.outbox.dead()) == 1 and not one.outbox.load().pending)
        assert bad.requests == 1 and one.good_has_all()
        assert await one.delivery.resend(one.outbox.dead()[0].notification.number)
        await one.until(lambda: one.told(bad, "a") == one.expected["a"])


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "http://169.254.169.254/", "http://[::ffff:169.254.1.1]/"]
)
async def test_no_redirect_leads_to_a_file_or_the_clouds_metadata(
    place: str, bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.misbehave(answers(307, Location=place))
    async with way(bad, good, tmp_path) as one:
        await one.change("a")
        await one.until(lambda: len(one.outbox.dead()) == 1)
        assert "not followed" in one.outbox.dead()[0].outcome.detail
        assert bad.requests == 1


async def test_a_redirect_that_is_followed_brings_the_whole_message(
    bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.misbehave(answers(308, Location="/moved"))
    async with way(bad, good, tmp_path) as one:
        await one.change("a")
        await one.until(lambda: one.told(bad, "a") == one.expected["a"])
        assert bad.requests == 2


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's side with a certificate that nobody signed."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=hook.test", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


async def test_wrong_tls_is_tried_again_and_gets_no_message(
    untrusted: ssl.SSLContext, good: BadReceiver, tmp_path: Path
) -> None:
    with BadReceiver(tls=untrusted) as bad:
        async with way(bad, good, tmp_path) as one:
            await one.change("a")
            await one.until(lambda: len(one.of_bad()) >= 3 and len(one.outbox.load().pending) == 1)
            assert "is not trusted" in one.of_bad()[-1].detail
            assert bad.requests == 0 and one.good_has_all()
        async with way(bad, good, tmp_path, http="tls_config: {insecure_skip_verify: true}") as mended:
            mended.delivery.take(mended.outbox.load().pending)
            await mended.until(lambda: len(bad.taken) == 1)


async def test_https_to_a_plain_server_is_a_failure_like_others(
    bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    async with way(bad, good, tmp_path, url=bad.url.replace("http:", "https:")) as one:
        await one.change("a")
        await one.until(lambda: len(one.of_bad()) >= 2 and one.good_has_all())
        assert all(outcome.result == "retry" for outcome in one.of_bad())
        assert bad.requests == 0


async def test_a_refusal_is_told_with_the_beginning_of_its_answer_and_never_with_the_address(
    bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    bad.misbehave(answers(400, "no channel for s3cret-t0ken: " + "x" * 5000))
    with capture_logs() as logs:
        async with way(bad, good, tmp_path) as one:
            await one.change("a")
            await one.until(lambda: len(one.outbox.dead()) == 1)
            (letter,) = one.outbox.dead()
            assert letter.outcome.code == 400 and len(letter.outcome.answer) <= 500
            (line,) = [line for line in logs if line["event"] == "notification_dead"]
            assert line["answer"].startswith("no channel for")
            seen = repr((logs, letter, one.delivery.status()))
            assert "s3cret" not in seen and "/hook/" not in seen


async def test_a_body_that_comes_a_byte_at_a_time_after_a_good_head_holds_nothing_up(
    bad: BadReceiver, good: BadReceiver, tmp_path: Path
) -> None:
    async def takes_its_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    bad.misbehave(takes_its_time)
    async with way(bad, good, tmp_path) as one:
        await one.change("a")
        await one.until(lambda: not one.outbox.load().pending)
        assert one.of_bad()[0].result == "delivered", "its head has said that it was taken"
        assert bad.requests == 1
