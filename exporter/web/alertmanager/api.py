"""Every endpoint under `/api/v2` and `/api/v1/notifications`, from what is asked to the answer.

Refusals of Alertmanager's endpoints are JSON strings, as in api/v2/openapi.yaml of
https://github.com/prometheus/alertmanager; ours refuse as the rest of `/api/v1` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.notify.silences import SilenceError, SilenceNotFoundError
from exporter.web.alertmanager import asked, delivery, posted, shown
from exporter.web.alertmanager.model import Alerting, ApiRefused
from exporter.web.api.envelope import Answer, pack, success, to_json
from exporter.web.api.model import ApiError

if TYPE_CHECKING:
    from multidict import MultiMapping

    from exporter.notify.model import Alert
    from exporter.notify.silences import Silences

THREAD_ENTRIES = 100
"""More alerts or silences than that are put into words in a thread, so that the loop goes on meanwhile."""
THREAD_BYTES = 65_536
"""Longer bodies are read in a thread."""
PLACES = 2
"""Requests at a time for which there are threads; others wait."""
SILENCE_BYTES = 65_536
"""The longest silence that is kept."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    query: MultiMapping[str]
    body: bytes = b""
    id: str = ""
    """The silence in `silence/<id>`, the number in `notifications/<id>/resend`."""
    gzip: bool = False


class Api:
    """The API over alerts, silences and the configuration; used in the event loop. `clock` in unix seconds."""

    def __init__(self, alerting: Alerting, clock: Callable[[], float]) -> None:
        self._alerting = alerting
        self._clock = clock
        self._places = asyncio.Semaphore(PLACES)

    async def alerts(self, call: Call) -> Answer:
        """Alerts that have not ended, by fingerprint."""
        wanted, now = asked.AlertFilter.read(call.query), self._clock()
        timeout = self._alerting.config.resolve_timeout
        views = self._alerting.dispatcher.alerts()

        def texts() -> Iterator[str]:
            kept = (view for view in views if wanted.names(view.receivers) and wanted.wants(view, now))
            return _texts(shown.alert(view, now=now, resolve_timeout=timeout) for view in kept)

        return await self._listed(texts, call, len(views))

    async def groups(self, call: Call) -> Answer:
        """Groups with an alert to show."""
        wanted, now = asked.AlertFilter.read(call.query), self._clock()
        timeout = self._alerting.config.resolve_timeout
        groups = self._alerting.dispatcher.groups()

        def texts() -> Iterator[str]:
            chosen = ((group, wanted.among(group, now)) for group in groups)
            kept = [(group, alerts) for group, alerts in chosen if alerts]
            return _texts(shown.groups(kept, now=now, resolve_timeout=timeout))

        return await self._listed(texts, call, sum(len(group.alerts) for group in groups))

    async def post_alerts(self, call: Call) -> Answer:
        """New, changed or ended alerts; those that are right are taken though others are wrong."""
        now, timeout = self._clock(), self._alerting.config.resolve_timeout

        def read() -> tuple[list[Alert], list[str]]:
            return posted.read_alerts(posted.read_json(call.body), now=now, resolve_timeout=timeout)

        alerts, mistakes = read() if len(call.body) <= THREAD_BYTES else await self._in_thread(read)
        if alerts:
            self._alerting.dispatcher.put(alerts)
            await self._alerting.dispatcher.drain()  # what was taken outlives the process
        if mistakes:
            raise ApiRefused(400, posted.shortened(mistakes))
        return _empty()

    async def silences(self, call: Call) -> Answer:
        """All silences, or those that were asked for."""
        wanted, now = asked.SilenceFilter.read(call.query), self._clock()
        silences = self._silences.query(wanted.states)

        def texts() -> Iterator[str]:
            return _texts(shown.silence(one, now) for one in silences if wanted.wants(one))

        return await self._listed(texts, call, len(silences))

    async def post_silence(self, call: Call) -> Answer:
        """A new silence, or an older one changed; where that cannot be, it ends and a new one takes its place."""
        if len(call.body) > SILENCE_BYTES:
            raise ApiRefused(400, f"a silence is longer than {SILENCE_BYTES} bytes")
        wish = posted.read_silence(posted.read_json(call.body), now=self._clock())
        try:
            silence = self._silences.update(wish) if wish.id else self._silences.add(wish)
        except SilenceNotFoundError as error:
            raise ApiRefused(404, "silence not found") from error
        except SilenceError as error:
            raise ApiRefused(400, f"invalid silence: {error}") from error
        await self._alerting.dispatcher.drain()
        return _answer({"silenceID": silence.id})

    async def silence(self, call: Call) -> Answer:
        """One silence."""
        silence = self._silences.get(call.id)
        if silence is None:
            raise ApiRefused(404, "")
        return _answer(shown.silence(silence, self._clock()), gzip=call.gzip)

    async def delete_silence(self, call: Call) -> Answer:
        """End a silence now."""
        try:
            self._silences.expire(call.id)
        except SilenceNotFoundError as error:
            raise ApiRefused(404, "") from error
        await self._alerting.dispatcher.drain()
        return _empty()

    @property
    def _silences(self) -> Silences:
        return self._alerting.dispatcher.silences

    async def receivers(self, call: Call) -> Answer:
        """The receivers' names."""
        wanted = asked.read_matchers(call.query, "receiver_matchers")
        names = self._alerting.config.receivers if asked.fit_unlabelled(wanted) else ()
        return _answer(shown.receivers(names), gzip=call.gzip)

    async def status(self, call: Call) -> Answer:
        """The configuration without its secrets, and the version."""
        return _answer(shown.status(self._alerting.config.shown, self._alerting.started), gzip=call.gzip)

    async def notifications(self, call: Call) -> Answer:
        """Queues, circuits and dead letters."""
        outbox = self._alerting.outbox
        statuses, dead, stats = self._alerting.delivery.status(), outbox.dead(), outbox.stats
        return await self._in_thread(
            lambda: success(delivery.overview(statuses, dead, stats), gzip=call.gzip)
        )

    async def resend(self, call: Call) -> Answer:
        """Send a dead letter again."""
        letters = {letter.notification.number: letter.notification for letter in self._alerting.outbox.dead()}
        number = int(call.id)  # the path holds digits only
        letter = letters.get(number)
        if letter is None:
            raise ApiError("not_found", f"there is no dead letter {number}")
        if not await self._alerting.delivery.resend(number):
            place = f"{letter.receiver} {letter.integration}"
            raise ApiError(
                "bad_data", f"dead letter {number} is for {place}, which is not configured any more"
            )
        return success({"number": number})

    async def _listed(self, texts: Callable[[], Iterator[str]], call: Call, size: int) -> Answer:
        def answer() -> Answer:
            return pack(200, texts(), gzip=call.gzip)

        return answer() if size <= THREAD_ENTRIES else await self._in_thread(answer)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """What takes long, while the loop goes on."""
        async with self._places:
            return await asyncio.to_thread(work)


def refusal(error: ApiRefused) -> Answer:
    """What a client gets that asked for the wrong thing."""
    return _answer(str(error), status=error.status) if str(error) else _empty(error.status)


def _texts(values: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A JSON list, entry by entry: no single call takes long."""
    yield "["
    between = ""
    for value in values:
        yield between + to_json(value)
        between = ","
    yield "]\n"


def _answer(value: Any, *, status: int = 200, gzip: bool = False) -> Answer:
    return pack(status, [to_json(value), "\n"], gzip=gzip)


def _empty(status: int = 200) -> Answer:
    return Answer(status, (b"",))
