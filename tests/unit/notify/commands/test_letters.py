from __future__ import annotations

from typing import Any

from exporter.notify.commands.letters import shown

OUTCOME = {
    "result": "retry",
    "code": 503,
    "detail": "hook:80 answered 503",
    "answer": "later,\x1b[31m please",
}
ENDPOINT: dict[str, Any] = {
    "receiver": "team",
    "integration": "webhook[0]",
    "kind": "webhook",
    "circuit": "half_open",
    "failures_in_a_row": 7,
    "next_trial": None,
    "last_attempt": "2025-11-21T04:40:00.000Z",
    "last_delivered": None,
    "last_outcome": OUTCOME,
    "waiting": 1,
    "queue": [
        {
            "number": 7,
            "status": "firing",
            "alerts": 2,
            "alert_names": ["引擎停了", "QueueLong"],
            "attempts": 3,
            "in_flight": True,
            "next_attempt": None,
            "outcome": OUTCOME,
        }
    ],
}
LETTER = ENDPOINT["queue"][0] | {
    "number": 3,
    "receiver": "old",
    "integration": "slack[0]",
    "given_up_at": "2025-11-21T04:40:00.000Z",
    "outcome": {"result": "refused", "code": 404, "detail": "hook:80 answered 404", "answer": ""},
}
WELL = {"problem": None, "bytes": 4096}


def test_endpoints_waiting_ones_and_dead_letters_are_tables() -> None:
    lines = shown({"endpoints": [ENDPOINT], "dead_letters": [LETTER], "outbox": WELL})
    text = "\n".join(lines)
    assert lines[1].split("  ")[0] == "team"
    assert "half open" in lines[1]
    assert "never" in lines[1]
    assert "Waiting:" in lines
    assert "2 (引擎停了, QueueLong)" in text
    assert "hook:80 answered 503: later,\\x1b[31m please" in text
    assert "Dead letters:" in lines
    assert lines[-1].split()[:3] == ["3", "old", "slack[0]"]
    assert lines[-1].endswith("hook:80 answered 404")
    assert "\x1b" not in text


def test_what_is_empty_is_not_shown() -> None:
    quiet = ENDPOINT | {"queue": [], "waiting": 0, "last_outcome": None}
    lines = shown({"endpoints": [quiet], "dead_letters": [], "outbox": WELL})
    assert len(lines) == 2
    assert lines[1].endswith("none yet")


def test_a_daemon_that_tells_nobody_says_so() -> None:
    assert shown({"endpoints": [], "dead_letters": [], "outbox": WELL}) == [
        "Nobody is told: no endpoint is configured."
    ]


def test_an_outbox_that_cannot_be_written_is_told() -> None:
    lines = shown({"endpoints": [ENDPOINT], "dead_letters": [], "outbox": {"problem": "full", "bytes": 0}})
    assert any("cannot be written (full)" in line for line in lines)
