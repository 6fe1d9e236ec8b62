"""The query API over real sockets: as promtool, Grafana and our own `query` command ask it, and as others should not."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest
from pydantic import SecretStr

from exporter import cli
from exporter.alerting.status import AlertStatus, GroupStatus, RuleStatus
from exporter.engine.status import EngineStatus
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.exposition.page import Page
from exporter.settings import RuleSettings, WebSettings
from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.model import Labels
from exporter.storage.retention import Retention
from exporter.web import WebServer
from exporter.web.api import Api, Store, Target

NOW = 1_763_700_000
"""The API's present, unix seconds; the samples of the ten minutes before it are one second apart."""
SECONDS = 600
JSON = {"Accept": "application/json"}


def labels(name: str, **others: str) -> Labels:
    return tuple(sorted({"__name__": name, **others}.items()))


def head(rows: dict[Labels, Callable[[int], float]], *, now: int = NOW, seconds: int = SECONDS) -> Head:
    """A head with a row for each second until now."""
    head = Head(retention=Retention(24 * 3_600_000), memory_limit=256 << 20)
    stream, layout = head.stream("test"), Layout(list(rows))
    for second in range(now - seconds, now + 1):
        values = np.array([value(second) for value in rows.values()])
        stream.append(second * 1000, layout, values)
    return head


ROWS: dict[Labels, Callable[[int], float]] = {
    labels("up", job="vllm", instance="a:8000"): lambda _: 1.0,
    labels("up", job="vllm", instance="b:8000"): lambda second: float(second % 60 < 30),
    labels("vllm:request_success_total", job="vllm", instance="a:8000", reason="stop"): lambda s: (
        2.0 * (s - NOW + 1000)
    ),
    labels("queue", job="vllm", instance="a:8000", 房间="七号"): lambda _: 0.1,
}

ALERT = AlertStatus({"alertname": "Down"}, {"summary": "down"}, "firing", NOW - 60.0, 0.0)
DOWN = RuleStatus(
    "alerting", "Down", "up == 0", {"severity": "page"}, {}, 60.0, 0.0, (ALERT,), "ok", "", 0.001, NOW - 1.0
)
GROUPS = (GroupStatus("engine", "engine.rules.yml", 5.0, 0, 0.0, (DOWN,), 0.002, NOW - 1.0),)
TARGET = Target(
    "vllm", "http://127.0.0.1:8000/metrics", {"job": "vllm"}, "up", 1.0, 5.0, "", NOW - 0.5, 0.004
)


