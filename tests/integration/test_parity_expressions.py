"""The same samples in our store and in a real Prometheus, and the same questions to both.

Debian's Prometheus is a 2.42, our semantics those of 3. The questions avoid where the two differ, or name it in
DIFFERENCES; each difference there is asked for too, so that the list does not outlive its reasons.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

import parity_data
import pytest
from parity import Refused, difference, ours, theirs
from parity_data import END, OFF, START, series
from parity_expressions import mixtures, systematic
from prometheus import PROGRAM, Prometheus

from exporter.engine.status import EngineStatus
from exporter.exposition.page import Page
from exporter.settings import RuleSettings, WebSettings
from exporter.storage.head import Head
from exporter.web import WebServer
from exporter.web.api import Api

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no `prometheus` on this machine (Debian's package prometheus)"
)

TOPICS = systematic()
INSTANTS = tuple(START + minute * 60_000 + OFF for minute in (22, 24, 31, 41, 60, 74))
"""A plain time; the engine down and the counters reset; the first minutes after; a model gone; two gaps."""
RANGE = START - 60_000 + OFF, END + 400_000 + OFF, 35_000
"""Start, end, step: from before the first sample until after the last one counts."""

OVERFLOW = "since 3, a compensated sum that overflows is infinite, not NaN"
NAMES = "since 3, label names may be any text"
ATAN2 = "since 3, atan2 drops the metric name, as all arithmetic does"
NUMBERS = "since 3, a number may stand for a duration in seconds, and have underscores"
SPREAD = "since 3, the spread of a single infinite or NaN value is NaN, not 0"
MATCHES = "since 3, several matches are an error even where the comparison is false"
TURNS = "since 3, series that lose their names and take turns become one series"
FROZEN = "since 3, `@` fixes the window of predict_linear too"
NEWLINES = "since 3, `.` in a regular expression matches a line break"
DIFFERENCES = {
    "stddev_over_time(huge[5m])": OVERFLOW,
    "stdvar_over_time(huge[5m])": OVERFLOW,
    'label_replace(up, "bad-name", "x", "instance", ".*")': NAMES,
    'count_values("bad-name", up)': NAMES,
    "temperature_celsius atan2 3": ATAN2,
    "3 atan2 temperature_celsius": ATAN2,
    "noise atan2 noise": ATAN2,
    "steps atan2 0": ATAN2,
    "0 atan2 steps": ATAN2,
    "1_000": NUMBERS,
    "up[5]": NUMBERS,
    "up offset 5": NUMBERS,
    "stddev by (gpu) (noise)": SPREAD,
    "temperature_celsius > on (job) sum by (job) (up)": MATCHES,
    "-(temperature_celsius > 0 or flapping)": TURNS,
    "predict_linear(temperature_celsius[10m] @ end(), 60)": FROZEN,
    'labelled{text=~"two.lines"}': NEWLINES,
    'label_replace(labelled, "matched", "yes", "text", "two.lines")': NEWLINES,
}


@pytest.fixture(scope="module")
def head() -> Head:
    return parity_data.head()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus")) as prometheus:
        for push in parity_data.pushes():
            prometheus.write(push)
        yield prometheus


def asked(prometheus: Prometheus, expression: str, *times: int) -> Any:
    if len(times) == 1:
        return prometheus.ask("query", query=expression, time=f"{times[0] / 1000:.3f}")
    start, end, step = (f"{time / 1000:.3f}" for time in times)
    return prometheus.ask("query_range", query=expression, start=start, end=end, step=step)


def disagreements(head: Head, prometheus: Prometheus, expressions: Iterable[str]) -> list[str]:
    """One line for each expression that the two answer differently, with the first difference."""
    found = []
    for number, expression in enumerate(expressions):
        instants = (INSTANTS[(number + other) % len(INSTANTS)] for other in (0, 1, 3))
        for times in [*((at,) for at in instants), RANGE]:
            answer = asked(prometheus, expression, *times)
            apart = difference(ours(head, expression, *times), theirs(answer))
            if apart is not None:
                found.append(f"{expression}   at {times}: ours {apart} {answer.get('error', '')}")
                break
    return found


@pytest.mark.usefixtures("as_in_two")
@pytest.mark.parametrize("topic", TOPICS)
def test_each_function_and_operator_answers_as_prometheus_does(
    head: Head, prometheus: Prometheus, topic: str
) -> None:
    expressions = [one for one in TOPICS[topic] if one not in DIFFERENCES]
    found = disagreements(head, prometheus, expressions)
    assert not found, f"{len(found)} of {len(expressions)} differ:\n" + "\n".join(found[:20])


@pytest.mark.usefixtures("as_in_two")
def test_random_mixtures_answer_as_prometheus_does(head: Head, prometheus: Prometheus) -> None:
    found = disagreements(head, prometheus, mixtures(400, seed=1))
    assert not found, f"{len(found)} differ:\n" + "\n".join(found[:20])


@pytest.mark.usefixtures("as_in_two")
@pytest.mark.parametrize("expression", DIFFERENCES)
def test_what_is_called_a_difference_is_one(head: Head, prometheus: Prometheus, expression: str) -> None:
    assert disagreements(head, prometheus, [expression]), f"no longer true: {DIFFERENCES[expression]}"


def test_a_window_does_not_hold_a_sample_on_its_left_end(head: Head, prometheus: Prometheus) -> None:
    row = parity_data.streams()["gpu"][100]
    expression = 'count_over_time(noise{gpu="0"}[50s])'
    (mine,) = ours(head, expression, row.t_ms + 50_000).values()  # type: ignore[union-attr]
    (other,) = theirs(asked(prometheus, expression, row.t_ms + 50_000)).values()  # type: ignore[union-attr]
    assert mine[0][1] == other[0][1] - 1, "a 2.42 closes its windows on the left"


def test_a_sample_as_old_as_the_lookback_no_longer_counts(head: Head, prometheus: Prometheus) -> None:
    last = parity_data.streams()["rules"][-1].t_ms
    for age, counts_in_two in ((299_999, True), (300_000, True), (300_001, False)):
        assert bool(ours(head, "constant", last + age)) == (age < 300_000)
        assert bool(theirs(asked(prometheus, "constant", last + age))) == counts_in_two


def test_exponential_smoothing_goes_by_both_its_names(head: Head, prometheus: Prometheus) -> None:
    answer = theirs(asked(prometheus, "holt_winters(noise[5m], 0.5, 0.5)", *RANGE))
    for name in ("holt_winters", "double_exponential_smoothing"):
        assert difference(ours(head, f"{name}(noise[5m], 0.5, 0.5)", *RANGE), answer) is None


def test_sorted_answers_are_in_the_same_order(head: Head, prometheus: Prometheus) -> None:
    for expression in (
        "sort(vllm:generation_tokens_total)",
        "sort_desc(job:requests:rate5m)",
        'sort_desc(noise or {__name__="constant"})',
        "topk(3, vllm:request_success_total)",
        "bottomk(5, vllm:request_success_total)",
        "sort(vllm:kv_cache_usage_perc or noise or temperature_celsius)",
    ):
        for at in INSTANTS:
            mine, other = ours(head, expression, at), theirs(asked(prometheus, expression, at))
            assert isinstance(mine, dict) and isinstance(other, dict)
            assert list(mine) == list(other), f"{expression} at {at}"


# Over HTTP


class Daemon:
    """Our query API over a store, on a free port, in a thread of its own."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()

    async def _reload(self) -> tuple[str, ...]:
        return ()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        api = Api(
            RuleSettings(),
            self._head,
            statuses=tuple,
            summary=dict,
            reload=self._reload,
            targets=tuple,
            config=str,
            retention=3600.0,
            clock=lambda: END / 1000,
        )
        server = WebServer(
            WebSettings(listen="127.0.0.1:0"),
            Page([]),
            engine_status=lambda: EngineStatus(mode="supervised", base_url=None),
        )
        self.port = int(server.bind().getsockname()[1])
        await server.start()
        await server.serve_api(api)
        self._ready.set()
        await self._ended.wait()
        await server.stop()

    def __enter__(self) -> Callable[..., dict[str, Any]]:
        self._thread.start()
        assert self._ready.wait(30) and self.port
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        return self.ask

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def ask(self, path: str, **fields: object) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", f"/api/v1/{path}", urlencode(fields, doseq=True), headers)
        with self._connection.getresponse() as response:
            answer: dict[str, Any] = json.loads(response.read())
        return answer


