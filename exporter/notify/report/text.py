"""The words of a report, from its figures: plain lines that read well in a chat, in a mail and on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from exporter.notify.report.figures import HOUR_SECONDS, Figures, Hour, Objective

LATE_START_SECONDS = 600.0
"""Records that begin so much later than the period are worth a word."""
MOST_OBJECTIVES = 30
"""More are counted."""
JOULES_PER_KILOWATT_HOUR = 3_600_000.0

Local = Callable[[float], datetime]
"""From unix seconds to the clock on the wall."""


class Words(NamedTuple):
    """One line for the title, and several for the body."""

    summary: str
    description: str


def words(figures: Figures, every: str, local: Local) -> Words:
    """What a report says."""
    missed = sum(one.missed for one in figures.objectives)
    judged = sum(one.error_ratio is not None for one in figures.objectives)
    if not judged:
        verdict = "nothing to judge by"
    elif missed:
        verdict = f"{missed} of {judged} objectives missed"
    else:
        verdict = f"all {judged} objectives met" if judged > 1 else "the objective was met"
    summary = f"{every.capitalize()} SLO report to {_day(local(figures.end))}: {verdict}"
    return Words(summary, "\n".join(_lines(figures, local)))


def _lines(figures: Figures, local: Local) -> list[str]:
    """What may be cut off stands last: objectives that were met."""
    lines = [f"{_moment(local(figures.start))} to {_moment(local(figures.end))}"]
    if figures.since is not None and figures.since - figures.start > LATE_START_SECONDS:
        lines[0] += f", records since {_moment(local(figures.since))}"
    if figures.restarts is not None:
        lines.append(f"Engine restarts: {_counted(figures.restarts)}")
    if figures.requests:
        lines.append(f"Requests: {_counted(figures.requests)}")
    if figures.energy_joules is not None:
        lines.append(f"Energy: {_energy(figures.energy_joules, figures.output_tokens)}")
    elif figures.output_tokens is not None:
        lines.append(f"Output tokens: {figures.output_tokens:,.0f}")
    named = sorted(_named(figures.objectives), key=lambda one: not one[1].missed)
    for name, one in named[:MOST_OBJECTIVES]:
        lines.append(f"{name}: {_objective(one)}")
        if one.worst:
            weekly = figures.end - figures.start > 26 * HOUR_SECONDS
            hours = ", ".join(_hour(hour, local, weekday=weekly) for hour in one.worst)
            lines.append(f"  worst hours: {hours}")
    if len(named) > MOST_OBJECTIVES:
        lines.append(f"And {len(named) - MOST_OBJECTIVES} objectives more.")
    if not named:
        lines.append("No objectives are recorded: their rules are off, or have not run yet.")
    return lines


def _named(objectives: Sequence[Objective]) -> list[tuple[str, Objective]]:
    """Each objective with a name that no other has: its own, its service where there are several, and what sets it apart."""
    services = len({one.service for one in objectives}) > 1
    found = []
    for one in objectives:
        same = [other for other in objectives if (other.service, other.name) == (one.service, one.name)]
        apart = [
            value
            for name, value in sorted(one.labels.items())
            if name == "model_name" or len({other.labels.get(name, "") for other in same}) > 1
        ]
        name = f"{one.service} {one.name}" if services else one.name
        found.append((" ".join([name, *([f"({', '.join(apart)})"] if apart else [])]), one))
    return found


def _objective(one: Objective) -> str:
    goal = percent(one.target)
    if one.error_ratio is None:
        said = f"no events, objective {goal}"
    else:
        said = f"{percent(1 - one.error_ratio)} good, objective {goal}, " + (
            "MISSED" if one.missed else "met"
        )
    if one.budget_left is None or math.isnan(one.budget_left):
        return said
    if one.budget_left < 0:
        return f"{said}; error budget overspent by {percent(-one.budget_left)}"
    return f"{said}; error budget left {percent(one.budget_left)}"


def _hour(hour: Hour, local: Local, *, weekday: bool) -> str:
    start, end = local(hour.start), local(hour.start + HOUR_SECONDS)
    day = f"{start:%a} " if weekday else ""
    return f"{day}{start:%H:%M} to {end:%H:%M} ({percent(hour.error_ratio)} bad)"


def _counted(numbers: Mapping[str, int]) -> str:
    total = sum(numbers.values())
    parts = ", ".join(f"{name} {count:,}" for name, count in numbers.items() if name and count)
    return f"{total:,} ({parts})" if parts else f"{total:,}"


def _energy(joules: float, tokens: float | None) -> str:
    said = f"{joules / JOULES_PER_KILOWATT_HOUR:,.2f} kWh"
    if not tokens or tokens < 1:
        return said
    return f"{said} for {tokens:,.0f} output tokens, {joules / tokens:.3g} J each"


def percent(ratio: float) -> str:
    """With two digits at most, rounded down: an objective of 99 % that was missed by a hair is not shown as 99 %."""
    hundredths = math.floor(ratio * 10_000 + 1e-6)
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + "%"


def _day(moment: datetime) -> str:
    return f"{moment:%a} {moment.day} {moment:%b %Y}"


def _moment(moment: datetime) -> str:
    return f"{moment:%a} {moment.day} {moment:%b %H:%M}"
