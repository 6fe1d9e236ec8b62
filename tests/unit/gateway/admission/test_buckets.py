from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.admission.buckets import (
    Bucket,
    ClientMeters,
    KeyMeters,
    Meter,
    model_meters,
    network_of,
)


def test_a_minutes_worth_may_come_at_once_and_then_one_per_refill():
    bucket = Bucket(60)
    for _ in range(60):
        assert bucket.wait(10.0) == 0.0
        bucket.take(1.0, 10.0)
    assert bucket.wait(10.0) == pytest.approx(1.0)
    assert bucket.wait(10.4) == pytest.approx(0.6)
    assert bucket.wait(11.0) == 0.0
    bucket.take(1.0, 11.0)
    assert bucket.wait(11.0) == pytest.approx(1.0)


def test_a_bucket_of_one_a_minute_lets_one_pass_each_minute():
    bucket = Bucket(1)
    assert bucket.wait(0.0) == 0.0
    bucket.take(1.0, 0.0)
    assert bucket.wait(0.0) == pytest.approx(60.0)
    assert bucket.wait(60.0) == 0.0


def test_a_bucket_that_gave_too_much_is_empty_for_as_long_as_that_takes_to_refill():
    bucket = Bucket(600)
    bucket.take(1200.0, 5.0)
    assert bucket.level(5.0) == pytest.approx(-600.0)
    assert bucket.wait(5.0) == pytest.approx(60.1)  # to one token
    assert bucket.wait(65.2) == 0.0


def test_a_bucket_is_never_more_than_full():
    bucket = Bucket(60)
    bucket.take(30.0, 0.0)
    assert bucket.level(1000.0) == 60.0
    assert bucket.is_full(1000.0)


def test_a_changed_limit_keeps_the_debt():
    bucket = Bucket(60)
    bucket.take(90.0, 100.0)
    changed = bucket.at_rate(600, 100.0)
    assert changed.level(100.0) == pytest.approx(600 - 90)


@given(
    per_minute=st.integers(1, 1000),
    gaps=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=200),
)
def test_no_window_lets_more_pass_than_a_minutes_worth_and_its_refill(per_minute: int, gaps: list[float]):
    bucket = Bucket(per_minute)
    now = 0.0
    passed: list[float] = []
    for gap in gaps:
        now += gap
        wait = bucket.wait(now)
        assert wait <= 60.0 / per_minute + 1e-6
        if wait == 0.0:
            bucket.take(1.0, now)
            passed.append(now)
        elif wait > 1e-6:
            assert bucket.wait(now + wait + 1e-6) == 0.0, "the time told is enough"
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            refill = (passed[last] - begin) * per_minute / 60.0
            assert last - first + 1 <= per_minute + refill + 1e-3


def test_a_meter_tells_what_is_exhausted_for_longest():
    meter = Meter(60, 100)
    meter.spend(150, 0.0)
    assert meter.exhausted(0.0) == ("tokens per min (TPM)", 100)
    assert meter.wait(0.0) == pytest.approx(30.6)
    meter = Meter(1, 0)
    meter.begin(0.0)
    assert meter.exhausted(0.0) == ("requests per min (RPM)", 1)


def test_a_key_without_limits_has_no_meter_and_one_without_its_own_has_the_gateways():
    meters = KeyMeters(60, 0)
    assert meters.of("free", 0, 0, 0.0) is None
    default = meters.of("default", None, None, 0.0)
    assert default is not None and default.requests_per_minute == 60 and default.tokens is None
    own = meters.of("own", 5, 1000, 0.0)
    assert own is not None and (own.requests_per_minute, own.tokens_per_minute) == (5, 1000)
    assert meters.of("own", 5, 1000, 0.0) is own is meters.get("own")


def test_a_key_whose_limits_were_reloaded_still_owes_what_it_took():
    meters = KeyMeters(0, 0)
    meter = meters.of("k", 10, 0, 0.0)
    assert meter is not None
    for _ in range(10):
        meter.begin(0.0)
    raised = meters.of("k", 20, 100, 0.0)
    assert raised is not None and raised.wait(0.0) == 0.0
    for _ in range(10):
        raised.begin(0.0)
    assert raised.wait(0.0) == pytest.approx(3.0)


def test_meters_of_keys_that_owe_nothing_are_forgotten():
    meters = KeyMeters(60, 0)
    meter = meters.of("k", None, None, 0.0)
    assert meter is not None
    meter.begin(0.0)
    meters.forget_idle(0.5)
    assert meters.get("k") is meter
    meters.forget_idle(1.0)
    assert meters.get("k") is None


def test_the_number_of_clients_that_are_remembered_is_bounded_and_the_oldest_go_first():
    clients = ClientMeters(60, 0, remembered=3)
    first = clients.of("10.0.0.1")
    for last in (2, 3):
        clients.of(f"10.0.0.{last}")
    assert clients.of("10.0.0.1") is first
    clients.of("10.0.0.4")
    assert len(clients) == 3
    assert clients.of("10.0.0.1") is first, "10.0.0.2 was not seen for longest"


def test_clients_that_owe_nothing_are_forgotten():
    clients = ClientMeters(60, 0)
    for last in range(5):
        meter = clients.of(f"10.0.0.{last}")
        assert meter is not None
        meter.begin(float(last))
    clients.forget_idle(2.5)
    assert len(clients) == 3


def test_without_limits_no_client_is_remembered():
    clients = ClientMeters(0, 0)
    assert clients.of("10.0.0.1") is None
    assert len(clients) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, network: str):
    assert network_of(address) == network


def test_hosts_of_one_ipv6_network_share_a_meter():
    clients = ClientMeters(60, 0)
    assert clients.of("2001:db8::1") is clients.of("2001:db8::2")
    assert clients.of("2001:db8:0:1::1") is not clients.of("2001:db8::2")


def test_models_have_meters_where_they_have_limits():
    meters = model_meters({"a": 5}, {"a": 100, "b": 200})
    assert meters["a"].requests_per_minute == 5 and meters["a"].tokens_per_minute == 100
    assert meters["b"].requests is None and meters["b"].tokens_per_minute == 200
    assert set(meters) == {"a", "b"}