@pytest.mark.usefixtures("as_in_two")
def test_the_api_answers_as_prometheus_does(head: Head, prometheus: Prometheus) -> None:
    start, end, step = (f"{time / 1000:.3f}" for time in RANGE)
    chosen = [one for found in TOPICS.values() for one in found[::6] if one not in DIFFERENCES]
    found = []
    with Daemon(head) as ask:
        for expression in [*chosen, *TOPICS["literals"]]:
            if expression in DIFFERENCES:
                continue
            for path, fields in (
                ("query", {"time": f"{INSTANTS[0] / 1000:.3f}"}),
                ("query_range", {"start": start, "end": end, "step": step}),
            ):
                mine = ask(path, query=expression, **fields)
                other = prometheus.ask(path, query=expression, **fields)
                apart = difference(theirs(mine), theirs(other))
                if apart is None and mine["status"] == "success":
                    kinds = [answer["data"]["resultType"] for answer in (mine, other)]
                    apart = None if kinds[0] == kinds[1] else str(kinds)
                if apart is not None:
                    found.append(f"{path} {expression}: {apart} {mine.get('error')} | {other.get('error')}")
    assert not found, "\n".join(found[:20])


def test_the_api_writes_numbers_as_prometheus_does(head: Head, prometheus: Prometheus) -> None:
    with Daemon(head) as ask:
        for expression in (
            "noise",
            "tiny",
            "huge",
            "since_seconds",
            "energy_joules_total",
            "up",
            "constant / 0",
            "-up",
        ):
            for at in INSTANTS:
                fields = {"query": expression, "time": f"{at / 1000:.3f}"}
                mine, other = (one("query", **fields)["data"]["result"] for one in (ask, prometheus.ask))
                key = lambda one: sorted(one["metric"].items())  # noqa: E731
                assert sorted(mine, key=key) == sorted(other, key=key)


