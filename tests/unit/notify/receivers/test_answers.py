"""What codes and Retry-After mean."""

from __future__ import annotations

import pytest

from exporter.notify.receivers.answers import Answer, outcome_of, retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (200, "delivered"), (201, "delivered"), (204, "delivered"), (299, "delivered"),
        (408, "retry"), (425, "retry"), (429, "retry"), (500, "retry"), (501, "retry"), (503, "retry"), (599, "retry"),
        (300, "refused"), (302, "refused"), (304, "refused"),
        (400, "refused"), (401, "refused"), (404, "refused"), (410, "refused"), (413, "refused"), (422, "refused"),
    ],
)  # fmt: skip
def test_a_code_says_whether_it_is_worth_trying_again(code: int, result: str) -> None:
    outcome = outcome_of(Answer(code, retry_after=7.0, text="because"), "hook:80")
    assert outcome.result == result
    assert outcome.code == code
    assert str(code) in outcome.detail
    assert outcome.answer == "because"
    assert outcome.retry_after == (7.0 if result == "retry" else None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Tue, 14 Nov 2034 22:00:00 GMT", 86400.0),
        ("99999999999999999999999", 86400.0),
        ("soon", None),
        ("-5", None),
        ("٣", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_nothing(
    value: str, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds
