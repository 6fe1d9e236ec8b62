from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.notify.outbox.model import Change, Silence
from exporter.notify.silences import UNSEEN, SilenceError, SilenceNotFoundError, Silences, state_of
from exporter.storage.model import Matcher

START = 1_700_000_000.0
SLOW = (Matcher("alertname", "=", "Slow"),)


class Shelf:
    """Silences on a clock that is set by hand; `changes` is what was written."""

    def __init__(self) -> None:
        self.now = START
        self.changes: list[Change] = []
        self.silences = Silences(self.changes.append, lambda: self.now)

    def wish(self, **fields: object) -> Silence:
        base = Silence("", SLOW, self.now, self.now + 3600.0, 0.0, "li", "维护")
        return replace(base, **fields)  # type: ignore[arg-type]

    def silencing(self, **labels: str) -> tuple[str, ...]:
        return self.silences.silencing(labels, UNSEEN, self.now)[0]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_a_silence_silences_what_fits_while_it_lasts(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish(starts_at=START + 60))
    assert shelf.silencing(alertname="Slow") == ()
    shelf.now = START + 60
    assert shelf.silencing(alertname="Slow") == (made.id,)
    assert shelf.silencing(alertname="Down") == ()
    shelf.now = START + 3600
    assert shelf.silencing(alertname="Slow") == ()


def test_what_is_remembered_of_an_alert_holds_until_silences_change(shelf: Shelf) -> None:
    labels = {"alertname": "Slow"}
    none, seen = shelf.silences.silencing(labels, UNSEEN, shelf.now)
    assert none == ()
    made = shelf.silences.add(shelf.wish())
    ids, seen = shelf.silences.silencing(labels, seen, shelf.now)
    assert ids == (made.id,)
    assert shelf.silences.silencing(labels, seen, shelf.now) == (ids, seen)
    shelf.silences.expire(made.id)
    assert shelf.silences.silencing(labels, seen, shelf.now)[0] == ()


def test_every_change_is_written_down(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    shelf.now += 5
    shelf.silences.expire(made.id)
    shelf.now += 120 * 3600
    shelf.silences.collect()
    assert shelf.changes == [
        Change(silences=(made,)),
        Change(silences=(replace(made, ends_at=START + 5, updated_at=START + 5),)),
        Change(expired_silences=(made.id,)),
    ]
    assert shelf.silences.query() == []


def test_a_silence_that_would_begin_in_the_past_begins_now(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish(starts_at=START - 500))
    assert made.starts_at == START


def test_a_longer_silence_keeps_its_id(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    shelf.now += 60
    longer = shelf.silences.update(replace(made, ends_at=START + 7200, comment="takes longer"))
    assert (longer.id, longer.updated_at) == (made.id, START + 60)
    assert shelf.silences.query() == [longer]


def test_other_matchers_end_the_silence_and_begin_another(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    shelf.now += 60
    other = shelf.silences.update(replace(made, matchers=(Matcher("alertname", "=", "Down"),)))
    assert other.id != made.id
    assert other.starts_at == START + 60
    old = shelf.silences.get(made.id)
    assert old is not None
    assert state_of(old, shelf.now) == "expired"


def test_an_expired_silence_comes_back_as_a_new_one(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    shelf.silences.expire(made.id)
    shelf.now += 10
    again = shelf.silences.update(replace(made, ends_at=START + 7200))
    assert again.id != made.id
    assert shelf.silencing(alertname="Slow") == (again.id,)


def test_a_pending_silence_that_is_ended_never_was(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish(starts_at=START + 60))
    shelf.silences.expire(made.id)
    stands = shelf.silences.get(made.id)
    assert stands is not None
    assert (stands.starts_at, stands.ends_at) == (START, START)


def test_ending_a_silence_twice_changes_nothing(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    shelf.silences.expire(made.id)
    shelf.now += 60
    shelf.silences.expire(made.id)
    assert len(shelf.changes) == 2


def test_nobody_knows_an_id_that_is_not_there(shelf: Shelf) -> None:
    with pytest.raises(SilenceNotFoundError):
        shelf.silences.expire("7e0a8c0e")
    with pytest.raises(SilenceNotFoundError):
        shelf.silences.update(shelf.wish(id="7e0a8c0e"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"matchers": ()}, "at least one matcher required"),
        ({"matchers": (Matcher("a", "=", ""), Matcher("b", "=~", ".*"))}, "must not match the empty string"),
        ({"matchers": (Matcher("a", "=~", "("),)}, "bad regular expression"),
        ({"starts_at": START + 60, "ends_at": START + 60}, "start time must be before end time"),
        ({"ends_at": START - 1}, "end time can't be in the past"),
    ],
)
def test_what_cannot_be_is_refused(shelf: Shelf, fields: dict[str, object], message: str) -> None:
    with pytest.raises(SilenceError, match=message):
        shelf.silences.add(shelf.wish(**fields))
    assert shelf.changes == []


def test_an_update_that_is_refused_leaves_the_silence_as_it_was(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    with pytest.raises(SilenceError):
        shelf.silences.update(replace(made, matchers=()))
    assert shelf.silences.query() == [made]


def test_silences_are_listed_by_what_happens_next(shelf: Shelf) -> None:
    late = shelf.silences.add(shelf.wish(ends_at=START + 900))
    early = shelf.silences.add(shelf.wish(ends_at=START + 600))
    pending = shelf.silences.add(shelf.wish(starts_at=START + 60))
    over = shelf.silences.add(shelf.wish())
    shelf.silences.expire(over.id)
    assert [one.id for one in shelf.silences.query()] == [early.id, late.id, pending.id, over.id]
    assert [one.id for one in shelf.silences.query(("pending",))] == [pending.id]
    assert shelf.silences.counts() == {"active": 2, "pending": 1, "expired": 1}


def test_silences_outlive_the_daemon(shelf: Shelf) -> None:
    made = shelf.silences.add(shelf.wish())
    next_daemon = Silences(clock=lambda: START + 10)
    next_daemon.restore([made])
    assert next_daemon.silencing({"alertname": "Slow"}, UNSEEN, START + 10)[0] == (made.id,)
