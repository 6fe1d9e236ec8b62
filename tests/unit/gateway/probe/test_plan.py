"""When an engine is probed, and what a question says; times are passed in."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from exporter.engine.verdict.question import TokenAnswer, TokenOutcome
from exporter.gateway.probe import plan
from exporter.gateway.probe.plan import Finding, ProbePolicy, Quiet

POLICY = ProbePolicy(interval=30.0, timeout=10.0)


@dataclass(frozen=True)
class Page:
    running: float | None = 0.0
    waiting: float | None = 0.0
    counter: float | None = 7.0


IDLE = Page()


def watched(*pages: Page | None, quiet: Quiet | None = None) -> Quiet:
    """Pages, one a second from second 1 on."""
    quiet = quiet or Quiet(0.0)
    for second, page in enumerate(pages, start=1):
        quiet = plan.landed(quiet, page, float(second))
    return quiet


@pytest.mark.parametrize(
    ("interval", "gateway", "found"),
    [
        (None, True, plan.DEFAULT_INTERVAL),
        (None, False, None),
        (0.0, True, None),
        (5.0, True, 5.0),
        (5.0, False, 5.0),
    ],
)
def test_the_probe_is_on_with_the_gateway_and_elsewhere_only_when_it_is_set(
    interval: float | None, gateway: bool, found: float | None
) -> None:
    policy = ProbePolicy.of(interval, 10.0, gateway=gateway)
    assert (policy and policy.interval) == found


def test_an_engine_that_nobody_asks_is_probed_after_the_interval_and_not_before() -> None:
    quiet = watched(*[IDLE] * 30)
    assert not plan.due(POLICY, quiet, 29.9, gateway=False)
    assert plan.due(POLICY, quiet, 30.0, gateway=False)


@pytest.mark.parametrize("page", [Page(running=1.0), Page(waiting=2.0), Page(counter=8.0)])
def test_a_page_that_tells_of_work_begins_the_interval_anew(page: Page) -> None:
    quiet = watched(*[IDLE] * 19, page)
    assert quiet.since == 20.0
    assert not plan.due(POLICY, quiet, 49.9, gateway=False)
    assert plan.due(POLICY, quiet, 50.0, gateway=False)


def test_a_sleeping_engine_is_not_asked_nor_at_once_when_it_is_woken() -> None:
    quiet = Quiet(0.0, counter=7.0)
    for second in range(1, 200):
        quiet = plan.landed(quiet, IDLE, float(second), asleep=True)
        assert not plan.due(POLICY, quiet, float(second), gateway=True)
    assert not plan.due(POLICY, quiet, 228.0, gateway=True)
    assert plan.due(POLICY, quiet, 229.0, gateway=True)


def test_the_first_page_tells_of_no_work_whatever_its_counters_say() -> None:
    assert watched(Page(counter=1e9)).since == 0.0


def test_a_request_at_the_gateway_begins_the_interval_anew_though_no_page_shows_it() -> None:
    quiet = plan.looked(watched(*[IDLE] * 20), 1, 20.5)
    assert not plan.due(POLICY, quiet, 50.0, gateway=True)
    assert plan.looked(quiet, 0, 60.0).since == 20.5


def test_without_gateway_and_counters_nobody_knows_whether_the_engine_is_idle() -> None:
    for quiet in (watched(), watched(IDLE, None), watched(Page(None, None, None))):
        assert not plan.due(POLICY, quiet, 1000.0, gateway=False)
        assert plan.due(POLICY, quiet, 1000.0, gateway=True)


def test_the_probes_own_work_is_no_traffic_and_anothers_after_it_is() -> None:
    quiet = plan.asked(watched(IDLE))
    quiet = plan.landed(quiet, Page(running=1.0), 31.0)
    quiet = plan.ended(quiet, 31.5, busy=False)
    quiet = plan.landed(quiet, Page(counter=9.0), 32.0)
    assert quiet.since == 0.0
    assert not plan.due(POLICY, quiet, 61.0, gateway=False)
    assert plan.due(POLICY, quiet, 61.5, gateway=False)
    quiet = plan.landed(quiet, Page(counter=10.0), 33.0)
    assert quiet.since == 33.0


def test_an_engine_that_was_busy_while_the_probe_waited_has_traffic() -> None:
    quiet = plan.ended(plan.asked(watched(IDLE)), 40.0, busy=True)
    assert quiet.since == 40.0


def test_a_probe_that_users_have_overtaken_fades() -> None:
    quiet = plan.ended(plan.asked(watched(IDLE)), 40.0, busy=False)
    assert not plan.fades(POLICY, quiet, 40.0 + 2 * 30.0)
    assert plan.fades(POLICY, quiet, 40.0 + 2 * 30.0 + 2 * 10.0 + 1.0)


@pytest.mark.parametrize(
    ("outcome", "moved", "finding"),
    [
        (TokenOutcome.SUCCESS, False, Finding.WORKS),
        (TokenOutcome.SUCCESS, True, Finding.WORKS),
        (TokenOutcome.REJECTED, False, Finding.REFUSED),
        (TokenOutcome.CLIENT_ERROR, False, Finding.REFUSED),
        (TokenOutcome.TIMEOUT, True, Finding.BUSY),
        (TokenOutcome.ENGINE_ERROR, True, Finding.BUSY),
        (TokenOutcome.TIMEOUT, False, Finding.DOUBTFUL),
        (TokenOutcome.ENGINE_ERROR, False, Finding.DOUBTFUL),
        (TokenOutcome.ENGINE_UNREACHABLE, False, Finding.DOUBTFUL),
        (TokenOutcome.TRUNCATED, False, Finding.DOUBTFUL),
    ],
)
def test_only_an_answer_owed_and_not_given_while_nothing_moves_is_doubtful(
    outcome: TokenOutcome, moved: bool, finding: Finding
) -> None:
    assert plan.judge(TokenAnswer(outcome, 1.0), moved=moved) is finding


def test_the_two_questions_differ() -> None:
    assert len(set(plan.QUESTIONS)) == 2
