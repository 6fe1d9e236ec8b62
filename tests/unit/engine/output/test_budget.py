"""The budget of forwarded lines."""

from __future__ import annotations

from exporter.engine.output.budget import DropReport, LineBudget


def test_a_second_is_worth_the_rate_and_no_more_is_saved_up() -> None:
    budget = LineBudget(10)
    budget.refill(0.0)
    assert sum(budget.take() for _ in range(50)) == 10
    budget.refill(0.5)
    assert sum(budget.take() for _ in range(50)) == 5
    budget.refill(100.0)
    assert sum(budget.take() for _ in range(50)) == 10


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = LineBudget(10)
    budget.refill(5.0)
    assert sum(budget.take() for _ in range(10)) == 10
    budget.refill(1.0)
    assert not budget.take()


def test_drops_are_told_of_once_in_a_second_and_never_lost() -> None:
    report = DropReport()
    report.add(3)
    assert report.due(0.0) == 3
    report.add(4)
    assert report.due(0.5) == 0
    report.add(1)
    assert report.due(1.0) == 5
    assert report.due(9.0) == 0
    report.add(2)
    assert report.due(1.1, force=True) == 2