class Site:
    """A face with an API on a free port, and what its tests turn."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float], rules: dict[str, Any], web: dict[str, Any]
    ) -> None:
        block = Block()
        block.gauge(Family("queue", "gauge", "How long the queue is.")).set(3)
        for number in range(500):
            block.gauge(Family("filler", "gauge", "Makes the page longer.", ("number",)), str(number)).set(
                number
            )
        self.problems: list[str] | Exception = []
        self.reloads = 0
        self.store = store
        self.api = Api(
            RuleSettings(**rules),
            store,
            statuses=lambda: GROUPS,
            summary=lambda: {"status": "ready", "gpu": None},
            reload=self.reload,
            targets=lambda: (TARGET,),
            config=lambda: "global: {}\n",
            retention=3600.0,
            clock=clock,
        )
        self.server = WebServer(
            WebSettings(listen="127.0.0.1:0", **web),
            Page([block]),
            engine_status=lambda: EngineStatus(mode="supervised", base_url="http://127.0.0.1:8000"),
        )
        self.port: int = self.server.bind().getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def reload(self) -> Sequence[str]:
        self.reloads += 1
        if isinstance(self.problems, Exception):
            raise self.problems
        return self.problems


@asynccontextmanager
async def running(
    store: Store | None = None,
    *,
    clock: Callable[[], float] = lambda: NOW + 0.25,
    web: Any = None,
    **rules: Any,
) -> AsyncIterator[Site]:
    site = Site(store if store is not None else head(ROWS), clock=clock, rules=rules, web=web or {})
    await site.server.start()
    await site.server.serve_api(site.api)
    try:
        yield site
    finally:
        await site.server.stop()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running() as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(site.url) as session:
        yield session


async def get(client: aiohttp.ClientSession, path: str, *, code: int = 200, **fields: Any) -> Any:
    pairs = [
        (key, one) for key, value in fields.items() for one in (value if isinstance(value, list) else [value])
    ]
    async with client.get(path, params=pairs) as response:
        assert response.content_type == "application/json", await response.text()
        answer = await response.json()
        assert response.status == code, answer
        return answer


async def post(client: aiohttp.ClientSession, path: str, *, code: int = 200, **fields: Any) -> Any:
    pairs = [
        (key, one) for key, value in fields.items() for one in (value if isinstance(value, list) else [value])
    ]
    async with client.post(path, data=aiohttp.FormData(pairs)) as response:
        answer = await response.json()
        assert response.status == code, answer
        return answer


# What queries answer


async def test_an_instant_query_by_get_and_post(client: aiohttp.ClientSession) -> None:
    for ask in (get, post):
        answer = await ask(client, "/api/v1/query", query='up{instance="b:8000"}', time=str(NOW - 0.5))
        assert answer == {
            "status": "success",
            "data": {
                "resultType": "vector",
                "result": [
                    {
                        "metric": {"__name__": "up", "instance": "b:8000", "job": "vllm"},
                        "value": [NOW - 0.5, str(int((NOW - 1) % 60 < 30))],
                    }
                ],
            },
        }


async def test_without_a_time_it_is_now(client: aiohttp.ClientSession) -> None:
    assert (await get(client, "/api/v1/query", query="time()"))["data"] == {
        "resultType": "scalar",
        "result": [NOW + 0.25, "1763700000.25"],
    }


async def test_a_bare_range_selector_gives_raw_samples(client: aiohttp.ClientSession) -> None:
    found = (await get(client, "/api/v1/query", query="queue[3s]", time=str(NOW)))["data"]
    assert found["resultType"] == "matrix"
    assert found["result"][0]["values"] == [[NOW - 2, "0.1"], [NOW - 1, "0.1"], [NOW, "0.1"]]
    assert found["result"][0]["metric"]["房间"] == "七号"


async def test_a_range_query(client: aiohttp.ClientSession) -> None:
    fields = {"start": str(NOW - 120), "end": str(NOW), "step": "30s"}
    for ask in (get, post):
        answer = await ask(
            client, "/api/v1/query_range", query="rate(vllm:request_success_total[1m])", **fields
        )
        (series,) = answer["data"]["result"]
        assert series["metric"] == {"instance": "a:8000", "job": "vllm", "reason": "stop"}
        assert [when for when, _ in series["values"]] == [NOW - 120 + 30 * n for n in range(5)]
        assert [float(value) for _, value in series["values"]] == pytest.approx([2.0] * 5)
    scalar = await get(client, "/api/v1/query_range", query="2", **fields)
    assert scalar["data"]["result"][0] == {
        "metric": {},
        "values": [[NOW - 120 + 30 * n, "2"] for n in range(5)],
    }


async def test_series_of_a_range_are_sorted(client: aiohttp.ClientSession) -> None:
    fields = {"start": str(NOW - 60), "end": str(NOW), "step": "60"}
    found = await get(
        client, "/api/v1/query_range", query="up or queue or vllm:request_success_total", **fields
    )
    metrics = [tuple(sorted(one["metric"].items())) for one in found["data"]["result"]]
    assert metrics == sorted(metrics)
    assert len(metrics) == 4


async def test_a_limit_cuts_the_answer_and_warns(client: aiohttp.ClientSession) -> None:
    answer = await get(client, "/api/v1/query", query="up", limit="1")
    assert len(answer["data"]["result"]) == 1
    assert answer["warnings"] == ["results truncated due to limit"]


async def test_the_lookback_can_be_asked_for(client: aiohttp.ClientSession) -> None:
    late = {"query": "count(up)", "time": str(NOW + 100)}
    assert (await get(client, "/api/v1/query", **late))["data"]["result"][0]["value"][1] == "2"
    assert (await get(client, "/api/v1/query", **late, lookback_delta="10s"))["data"]["result"] == []


async def test_expressions_are_laid_out(client: aiohttp.ClientSession) -> None:
    found = await get(client, "/api/v1/format_query", query="sum by(a) (x)")
    assert found["data"].split() == ["sum", "by", "(a)", "(x)"]


# What errors look like


@pytest.mark.parametrize(
    ("path", "fields", "code", "kind", "message"),
    [
        (
            "query",
            {},
            400,
            "bad_data",
            'invalid parameter "query": 1:1: parse error: no expression found in input',
        ),
        (
            "query",
            {"query": "sum("},
            400,
            "bad_data",
            'invalid parameter "query": 1:5: parse error: unclosed left',
        ),
        ("query", {"query": "up", "time": "x"}, 400, "bad_data", 'invalid parameter "time"'),
        ("query", {"query": "up", "timeout": "x"}, 400, "bad_data", 'invalid parameter "timeout"'),
        ("query", {"query": "up", "limit": "x"}, 400, "bad_data", 'invalid parameter "limit"'),
        ("query", {"query": "up", "timeout": "0"}, 503, "timeout", "query timed out"),
        ("query", {"query": "up * on(job) up"}, 422, "execution", "found duplicate series"),
        ("query_range", {"query": "up"}, 400, "bad_data", 'invalid parameter "start"'),
        (
            "query_range",
            {"query": "up[5m]", "start": "1", "end": "2", "step": "1"},
            400,
            "bad_data",
            'invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector',
        ),
        (
            "query_range",
            {"query": '"x"', "start": "1", "end": "2", "step": "1"},
            400,
            "bad_data",
            'invalid parameter "query": invalid expression type "string"',
        ),
        ("series", {}, 400, "bad_data", "no match[] parameter provided"),
        ("series", {"match[]": "up["}, 400, "bad_data", 'invalid parameter "match[]": 1:1: parse error'),
        ("labels", {"match[]": "{}"}, 400, "bad_data", "match[] must contain at least one non-empty matcher"),
        ("labels", {"start": "x"}, 400, "bad_data", 'invalid parameter "start"'),
        ("label/U__/values", {}, 400, "bad_data", 'invalid label name: ""'),
        ("rules", {"type": "x"}, 400, "bad_data", 'invalid parameter "type": not supported value "x"'),
        ("format_query", {"query": "(("}, 400, "bad_data", 'invalid parameter "query"'),
        ("query_exemplars", {"query": "(("}, 400, "bad_data", "1:3: parse error"),
        ("nothing", {}, 404, "not_found", "Not Found"),
        ("label/a/b/values", {}, 404, "not_found", "Not Found"),
    ],
)
async def test_errors_are_json_in_prometheus_words(
    client: aiohttp.ClientSession, path: str, fields: dict[str, str], code: int, kind: str, message: str
) -> None:
    answer = await get(client, f"/api/v1/{path}", code=code, **fields)
    assert answer["status"] == "error"
    assert answer["errorType"] == kind
    assert message in answer["error"]
    assert set(answer) == {"status", "errorType", "error"}


async def test_a_query_over_its_samples_is_refused() -> None:
    async with running(query_samples=1000) as site, aiohttp.ClientSession(site.url) as client:
        answer = await get(client, "/api/v1/query", code=422, query="sum_over_time(up[10m])")
        assert "too many samples" in answer["error"]


async def test_what_breaks_inside_is_told_without_details(
    site: Site, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(site.store, "select", broken)
    answer = await get(client, "/api/v1/query", code=500, query="up")
    assert answer["errorType"] == "internal"
    assert "secret" not in answer["error"]


@pytest.mark.parametrize("path", ["/api/v1/rules", "/api/v1/metrics", "/api/v1/label/job/values"])
async def test_what_is_only_read_takes_no_post(client: aiohttp.ClientSession, path: str) -> None:
    async with client.post(path, data={}) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"
        assert (await response.json())["errorType"] == "bad_data"


async def test_other_origins_are_not_let_in(client: aiohttp.ClientSession) -> None:
    async with client.options("/api/v1/query", headers={"Origin": "http://evil.example"}) as response:
        assert response.status == 405
        assert "Access-Control-Allow-Origin" not in response.headers
    async with client.get("/api/v1/query?query=1", headers={"Origin": "http://evil.example"}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_form_has_its_limits(client: aiohttp.ClientSession) -> None:
    long = "up" + " " * 90_000
    assert (await post(client, "/api/v1/query", query=long))["status"] == "success"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    too_long = io.BytesIO(b"query=" + b"1" * (1 << 20))
    async with client.post("/api/v1/query", data=too_long, headers=form) as response:
        assert response.status == 413
        assert (await response.json())["errorType"] == "bad_data"

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"a=1&" * 10_000

    async with client.post("/api/v1/query", data=endless(), headers=form) as response:
        assert response.status == 400
        assert "longer than" in (await response.json())["error"]


async def test_until_the_api_is_there_its_paths_say_so() -> None:
    server = WebServer(
        WebSettings(listen="127.0.0.1:0"),
        Page([Block()]),
        engine_status=lambda: EngineStatus(mode="supervised", base_url=""),
    )
    port = server.bind().getsockname()[1]
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            answer = await get(client, "/api/v1/query", code=503, query="up")
            assert answer["errorType"] == "unavailable"
            async with client.post("/-/reload") as response:
                assert response.status == 503
                assert response.headers["Connection"] == "close", "the next connection may find it"
    finally:
        await server.stop()


async def test_the_token_guards_all_of_it() -> None:
    async with running(web={"bearer_token": SecretStr("s3cret")}) as site:
        async with aiohttp.ClientSession(site.url) as client:
            for path in ("query?query=up", "rules", "metrics", "status/config", "nothing"):
                answer = await get(client, f"/api/v1/{path}", code=401)
                assert answer["errorType"] == "unauthorized"
            async with client.post("/-/reload") as response:
                assert response.status == 401
            assert site.reloads == 0
        shown = {"Authorization": "Bearer s3cret"}
        async with aiohttp.ClientSession(site.url, headers=shown) as client:
            assert (await get(client, "/api/v1/query", query="up"))["status"] == "success"


# The rest of the surface


async def test_series_labels_and_values(client: aiohttp.ClientSession) -> None:
    for ask in (get, post):
        found = await ask(client, "/api/v1/series", **{"match[]": ['up{instance=~"a.*"}', "queue"]})
        assert [one["__name__"] for one in found["data"]] == ["queue", "up"]
        assert (await ask(client, "/api/v1/labels"))["data"] == [
            "__name__",
            "instance",
            "job",
            "reason",
            "房间",
        ]
        assert (await ask(client, "/api/v1/labels", **{"match[]": "up"}))["data"] == [
            "__name__",
            "instance",
            "job",
        ]
    values = await get(client, "/api/v1/label/instance/values", **{"match[]": "up"})
    assert values == {"status": "success", "data": ["a:8000", "b:8000"]}
    assert (await get(client, f"/api/v1/label/{quote('房间')}/values"))["data"] == ["七号"]
    assert (await get(client, "/api/v1/label/U___623f__95f4_/values"))["data"] == ["七号"]
    assert (await get(client, "/api/v1/label/nothing/values"))["data"] == []
    assert (await get(client, "/api/v1/labels", start=str(NOW + 10)))["data"] == []


async def test_rules_alerts_targets_and_status(client: aiohttp.ClientSession) -> None:
    (group,) = (await get(client, "/api/v1/rules"))["data"]["groups"]
    assert group["rules"][0]["alerts"][0]["activeAt"] == "2025-11-21T04:39:00Z"
    assert (await get(client, "/api/v1/rules", **{"match[]": '{severity="ticket"}'}))["data"]["groups"] == []
    assert (await get(client, "/api/v1/alerts"))["data"]["alerts"][0]["state"] == "firing"
    assert (await get(client, "/api/v1/targets"))["data"]["activeTargets"][0]["health"] == "up"
    assert (await get(client, "/api/v1/alertmanagers"))["data"]["activeAlertmanagers"] == []
    assert (await get(client, "/api/v1/metadata", metric="queue"))["data"] == {
        "queue": [{"type": "gauge", "help": "How long the queue is.", "unit": ""}]
    }
    assert (await get(client, "/api/v1/query_exemplars", query="up"))["data"] == []
    assert (await get(client, "/api/v1/status/runtimeinfo"))["data"]["storageRetention"] == "1h"
    assert (await get(client, "/api/v1/status/flags"))["data"]["query.timeout"] == "30s"
    assert (await get(client, "/api/v1/status/config"))["data"] == {"yaml": "global: {}\n"}
    figures = (await get(client, "/api/v1/status/tsdb"))["data"]
    assert figures["headStats"]["numSeries"] == 4
    assert figures["headStats"]["minTime"] == (NOW - SECONDS) * 1000


async def test_the_summary_stands_without_an_envelope(client: aiohttp.ClientSession) -> None:
    assert await get(client, "/api/v1/metrics") == {"status": "ready", "gpu": None}


async def test_a_reload_says_what_is_wrong(site: Site, client: aiohttp.ClientSession) -> None:
    async with client.post("/-/reload") as response:
        assert (response.status, await response.text()) == (200, "")
    site.problems = ["a.yml:3:1: no such field", "b.yml: cannot be read"]
    for problems in (site.problems, ConfigError(site.problems)):
        site.problems = problems
        async with client.put("/-/reload") as response:
            assert response.status == 500
            assert await response.text() == (
                "failed to reload config: a.yml:3:1: no such field\nb.yml: cannot be read\n"
            )
    async with client.post("/-/reload", headers=JSON) as response:
        assert (await response.json())["problems"] == ["a.yml:3:1: no such field", "b.yml: cannot be read"]
    info = (await get(client, "/api/v1/status/runtimeinfo"))["data"]
    assert info["reloadConfigSuccess"] is False
    async with client.get("/-/reload") as response:
        assert response.status == 405
    site.problems = RuntimeError("secret path")
    async with client.post("/-/reload") as response:
        assert response.status == 500
        assert (
            await response.text() == "failed to reload config: internal error; the daemon's log says more\n"
        )


async def test_large_answers_are_packed_for_those_who_take_that(site: Site) -> None:
    query = f"/api/v1/query_range?query=up%20*%20time()&start={NOW - 599}&end={NOW}&step=0.1"
    async with aiohttp.ClientSession(site.url, auto_decompress=False) as client:
        async with client.get(query, headers={"Accept-Encoding": "identity"}) as response:
            plain = await response.read()
            assert "Content-Encoding" not in response.headers
            assert int(response.headers["Content-Length"]) == len(plain)
        async with client.get(query, headers={"Accept-Encoding": "gzip, deflate"}) as response:
            packed = await response.read()
            assert response.headers["Content-Encoding"] == "gzip"
        async with client.head(query) as response:
            assert int(response.headers["Content-Length"]) > 10_000
    assert gzip.decompress(packed) == plain
    assert len(plain) > 1 << 18
    assert len(json.loads(plain)["data"]["result"][0]["values"]) == 5991


async def test_requests_are_counted_by_path_and_labels_make_no_series(
    site: Site, client: aiohttp.ClientSession
) -> None:
    for name in ("a", "b", "c"):
        await get(client, f"/api/v1/label/{name}/values")
        await get(client, f"/api/v1/{name}", code=404)
    await get(client, "/api/v1/query", query="1")
    own = Block()
    site.server.publish(own)
    text = own.render(openmetrics=False).decode()
    assert 'http_requests_total{path="/api/v1/label/:name/values",code="200"} 3\n' in text
    assert 'http_requests_total{path="other",code="404"} 3\n' in text
    assert 'http_requests_total{path="/api/v1/query",code="200"} 1\n' in text


# As Grafana asks: pkg/promlib and packages/grafana-prometheus in https://github.com/grafana/grafana


async def test_grafanas_health_check_and_version_probe(client: aiohttp.ClientSession) -> None:
    answer = await post(client, "/api/v1/query", query="1+1", time="4")
    assert answer["data"] == {"resultType": "scalar", "result": [4, "2"]}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with client.post("/api/v1/status/buildinfo", data=b"", headers=form) as response:
        assert response.status == 405  # upon which it tries GET
    info = (await get(client, "/api/v1/status/buildinfo"))["data"]
    assert info["version"].startswith("3.")
    assert not info.get("features")  # by which it tells a Mimir


async def test_grafanas_panels(client: aiohttp.ClientSession) -> None:
    answer = await post(
        client,
        "/api/v1/query_range",
        query='sum by(job) (rate(vllm:request_success_total{job=~"vllm|x"}[1m0s]))',
        start=str(NOW - 300),
        end=str(NOW + 0.123),
        step="15",
        timeout="60s",
    )
    assert answer["data"]["resultType"] == "matrix"
    assert len(answer["data"]["result"][0]["values"]) == 21
    exemplars = await post(
        client, "/api/v1/query_exemplars", query="queue", start=str(NOW - 300), end=str(NOW)
    )
    assert exemplars == {"status": "success", "data": []}


async def test_grafanas_query_builder(client: aiohttp.ClientSession) -> None:
    window = {"start": str(NOW - 3600), "end": str(NOW), "limit": "40000"}
    names = await get(client, "/api/v1/label/__name__/values", **window)
    assert names["data"] == ["queue", "up", "vllm:request_success_total"]
    keys = await post(client, "/api/v1/labels", **window, **{"match[]": '{__name__="up"}'})
    assert keys["data"] == ["__name__", "instance", "job"]
    everything = await post(client, "/api/v1/series", **window, **{"match[]": '{__name__!=""}'})
    assert len(everything["data"]) == 4
    some = await post(client, "/api/v1/series", **window, **{"match[]": '{__name__="up",job!=""}'})
    assert len(some["data"]) == 2
    assert (await get(client, "/api/v1/metadata", limit="40000"))["data"]["queue"][0]["type"] == "gauge"


async def test_grafanas_alert_list(client: aiohttp.ClientSession) -> None:
    answer = await get(client, "/api/v1/rules", **{"rule_name[]": "Down", "group_limit": "100"})
    assert answer["data"]["groups"][0]["rules"][0]["state"] == "firing"


# As promtool asks


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
@pytest.mark.parametrize(
    ("command", "code", "shown"),
    [
        (
            ["instant", "URL", 'up{instance="a:8000"}', f"--time={NOW}"],
            0,
            'up{instance="a:8000", job="vllm"} => 1 @',
        ),
        (["instant", "URL", "1 +", f"--time={NOW}"], 1, "bad_data"),
        (["instant", "URL", "up * on(job) up", f"--time={NOW}"], 1, "execution"),
        (["instant", "URL", 'up{instance="a:8000"}[2s]', f"--time={NOW}"], 0, f"1 @[{NOW - 1}]"),
        (["instant", "URL", "scalar(queue)", f"--time={NOW}"], 0, "scalar: 0.1 @"),
        (
            ["range", "URL", "sum(queue)", f"--start={NOW - 60}", f"--end={NOW}", "--step=30s"],
            0,
            f"0.1 @[{NOW - 30}]",
        ),
        (
            ["series", "URL", "--match=up", f"--start={NOW - 60}", f"--end={NOW}"],
            0,
            '{__name__="up", instance="b:8000"',
        ),
        (["series", "URL", "--match=up"], 0, 'instance="a:8000"'),
        (["labels", "URL", "instance"], 0, "a:8000\nb:8000"),
    ],
)
async def test_promtool_understands_the_answers(
    site: Site, command: list[str], code: int, shown: str
) -> None:
    words = [site.url if word == "URL" else word for word in command]
    process = await asyncio.create_subprocess_exec(
        "promtool", "query", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert shown in output.decode()
    assert process.returncode == code


# As our own command asks


async def run_query(*arguments: str) -> int:
    return await asyncio.to_thread(cli.main, ["query", *arguments])


async def test_the_query_command_prints_tables_and_json(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run_query("up", "--url", site.url, "--time", str(NOW)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["metric", "instance", "job", "value"]
    assert lines[1].split() == ["up", "a:8000", "vllm", "1"]
    assert (
        await run_query("up", "--url", f"{site.url}/", "--time", str(NOW), "--range", "1m", "--step", "30s")
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'all: up{job="vllm"}'
    assert len(lines) == 6
    assert await run_query("queue", "--url", site.url, "--time", str(NOW), "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"][0]["metric"]["房间"] == "七号"
    assert await run_query("nothing", "--url", site.url) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "vllm-exporter: no series has a value\n")


async def test_the_query_command_says_what_is_wrong(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, message in [
        (["sum(", "--url", site.url], 1, "bad_data: invalid parameter"),
        (["up", "--url", "http://127.0.0.1:1"], 1, "nobody listens at http://127.0.0.1:1"),
        (["up", "--url", "ftp://x"], 2, "is no URL"),
        (["up", "--url", "http://a:b@127.0.0.1"], 2, "no user and password"),
        (["up", "--url", site.url, "--step", "5s"], 2, "--step goes with --range"),
        (["up", "--url", site.url, "--range", "x"], 2, '--range: cannot parse "x"'),
        (["up", "--url", site.url, "--time", "x"], 2, '--time: cannot parse "x"'),
        (["up", "--url", site.url, "--range", "30d", "--step", "1s"], 2, "--step 1s: at least"),
        (["up", "--url", site.url, "--token-file", "/nowhere"], 2, "/nowhere"),
    ]:
        assert await run_query(*arguments) == code, arguments
        assert message in capsys.readouterr().err


async def test_the_query_command_shows_its_token(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_EXPORTER_WEB__BEARER_TOKEN", raising=False)
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    async with running(web={"bearer_token": SecretStr("s3cret")}) as site:
        assert await run_query("1", "--url", site.url) == 1
        assert "wants a token" in capsys.readouterr().err
        assert await run_query("1", "--url", site.url, "--token-file", str(secret)) == 0
        assert await run_query("1", "--url", site.url, "--token", "s3cret") == 0
        monkeypatch.setenv("VLLM_EXPORTER_WEB__BEARER_TOKEN", "s3cret")
        assert await run_query("1", "--url", site.url) == 0


# As nobody should ask


async def test_no_parameters_break_the_api(client: aiohttp.ClientSession) -> None:
    chance = random.Random(7)
    odd = [
        "", "0", "-1", "1e308", "NaN", "Inf", "-Inf", "9" * 400, "\x00", "\ud7ff", "%", "up", "up[5m]", "{}", "{a=~\"(\"}",
        "((((((((((", "2026-01-01T00:00:00Z", "1s", "5m", "1y", "true", "all", "🚒", "'", '"', "a" * 3000, str(NOW),
        "rate(up[1m])", "up offset 100y", "up @ 1e15", "up[100y:1s]", "label_replace(up,'a','$1','b','(.*)')", "-" * 200 + "1",
    ]  # fmt: skip
    fields = ["query", "time", "start", "end", "step", "timeout", "limit", "lookback_delta", "match[]", "stats", "type",
              "metric", "group_limit", "exclude_alerts", "limit_per_metric", "state"]  # fmt: skip
    paths = [path for path in PATHS_TO_ASK for _ in range(12)]
    for path in paths:
        pairs = [(chance.choice(fields), chance.choice(odd)) for _ in range(chance.randrange(1, 9))]
        if chance.random() < 0.5:
            answer = client.get(path, params=pairs)
        else:
            answer = client.post(path, data=aiohttp.FormData(pairs))
        async with answer as response:
            body = await response.json()
            assert response.status in (200, 400, 405, 422, 503), (path, pairs, body)
            assert body["status"] in ("success", "error", "ready")
            if response.status != 200:
                assert body["errorType"] and body["error"]


FORM_HEAD = b"POST /api/v1/query HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET /api/v1/query?query=%zz%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /api/v1/label/a%2Fb/values HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /api/v1/label/%ff%00/values HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET http://x/api/v1/query?query=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /api/v1/query?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (FORM_HEAD + b"Expect: 100-continue\r\nContent-Length: 7\r\n\r\nquery=1", b"100"),
        (FORM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n7\r\nquery=1\r\n0\r\n\r\n", b"200"),
        (FORM_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nquery=1\r\n0\r\n\r\n", b"400"),
        (FORM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n7\r\nquery=1\r\nzz\r\n\r\n", b"400"),
        (FORM_HEAD + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nquery=1", b"400"),
    ],
)
async def test_odd_requests_are_answered_and_not_logged(
    site: Site, caplog: pytest.LogCaptureFixture, sent: bytes, code: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.split()[1] == code
    assert not caplog.records


PATHS_TO_ASK = [
    f"/api/v1/{path}"
    for path in (
        "query",
        "query_range",
        "query_exemplars",
        "format_query",
        "series",
        "labels",
        "label/job/values",
        "label/U__%ff/values",
        "rules",
        "alerts",
        "targets",
        "metadata",
        "metrics",
        "status/buildinfo",
        "status/runtimeinfo",
        "status/flags",
        "status/config",
        "status/tsdb",
    )
]


@pytest.fixture
def fine_switches() -> Iterator[None]:
    """Threads change places as often as in the daemon."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


