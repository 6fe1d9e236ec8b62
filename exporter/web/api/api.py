"""Every endpoint under `/api/v1`, from a request's form to its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from exporter.errors import ConfigError
from exporter.web.api import lookups, queries, rules, status
from exporter.web.api.compiled import Shelf
from exporter.web.api.envelope import Answer, pack, success, to_json
from exporter.web.api.model import ApiError, Store, Target
from exporter.web.api.parameters import MAX_MS, MIN_MS, Form, time_parameter, timeout_parameter
from exporter.web.api.workers import RequestBudget, Workers

if TYPE_CHECKING:
    from exporter.alerting.status import GroupStatus
    from exporter.settings import RuleSettings
    from exporter.web.api.compiled import Compile

log = structlog.get_logger(__name__)

LOOKUP_SAMPLES = 1 << 62
"""Look-ups touch no samples."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    form: Form
    gzip: bool = False
    label: str = ""
    """The label in `label/<name>/values`, as the path has it."""
    page: Callable[[], bytes] = lambda: b""
    """Gives the metrics page in text 0.0.4; called in the event loop."""


class Api:
    """The API over a store and what the rules tell. `close` ends its threads.

    `statuses`, `summary`, `targets` and `config` are asked in the event loop and answer at once. `summary` is the
    object of `/api/v1/metrics` (`summary.summary_json`). `reload` loads rules and receivers anew and gives what is
    wrong with them, or raises ConfigError; then nothing has changed. `retention` in seconds, `config` in YAML and the
    URLs of `alertmanagers` are only shown.
    """

    def __init__(
        self,
        settings: RuleSettings,
        store: Store,
        *,
        statuses: Callable[[], Sequence[GroupStatus]],
        summary: Callable[[], Mapping[str, Any]],
        summary_of: Callable[[str], Mapping[str, Any] | None] = lambda name: None,
        reload: Callable[[], Awaitable[Sequence[str] | None]],
        targets: Callable[[], Sequence[Target]] = lambda: (),
        config: Callable[[], str] = lambda: "",
        retention: float = 0.0,
        alertmanagers: Sequence[str] = (),
        compile_expression: Compile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._statuses = statuses
        self._summary = summary
        self._summary_of = summary_of
        self._reload = reload
        self._targets = targets
        self._config = config
        self._retention = retention
        self._alertmanagers = alertmanagers
        self._clock = clock
        self._started = self._reloaded = clock()
        self._reload_good = True
        self._reloading = asyncio.Lock()
        self._shelf = Shelf(compile_expression)
        self._queries = Workers(settings.query_concurrency, name="query")
        self._lookups = Workers(1, name="lookup")
        self._metadata: tuple[bytes, dict[str, dict[str, str]]] = (b"", {})

    def close(self) -> None:
        """Start no more evaluations; those that run end soon."""
        self._queries.close()
        self._lookups.close()

    async def query(self, call: Call) -> Answer:
        """An instant query."""
        query = queries.Instant.read(call.form, now=self._clock(), lookback=self._settings.lookback)
        return await self._evaluate(call, query)

    async def query_range(self, call: Call) -> Answer:
        """A range query."""
        return await self._evaluate(call, queries.Range.read(call.form, lookback=self._settings.lookback))

    async def _evaluate(self, call: Call, query: queries.Instant | queries.Range) -> Answer:
        return await self._queries.run(
            lambda budget: query.answer(self._store, self._shelf, budget, gzip=call.gzip),
            samples=self._settings.query_samples,
            within=timeout_parameter(call.form, self._settings.query_timeout),
        )

    async def query_exemplars(self, call: Call) -> Answer:
        """Exemplars: there are none."""
        lo, hi = time_parameter(call.form, "start", MIN_MS), time_parameter(call.form, "end", MAX_MS)
        if hi < lo:
            raise ApiError("bad_data", "end timestamp must not be before start timestamp")
        expression = call.form.get("query")

        def work() -> Answer:
            queries.check(expression, self._shelf)
            return success([])

        return await self._look_up(work)

    async def format_query(self, call: Call) -> Answer:
        """The expression, laid out."""
        expression = call.form.get("query")
        return await self._look_up(lambda: success(queries.pretty(expression, self._shelf)))

    async def series(self, call: Call) -> Answer:
        """Label sets."""

        def work() -> Answer:
            printed, warnings = lookups.series(self._store, call.form)
            return success(printed=printed, warnings=warnings, gzip=call.gzip)

        return await self._look_up(work)

    async def labels(self, call: Call) -> Answer:
        """Label names."""

        def work() -> Answer:
            names, warnings = lookups.label_names(self._store, call.form)
            return success(names, warnings=warnings, gzip=call.gzip)

        return await self._look_up(work)

    async def label_values(self, call: Call) -> Answer:
        """The values of a label."""

        def work() -> Answer:
            values, warnings = lookups.label_values(self._store, call.label, call.form)
            return success(values, warnings=warnings, gzip=call.gzip)

        return await self._look_up(work)

    async def rules(self, call: Call) -> Answer:
        """Rule groups with their alerts."""
        groups = self._statuses()
        return await self._look_up(lambda: success(rules.rules(groups, call.form), gzip=call.gzip))

    async def alerts(self, call: Call) -> Answer:
        """Active alerts."""
        groups = self._statuses()
        return await self._look_up(lambda: success(rules.alerts(groups), gzip=call.gzip))

    async def targets(self, call: Call) -> Answer:
        """What is scraped."""
        return success(status.targets(self._targets(), call.form))

    async def metadata(self, call: Call) -> Answer:
        """Type and help of the metrics that `/metrics` shows now."""
        page = call.page()

        def work() -> Answer:
            if page is not self._metadata[0]:
                self._metadata = page, status.read_metadata(page)
            return success(status.metadata(self._metadata[1], call.form), gzip=call.gzip)

        return await self._look_up(work)

    async def build_info(self, _call: Call) -> Answer:
        """Which Prometheus this is like."""
        return success(status.build_info())

    async def runtime_info(self, _call: Call) -> Answer:
        """How it runs."""
        return success(
            status.runtime_info(
                now=self._clock(),
                started=self._started,
                reloaded=self._reloaded,
                reload_good=self._reload_good,
                retention=self._retention,
            )
        )

    async def flags(self, _call: Call) -> Answer:
        """Settings, by the names of Prometheus' flags."""
        return success(status.flags(self._settings, self._retention))

    async def config(self, _call: Call) -> Answer:
        """Settings, as a prometheus.yml."""
        return success({"yaml": self._config()})

    async def statistics(self, call: Call) -> Answer:
        """Which labels make how many series."""

        def work() -> Answer:
            everything = self._store.series((), MIN_MS, MAX_MS)
            newest = int(self._clock() * 1000)
            found = status.statistics(everything, self._store.stats().oldest_ms, newest, call.form)
            return success(found, gzip=call.gzip)

        return await self._look_up(work)

    async def alertmanagers(self, _call: Call) -> Answer:
        """Alertmanagers that every alert is sent to."""
        active = [{"url": url} for url in self._alertmanagers]
        return success({"activeAlertmanagers": active, "droppedAlertmanagers": []})

    async def summary(self, call: Call) -> Answer:
        """Our own summary, without the envelope; with `engine=NAME`, of one of several engines."""
        if name := call.form.get("engine"):
            found = self._summary_of(name)
            if found is None:
                raise ApiError("not_found", f"no engine of several is named {name!r}")
            return pack(200, [to_json(found)], gzip=call.gzip)
        return pack(200, [to_json(self._summary())], gzip=call.gzip)

    async def reload(self) -> list[str]:
        """Load the rules anew; what is wrong with them, when they are refused. It ends though the client goes away."""
        return await asyncio.shield(asyncio.ensure_future(self._reload_once()))

    async def _reload_once(self) -> list[str]:
        async with self._reloading:
            try:
                problems = list(await self._reload() or ())
            except ConfigError as error:
                problems = list(error.problems)
            self._reload_good = not problems
            if not problems:
                self._reloaded = self._clock()
            return problems

    async def _look_up(self, work: Callable[[], Answer]) -> Answer:
        def bounded(_budget: RequestBudget) -> Answer:
            return work()

        return await self._lookups.run(bounded, samples=LOOKUP_SAMPLES, within=self._settings.query_timeout)


Handler = Callable[[Api, Call], Awaitable[Answer]]
GET, BOTH = ("GET",), ("GET", "POST")
ENDPOINTS: Mapping[str, tuple[Handler, tuple[str, ...]]] = {
    "/api/v1/query": (Api.query, BOTH),
    "/api/v1/query_range": (Api.query_range, BOTH),
    "/api/v1/query_exemplars": (Api.query_exemplars, BOTH),
    "/api/v1/format_query": (Api.format_query, BOTH),
    "/api/v1/series": (Api.series, BOTH),
    "/api/v1/labels": (Api.labels, BOTH),
    "/api/v1/label/{name}/values": (Api.label_values, GET),
    "/api/v1/rules": (Api.rules, GET),
    "/api/v1/alerts": (Api.alerts, GET),
    "/api/v1/alertmanagers": (Api.alertmanagers, GET),
    "/api/v1/targets": (Api.targets, GET),
    "/api/v1/metadata": (Api.metadata, GET),
    "/api/v1/metrics": (Api.summary, GET),
    "/api/v1/status/buildinfo": (Api.build_info, GET),
    "/api/v1/status/runtimeinfo": (Api.runtime_info, GET),
    "/api/v1/status/flags": (Api.flags, GET),
    "/api/v1/status/config": (Api.config, GET),
    "/api/v1/status/tsdb": (Api.statistics, GET),
}
"""Paths as aiohttp writes them, their handlers, and their methods."""
