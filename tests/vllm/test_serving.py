"""One engine from its start to a drained stop, under ordinary traffic."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import openai
import pytest
from real_engine import MODEL_LEN, MODEL_NAME, PROMPT, START_LIMIT, Daemon, Page, Stream, is_open, streams

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


class Served:
    """The daemon at ready, what its pages said on the way there, and what clients have been served since."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.before_open: list[Page] = []
        self.requests = 0
        self.input_tokens = 0
        self.output_tokens = 0

    def start(self) -> Served:
        self.daemon.start()
        for page in self.daemon.pages(START_LIMIT, interval=0.1):
            if page.state == "ready":
                break
            assert page.state != "failed", self.daemon.tail()
            if not self.daemon.engine_is_open():
                self.before_open.append(page)
        return self

    def count(self, usage: openai.types.CompletionUsage | None) -> None:
        assert usage is not None
        self.requests += 1
        self.input_tokens += usage.prompt_tokens
        self.output_tokens += usage.completion_tokens

    def agreed(self, page: Page) -> bool:
        """The derived counters say what the clients were told."""
        return (
            page.total("vllm_slo_requests_total", outcome="success"),
            page.total("vllm_slo_tokens_total", direction="input"),
            page.total("vllm_slo_tokens_total", direction="output"),
        ) == (self.requests, self.input_tokens, self.output_tokens)


API_KEY = "sk-only-for-this-test"
SLOTS = QUEUE = 16


@pytest.fixture(scope="module")
def served(make_daemon: Callable[..., Daemon]) -> Served:
    flags = ("--max-num-seqs", str(SLOTS), "--max-num-queued-reqs", str(QUEUE))
    engine = {"on_hang": "report", "hang_timeout": 6.0, "hang_grace": 1.0, "canary_timeout": 3.0}
    daemon = make_daemon(*flags, settings={"engine": engine}, environment={"VLLM_API_KEY": API_KEY})
    return Served(daemon).start()


def test_loading_is_visible_before_the_engine_opens_its_port(served: Served) -> None:
    states = [page.state for page in served.before_open]
    assert "loading" in states
    stages = set[str]().union(
        *(p.labels("vllm_exporter_engine_load_stage", "stage") for p in served.before_open)
    )
    assert "loading_weights" in stages or "allocating_kv_cache" in stages or "compiling" in stages
    assert len(stages) >= 3
    ratios = [p.get("vllm_exporter_engine_load_progress_ratio") for p in served.before_open]
    known = [ratio for ratio in ratios if ratio is not None]
    assert known == sorted(known)
    assert known[-1] == 1.0, "the shards were loaded before the port opened"
    assert all(p.get("vllm_exporter_engine_up") == 0 for p in served.before_open)
    assert not any("vllm:" in page.text for page in served.before_open)


def test_a_ready_engine_is_ready_for_whoever_asks(served: Served) -> None:
    page = served.daemon.wait(lambda page: page.get("vllm_exporter_scrape_success") == 1)
    assert page.get("vllm_exporter_engine_up") == 1
    assert page.get("vllm_exporter_engine_load_progress_ratio") is None
    assert page.total("vllm_exporter_engine_load_duration_seconds") > 3
    assert served.daemon.status_of("/-/ready") == 200
    assert served.daemon.status_of("/-/healthy") == 200


def test_derived_counts_are_the_clients_own(served: Served) -> None:
    with served.daemon.client() as client:
        for number in range(4):
            plain = client.completions.create(
                model=MODEL_NAME,
                prompt="word " * (number + 1),
                max_tokens=20,
                extra_body={"ignore_eos": True},
            )
            served.count(plain.usage)
            chat = client.chat.completions.create(
                model=MODEL_NAME, messages=[{"role": "user", "content": "hello"}], max_tokens=10
            )
            served.count(chat.usage)
            stream = client.chat.completions.create(
                model=MODEL_NAME,
                messages=[{"role": "user", "content": "tell"}],
                max_tokens=30,
                stream=True,
                stream_options={"include_usage": True},
            )
            served.count([chunk.usage for chunk in stream if chunk.usage][-1])
    page = served.daemon.wait(served.agreed)
    for family in ("time_to_first_token_seconds", "request_duration_seconds", "queue_duration_seconds"):
        assert page.get(f"vllm_slo_{family}_count") == served.requests, family
    assert page.total("vllm_slo_inter_token_latency_seconds_count") == served.output_tokens - served.requests
    assert page.labels("vllm_slo_requests_total", "model_name") == {MODEL_NAME}
    assert page.labels("vllm_slo_requests_total", "source") == {"engine", "gateway"}
    for name in ("vllm_slo_requests_total", "vllm_slo_tokens_total"):
        assert page.total(name, source="gateway") == page.total(name), name
    assert page.total("vllm_total_requests") == served.requests
    assert 0 < page.total("vllm_ttft_p95") < 60


def test_mistakes_of_clients_are_not_the_engines_errors(served: Served) -> None:
    with served.daemon.client() as client:
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model=MODEL_NAME, prompt="x", max_tokens=10 * MODEL_LEN)
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="another", prompt="x")
    page = served.daemon.wait(lambda page: page.total("vllm_slo_requests_total", outcome="client_error") == 2)
    assert served.agreed(page)
    assert page.total("vllm_slo_requests_total", outcome="engine_error") == 0
    assert page.total("vllm_slo_error_ratio_sum") == 0