class Slow:
    """A store whose series cannot be had until it is let go; the evaluation looks at its budget meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.free = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def select(self, matchers: Any) -> Any:
        self.waiting.release()
        assert self.free.wait(30)
        return self._store.select(matchers)


async def test_a_full_queue_answers_503_and_later_ones_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.api.workers.QUEUE_LIMIT", 1)
    slow = Slow(head(ROWS))
    async with (
        running(cast("Store", slow), query_concurrency=1) as site,
        aiohttp.ClientSession(site.url) as client,
    ):
        first = asyncio.create_task(get(client, "/api/v1/query", query="up"))
        await asyncio.to_thread(slow.waiting.acquire, True, 10)
        waiting = [asyncio.create_task(client.get("/api/v1/query?query=up")) for _ in range(80)]
        done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        refused = await done.pop().result().json()
        assert refused["errorType"] == "unavailable"
        async with client.get("/metrics") as response:
            assert response.status == 200
        slow.free.set()
        assert (await first)["status"] == "success"
        codes = [(await task).status for task in waiting]
    assert set(codes) == {200, 503}


async def test_a_client_that_hangs_up_gives_its_place_back() -> None:
    slow = Slow(head(ROWS))
    async with running(cast("Store", slow), query_concurrency=1) as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /api/v1/query?query=up%2Bup HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.to_thread(slow.waiting.acquire, True, 10)
        writer.transport.abort()
        slow.free.set()
        async with aiohttp.ClientSession(site.url) as client:
            assert (await get(client, "/api/v1/query", query="up"))["status"] == "success"


async def test_costly_queries_stall_neither_metrics_nor_the_loop(fine_switches: None) -> None:
    """Expensive range queries in every place; the page still comes in a fraction of a second, 99 times of 100."""
    rows: dict[Labels, Callable[[int], float]] = {
        labels("load", number=str(number)): (lambda second, number=number: second * 0.37 + number)  # type: ignore[misc]
        for number in range(200)
    }
    store = await asyncio.to_thread(head, rows)
    async with (
        running(store, query_concurrency=4) as site,
        aiohttp.ClientSession(site.url, timeout=aiohttp.ClientTimeout(total=100)) as client,
    ):
        expensive = {
            "query": "avg_over_time(load[1m]) + on(number) quantile_over_time(0.5, load[30s])",
            "start": str(NOW - 500),
            "end": str(NOW),
            "step": "1",
        }
        heavy = [asyncio.create_task(get(client, "/api/v1/query_range", **expensive)) for _ in range(6)]
        waits: list[float] = []
        async with aiohttp.ClientSession(site.url) as scraper:
            while len(waits) < 100 or (len(waits) < 3000 and not all(task.done() for task in heavy)):
                began = time.perf_counter()
                async with scraper.get("/metrics") as response:
                    await response.read()
                waits.append(time.perf_counter() - began)
                await asyncio.sleep(0.002)
        for task in heavy:
            assert len((await task)["data"]["result"]) == 200
    waits.sort()
    assert waits[int(0.99 * len(waits))] < 0.5
