"""Whatever an engine does between scrapes, totals rise by exactly what it counted, and never fall."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BOUNDS_A = [0.05, 0.1, 0.5, 1.0]
BOUNDS_B = [0.02, 0.1, 0.3, 1.0, 5.0]
RANKS = ("0", "1", "2")

WORK = st.fixed_dictionaries(
    {
        "tokens": st.integers(0, 50),
        "finished": st.integers(0, 5),
        "ttft": st.lists(st.floats(0.001, 20.0), max_size=4),
    }
)
STEP = st.fixed_dictionaries(
    {
        "work": st.lists(WORK, min_size=3, max_size=3),
        "restart": st.sampled_from(["no", "no", "no", "epoch", "created", "process"]),
        "buckets": st.booleans(),
        "hidden": st.sets(
            st.sampled_from(["tokens", "finished", "ttft", "rank0", "rank1", "rank2"]), max_size=3
        ),
        "missed": st.booleans(),
        "daemon": st.booleans(),
        "reorder": st.booleans(),
    }
)


class Engine:
    """An engine with three ranks, and the truth about all that it ever did."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.epoch = 0
        self.bounds = BOUNDS_A
        self.truth = {"tokens": 0, "finished": 0, "ttft": 0, "sum": 0.0}
        self.sign = None
        self.start("process", False)

    def start(self, sign: str, buckets: bool) -> None:
        self.incarnation += 1
        self.sign = sign
        self.epoch += sign == "epoch"
        self.bounds = BOUNDS_B if buckets else BOUNDS_A
        self.counts = [{"tokens": 0, "finished": 0, "ttft": []} for _ in RANKS]
        self.process = self.incarnation if sign == "process" else getattr(self, "process", 1)
        self.created = self.incarnation if sign == "created" else getattr(self, "created", 1)

    def work(self, steps) -> None:
        for count, step in zip(self.counts, steps, strict=True):
            count["tokens"] += step["tokens"]
            count["finished"] += step["finished"]
            count["ttft"] += step["ttft"]
            self.truth["tokens"] += step["tokens"]
            self.truth["finished"] += step["finished"]
            self.truth["ttft"] += len(step["ttft"])
            self.truth["sum"] += sum(step["ttft"])

    def page(self, new_page, hidden, reorder):
        page = new_page()
        ranks = [k for k in range(3) if f"rank{k}" not in hidden]
        if reorder:
            ranks.reverse()
        who = {k: {"engine": RANKS[k], "model_name": "m"} for k in ranks}
        page.gauge("process_start_time_seconds", ({}, float(self.process)))
        for name, metric in (("tokens", "generation_tokens"), ("finished", "request_success")):
            more = {"finished_reason": "stop"} if name == "finished" else {}
            if name not in hidden:
                page.counter(
                    f"vllm:{metric}_total",
                    *[({**who[k], **more}, float(self.counts[k][name])) for k in ranks],
                )
                page.gauge(
                    f"vllm:{metric}_created", *[({**who[k], **more}, float(self.created)) for k in ranks]
                )
        if "ttft" not in hidden:
            page.histogram(
                "vllm:time_to_first_token_seconds",
                self.bounds,
                *[(who[k], self.counts[k]["ttft"]) for k in ranks],
            )
            page.gauge(
                "vllm:time_to_first_token_seconds_created", *[(who[k], float(self.created)) for k in ranks]
            )
        return page


def rising(shown, name):
    return {key: value for key, value in shown.items() if key.startswith(name)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=1, max_size=12))
def test_totals_never_fall_and_end_at_the_truth(watch, new_page, steps):
    engine = Engine()
    watched = watch()
    watched.see(engine.page(new_page, set(), False), epoch="0")
    before = watched.shown
    for step in steps:
        if step["restart"] != "no":
            # What an engine did unseen before it died is lost: let its last page be seen.
            watched.see(engine.page(new_page, set(), False), epoch=str(engine.epoch))
            engine.start(step["restart"], step["buckets"])
            # A sign that stands on one series only is seen only where the series is: show the page once.
            watched.see(engine.page(new_page, set(), False), epoch=str(engine.epoch))
        engine.work(step["work"])
        if step["missed"]:
            watched.miss(down=False)
        else:
            watched.see(engine.page(new_page, step["hidden"], step["reorder"]), epoch=str(engine.epoch))
        if step["daemon"]:
            state = json.loads(json.dumps(watched.indicators.state()))
            now = watched.now
            watched = watch()
            watched.now = now
            watched.indicators.restore(state)
        after = watched.shown
        for key, value in rising(before, "vllm_slo_").items():
            if "requests_running" not in key:
                assert after[key] >= value, key
        counts = watched.cumulative("time_to_first_token_seconds")
        assert all(low <= high for low, high in pairwise(counts))
        before = after
    watched.see(engine.page(new_page, set(), False), epoch=str(engine.epoch))
    assert watched.get("tokens_total", direction="output") == engine.truth["tokens"]
    assert watched.get("requests_total", outcome="success") == engine.truth["finished"]
    assert watched.get("time_to_first_token_seconds_count") == engine.truth["ttft"]
    assert watched.get("time_to_first_token_seconds_sum") == pytest.approx(engine.truth["sum"], abs=1e-6)
    assert watched.cumulative("time_to_first_token_seconds")[-1] == engine.truth["ttft"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=4), min_size=1, max_size=6))
