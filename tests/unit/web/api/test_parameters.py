from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.api.model import ApiError
from exporter.web.api.parameters import (
    MAX_MS,
    MIN_MS,
    Form,
    limit_parameter,
    lookback_parameter,
    number,
    read_duration,
    read_time,
    steps,
    time_parameter,
    timeout_parameter,
    unescape_name,
    window,
)


def form(**fields: Any) -> Form:
    return Form(urlencode(fields))


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("1435781451.781", 1435781451781),
        ("1.4357814517815e9", 1435781451782),
        ("-1.5", -1500),
        ("1435781451.57", 1435781451570),
        ("2015-07-01T20:10:51.781Z", 1435781451781),
        ("2015-07-01T20:10:51.781999999Z", 1435781451781),
        ("2015-07-01T20:10:51Z", 1435781451000),
        ("2015-07-01T22:10:51.7+02:00", 1435781451700),
        ("2015-07-01T13:40:51-06:30", 1435781451000),
        ("1960-01-01T00:00:00.25Z", -315619199750),
        ("-292273086-05-16T16:47:06Z", MIN_MS),
        ("292277025-08-18T07:12:54.999999999Z", MAX_MS),
    ],
)
def test_times_are_read_as_unix_seconds_or_rfc3339(text: str, milliseconds: int) -> None:
    assert read_time(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "NaN",
        "inf",
        "1e300",
        "1_000",
        " 1",
        "1 ",
        "1435781451,5",
        "٣",
        "2015-07-01",
        "2015-07-01 20:10:51Z",
        "2015-13-01T00:00:00Z",
        "2015-02-30T00:00:00Z",
        "2015-07-01T25:00:00Z",
        "2015-07-01T20:10:51+99:00",
    ],
)
def test_what_is_no_time_is_refused_in_prometheus_words(text: str) -> None:
    with pytest.raises(ValueError, match="to a valid timestamp") as refused:
        read_time(text)
    assert f'"{text}"' in str(refused.value)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("15", 15_000),
        ("0.25", 250),
        ("1e-3", 1),
        ("15s", 15_000),
        ("1h30m", 5_400_000),
        ("1y2w3d4h5m6s7ms", 33_019_506_007),
        ("500ms", 500),
        ("0", 0),
    ],
)
def test_durations_are_seconds_or_prometheus_own(text: str, milliseconds: float) -> None:
    assert read_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "1x", "s", "1s1h", "1s1s", "-1s", "1.5h", "1h 30m", "NaN", "300000y"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="to a valid duration"):
        read_duration(text)


def test_an_endless_duration_is_told_apart() -> None:
    for text in ("inf", "1e300", "-Inf", "9223372037"):
        with pytest.raises(ValueError, match="overflows int64"):
            read_duration(text)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    for read in (read_time, read_duration):
        try:
            result = read(text)
        except ValueError:
            continue
        assert abs(result) <= 1e16
    assert number(text) is None or isinstance(number(text), float)


@given(st.integers(-(10**13), 10**13))
def test_a_time_in_milliseconds_survives_its_way_as_seconds(milliseconds: int) -> None:
    sign = "-" if milliseconds < 0 else ""
    whole, rest = divmod(abs(milliseconds), 1000)
    assert read_time(f"{sign}{whole}.{rest:03d}") == milliseconds


def test_fields_of_the_body_come_before_those_of_the_url() -> None:
    both = Form("query=a&match[]=x", "query=b&match%5B%5D=y&empty=")
    assert both.get("query") == "b"
    assert both.all("match[]") == ["y", "x"]
    assert both.get("empty") == both.get("nothing") == ""


def test_a_form_of_endless_fields_is_refused() -> None:
    with pytest.raises(ApiError, match="error parsing form values"):
        Form("a=1&" * 5000)


@given(st.binary(max_size=60), st.text(max_size=60))
def test_any_bytes_are_a_form(query: bytes, body: str) -> None:
    form = Form(query.decode("latin-1"), body)
    assert isinstance(form.get("a"), str)


