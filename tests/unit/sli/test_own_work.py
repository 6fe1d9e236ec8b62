"""The daemon's own requests are not among the users', as far as a page lets them be told apart."""

from __future__ import annotations

import json

import pytest

from exporter.sli import vocabulary as v
from exporter.sli.own_work import PAGES, OwnWork, explains

WHO = {"engine": "0", "model_name": "m"}
BOUNDS = [0.1, 1.0]


class Work:
    """An engine's counters, shown as a page."""

    def __init__(self, new_page) -> None:
        self.new_page = new_page
        self.done = self.aborted = self.prompt = self.generated = self.steps = 0
        self.ttft: list[float] = []
        self.posts: dict[str, int] = {}

    def serve(self, *, done=0, aborted=0, prompt=0, generated=0, ttft=(), post=""):
        self.done += done
        self.aborted += aborted
        self.prompt += prompt
        self.generated += generated
        self.steps += generated
        self.ttft += ttft
        if post:
            self.posts[post] = self.posts.get(post, 0) + 1
        return self.page

    def probe(self):
        return self.serve(done=1, prompt=3, generated=1, ttft=[0.05], post="2xx")

    @property
    def page(self):
        page = self.new_page()
        page.gauge("vllm:num_requests_running", (WHO, 0.0))
        page.counter("vllm:prompt_tokens_total", (WHO, float(self.prompt)))
        page.counter("vllm:generation_tokens_total", (WHO, float(self.generated)))
        page.counter(
            "vllm:request_success_total",
            ({**WHO, "finished_reason": "length"}, float(self.done)),
            ({**WHO, "finished_reason": "abort"}, float(self.aborted)),
        )
        page.histogram("vllm:time_to_first_token_seconds", BOUNDS, (WHO, self.ttft))
        handler = {"handler": "/v1/completions", "method": "POST"}
        samples = [({**handler, "status": status}, float(n)) for status, n in self.posts.items()]
        return page.counter("http_requests_total", *samples) if samples else page


@pytest.fixture
def work(new_page):
    return Work(new_page)


def counts(watched) -> tuple[float, float, float, float]:
    return (
        watched.requests().get("success", 0.0),
        watched.get("tokens_total", direction="input"),
        watched.get("tokens_total", direction="output"),
        watched.get("time_to_first_token_seconds_count"),
    )


def test_a_probe_that_was_all_that_happened_is_in_no_indicator(watch, work):
    watched = watch(time_to_first_token_buckets=(0.1, 1.0))
    watched.see(work.serve(done=5, prompt=50, generated=500, ttft=[0.5] * 5, post="2xx"))
    before, speeds = counts(watched), watched.get("output_tokens_per_second_count")
    for _ in range(3):
        page = work.probe()
        watched.indicators.own_work(3, 1)
        watched.see(page)
        watched.see(work.page)
    assert counts(watched) == before
    assert watched.cumulative("time_to_first_token_seconds") == [0, 5, 5]
    assert watched.get("output_tokens_per_second_count") == speeds


def test_a_probe_that_brings_new_series_is_left_out_too(watch, work):
    watched = watch().see(work.page)
    watched.indicators.own_work(3, 1)
    watched.see(work.probe())  # the first request of all: the handler's counter appears
    assert counts(watched) == (0, 0, 0, 0)
    watched.see(work.serve(done=1, prompt=7, generated=9, ttft=[0.5], post="2xx"))
    assert counts(watched) == (1, 7, 9, 1)


def test_users_that_came_in_the_same_interval_are_all_counted(watch, work):
    watched = watch().see(work.page)
    watched.indicators.own_work(3, 1)
    work.probe()
    watched.see(work.serve(done=1, prompt=7, generated=9, ttft=[0.5]))
    assert counts(watched) == (2, 10, 10, 2)
    watched.see(work.serve(done=1, prompt=3, generated=1, ttft=[0.5]))
    assert watched.requests() == {"success": 3.0}, "what a probe did not explain waits for no other"


def test_a_users_abort_in_the_same_interval_is_counted(watch, work):
    watched = watch().see(work.page)
    watched.indicators.own_work(3, 1)
    work.probe()
    watched.see(work.serve(aborted=1))
    assert watched.requests() == {"success": 1.0, "aborted": 1.0}


def test_a_probe_may_be_some_pages_late_and_not_more(watch, work):
    watched = watch().see(work.page)
    watched.indicators.own_work(3, 1)
    for _ in range(PAGES - 1):
        watched.see(work.page)
    watched.see(work.probe())
    assert watched.requests() == {}
    watched.indicators.own_work(3, 1)
    for _ in range(PAGES):
        watched.see(work.page)
    watched.see(work.probe())
    assert watched.requests() == {"success": 1.0}


def test_the_hang_verdict_sees_the_engine_move_all_the_same(watch, work):
    watched = watch().see(work.page)
    before = watched.indicators.progress().counter
    watched.indicators.own_work(3, 1)
    watched.see(work.probe())
    moved = watched.indicators.progress().counter
    assert before is not None
    assert moved == before + 4
    watched.see(work.serve(done=1, prompt=2, generated=2))
    assert watched.indicators.progress().counter == moved + 4


def test_a_restarted_engine_is_not_taken_for_a_probe(watch, work, new_page):
    watched = watch().see(work.serve(done=5, prompt=50, generated=500, ttft=[0.5] * 5))
    watched.indicators.own_work(3, 1)
    watched.see(Work(new_page).probe(), epoch="second")
    assert watched.requests() == {"success": 6.0}


def test_what_was_left_out_stays_left_out_in_the_next_daemon(watch, work):
    watched = watch().see(work.serve(done=5, prompt=50, generated=500, ttft=[0.5] * 5))
    watched.indicators.own_work(3, 1)
    watched.see(work.probe())
    later = watch()
    later.indicators.restore(json.loads(json.dumps(watched.indicators.state())))
    later.see(work.serve(done=1, prompt=1, generated=1, ttft=[0.5]))
    assert counts(later) == (6, 51, 501, 6)


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({}, True),
        ({v.CACHE_QUERIES: 3.0}, True),
        ({v.CACHE_QUERIES: 40.0}, False),
        ({v.HTTP_SUCCESS: 1.0}, True),
        ({v.HTTP_SUCCESS: 2.0}, False),
        ({v.HTTP_CLIENT_ERROR: 1.0}, False),
        ({v.HTTP_SERVER_ERROR: 1.0}, False),
        ({v.REJECTIONS: 1.0}, False),
        ({v.PREEMPTIONS: 1.0}, False),
        ({v.ITERATIONS: 2.0}, True),
    ],
)
def test_only_what_a_probe_itself_gains_is_explained_by_it(more, verdict):
    gains = {v.FINISHED: 1.0, v.INPUT_TOKENS: 3.0, v.OUTPUT_TOKENS: 1.0, **more}
    assert explains(OwnWork(3, 1), gains) is verdict


def test_an_interval_without_any_work_explains_nothing_yet():
    assert explains(OwnWork(3, 1), {v.ITERATIONS: 1.0, v.FINISHED: 0.0}) is None
