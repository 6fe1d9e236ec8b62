"""Prometheus' durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.alerting.durations import (
    LIMIT_MS,
    format_duration,
    format_duration_ms,
    parse_duration,
    parse_duration_ms,
)

DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("5ms", 5),
        ("30s", 30_000),
        ("1m30s", 90_000),
        ("1h0m1ms", 3_600_001),
        ("1d", DAY),
        ("2w", 14 * DAY),
        ("1y2w3d4h5m6s7ms", 365 * DAY + 17 * DAY + 4 * 3_600_000 + 5 * 60_000 + 6007),
        ("90d", 90 * DAY),
    ],
)
def test_durations_are_read(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty duration string"),
        *[
            (text, f'not a valid duration string: "{text}"')
            for text in ("1", "5", "-1m", "1.5h", "1m1h", "1s1s", "1 m", "m", "1M", "1µs", "٣s", "1m\n")
        ],
        ("300y", "duration out of range"),
        ("9" * 90 + "y", "duration out of range"),
        ("9" * 200 + "y", f'not a valid duration string: "{"9" * 100}"'),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration_ms(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (90_000, "1m30s"),
        (3_600_000, "1h"),
        (90 * DAY, "90d"),
        (14 * DAY, "2w"),
        (365 * DAY, "1y"),
        (365 * DAY + 1, "365d1ms"),
        (-5000, "-5s"),
    ],
)
def test_durations_are_written_as_prometheus_writes_them(milliseconds: int, text: str) -> None:
    assert format_duration_ms(milliseconds) == text


def test_seconds_are_read_and_written_too() -> None:
    assert parse_duration("1m500ms") == 60.5
    assert format_duration(60.5) == "1m500ms"


@given(st.integers(0, LIMIT_MS))
def test_what_is_written_is_read_again(milliseconds: int) -> None:
    assert parse_duration_ms(format_duration_ms(milliseconds)) == milliseconds