def test_optional_times_have_defaults() -> None:
    assert window(form()) == (MIN_MS - 1, MAX_MS)
    assert window(form(start="1", end="2")) == (999, 2000)
    assert time_parameter(form(), "time", 7) == 7
    message = (
        'invalid parameter "time": invalid time value for \'time\': cannot parse "x" to a valid timestamp'
    )
    with pytest.raises(ApiError, match=re.escape(message)):
        time_parameter(form(time="x"), "time", 7)


def test_steps_of_a_range_query() -> None:
    assert steps(form(start="10", end="20.5", step="15s")) == (10_000, 20_500, 15_000)
    assert steps(form(start="1", end="1", step="1")) == (1000, 1000, 1000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"end": "2", "step": "1"}, 'invalid parameter "start": cannot parse "" to a valid timestamp'),
        ({"start": "1", "step": "1"}, 'invalid parameter "end": cannot parse "" to a valid timestamp'),
        ({"start": "1", "end": "2"}, 'invalid parameter "step": cannot parse "" to a valid duration'),
        (
            {"start": "2", "end": "1", "step": "1"},
            'invalid parameter "end": end timestamp must not be before start time',
        ),
        (
            {"start": "1", "end": "2", "step": "0"},
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer',
        ),
        ({"start": "1", "end": "2", "step": "-1"}, 'invalid parameter "step": zero or negative'),
        ({"start": "1", "end": "2", "step": "0.0001"}, 'invalid parameter "step": zero or negative'),
        (
            {"start": "0", "end": "11001", "step": "1"},
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_in_prometheus_words(
    fields: dict[str, str], message: str
) -> None:
    with pytest.raises(ApiError) as refused:
        steps(form(**fields))
    assert str(refused.value).startswith(message)
    assert refused.value.status == 400


def test_eleven_thousand_points_are_allowed() -> None:
    assert steps(form(start="0", end="11000", step="1")) == (0, 11_000_000, 1000)


def test_a_limit_is_a_number_and_not_negative() -> None:
    assert limit_parameter(form()) == 0
    assert limit_parameter(form(limit="0")) == 0
    assert limit_parameter(form(limit="+7")) == 7
    for text, message in [
        ("x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("1.5", "invalid syntax"),
        ("9223372036854775808", "value out of range"),
        ("9" * 5000, "value out of range"),
        ("-1", "limit must be non-negative"),
    ]:
        with pytest.raises(ApiError, match=message):
            limit_parameter(form(limit=text))


def test_a_timeout_only_shortens() -> None:
    assert timeout_parameter(form(), 30) == 30
    assert timeout_parameter(form(timeout="2s"), 30) == 2
    assert timeout_parameter(form(timeout="1h"), 30) == 30
    assert timeout_parameter(form(timeout="-1"), 30) == 0
    with pytest.raises(ApiError, match='invalid parameter "timeout"'):
        timeout_parameter(form(timeout="x"), 30)


def test_the_lookback_can_be_asked_for() -> None:
    assert lookback_parameter(form(), 300) == 300_000
    assert lookback_parameter(form(lookback_delta="1m"), 300) == 60_000
    assert lookback_parameter(form(lookback_delta="0"), 300) == 300_000
    with pytest.raises(ApiError, match="error parsing lookback delta duration"):
        lookback_parameter(form(lookback_delta="x"), 300)


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        ("job", "job"),
        ("__name__", "__name__"),
        ("U__http_2e_status", "http.status"),
        ("U__a__b", "a_b"),
        ("U___1F600_x", "😀x"),
        ("U__caf_e9_", "café"),
        ("U__", ""),
        ("U__a_", "U__a_"),
        ("U__a_2e", "U__a_2e"),
        ("U__a_zz_", "U__a_zz_"),
        ("U__a_d800_", "U__a_d800_"),
        ("U__a_110000_", "U__a_110000_"),
        ("U__a_0000041_", "U__a_0000041_"),
    ],
)
def test_escaped_label_names_are_read_as_prometheus_reads_them(escaped: str, name: str) -> None:
    assert unescape_name(escaped) == name
