from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sli.outcomes import FailurePairing

CHAT = {"handler": "/v1/chat/completions", "method": "POST"}


def finished(new_page, reasons=None, http=None, rejected=None, model="m"):
    """A page with requests by finished reason, by HTTP status, and refused admissions."""
    page = new_page()
    who = {"engine": "0", "model_name": model}
    counts = {"stop": 0, "length": 0, "abort": 0, "error": 0, **(reasons or {})}
    page.counter(
        "vllm:request_success_total",
        *[({**who, "finished_reason": reason}, float(count)) for reason, count in counts.items()],
    )
    if rejected is not None:
        page.counter(
            "vllm:admission_rejections_total",
            ({"model_name": model, "reason": "max_num_queued_reqs"}, float(rejected)),
        )
    page.counter(
        "http_requests_total",
        *[({**CHAT, "status": status}, float(count)) for status, count in (http or {}).items()],
    )
    return page


def test_one_failure_seen_by_both_counters_is_one():
    assert FailurePairing().settle(3, 3) == (3, 0)


def test_failures_that_only_one_counter_sees_all_count():
    pairing = FailurePairing()
    assert pairing.settle(4, 0) == (4, 0)
    assert FailurePairing().settle(0, 4) == (0, 4)


def test_a_failure_whose_response_counts_one_scrape_later_is_still_one():
    pairing = FailurePairing()
    assert pairing.settle(2, 0) == (2, 0)
    assert pairing.settle(0, 2) == (0, 0)


def test_a_failure_whose_response_counts_one_scrape_earlier_is_still_one():
    pairing = FailurePairing()
    assert pairing.settle(0, 2) == (0, 2)
    assert pairing.settle(2, 0) == (0, 0)


def test_failures_two_scrapes_apart_are_two():
    pairing = FailurePairing()
    pairing.settle(2, 0)
    pairing.settle(0, 0)
    assert pairing.settle(0, 2) == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_never_fewer_than_either_counter_nor_more_than_both(intervals):
    pairing = FailurePairing()
    counted = sum(sum(pairing.settle(own, http)) for own, http in intervals)
    own_all = sum(own for own, _ in intervals)
    http_all = sum(http for _, http in intervals)
    assert max(own_all, http_all) <= counted <= own_all + http_all


def test_each_finished_reason_has_its_outcome(watch, new_page):
    page = finished(
        new_page, {"stop": 5, "length": 3, "repetition": 1, "abort": 2, "error": 4}, {"2xx": 15, "4xx": 6}
    )
    assert watch().see(page).requests() == {
        "success": 9,
        "aborted": 2,
        "engine_error": 4,
        "client_error": 6,
    }


def test_an_error_that_was_not_streamed_counts_once(watch, new_page):
    watched = watch().see(finished(new_page, {"stop": 1}, {"2xx": 1, "5xx": 0}))
    watched.see(finished(new_page, {"stop": 1, "error": 3}, {"2xx": 1, "5xx": 3}))
    assert watched.requests() == {"success": 1, "engine_error": 3}


def test_streamed_errors_and_others_count_all(watch, new_page):
    watched = watch().see(finished(new_page, {}, {"5xx": 0}))
    watched.see(finished(new_page, {"error": 5}, {"5xx": 2}))
    assert watched.requests() == {"engine_error": 5}


def test_a_refused_admission_is_rejected_and_its_503_is_not_counted_again(watch, new_page):
    watched = watch().see(finished(new_page, {}, {"5xx": 0}, rejected=0))
    watched.see(finished(new_page, {"stop": 8}, {"2xx": 8, "5xx": 10}, rejected=10))
    watched.see(finished(new_page, {"stop": 8}, {"2xx": 8, "5xx": 12}, rejected=10))
    assert watched.requests() == {"success": 8, "rejected": 10, "engine_error": 2}


def test_a_5xx_of_an_engine_that_died_is_an_engine_error(watch, new_page):
    watched = watch().see(finished(new_page, {"stop": 1}, {"2xx": 1}))
    watched.see(finished(new_page, {"stop": 1}, {"2xx": 1, "5xx": 7}))
    assert watched.requests() == {"success": 1, "engine_error": 7}


def test_past_failures_of_a_first_page_leave_no_partner_for_new_ones(watch, new_page):
    watched = watch().see(finished(new_page, {"error": 100}, {"5xx": 0}))
    watched.see(finished(new_page, {"error": 100}, {"5xx": 5}))
    assert watched.requests() == {"engine_error": 105}


@pytest.mark.parametrize(
    ("handler", "method", "status", "outcome"),
    [
        ("/v1/completions", "POST", "5xx", "engine_error"),
        ("/v1/embeddings", "POST", "5xx", "engine_error"),
        ("/v1/responses", "POST", "4xx", "client_error"),
        ("/v1/chat/completions", "POST", "503", "engine_error"),
        ("/metrics", "GET", "5xx", None),
        ("/health", "GET", "5xx", None),
        ("/tokenize", "POST", "5xx", None),
        ("/v1/chat/completions", "OPTIONS", "4xx", None),
        ("/v1/chat/completions", "POST", "3xx", None),
        ("none", "POST", "5xx", "engine_error"),
        ("none", "POST", "4xx", None),
    ],
)
def test_only_inference_handlers_count(watch, new_page, handler, method, status, outcome):
    page = finished(new_page, {})
    page.counter("http_requests_total", ({"handler": handler, "method": method, "status": status}, 3.0))
    assert watch().see(page).requests() == ({outcome: 3} if outcome else {})


def test_without_statistics_of_vllm_http_says_what_succeeded(watch, new_page):
    page = new_page().counter(
        "http_requests_total", ({**CHAT, "status": "2xx"}, 9.0), ({**CHAT, "status": "5xx"}, 1.0)
    )
    watched = watch().see(page)
    assert watched.requests("") == {"success": 9, "engine_error": 1}
    assert watched.sources() == {"http_requests": "http_requests_total", "requests": "http_requests_total"}


def test_http_successes_stay_out_while_vllms_series_are_away(watch, new_page):
    whole = finished(new_page, {"stop": 5}, {"2xx": 5})
    part = new_page().counter("http_requests_total", ({**CHAT, "status": "2xx"}, 6.0))
    assert watch().see(whole).see(part).requests() == {"success": 5}


def two_models(new_page, a, b, server_errors):
    page = new_page().counter(
        "vllm:request_success_total",
        *[
            ({"engine": "0", "model_name": model, "finished_reason": "stop"}, float(count))
            for model, count in (("a", a), ("b", b))
        ],
    )
    return page.counter("http_requests_total", ({**CHAT, "status": "5xx"}, float(server_errors)))


def test_of_several_models_a_5xx_belongs_to_the_empty_name_and_all_share_its_ratio(watch, new_page):
    watched = watch().see(two_models(new_page, 0, 0, 0)).see(two_models(new_page, 6, 2, 8))
    assert watched.requests("") == {"engine_error": 8}
    assert watched.requests("a") == {"success": 6}
    for model in "ab":
        assert watched.get("error_ratio_sum", model) == 0.5
    assert watched.get("error_ratio_count", "") is None