def test_the_page_has_all_families_once_and_parses(served: Served) -> None:
    page = served.daemon.page()
    names = [family.name for family in page.families]
    assert len(names) == len(set(names))
    series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in page.samples]
    assert len(series) == len(set(series))
    for prefix in ("vllm:", "vllm_slo_", "vllm_exporter_", "vllm_num_", "http_requests"):
        assert any(name.startswith(prefix) for name in names), prefix
    assert not any(name.startswith("vllm:") and name.endswith("_created") for name in names)


def test_another_daemon_attaches_to_the_engine_and_says_the_same(
    served: Served, make_daemon: Callable[..., Daemon]
) -> None:
    other = make_daemon(
        attach_to=served.daemon.own_port, environment={"VLLM_EXPORTER_ENGINE__API_KEY": API_KEY}
    ).start()
    page = other.wait(served.agreed)
    assert page.state == "ready"
    assert page.get("vllm_exporter_engine_info", mode="attached") == 1
    other.signal(signal.SIGTERM)
    assert other.wait_exit(15) == 0, other.tail()
    assert served.daemon.engine_is_open(), "it is not ours to stop"


def test_running_requests_show_and_many_clients_are_counted(served: Served) -> None:
    running = streams(served.daemon, 16, tokens=1000)
    page = served.daemon.wait(lambda page: page.total("vllm_slo_requests_running") > 0)
    assert page.total("vllm:num_requests_running") > 0
    for stream in running:
        stream.join(120)
        assert (stream.error, stream.finish_reason, stream.output_tokens) == (None, "length", 1000)
    served.requests += 16
    served.output_tokens += 16 * 1000
    served.input_tokens += 16 * len(PROMPT)
    page = served.daemon.wait(served.agreed)
    assert page.total("vllm_slo_requests_running") == 0


def test_refused_requests_are_failures_whether_they_streamed_or_not(served: Served) -> None:
    before = served.daemon.page()
    busy = streams(served.daemon, SLOTS, tokens=1500)
    more = [Stream(served.daemon, 1500) for _ in range(3 * QUEUE)]
    refused_plain = 0
    with served.daemon.client() as client:
        for _ in range(3):
            try:
                answer = client.completions.create(model=MODEL_NAME, prompt="x", max_tokens=1)
            except openai.InternalServerError as error:
                assert error.status_code == 503
                refused_plain += 1
            else:
                served.count(answer.usage)
    for stream in (*busy, *more):
        stream.join(120)
        if stream.error is None:
            assert stream.output_tokens == 1500
            served.requests += 1
            served.output_tokens += 1500
            served.input_tokens += len(PROMPT)
    refused = refused_plain + sum(stream.error is not None for stream in more)
    assert refused > 0
    page = served.daemon.wait(
        lambda page: (
            served.agreed(page) and page.total("vllm_slo_requests_total", outcome="rejected") == refused
        )
    )
    assert page.total("vllm_slo_requests_total", outcome="engine_error") == 0, "each failure counts once"
    assert page.total("vllm_slo_error_ratio_sum") > before.total("vllm_slo_error_ratio_sum")


def test_a_pause_is_only_reported_where_that_is_asked_for(served: Served) -> None:
    daemon = served.daemon
    core = daemon.engine_pid("EngineCore")
    demand = streams(daemon, 4, tokens=3000)
    os.kill(core, signal.SIGSTOP)
    try:
        page = daemon.wait(lambda page: page.state == "unresponsive", 6 + 3 + 15)
        assert page.get("vllm_exporter_engine_up") == 0
        assert daemon.status_of("/-/ready") == 503
    finally:
        os.kill(core, signal.SIGCONT)
    for stream in demand:
        assert stream.join(120).output_tokens == 3000
    page = daemon.wait_state("ready", 60)
    assert page.total("vllm_exporter_engine_restarts_total") == 0
    assert daemon.engine_pid("EngineCore") == core


def test_the_api_key_is_shown_nowhere(served: Served) -> None:
    daemon = served.daemon
    assert API_KEY not in daemon.log.read_text(errors="replace")
    assert API_KEY not in daemon.page().text
    assert not any(API_KEY in command for command in daemon.engine_processes().values())
    for file in daemon.data_dir.rglob("*"):
        assert not file.is_file() or API_KEY.encode() not in file.read_bytes(), file


def test_a_stop_lets_running_streams_finish_and_leaves_nothing(served: Served) -> None:
    daemon = served.daemon
    running = streams(daemon, 16, tokens=1000)
    seen: list[int] = []

    def watch() -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until and 503 not in seen:
            try:
                seen.append(daemon.status_of("/-/ready"))
            except Exception:  # noqa: BLE001 - it ends while it is asked
                return

    watcher = threading.Thread(target=watch)
    daemon.signal(signal.SIGTERM)
    watcher.start()
    for stream in running:
        stream.join(120)
        assert (stream.error, stream.finish_reason, stream.output_tokens) == (None, "length", 1000)
    code = daemon.wait_exit(60)
    watcher.join()
    assert code == 0, daemon.tail()
    assert 503 in seen, "a draining engine is not ready"
    daemon.wait_gone(3)
    assert not is_open(daemon.port)
