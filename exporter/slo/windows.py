"""Which windows are watched, and how fast the error budget may burn in each.

Source: Google's SRE workbook, chapter "Alerting on SLOs", part 6 "Multiwindow, Multi-Burn-Rate Alerts"
(https://sre.google/workbook/alerting-on-slos/#6-multiwindow-multi-burn-rate-alerts).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["page", "ticket"]

SHORTEST = "5m"
"""The window in which events are read; longer ones are made of what was recorded in this one."""
PERIOD = "30d"
"""The time for which an error budget is."""
PERIOD_DAYS = 30


class Burn(NamedTuple):
    """An alert is due when both windows burn the budget faster than `factor` times the speed that uses it up in 30 d.

    The long window makes it sure, the short one lets it end soon after the trouble. A factor of 14.4 uses 2 % of the
    budget in an hour, 6 uses 5 % in six hours, 3 uses 10 % in a day, 1 uses 10 % in three days.
    """

    severity: Severity
    short: str
    long: str
    factor: str


BURNS: tuple[Burn, ...] = (
    Burn("page", "5m", "1h", "14.4"),
    Burn("page", "30m", "6h", "6"),
    Burn("ticket", "2h", "1d", "3"),
    Burn("ticket", "6h", "3d", "1"),
)

PAGE_WINDOWS = ("5m", "30m", "1h", "6h")
"""What pages need, evaluated every `PAGE_INTERVAL`."""
TICKET_WINDOWS = ("2h", "1d", "3d", PERIOD)
"""What only tickets and the budget need, evaluated every `TICKET_INTERVAL`."""

PAGE_INTERVAL = "1m"
PAGE_INTERVAL_SECONDS = 60
"""A fifth of the shortest window. Finer does not page sooner: an engine that fails every request of an objective of 99 %
has burnt its way through 14.4 % of the hour's window after 8.6 minutes."""
TICKET_INTERVAL = "2m"
"""Nothing in two hours or three days changes sooner; under half of the 5 minutes for which Prometheus looks back."""