def test_a_restart_without_any_sign_is_known_by_a_fall(watch, new_page, lives):
    watched = watch()
    who = {"engine": "0", "model_name": "m"}
    total = last = 0
    for index, gains in enumerate(lives):
        value = 0
        for gain in gains:
            value += gain
            watched.see(new_page().counter("vllm:generation_tokens_total", (who, float(value))))
            # A new life that has already passed the old one cannot be told from it: at worst that much is missed.
            total += value - last if value >= last else value
            last = value
            assert watched.get("tokens_total", direction="output") == total, index


def tokens(new_page, value, *, engine="0", start=None, created=None):
    page = new_page()
    who = {"engine": engine, "model_name": "m"}
    page.counter("vllm:generation_tokens_total", (who, float(value)))
    if start is not None:
        page.gauge("process_start_time_seconds", ({}, float(start)))
    if created is not None:
        page.gauge("vllm:generation_tokens_created", (who, float(created)))
    return page


def output(watched):
    return watched.get("tokens_total", direction="output")


def test_the_first_page_of_an_unknown_engine_is_where_totals_begin(watch, new_page):
    assert output(watch().see(tokens(new_page, 1000))) == 1000


def test_the_first_page_of_a_new_epoch_counts_from_zero_though_it_is_the_same_page(watch, new_page):
    watched = watch().see(tokens(new_page, 1000)).see(tokens(new_page, 1000), epoch="second")
    assert output(watched) == 2000


def test_another_process_start_time_is_a_restart_also_when_the_counter_is_higher(watch, new_page):
    watched = watch().see(tokens(new_page, 1000, start=1)).see(tokens(new_page, 1500, start=2))
    assert output(watched) == 2500


def test_another_creation_time_is_a_restart_also_when_the_counter_is_higher(watch, new_page):
    watched = watch().see(tokens(new_page, 1000, created=1)).see(tokens(new_page, 1500, created=2))
    assert output(watched) == 2500


def test_a_fall_restarts_only_the_rank_that_fell(watch, new_page):
    def page(a, b):
        return new_page().counter(
            "vllm:generation_tokens_total",
            *[({"engine": k, "model_name": "m"}, float(n)) for k, n in (("0", a), ("1", b))],
        )

    assert output(watch().see(page(100, 200)).see(page(10, 210))) == 320


def test_a_fall_of_one_counter_counts_its_rank_anew_whole(watch, new_page):
    def page(prompt, generated):
        who = {"engine": "0", "model_name": "m"}
        return (
            new_page()
            .counter("vllm:prompt_tokens_total", (who, float(prompt)))
            .counter("vllm:generation_tokens_total", (who, float(generated)))
        )

    watched = watch().see(page(100, 5)).see(page(10, 8))
    assert watched.get("tokens_total", direction="input") == 110
    assert output(watched) == 13


def test_a_series_that_vanishes_and_returns_brings_only_what_it_gained(watch, new_page):
    empty = new_page().gauge("vllm:num_requests_running", ({"engine": "0", "model_name": "m"}, 0.0))
    watched = watch().see(tokens(new_page, 1000))
    for _ in range(3):
        watched.see(empty)
        assert output(watched) == 1000
    assert output(watched.see(tokens(new_page, 1003))) == 1003


def test_a_new_rank_counts_from_zero(watch, new_page):
    watched = watch().see(tokens(new_page, 100)).see(tokens(new_page, 7, engine="1"))
    assert output(watched) == 107


@pytest.mark.parametrize("odd", ["NaN", "+Inf", "-Inf", "-5", "1e308"])
def test_a_counter_that_is_no_count_is_left_out(watch, new_page, odd):
    line = 'vllm:generation_tokens_total{{engine="0",model_name="m"}} {}\n'
    watched = watch()
    for value, total in ((odd, 0), ("10", 10), (odd, 10), (odd, 10), ("12", 12)):
        watched.see(line.format(value))
        assert output(watched) == total


