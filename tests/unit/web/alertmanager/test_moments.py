from __future__ import annotations

import pytest

from exporter.web.alertmanager import moments


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1_763_700_000.0, "2025-11-21T04:40:00.000Z"),
        (1_763_700_000.2509, "2025-11-21T04:40:00.250Z"),
        (1_763_700_000.29, "2025-11-21T04:40:00.290Z"),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (-62_135_596_800.0, moments.NEVER),
        (-1e300, moments.NEVER),
        (1e300, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_have_three_digits_after_the_second(seconds: float, text: str) -> None:
    assert moments.show(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2025-11-21T04:40:00.000Z", 1_763_700_000.0),
        ("2025-11-21T04:40:00Z", 1_763_700_000.0),
        ("2025-11-21T12:40:00+08:00", 1_763_700_000.0),
        ("2025-11-21T04:40:00.123456789Z", 1_763_700_000.123456),
        ("2025-11-21t04:40:00z", 1_763_700_000.0),
        ("2025-11-21T04:40:00", 1_763_700_000.0),
        ("1970-01-01T00:00:00.000Z", 0.0),
        ("0001-01-01T00:00:00.000Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_times_are_read_whatever_their_zone_and_digits(text: str, seconds: float | None) -> None:
    assert moments.read(text) == seconds


@pytest.mark.parametrize(
    "text", ["now", "1763700000", "2025-11-21", "2025-13-21T00:00:00Z", "２０２５-11-21T04:40:00Z", "x" * 900]
)
def test_what_is_no_time_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339") as refused:
        moments.read(text)
    assert len(str(refused.value)) < 150


def test_what_was_shown_is_read_back() -> None:
    for seconds in (1_763_700_000.25, 253_402_300_799.999, -8_520_336_000.0):
        assert moments.read(moments.show(seconds)) == pytest.approx(seconds, abs=1e-3)
