"""The answers of `/api/v1/rules` and `/api/v1/alerts`, from what the rules tell of themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from exporter.alerting.status import AlertStatus, GroupStatus, RuleStatus
from exporter.storage.model import Matcher
from exporter.web.api.numbers import exponent_float, rfc3339
from exporter.web.api.parameters import Form, flag_parameter, invalid
from exporter.web.api.selectors import matches, read_selectors


def rules(groups: Sequence[GroupStatus], form: Form) -> dict[str, Any]:
    """Every group that has a rule to show."""
    kind = next((value for key, value in form.url if key == "type"), "").lower()
    if kind not in ("", "alert", "record"):
        raise invalid("type", f'not supported value "{kind}"')
    exclude = flag_parameter([value for key, value in form.url if key == "exclude_alerts"], "exclude_alerts")
    page_size, token = _page(form)
    keep = _filter(
        {"alert": "alerting", "record": "recording"}.get(kind, ""),
        set(form.all("rule_name[]")),
        read_selectors(form.all("match[]")),
    )
    names, files = set(form.all("rule_group[]")), set(form.all("file[]"))
    shown: list[dict[str, Any]] = []
    found = not token
    for group in groups:
        found = found or token == _token(group)
        if not found or (names and group.name not in names) or (files and group.file not in files):
            continue
        if entries := [_rule(rule, exclude_alerts=exclude) for rule in group.rules if keep(rule)]:
            if page_size and len(shown) == page_size:
                return {"groups": shown, "groupNextToken": _token(group)}
            shown.append(_group(group, entries))
    if not found:
        raise invalid("group_next_token", f"invalid group_next_token '{token}'. were rule groups changed?")
    return {"groups": shown}


def alerts(groups: Sequence[GroupStatus]) -> dict[str, Any]:
    """Every pending or firing alert."""
    return {"alerts": [_alert(alert) for group in groups for rule in group.rules for alert in rule.alerts]}


def _filter(
    kind: str, names: set[str], selectors: Iterable[Sequence[Matcher]]
) -> Callable[[RuleStatus], bool]:
    selectors = list(selectors)

    def keep(rule: RuleStatus) -> bool:
        return (
            kind in ("", rule.kind)
            and (not names or rule.name in names)
            and (not selectors or any(matches(rule.labels, one) for one in selectors))
        )

    return keep


def _page(form: Form) -> tuple[int, str]:
    """`group_limit` (0: all) and `group_next_token`."""
    limit = next((value for key, value in form.url if key == "group_limit"), "")
    token = next((value for key, value in form.url if key == "group_next_token"), "")
    if token and not limit:
        raise invalid(
            "group_next_token", "group_limit needs to be present in order to paginate over the groups"
        )
    if not limit:
        return 0, ""
    if not (limit.isascii() and limit.lstrip("+-").isdigit() and len(limit) < 10):
        raise invalid(
            "group_limit",
            f'group_limit needs to be a valid number: strconv.ParseInt: parsing "{limit}": invalid syntax',
        )
    if int(limit) <= 0:
        raise invalid("group_limit", "group_limit needs to be greater than 0")
    return int(limit), token


def _token(group: GroupStatus) -> str:
    return hashlib.sha256(f"{group.file};{group.name}".encode("utf-8", "replace")).hexdigest()


def _group(group: GroupStatus, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": group.name,
        "file": group.file,
        "rules": entries,
        "interval": group.interval,
        "limit": group.limit,
        "evaluationTime": group.evaluation_seconds,
        "lastEvaluation": rfc3339(group.last_evaluation),
    }


def _rule(rule: RuleStatus, *, exclude_alerts: bool) -> dict[str, Any]:
    alerting = rule.kind == "alerting"
    entry: dict[str, Any] = {"state": rule.state} if alerting else {}
    entry |= {"name": rule.name, "query": rule.query}
    if alerting:
        entry |= {"duration": _whole(rule.duration), "keepFiringFor": _whole(rule.keep_firing_for)}
    entry["labels"] = _sorted(rule.labels)
    if alerting:
        entry["annotations"] = _sorted(rule.annotations)
        entry["alerts"] = None if exclude_alerts else [_alert(alert) for alert in rule.alerts]
    entry["health"] = rule.health
    if rule.last_error:
        entry["lastError"] = rule.last_error
    return entry | {
        "evaluationTime": rule.evaluation_seconds,
        "lastEvaluation": rfc3339(rule.last_evaluation),
        "type": rule.kind,
    }


def _alert(alert: AlertStatus) -> dict[str, Any]:
    entry = {
        "labels": _sorted(alert.labels),
        "annotations": _sorted(alert.annotations),
        "state": alert.state,
        "activeAt": rfc3339(alert.active_at),
    }
    if alert.keep_firing_since is not None:
        entry["keepFiringSince"] = rfc3339(alert.keep_firing_since)
    return entry | {"value": exponent_float(alert.value)}


def _sorted(labels: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(labels.items()))


def _whole(seconds: float) -> float:
    """Without a decimal point where there is nothing behind it."""
    return int(seconds) if seconds == int(seconds) else seconds
