"""Markup of each dialect, and that no text of an alert becomes markup, calls people or breaks a limit."""

from __future__ import annotations

import html.parser
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.notify.message import Message, Notice
from exporter.notify.rendering import (
    CARD_MARKDOWN,
    HTML,
    MARKDOWN,
    PLAIN,
    ROBOT_MARKDOWN,
    SLACK,
    TELEGRAM,
    Dialect,
    Limit,
    octets,
    render,
    utf16_units,
)

DIALECTS = {
    "plain": PLAIN, "markdown": MARKDOWN, "card": CARD_MARKDOWN, "robot": ROBOT_MARKDOWN,
    "slack": SLACK, "html": HTML, "telegram": TELEGRAM,
}  # fmt: skip

NOTICE = Notice(
    "firing", "Requests fail", "31% of requests failed.", "pool=a", "Since 22:00 UTC.", "OOM", "line 1\nline 2",
    "Restart it.", "http://box/RUNBOOK.md#x",
)  # fmt: skip


def message(*notices: Notice, **more: Any) -> Message:
    values: dict[str, Any] = {"console": "http://box/", **more}
    return Message("CRITICAL: Requests fail", "bad", notices or (NOTICE,), **values)


def test_plain_text_reads_from_top_to_bottom() -> None:
    text = render(message(note="Told again.", where="instance=box"), PLAIN, Limit(4000), title=True)
    assert text == (
        "CRITICAL: Requests fail\nTold again.\n\n"
        "31% of requests failed.\nSince 22:00 UTC.\npool=a\nDiagnosis: OOM\nline 1\nline 2\n"
        "What to do: Restart it.\nRunbook: http://box/RUNBOOK.md#x\n\ninstance=box\nConsole: http://box/"
    )


def test_alerts_of_a_group_have_headings_and_the_rest_is_counted() -> None:
    over = Notice("resolved", "Queue", when="Resolved.")
    text = render(message(NOTICE, over, left_out=7), SLACK, Limit(4000), title=False)
    assert text.startswith("*Requests fail*\n31%")
    assert "*Resolved: Queue*\nResolved.\n\nAnd 7 more.\n<http://box/|Console>" in text


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (MARKDOWN, r"a\*b\_c \[x\](y) \<u\> \`z\` 1\. \# 50%"),
        (HTML, "a*b_c [x](y) &lt;u&gt; `z` 1. # 50%"),
        (SLACK, "a*b_c [x](y) &lt;u&gt; `z` 1. # 50%"),
        (ROBOT_MARKDOWN, "a∗b_c ［x］(y) ‹u› ˋzˋ 1. # 50%"),
        (PLAIN, "a*b_c [x](y) <u> `z` 1. # 50%"),
    ],
)
def test_what_would_be_markup_is_text(dialect: Dialect, expected: str) -> None:
    written = dialect.escape("a*b_c [x](y) <u> `z` 1. # 50%")
    assert written.replace(r"1\.", "1.") == expected.replace(r"1\.", "1.")


@pytest.mark.parametrize("dialect", [MARKDOWN, CARD_MARKDOWN, ROBOT_MARKDOWN, TELEGRAM])
def test_a_name_in_a_label_calls_nobody(dialect: Dialect) -> None:
    assert not re.search(r"@[\w!&]", dialect.escape("@everyone @here <@123> <@&4> <@!5> a@all mail@wang"))


def test_a_log_cannot_close_its_block() -> None:
    text = MARKDOWN.block("a\n```\n[x](http://evil)")
    assert text.count("```") == 2


WORDS = st.text(max_size=400) | st.text("<>&*_`[]()@#\\\n\"'|~ ", max_size=400)
NOTICES = st.builds(
    Notice,
    st.sampled_from(["firing", "no data", "resolved"]),
    WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, WORDS,
    st.just("http://box/RUNBOOK.md#x") | st.just(""),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NOTICES, min_size=1, max_size=10),
    WORDS.map(lambda text: text[:150]),
    st.sampled_from([400, 1000, 2000, 4096]),
    st.sampled_from(sorted(DIALECTS)),
    st.sampled_from([len, octets, utf16_units]),
)
def test_no_text_is_longer_than_the_limit(
    notices: list[Notice], title: str, most: int, name: str, size: Any
) -> None:
    told = Message(title, "bad", tuple(notices), console="http://box/")
    text = render(told, DIALECTS[name], Limit(most, size), title=True)
    assert size(text) <= most


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@settings(max_examples=60, deadline=None)
@given(st.lists(NOTICES, min_size=1, max_size=10), st.sampled_from([1000, 4096]))
def test_html_is_whole_whatever_was_left_out(notices: list[Notice], most: int) -> None:
    tags = Tags()
    tags.feed(render(message(*notices), TELEGRAM, Limit(most, utf16_units), title=True))
    tags.close()
    assert not tags.open
    assert tags.seen <= {"b", "a", "pre"}


def test_the_log_goes_first_and_what_is_wrong_stays_last() -> None:
    notices = [Notice("firing", f"Alert {i}", "x" * 500, log="y" * 900, action="z" * 100) for i in range(10)]
    texts = [
        render(message(*notices), PLAIN, Limit(most), title=True) for most in (99_999, 7000, 2000, 600, 40)
    ]
    assert "yyy" in texts[0]
    assert "yyy" not in texts[1] and "zzz" in texts[1] and "Alert 9" in texts[1]
    assert "Alert 2" in texts[2] and "And " in texts[2]
    assert "Alert 0" in texts[3] and "And 9 more." in texts[3]
    assert texts[4] == "CRITICAL: Requests fail"