def test_the_api_knows_the_same_series_and_labels(head: Head, prometheus: Prometheus) -> None:
    whole = {"start": f"{START / 1000 - 60:.3f}", "end": f"{END / 1000 + 60:.3f}"}

    def ordered(answer: dict[str, Any]) -> Any:
        assert answer["status"] == "success", answer
        data = answer["data"]
        return sorted(data, key=lambda one: sorted(one.items()) if isinstance(one, dict) else one)

    with Daemon(head) as ask:
        for path, fields in (
            ("series", {"match[]": "up"}),
            ("series", {"match[]": '{__name__=~"vllm:num.*",engine="0"}'}),
            ("series", {"match[]": '{job="vllm"}'}),
            ("series", {"match[]": "missing"}),
            ("labels", {}),
            ("labels", {"match[]": "vllm:request_success_total"}),
        ):
            mine, other = ask(path, **fields, **whole), prometheus.ask(path, **fields, **whole)
            assert ordered(mine) == ordered(other), f"{path} {fields}"


def test_what_neither_understands_is_refused_alike(head: Head, prometheus: Prometheus) -> None:
    with Daemon(head) as ask:
        for path, fields in (
            ("query", {}),
            ("query", {"query": "up", "time": "soon"}),
            ("query", {"query": "up", "timeout": "long"}),
            ("query_range", {"query": "up"}),
            ("query_range", {"query": "up", "start": "1", "end": "0", "step": "1"}),
            ("query_range", {"query": "up", "start": "0", "end": "1", "step": "0"}),
            ("query_range", {"query": "up", "start": "0", "end": "100000", "step": "1"}),
            ("query_range", {"query": '"text"', "start": "0", "end": "1", "step": "1"}),
            ("query_range", {"query": "up[5m]", "start": "0", "end": "1", "step": "1"}),
            ("series", {}),
            ("series", {"match[]": "up{"}),
            ("series", {"match[]": '{x=""}'}),
        ):
            mine, other = ask(path, **fields), prometheus.ask(path, **fields)
            assert isinstance(theirs(other), Refused), f"{path} {fields}"
            assert theirs(mine) == theirs(other), f"{path} {fields}: {mine} | {other}"


def test_a_series_that_ended_is_gone_at_once_in_both(head: Head, prometheus: Prometheus) -> None:
    """What the data is for: the marker, and not the lookback, ends a series."""
    rows = parity_data.streams()["engine"]
    gone = next(row.t_ms for row in rows if row.t_ms > START + 90 * 15_000 - 1)
    expression = 'vllm:num_requests_running{engine="0"}'
    for at, there in ((gone - 1, True), (gone, False), (gone + 1, False)):
        assert bool(ours(head, expression, at)) == there
        assert bool(theirs(asked(prometheus, expression, at))) == there
    assert series("up", instance="a") in ours(head, "up", gone + 1)  # type: ignore[operator]
