from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.simulator.scheduler import EngineShape, FinishReason, Request, Scheduler, StepResult
from exporter.simulator.timing import StepCost

COST = StepCost(base=0.01, jitter=0.0)


def request(
    name: str, prompt: int | list[int] = 10, max_tokens: int = 5, stop_after: int | None = None
) -> Request:
    tokens = [hash((name, i)) % 1000 for i in range(prompt)] if isinstance(prompt, int) else prompt
    return Request(name, tokens, max_tokens, sample=lambda index: index, stop_after=stop_after)


def shape(**changes: Any) -> EngineShape:
    values: dict[str, Any] = {"blocks": 64, "block_size": 4, "max_model_len": 128, "max_batched_tokens": 64}
    return EngineShape(**(values | changes))


def run(scheduler: Scheduler, now: float = 0.0, *, steps: int = 10_000) -> Iterator[StepResult]:
    """Steps at their due times until idle."""
    for _ in range(steps):
        result = scheduler.step(now)
        yield result
        if result.ends_at is None:
            return
        now = result.ends_at
    raise AssertionError("the scheduler never came to rest")


def used_blocks(scheduler: Scheduler) -> int:
    return scheduler.pool.blocks - scheduler.pool.free


def test_an_idle_engine_has_nothing_due() -> None:
    result = Scheduler(shape(), COST).step(1.0)
    assert result.ends_at is None
    assert result.scheduled_tokens == 0
    assert not result.outputs


def test_the_first_token_comes_at_the_end_of_the_prefill_and_then_one_with_each_step() -> None:
    scheduler = Scheduler(shape(), COST)
    scheduler.add(request("a", prompt=10, max_tokens=3), 0.0)
    results = list(run(scheduler))
    assert [r.scheduled_tokens for r in results] == [10, 1, 1, 0]
    outputs = [output for r in results for output in r.outputs]
    assert [o.first for o in outputs] == [True, False, False]
    assert [o.finish_reason for o in outputs] == [None, None, FinishReason.LENGTH]
    assert outputs[0].gap == pytest.approx(results[0].ends_at)
    assert outputs[1].gap == pytest.approx(COST.seconds(prefill_tokens=0, sequences=1, context_tokens=10))
    assert used_blocks(scheduler) == 0


def test_a_reply_that_ends_by_itself_says_stop() -> None:
    scheduler = Scheduler(shape(), COST)
    scheduler.add(request("a", max_tokens=50, stop_after=2), 0.0)
    (last,) = [o for r in run(scheduler) for o in r.outputs if o.finish_reason]
    assert (last.finish_reason, last.request.output_tokens) == (FinishReason.STOP, 2)


def test_a_prompt_larger_than_the_budget_is_computed_in_chunks() -> None:
    scheduler = Scheduler(shape(max_batched_tokens=16), COST)
    scheduler.add(request("a", prompt=40, max_tokens=1), 0.0)
    results = list(run(scheduler))
    assert [r.scheduled_tokens for r in results] == [16, 16, 8, 0]
    assert [len(r.outputs) for r in results] == [0, 0, 0, 1]


def test_a_step_takes_longer_the_more_is_in_it() -> None:
    durations = []
    for prompt in (4, 32, 60):
        scheduler = Scheduler(shape(), COST)
        scheduler.add(request("a", prompt=prompt), 0.0)
        ends_at = scheduler.step(0.0).ends_at
        assert ends_at is not None
        durations.append(ends_at)
    assert durations == sorted(durations)
    assert durations[0] < durations[-1]


def test_waiting_requests_start_in_order_of_arrival_and_none_overtakes() -> None:
    scheduler = Scheduler(shape(max_sequences=2), COST)
    requests = [request(name, max_tokens=4 + i % 3) for i, name in enumerate("abcdef")]
    for each in requests:
        scheduler.add(each, 0.0)
    assert (scheduler.step(0.0).scheduled_tokens, scheduler.running, scheduler.waiting) == (20, 2, 4)
    list(run(scheduler, 1.0))
    starts = [r.scheduled_at for r in requests]
    assert starts == sorted(starts, key=lambda at: at or 0.0)
    assert None not in starts


def test_a_repeated_prompt_is_found_in_the_prefix_cache_but_for_its_last_token() -> None:
    scheduler = Scheduler(shape(), COST)
    prompt = list(range(16))
    scheduler.add(request("a", prompt), 0.0)
    list(run(scheduler))
    scheduler.add(request("b", prompt), 1.0)
    result = scheduler.step(1.0)
    assert (result.prefix_queries, result.prefix_hits, result.scheduled_tokens) == (16, 12, 4)
    scheduler.add(request("c", [*range(12), 99, 98, 97, 96, 95]), 1.0)
    second = scheduler.step(2.0)
    assert (second.prefix_queries, second.prefix_hits) == (17, 12)


def test_an_abort_frees_the_blocks_at_once_and_the_others_go_on() -> None:
    scheduler = Scheduler(shape(), COST)
    scheduler.add(request("a", max_tokens=50), 0.0)
    scheduler.add(request("b", max_tokens=3), 0.0)
    scheduler.step(0.0)
    before = used_blocks(scheduler)
    gone = scheduler.abort("a", 0.005)
    assert gone is not None
    assert gone.finish_reason is FinishReason.ABORT
    assert used_blocks(scheduler) < before
    outputs = [o for r in run(scheduler, 0.01) for o in r.outputs]
    assert {o.request.id for o in outputs} == {"b"}
    assert scheduler.abort("a", 1.0) is None
    assert used_blocks(scheduler) == 0


