"""A notification in words for people: what is wrong, how bad, since when, what to do. Short, because phones are small.

The words come from the alerts' annotations: `summary`, `description`, `budget_left`, `diagnosis`, `last_log`, `action`,
`runbook_url`. How a service writes them (bold, links, limits) is rendering's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Literal

from exporter.notify.model import Alert, Context, Notification
from exporter.storage.model import Labels

NOTICES = 10
"""Most alerts that one message tells of; the rest is counted."""
TITLE_CHARACTERS = 150
DESCRIPTION_CHARACTERS = 1500
LOG_CHARACTERS = 1000
SHORT_CHARACTERS = 200
"""Of a summary, a diagnosis, a label's value."""
URL_CHARACTERS = 1000

REPORT = "VLLMSLOReport"
"""The alert that carries the service level report: it has no beginning, and nothing is wrong."""

Tone = Literal["bad", "warning", "info", "good"]

_RANKS = {
    "page": 0,
    "critical": 0,
    "emergency": 0,
    "error": 1,
    "warning": 2,
    "ticket": 2,
    "info": 3,
    "none": 4,
}
RANK_OTHERS = 2
"""Of a severity that we do not know: as bad as a warning."""

_SILENT_LABELS = re.compile(r"alertname|severity|job|uuid|sloth_.*|__.*")
_URL = re.compile(r"https?://[^\s<>\"'`\\|()\[\]]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert in words; a part is empty where there is nothing to say. Only `how_bad` and `log` have several lines."""

    state: Literal["firing", "no data", "resolved"]
    what: str
    how_bad: str = ""
    which: str = ""
    when: str = ""
    why: str = ""
    log: str = ""
    action: str = ""
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A notification in words: one line for the lock screen, then the alerts, the worst first."""

    title: str
    tone: Tone
    notices: tuple[Notice, ...]
    where: str = ""
    """What all alerts share: labels, and what is known of the box."""
    note: str = ""
    left_out: int = 0
    """Alerts beyond those that are told of."""
    console: str = ""

    @property
    def is_lone(self) -> bool:
        """Whether the title says already what the only alert is about."""
        return len(self.notices) == 1 and not self.left_out


def compose(
    notification: Notification,
    context: Context,
    *,
    actions: Mapping[str, str] | None = None,
    zone: tzinfo | None = None,
) -> Message:
    """The message; `actions` says what to do by the runbook's anchor, `zone` is the reader's (None: this machine's)."""
    at = notification.created_at
    alerts = sorted(notification.alerts, key=lambda alert: (alert.status(at) == "resolved", rank(alert)))
    shown = alerts[:NOTICES]
    common = _common(shown) if len(shown) > 1 else ()
    clock = _Clock(context.now, zone)
    notices = [_notice(alert, at, common, context, actions or {}, clock) for alert in shown]
    return Message(
        title=_title(notification, alerts, context),
        tone=_tone(notification, alerts),
        notices=tuple(notices),
        where=_where(common, notices, context),
        note="Told again: nothing has changed." if notification.repeated else "",
        left_out=len(alerts) - len(shown),
        console=f"{context.external_url}/" if _URL.fullmatch(context.external_url) else "",
    )


def shortened(message: Message, notices: int, *, description: int, log: bool, action: bool) -> Message:
    """The same message with fewer words: so many notices, and characters of each description."""
    kept = [
        replace(
            notice,
            how_bad=cut(notice.how_bad, description),
            log=notice.log if log else "",
            action=notice.action if action else "",
        )
        for notice in message.notices[:notices]
    ]
    left_out = message.left_out + len(message.notices) - len(kept)
    return replace(message, notices=tuple(kept), left_out=left_out)


def cut(text: str, characters: int) -> str:
    """Text of at most so many characters; what is cut off shows as an ellipsis."""
    return (
        text if len(text) <= characters else text[: max(0, characters - 1)].rstrip() + "…" * (characters > 0)
    )


def span(seconds: float) -> str:
    """A length of time as people say it, in its two largest units: `45s`, `12m 30s`, `3h 5m`, `2d 4h`."""
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count}{unit}" for count, unit in parts[:2] if count) or "0s"


class _Clock:
    """Times of day as the reader's clock shows them."""

    def __init__(self, now: float, zone: tzinfo | None) -> None:
        self.now = now
        self._zone = zone

    def show(self, at: float) -> str:
        """`14:03 CST` today, with the date otherwise."""
        moment, today = self._local(at), self._local(self.now)
        form = "%H:%M" if moment.date() == today.date() else "%Y-%m-%d %H:%M"
        return f"{moment.strftime(form)} {moment.tzname()}"

    def _local(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone).astimezone(self._zone)


def _notice(
    alert: Alert, at: float, common: Labels, context: Context, actions: Mapping[str, str], clock: _Clock
) -> Notice:
    own = tuple(label for label in alert.labels if label not in common)
    what = _what(alert)
    if alert.status(at) == "resolved":
        why = _line(dict(alert.annotations).get("ended", ""), SHORT_CHARACTERS)
        return Notice("resolved", what, which=_which(own, what), when=_when(alert, clock), why=why)
    said = dict(alert.annotations)
    how_bad = cut(_lines(said.get("description", said.get("message", ""))), DESCRIPTION_CHARACTERS)
    if budget := said.get("budget_left"):
        how_bad = f"{how_bad} Error budget left: {_line(budget, SHORT_CHARACTERS)}.".strip()
    runbook = _link(said.get("runbook_url", ""), context)
    return Notice(
        state="firing" if alert.no_data_since is None else "no data",
        what=what,
        how_bad=how_bad,
        which=_which(own, f"{what} {how_bad}"),
        when=_when(alert, clock),
        why=_line(said.get("diagnosis", ""), 2 * SHORT_CHARACTERS),
        log=_end(_lines(said.get("last_log", "")), LOG_CHARACTERS),
        action=_line(_action(said, runbook, actions), 2 * SHORT_CHARACTERS),
        runbook=runbook,
    )


def _what(alert: Alert) -> str:
    return _line(_subject(alert), SHORT_CHARACTERS)


def _subject(alert: Alert) -> str:
    return next((text for name, text in alert.annotations if name == "summary"), "") or alert.name or "Alert"


def _when(alert: Alert, clock: _Clock) -> str:
    if alert.name == REPORT:
        return ""
    if alert.ends_at is not None and alert.ends_at <= clock.now:
        return f"Resolved at {clock.show(alert.ends_at)} after {span(alert.ends_at - alert.starts_at)}."
    since = f"Since {clock.show(alert.starts_at)}"
    if clock.now - alert.starts_at >= 1:
        since += f", for {span(clock.now - alert.starts_at)}"
    if alert.no_data_since is None:
        return f"{since}."
    return f"{since}. No data since {clock.show(alert.no_data_since)}: nobody can say whether it still holds."


def _action(said: Mapping[str, str], runbook: str, actions: Mapping[str, str]) -> str:
    return said.get("action") or actions.get(runbook.rpartition("/RUNBOOK.md#")[2], "")


def _title(notification: Notification, alerts: Sequence[Alert], context: Context) -> str:
    lead = alerts[0] if alerts else None
    words = [_state(notification, alerts), _what(lead) if lead else "Nothing"]
    title = ": ".join(word for word in words if word)
    if len(alerts) > 1:
        same = all(_subject(alert) == _subject(alerts[0]) for alert in alerts)
        title += f", {len(alerts)} alerts" if same else f", and {len(alerts) - 1} more"
    instance = _line(context.facts.get("instance", ""), 60)
    suffix = f" ({instance})" if instance else ""
    return cut(title, TITLE_CHARACTERS - len(suffix)) + suffix


def _state(notification: Notification, alerts: Sequence[Alert]) -> str:
    """The first word: how bad it is, or that it is over."""
    if any(alert.name == REPORT for alert in alerts):
        return ""
    if notification.status == "resolved":
        return "RESOLVED"
    firing = [alert for alert in alerts if alert.status(notification.created_at) == "firing"]
    word = _line(_severity(firing[0]), 30).upper() or "FIRING"
    if all(alert.no_data_since is not None for alert in firing):
        word = "NO DATA"
    return f"STILL {word}" if notification.repeated else word


def _tone(notification: Notification, alerts: Sequence[Alert]) -> Tone:
    if notification.status == "resolved":
        return "good"
    worst = rank(alerts[0])
    return "bad" if worst < 2 else "warning" if worst == 2 else "info"


def _severity(alert: Alert) -> str:
    return next((value for name, value in alert.labels if name == "severity"), "")


def rank(alert: Alert, others: int = RANK_OTHERS) -> int:
    """How bad an alert is by its severity, 0 the worst, 4 nothing at all; `others` where it is none that we know."""
    return _RANKS.get(_severity(alert).lower(), others)


def _common(alerts: Sequence[Alert]) -> Labels:
    shared = set(alerts[0].labels).intersection(*(alert.labels for alert in alerts[1:]))
    return tuple(label for label in alerts[0].labels if label in shared)


def _where(common: Labels, notices: Sequence[Notice], context: Context) -> str:
    facts = tuple((name, context.facts[name]) for name in ("engine", "model") if context.facts.get(name))
    said = " ".join(f"{notice.what} {notice.how_bad} {notice.which}" for notice in notices[:1])
    labels = _which(common, said)
    return ", ".join(part for part in (_which(facts, f"{said} {labels}"), labels) if part)


def _which(labels: Labels, said: str) -> str:
    """Labels that tell this alert from others, but for those whose value the text says already."""
    shown = [
        f"{_line(name, 60)}={_line(value, 80)}"
        for name, value in labels
        if not _SILENT_LABELS.fullmatch(name) and not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", said)
    ]
    return ", ".join(shown[:8])


def _link(url: str, context: Context) -> str:
    """A link that people can follow, or nothing; one that begins with a slash is this daemon's."""
    if url.startswith("/"):
        url = context.external_url + url
    return url if len(url) <= URL_CHARACTERS and url.isprintable() and _URL.fullmatch(url) else ""


def _line(text: str, characters: int) -> str:
    return cut(" ".join(_CONTROL.sub(" ", text).split()), characters)


def _lines(text: str) -> str:
    lines = [_CONTROL.sub(" ", line).rstrip() for line in text.expandtabs(4).splitlines()]
    return "\n".join(line for line in lines if line)


def _end(text: str, characters: int) -> str:
    """The last characters: the end of a log says why it ended."""
    return text if len(text) <= characters else "…" + text[1 - characters :]
