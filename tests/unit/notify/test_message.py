"""What people read, from alerts as the shipped rules make them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
import yaml

from exporter.alerting.files import shipped_folder
from exporter.notify.message import (
    DESCRIPTION_CHARACTERS,
    NOTICES,
    TITLE_CHARACTERS,
    Message,
    compose,
    cut,
    span,
)
from exporter.notify.model import Alert, Context, Notification
from exporter.notify.runbook import actions, shipped_actions

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
CONTEXT = Context("http://box:9108", NOW, {"instance": "box"})

TTFT = {
    "summary": "Time to first token is high",
    "description": "One request in 20 waited 4.2s or longer for its first token over the last 5 minutes; more than 3s is too long.",
    "runbook_url": "http://box:9108/rules/RUNBOOK.md#vllmhighttft",
}


def alert(name: str = "VLLMHighTTFT", said: dict[str, str] | None = None, **more: Any) -> Alert:
    labels = {"alertname": name, "severity": "warning", "instance": "127.0.0.1:8000", "job": "vllm"}
    labels |= more.pop("labels", {})
    values: dict[str, Any] = {"starts_at": NOW - 750, **more}
    return Alert(
        tuple(sorted(labels.items())), tuple(sorted((TTFT if said is None else said).items())), **values
    )


def notification(*alerts: Alert, **more: Any) -> Notification:
    labels = (("alertname", "VLLMHighTTFT"),)
    return Notification(1, "people", "slack[0]", "{}:{}", labels, alerts, NOW, **more)


def composed(*alerts: Alert, context: Context = CONTEXT, **more: Any) -> Message:
    return compose(notification(*alerts, **more), context, actions=shipped_actions(), zone=UTC)


def test_one_alert_says_what_is_wrong_how_bad_since_when_and_what_to_do() -> None:
    message = composed(alert())
    assert message.title == "WARNING: Time to first token is high (box)"
    assert message.tone == "warning"
    assert message.console == "http://box:9108/"
    (notice,) = message.notices
    assert notice.how_bad == TTFT["description"]
    assert notice.when == "Since 22:00 UTC, for 12m 30s."
    assert notice.action.startswith("Queueing: see VLLMHighQueueLength. Prefill: shorter prompts")
    assert notice.runbook == TTFT["runbook_url"]
    assert notice.which == "instance=127.0.0.1:8000"


def test_every_shipped_alert_makes_a_whole_and_short_message() -> None:
    folder = shipped_folder()
    assert folder is not None
    seen = 0
    for path in folder.glob("*.rules.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" not in rule:
                    continue
                said = {
                    name: text.replace("{{ $externalURL }}", "http://box:9108")
                    for name, text in rule["annotations"].items()
                }
                message = composed(alert(rule["alert"], said, labels=rule["labels"]))
                (notice,) = message.notices
                assert said["summary"] in message.title and len(message.title) <= 80
                assert notice.how_bad
                assert notice.runbook.endswith(f"RUNBOOK.md#{rule['alert'].lower()}")
                assert notice.action, f"the runbook does not say what to do about {rule['alert']}"
                assert "sloth" not in notice.which
                seen += 1
    assert seen > 30


def test_an_alert_that_is_over_says_how_long_it_lasted_and_not_how_things_were() -> None:
    message = composed(alert(ends_at=NOW - 30))
    assert message.title == "RESOLVED: Time to first token is high (box)"
    assert message.tone == "good"
    (notice,) = message.notices
    assert notice.when == "Resolved at 22:12 UTC after 12m."
    assert not (notice.how_bad or notice.action or notice.log)


def test_an_alert_that_ended_for_another_reason_than_its_values_says_which() -> None:
    (notice,) = composed(alert(said={**TTFT, "ended": "its rule is gone"}, ends_at=NOW - 1)).notices
    assert (notice.state, notice.why) == ("resolved", "its rule is gone")
    (notice,) = composed(alert(ends_at=NOW - 1)).notices
    assert notice.why == ""


def test_an_alert_without_data_says_so() -> None:
    message = composed(alert(no_data_since=NOW - 60))
    assert message.title == "NO DATA: Time to first token is high (box)"
    assert message.notices[0].when == (
        "Since 22:00 UTC, for 12m 30s. No data since 22:12 UTC: nobody can say whether it still holds."
    )


def test_a_repeat_says_that_it_is_one() -> None:
    message = composed(alert(), repeated=True)
    assert message.title.startswith("STILL WARNING: ")
    assert message.note == "Told again: nothing has changed."


def test_the_worst_that_fires_comes_first_and_gives_the_title() -> None:
    down = {"summary": "The engine is down"}
    message = composed(
        alert("Over", {"summary": "Over"}, labels={"severity": "critical"}, ends_at=NOW),
        alert(),
        alert("VLLMEngineDown", down, labels={"severity": "critical"}),
    )
    assert message.title == "CRITICAL: The engine is down, and 2 more (box)"
    assert message.tone == "bad"
    assert [notice.what for notice in message.notices] == [
        "The engine is down",
        "Time to first token is high",
        "Over",
    ]


def test_alerts_of_one_kind_are_counted_and_told_apart_by_their_labels() -> None:
    said = {"summary": "A GPU is too hot", "description": "GPU 3 (H100) is at 91 °C."}
    message = composed(*(alert("Hot", said, labels={"gpu": str(i), "rack": f"r{i}"}) for i in range(2, 4)))
    assert message.title == "WARNING: A GPU is too hot, 2 alerts (box)"
    assert message.where == "instance=127.0.0.1:8000"
    assert [notice.which for notice in message.notices] == ["gpu=2, rack=r2", "rack=r3"], (
        "GPU 3 is in the text"
    )


def test_of_a_storm_ten_alerts_are_told_and_the_rest_is_counted() -> None:
    message = composed(*(alert(labels={"pod": f"p{i}"}) for i in range(10_000)))
    assert len(message.notices) == NOTICES
    assert message.left_out == 9_990
    assert message.title == "WARNING: Time to first token is high, 10000 alerts (box)"


def test_a_crash_carries_the_diagnosis_and_the_end_of_the_log() -> None:
    said = TTFT | {"diagnosis": "CUDA out of memory", "last_log": "x" * 1500 + "\n\nValueError: no room\n"}
    (notice,) = composed(alert(said=said)).notices
    assert notice.why == "CUDA out of memory"
    assert notice.log.startswith("…xxx")
    assert notice.log.endswith("\nValueError: no room")
    assert len(notice.log) == 1000


def test_the_error_budget_that_is_left_is_told() -> None:
    (notice,) = composed(alert(said=TTFT | {"budget_left": "12%"})).notices
    assert notice.how_bad.endswith("is too long. Error budget left: 12%.")


def test_an_action_among_the_annotations_counts_more_than_the_runbook() -> None:
    (notice,) = composed(alert(said=TTFT | {"action": "Call Wang."})).notices
    assert notice.action == "Call Wang."


def test_nothing_is_said_about_what_to_do_where_the_runbook_is_not_ours() -> None:
    (notice,) = composed(alert(said=TTFT | {"runbook_url": "https://wiki/x#vllmhighttft"})).notices
    assert notice.action == ""


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("/rules/RUNBOOK.md#a", "http://box:9108/rules/RUNBOOK.md#a"),
        ("javascript:alert(1)", ""),
        ("https://wiki/a b", ""),
        ('https://wiki/"onclick="', ""),
        ("https://wiki/)[evil](https://x", ""),
        ("https://wiki/" + "x" * 2000, ""),
        ("https://维基/手册", "https://维基/手册"),
    ],
)
def test_only_links_that_can_be_followed_and_hold_no_markup_are_links(url: str, link: str) -> None:
    (notice,) = composed(alert(said=TTFT | {"runbook_url": url})).notices
    assert notice.runbook == link


def test_an_alert_without_annotations_is_told_by_its_name() -> None:
    message = composed(alert("DiskFull", {}, labels={"severity": ""}))
    assert message.title == "FIRING: DiskFull (box)"


def test_an_alert_with_nothing_at_all_is_told() -> None:
    message = compose(notification(Alert((), (), NOW)), Context("", NOW), zone=UTC)
    assert message.title == "FIRING: Alert"
    assert message.console == ""


def test_a_report_is_no_alarm() -> None:
    said = {
        "summary": "Daily SLO report: all met",
        "description": "TTFT: 99.2% of 99%\nErrors: 99.9% of 99.5%",
    }
    message = composed(alert("VLLMSLOReport", said, labels={"severity": "info"}))
    assert message.title == "Daily SLO report: all met (box)"
    assert message.tone == "info"
    (notice,) = message.notices
    assert notice.how_bad.splitlines() == ["TTFT: 99.2% of 99%", "Errors: 99.9% of 99.5%"]
    assert notice.when == ""


def test_times_are_the_readers_and_have_a_date_on_another_day() -> None:
    told = notification(alert(starts_at=NOW - 86_400 * 2))
    message = compose(told, CONTEXT, zone=timezone(timedelta(hours=8), "CST"))
    assert message.notices[0].when == "Since 2023-11-13 06:13 CST, for 2d."


def test_words_of_any_length_and_sort_stay_on_one_line_within_their_length() -> None:
    said = {"summary": "很长\n" * 500, "description": "a\u202eb\x00" * 5000, "diagnosis": "\ud800x" * 900}
    message = composed(alert(said=said, labels={"long": "v" * 5000, "severity": "X\nY" * 100}))
    assert len(message.title) <= TITLE_CHARACTERS
    assert message.title.isprintable()
    (notice,) = message.notices
    assert len(notice.how_bad) <= DESCRIPTION_CHARACTERS
    assert len(notice.which) < 200
    notice.why.encode()


def test_facts_about_the_box_are_told_where_the_text_does_not_say_them() -> None:
    context = replace(CONTEXT, facts={"engine": "vLLM 0.11", "model": "Qwen3"})
    assert composed(alert(said={"summary": "Qwen3 is slow"}), context=context).where == "engine=vLLM 0.11"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (750, "12m 30s"),
        (3605, "1h"),
        (93_600, "1d 2h"),
        (1e7, "115d 17h"),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_what_is_cut_off_shows() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abc def", 5) == "abc…"
    assert cut("abc", 0) == ""


def test_the_runbook_is_followed_where_it_only_refers() -> None:
    book = "\n".join(
        (
            "## A", "", "**Do.** As for [B](#b).", "## B", "**Do.** Use `x`, see [C](#c).", "## C", "nothing",
            "## D", "**Do.** As for [D](#d).",
        )
    )  # fmt: skip
    assert actions(book) == {"a": "Use x, see C.", "b": "Use x, see C.", "d": "As for D."}