def test_when_blocks_run_out_the_youngest_is_preempted_recomputed_and_still_answers_in_full() -> None:
    # Two sequences of 40 tokens each do not fit 16 blocks of 4.
    scheduler = Scheduler(shape(blocks=16, max_model_len=64), COST)
    old, young = request("old", prompt=8, max_tokens=32), request("young", prompt=8, max_tokens=32)
    scheduler.add(old, 0.0)
    scheduler.add(young, 0.0)
    results = list(run(scheduler))
    preempted = [r for result in results for r in result.preempted]
    assert preempted
    assert set(preempted) == {young}
    assert young.preemptions == len(preempted)
    assert old.preemptions == 0
    assert (old.output_tokens, young.output_tokens) == (32, 32)
    assert [o.token for r in results for o in r.outputs if o.request is young] == list(range(32))
    assert sum(o.first for r in results for o in r.outputs) == 2
    assert used_blocks(scheduler) == 0


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one sequence"):
        shape(blocks=4)
    scheduler = Scheduler(shape(), COST)
    with pytest.raises(ValueError, match="max_model_len"):
        scheduler.add(request("a", prompt=100, max_tokens=100), 0.0)
    scheduler.add(request("b"), 0.0)
    with pytest.raises(ValueError, match="already"):
        scheduler.add(request("b"), 0.0)
    with pytest.raises(ValueError, match="prompt"):
        request("c", prompt=0)


def test_a_slower_engine_takes_longer_for_the_same_batch() -> None:
    ends = []
    for slowdown in (1.0, 3.0):
        scheduler = Scheduler(shape(), COST)
        scheduler.add(request("a"), 0.0)
        ends.append(scheduler.step(0.0, slowdown=slowdown).ends_at)
    assert ends[1] == pytest.approx(3 * (ends[0] or 0))


ARRIVALS = st.lists(
    st.tuples(
        st.integers(1, 60),  # prompt
        st.integers(1, 40),  # max_tokens
        st.one_of(st.none(), st.integers(1, 40)),  # stop_after
        st.integers(0, 12),  # steps before it arrives
        st.one_of(st.none(), st.integers(0, 20)),  # steps after which it is aborted
        st.booleans(),  # begins like the others
    ),
    min_size=1,
    max_size=14,
)
SHAPES = st.builds(
    shape,
    blocks=st.integers(26, 48),
    max_model_len=st.just(104),
    max_sequences=st.integers(1, 6),
    max_batched_tokens=st.integers(1, 70),
    prefix_caching=st.booleans(),
)


def play(
    plan: list[tuple[int, int, int | None, int, int | None, bool]],
    limits: EngineShape,
    seed: int,
    check: Callable[[Scheduler, StepResult], None] = lambda scheduler, result: None,
) -> tuple[Scheduler, list[Request], list[tuple[float, str, int]]]:
    """Run a plan of arrivals and aborts to rest; the requests, and every token with its time."""
    scheduler = Scheduler(limits, StepCost(), seed=seed)
    requests = [
        request(f"r{i}", [7 if shared else i * 100 + n for n in range(prompt)], max_tokens, stop_after)
        for i, (prompt, max_tokens, stop_after, _, _, shared) in enumerate(plan)
    ]
    tokens, now = [], 0.0
    for step in itertools.count():
        for each, (_, _, _, arrives, aborted_after, _) in zip(requests, plan, strict=True):
            if arrives == step:
                scheduler.add(each, now)
            if aborted_after is not None and arrives + aborted_after == step:
                scheduler.abort(each.id, now)
        result = scheduler.step(now)
        check(scheduler, result)
        tokens += [(now, o.request.id, o.token) for o in result.outputs]
        if result.ends_at is not None:
            assert result.ends_at > now
        elif step > 40:
            return scheduler, requests, tokens
        now = result.ends_at or now + 0.01
        assert step < 20_000
    raise AssertionError


@settings(deadline=None, max_examples=150)
@given(ARRIVALS, SHAPES, st.integers(0, 9))
def test_no_block_and_no_request_is_ever_lost(plan: list[Any], limits: EngineShape, seed: int) -> None:
    def check(scheduler: Scheduler, result: StepResult) -> None:
        assert result.scheduled_tokens <= limits.max_batched_tokens
        assert scheduler.running <= limits.max_sequences
        assert scheduler.running + scheduler.waiting == scheduler.unfinished
        held = {block for r in scheduler._running for block in r.blocks}
        assert len(held) == used_blocks(scheduler)
        assert not any(r.blocks for r in scheduler._waiting)

    scheduler, requests, tokens = play(plan, limits, seed, check)
    assert scheduler.unfinished == 0
    assert used_blocks(scheduler) == 0
    for each, (_, max_tokens, stop_after, _, aborted_after, _) in zip(requests, plan, strict=True):
        assert each.finish_reason is not None
        mine = [token for _, name, token in tokens if name == each.id]
        assert mine == list(range(len(mine)))
        if each.finish_reason is FinishReason.ABORT:
            assert aborted_after is not None
        else:
            assert len(mine) == min(max_tokens, stop_after or max_tokens)


@settings(deadline=None, max_examples=60)
@given(ARRIVALS, SHAPES)
def test_first_come_is_first_served(plan: list[Any], limits: EngineShape) -> None:
    _, requests, _ = play(plan, limits, 0)
    order = sorted(range(len(requests)), key=lambda i: (plan[i][3], i))
    starts = [at for i in order if (at := requests[i].scheduled_at) is not None]
    assert starts == sorted(starts)


@settings(deadline=None, max_examples=40)
@given(ARRIVALS, SHAPES, st.integers(0, 9))
def test_equal_seeds_give_equal_runs(plan: list[Any], limits: EngineShape, seed: int) -> None:
    assert play(plan, limits, seed)[2] == play(plan, limits, seed)[2]
