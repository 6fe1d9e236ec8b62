"""How long a series is kept is the longest of everything that wants it."""

from __future__ import annotations

import pytest

from exporter.storage.matching import Condition
from exporter.storage.model import Labels, Matcher
from exporter.storage.retention import Kept, Retention

HOUR, DAY = 3_600_000, 86_400_000


def series(name: str, **labels: str) -> Labels:
    return tuple(sorted({"__name__": name, **labels}.items()))


RETENTION = Retention(
    HOUR,
    [
        ([Matcher("__name__", "=", "errors_total")], 3 * DAY),
        ([Matcher("__name__", "=", "errors_total"), Matcher("code", "=~", "5..")], 6 * DAY),
        ([Matcher("__name__", "=", "seen")], 60_000),
        ([Matcher("__name__", "=~", "gpu_.*"), Matcher("gpu", "!=", "")], 2 * DAY),
        ([Matcher("__name__", "=", "twice"), Matcher("__name__", "=", "other")], 9 * DAY),
    ],
    [("rule/", 30 * DAY)],
)


@pytest.mark.parametrize(
    ("labels", "stream", "expected"),
    [
        (series("up"), "engine", Kept(HOUR, read=False)),
        (series("errors_total", code="404"), "engine", Kept(3 * DAY, read=True)),
        (series("errors_total", code="503"), "engine", Kept(6 * DAY, read=True)),
        (series("seen"), "engine", Kept(HOUR, read=True)),
        (series("gpu_heat", gpu="0"), "gpu", Kept(2 * DAY, read=True)),
        (series("gpu_heat"), "gpu", Kept(HOUR, read=False)),
        (series("up"), "rule/x", Kept(30 * DAY, read=True)),
        (series("twice"), "engine", Kept(HOUR, read=False)),
        ((("job", "nameless"),), "engine", Kept(HOUR, read=False)),
    ],
)
def test_the_longest_that_applies_counts(labels: Labels, stream: str, expected: Kept) -> None:
    assert RETENTION.verdict(labels, stream) == expected
    assert RETENTION.keep(labels, stream) == expected.ms


def test_without_rules_everything_is_kept_for_the_base() -> None:
    assert Retention(HOUR).keep(series("x"), "engine") == HOUR


def test_a_name_is_asked_about_once_however_many_series_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    matches = Condition.matches

    def counted(self: Condition, value: str) -> bool:
        asked.append(value)
        return matches(self, value)

    rules = [((Matcher("__name__", "=~", f"x{i}.+"), Matcher("id", "!=", "")), 7000 + i) for i in range(20)]
    retention = Retention(1000, rules)
    monkeypatch.setattr(Condition, "matches", counted)
    series = [(("__name__", "y_total"), ("id", str(i))) for i in range(5000)]
    assert {retention.keep(labels, "s") for labels in series} == {1000}
    assert len(asked) < 100
    assert retention.keep((("__name__", "x3y"), ("id", "1")), "s") == 7003
