"""Silences: alerts that fit are not told of for a time. What may be changed, and when a silence ends, is Alertmanager's.

Source: `silence/silence.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import structlog

from exporter.notify.matchers import check, fits, show_all
from exporter.notify.outbox.model import Change, Silence

log = structlog.get_logger(__name__)

State = Literal["pending", "active", "expired"]

KEPT_SECONDS = 120 * 3600.0
"""How long a silence can be looked up after its end: Alertmanager's `--data.retention`."""
MOST = 10_000
"""Silences that are kept, expired ones included; whoever wants more is refused."""


class SilenceError(ValueError):
    """A silence cannot be as it is wished; the message says why."""


class SilenceNotFoundError(LookupError):
    """There is no silence of this id."""


def state_of(silence: Silence, now: float) -> State:
    """What a silence is at a time."""
    if now < silence.starts_at:
        return "pending"
    return "active" if now < silence.ends_at else "expired"


def changeable(old: Silence, new: Silence, now: float) -> bool:
    """Whether the new one may take the old one's place: what has been silenced so far stays true."""
    if old.matchers != new.matchers:
        return False
    match state_of(old, now):
        case "active":
            return int(old.starts_at) == int(new.starts_at) and new.ends_at >= now
        case "pending":
            return new.starts_at >= now
    return False


def validate(silence: Silence, now: float) -> None:
    """SilenceError where it cannot be."""
    if not silence.matchers:
        raise SilenceError("at least one matcher required")
    for matcher in silence.matchers:
        if not matcher.name:
            raise SilenceError("a matcher has no label name")
        try:
            check(matcher)
        except ValueError as error:
            raise SilenceError(str(error)) from error
    # Alertmanager asks the same: a negative matcher that fits the empty string is one that somebody meant.
    if all(matcher.op in ("=", "=~") and fits((matcher,), {}) for matcher in silence.matchers):
        raise SilenceError("at least one matcher must not match the empty string")
    if silence.ends_at < now:
        raise SilenceError("end time can't be in the past")
    if silence.ends_at <= silence.starts_at:
        raise SilenceError("start time must be before end time")


class Remembered(NamedTuple):
    """Which silences fitted a label set, by `version` of all silences."""

    version: int = -1
    ids: tuple[str, ...] = ()


UNSEEN = Remembered()


class Silences:
    """All silences; a change is in force at once, and written down by `write`. Event loop only."""

    def __init__(
        self, write: Callable[[Change], None] = lambda change: None, clock: Callable[[], float] = time.time
    ) -> None:
        self._write = write
        self._clock = clock
        self._silences: dict[str, Silence] = {}
        self._unsilenced = Remembered(0)
        """What is remembered of each label set that no silence fits; has the version of all silences."""

    def restore(self, silences: Iterable[Silence]) -> None:
        """The silences of the daemon before."""
        self._silences.update((silence.id, silence) for silence in silences)
        self._changed()

    def add(self, silence: Silence) -> Silence:
        """A new silence; its id is made here, and what would begin in the past begins now. SilenceError."""
        now = self._clock()
        silence = replace(
            silence, id=str(uuid.uuid4()), starts_at=max(silence.starts_at, now), updated_at=now
        )
        validate(silence, now)
        if len(self._silences) >= MOST:
            raise SilenceError(f"there are {MOST} silences already")
        self._set(silence, "silence_added")
        return silence

    def update(self, silence: Silence) -> Silence:
        """The silence of this id as it shall be; where that would rewrite what was, it ends and a new one begins.

        Gives what stands now, perhaps under another id. SilenceError, SilenceNotFoundError.
        """
        now = self._clock()
        old = self._of(silence.id)
        validate(silence, now)
        if changeable(old, silence, now):
            silence = replace(silence, updated_at=now)
            self._set(silence, "silence_updated")
            return silence
        new = self.add(silence)
        if state_of(old, now) != "expired":
            self.expire(old.id)
        return new

    def expire(self, silence_id: str) -> None:
        """End a silence now; nothing where it is over. SilenceNotFoundError."""
        now = self._clock()
        old = self._of(silence_id)
        state = state_of(old, now)
        if state != "expired":
            starts_at = now if state == "pending" else old.starts_at
            self._set(replace(old, starts_at=starts_at, ends_at=now, updated_at=now), "silence_expired")

    def get(self, silence_id: str) -> Silence | None:
        """One silence."""
        return self._silences.get(silence_id)

    def query(self, states: Sequence[State] = ("active", "pending", "expired")) -> list[Silence]:
        """Those in some states; the active by their end, the pending by their start, the expired from the last."""
        now = self._clock()
        found = [(state_of(silence, now), silence) for silence in self._silences.values()]
        return [silence for state, silence in sorted(found, key=_order) if state in states]

    def counts(self) -> dict[str, int]:
        """How many there are in each state."""
        now = self._clock()
        counts = {"active": 0, "pending": 0, "expired": 0}
        for silence in self._silences.values():
            counts[state_of(silence, now)] += 1
        return counts

    def silencing(
        self, labels: Mapping[str, str], seen: Remembered, now: float
    ) -> tuple[tuple[str, ...], Remembered]:
        """Ids of the silences that hold an alert back, and what to remember for the next time that it is asked."""
        if seen.version != self._unsilenced.version:
            ids = tuple(
                silence.id
                for silence in self._silences.values()
                if now < silence.ends_at and fits(silence.matchers, labels)
            )
            seen = Remembered(self._unsilenced.version, ids) if ids else self._unsilenced
        if not seen.ids:
            return (), seen
        active = (
            name
            for name in seen.ids
            if (silence := self._silences.get(name)) is not None and state_of(silence, now) == "active"
        )
        return tuple(sorted(active)), seen

    def collect(self) -> None:
        """Forget those that have been over for KEPT_SECONDS."""
        now = self._clock()
        old = tuple(
            silence.id for silence in self._silences.values() if silence.ends_at + KEPT_SECONDS <= now
        )
        if old:
            for silence_id in old:
                del self._silences[silence_id]
            self._write(Change(expired_silences=old))

    def _changed(self) -> None:
        self._unsilenced = Remembered(self._unsilenced.version + 1)

    def _of(self, silence_id: str) -> Silence:
        try:
            return self._silences[silence_id]
        except KeyError:
            raise SilenceNotFoundError(f"no silence {silence_id}") from None

    def _set(self, silence: Silence, event: str) -> None:
        self._silences[silence.id] = silence
        self._changed()
        self._write(Change(silences=(silence,)))
        log.info(
            event,
            silence=silence.id,
            by=silence.created_by,
            matchers=show_all(silence.matchers),
            ends_at=silence.ends_at,
        )


def _order(one: tuple[State, Silence]) -> tuple[int, float, str]:
    state, silence = one
    if state == "active":
        return 0, silence.ends_at, silence.id
    return (1, silence.starts_at, silence.id) if state == "pending" else (2, -silence.ends_at, silence.id)