def test_a_sum_that_shrinks_a_little_is_no_restart(watch, new_page):
    who = {"engine": "0", "model_name": "m"}
    page = new_page().histogram("vllm:time_to_first_token_seconds", [0.1, 1.0], (who, [0.5, 0.7])).text
    line = next(line for line in page.splitlines() if "_sum" in line)
    smaller = page.replace(line, line.rpartition(" ")[0] + " 1.1999999")
    watched = watch().see(page).see(smaller)
    assert watched.get("time_to_first_token_seconds_count") == 2
    assert watched.get("time_to_first_token_seconds_sum") == pytest.approx(1.2)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([0.05, 0.3, 0.7, 3.0]), max_size=20),
            st.sets(st.sampled_from(["0.1", "0.5", "1.0", "+Inf"]), max_size=3),
        ),
        max_size=8,
    )
)
def test_buckets_that_vanish_for_a_while_neither_jump_nor_disorder_the_others(watch, new_page, steps):
    who = {"engine": "0", "model_name": "m"}
    watched, values, before = watch(), [], None
    for gained, hidden in [([], set()), *steps, ([], set())]:
        values += gained
        page = new_page().histogram("vllm:time_to_first_token_seconds", [0.1, 0.5, 1.0], (who, values)).text
        for le in hidden:
            page = "".join(line for line in page.splitlines(True) if f'le="{le}"' not in line)
        watched.see(page)
        counts = watched.cumulative("time_to_first_token_seconds")
        assert all(low <= high for low, high in pairwise(counts))
        assert before is None or all(old <= new for old, new in zip(before, counts, strict=True))
        before = counts
    for bound in (0.1, 0.5, 1.0):
        expected = sum(value <= bound for value in values)
        assert watched.get("time_to_first_token_seconds_bucket", le=repr(bound)) == expected
    assert watched.get("time_to_first_token_seconds_count") == len(values)


def test_without_an_inf_bucket_the_count_stands_in(watch, new_page):
    who = {"engine": "0", "model_name": "m"}
    text = new_page().histogram("vllm:time_to_first_token_seconds", [0.1], (who, [0.05, 3.0])).text
    text = "".join(line for line in text.splitlines(True) if "_bucket" not in line)
    watched = watch().see(text)
    assert watched.get("time_to_first_token_seconds_count") == 2
    assert watched.get("time_to_first_token_seconds_bucket", le="60.0") == 0


def test_after_a_restart_of_the_daemon_totals_go_on_exactly(watch, new_page):
    state = json.loads(json.dumps(watch().see(tokens(new_page, 1000, start=1)).indicators.state()))
    same, other, signed = watch(), watch(), watch()
    for watched in (same, other, signed):
        watched.indicators.restore(state)
        assert output(watched) == 1000
    assert output(same.see(tokens(new_page, 1250, start=1))) == 1250
    assert output(other.see(tokens(new_page, 1250, start=1), epoch="second")) == 2250
    assert output(signed.see(tokens(new_page, 1250, start=2))) == 2250


def test_other_bounds_after_a_restart_of_the_daemon_keep_the_counts(watch, new_page):
    who = {"engine": "0", "model_name": "m"}
    page = new_page().histogram(
        "vllm:time_to_first_token_seconds", [0.1, 0.5, 1.0], (who, [0.05, 0.4, 0.9, 3.0])
    )
    state = json.loads(json.dumps(watch().see(page).indicators.state()))
    watched = watch(time_to_first_token_buckets=(0.1, 0.5))
    watched.indicators.restore(state)
    assert watched.cumulative("time_to_first_token_seconds") == [1, 2, 4]
    assert watched.see(page).cumulative("time_to_first_token_seconds") == [1, 2, 4]


@pytest.mark.parametrize("state", [{}, {"version": 0}, {"version": 1}, {"version": 1, "models": 3}])
def test_a_state_that_is_none_begins_anew(watch, new_page, state):
    watched = watch()
    watched.indicators.restore(state)
    assert output(watched.see(tokens(new_page, 7))) == 7


def test_a_half_broken_state_leaves_nothing_behind(watch, new_page):
    state = watch().see(tokens(new_page, 1000)).see(tokens(new_page, 1001)).indicators.state()
    state["models"][0]["error_ratio"] = {"bounds": "x"}
    watched = watch()
    watched.indicators.restore(state)
    assert output(watched) is None
    assert output(watched.see(tokens(new_page, 7))) == 7


def test_only_changed_columns_are_read(watch, capture):
    """The cost of a row must follow what changed, not the size of the page."""
    watched = watch().see(capture)
    row = watched.reader.read(capture.replace("} 4096.0", "} 4100.0").encode())
    read = set()

    class Counting(list):
        def __getitem__(self, index):
            read.add(index)
            return super().__getitem__(index)

    routes = watched.indicators._continuity.routes
    gauges = {column for columns in routes.gauges.values() for column in columns}
    watched.indicators.apply(row._replace(values=Counting(row.values)), now=2000.0, epoch="first")
    assert read - gauges - set(routes.signs) - set(routes.awake) <= set(row.changed)
    assert watched.get("tokens_total", "tiny-qwen", direction="output") == 4100
