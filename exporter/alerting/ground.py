"""Whether the data that an alert stands on is there at one time, or can be missed: needs looked up in the store.

Ten thousand alerts may lose their data at once, so what a selector has is found once, and each alert costs a look-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from exporter.alerting.evidence import Every, Need, Sample, Seen, Some, Then
from exporter.promql.model import Steps
from exporter.promql.selectors import When
from exporter.storage.matching import condition_of
from exporter.storage.model import NAME, Labels, Matcher, Storage

if TYPE_CHECKING:
    from exporter.storage.model import Bool

INDICATOR = "vllm_"
"""The service level indicators go on over restarts of the engine, and stand still while it is away: as long as the daemon
does not see the engine at work, what they say is old, and no evidence."""
NOT_INDICATOR = "vllm_exporter_"
SIGHT = ("vllm_exporter_engine_up", "vllm_exporter_scrape_success")
"""1 while the engine serves, and while its page comes."""
FROM_THE_ENGINE = ("vllm:", INDICATOR)
"""What is seen of the engine, on its page or by what the daemon makes of it, is there as long as the daemon sees it."""
TARGET = frozenset({"instance", "job"})
"""The labels that say where a series comes from."""


class Recorder(Protocol):
    """A recording rule, as what it records stands for what it reads."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What it sets."""

    @property
    def need(self) -> Need:
        """What its expression needs."""

    @property
    def works(self) -> bool:
        """Whether its last evaluation succeeded; not before the first."""


class Ground:
    """The store at one time, in ms; for one thread, and no longer than one evaluation.

    `recorders`: by the name of the metric that they record.
    """

    def __init__(
        self,
        storage: Storage,
        at: int,
        lookback: int,
        recorders: Mapping[str, Sequence[Recorder]] | None = None,
    ) -> None:
        self._storage = storage
        self._at = at
        self._lookback = lookback
        self._recorders = recorders or {}
        self._known: dict[tuple[Sample, tuple[Matcher, ...], int, Ground | None], bool] = {}
        self._there: dict[tuple[Sample, int], list[Labels]] = {}
        self._tables: dict[tuple[Sample, int, tuple[Matcher, ...]], _Table] = {}
        self._kin: dict[Sample, Sample] = {}
        self._sights: list[tuple[Labels, bool]] | None = None
        self._under: set[Sample] = set()
        """The recorded selectors that are being looked up: a rule may read what it records."""

    def bears(self, need: Need, labels: Labels, before: Ground | None = None) -> bool:
        """Whether everything is there that is needed to judge an alert with these labels.

        `before`: the store when it last fired. Of alternatives, those that were there then are needed: it may have fired
        by any of them.
        """
        asked = tuple(Matcher(name, "=", value) for name, value in labels)
        return self._bears(need, asked, self._at, before)

    def well(self, need: Need, labels: Labels) -> bool:
        """Whether all that is not there could be there: its source is at work, and just has no such series.

        The engine's page comes; of other metrics, the target that they come from has other series of the same name.
        """
        return self._well(need, tuple(Matcher(name, "=", value) for name, value in labels))

    def _well(self, need: Need, asked: tuple[Matcher, ...]) -> bool:
        match need:
            case Every(parts=parts) | Some(parts=parts):
                return all(self._well(part, asked) for part in parts)
            case Seen(part=part, names=names, kept=kept):
                return self._well(part, tuple([one for one in asked if (one.name in names) == kept]))
            case Then(part=part):
                return self._well(part, asked)
        if need.name in self._recorders and need not in self._under:
            fitting, wanted = self._makers(need, asked)
            if fitting:
                self._under.add(need)
                found = any(one.works and self._well(one.need, _unset(wanted, one)) for one in fitting)
                self._under.remove(need)
                return found
        if need.name.startswith(FROM_THE_ENGINE) and not need.name.startswith(NOT_INDICATOR):
            return self._in_sight(asked, blindly=False)
        kin = self._kin.get(need)
        if kin is None:
            origin = tuple([one for one in need.matchers if one.name == NAME or one.name in TARGET])
            kin = self._kin[need] = Sample(origin, When())
        named = any(one.name == NAME for one in kin.matchers)
        origin = tuple([one for one in asked if one.name in TARGET])
        return named and self._table(kin, origin, self._at).has(origin)

    def _bears(self, need: Need, asked: tuple[Matcher, ...], at: int, before: Ground | None = None) -> bool:
        match need:
            case Every(parts=parts):
                return all(self._bears(part, asked, at, before) for part in parts)
            case Some(parts=parts):
                missing = [part for part in parts if not self._bears(part, asked, at, before)]
                if len(missing) == len(parts) or before is None:
                    return len(missing) < len(parts)
                then = at - self._at + before._at
                return not any(before._bears(part, asked, then) for part in missing)
            case Seen(part=part, names=names, kept=kept):
                seen = tuple([one for one in asked if (one.name in names) == kept])
                return self._bears(part, seen, at, before)
            case Then(part=part):
                return self._bears(part, asked, _time(need, at), before)
        key = need, asked, at, before
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._sample(need, asked, at, before)
        return known

    def _sample(self, need: Sample, asked: tuple[Matcher, ...], at: int, before: Ground | None) -> bool:
        name = need.name
        when = _time(need, at)
        if name in self._recorders and need not in self._under:
            fitting, wanted = self._makers(need, asked)
            if fitting:
                self._under.add(need)
                found = any(
                    one.works and self._bears(one.need, _unset(wanted, one), when, before) for one in fitting
                )
                self._under.remove(need)
                return found
        if name.startswith(INDICATOR) and not name.startswith(NOT_INDICATOR) and not self._in_sight(asked):
            return False
        return self._table(need, asked, when).has(asked)

    def _makers(self, need: Sample, asked: tuple[Matcher, ...]) -> tuple[list[Recorder], tuple[Matcher, ...]]:
        """The rules that can have recorded what is asked for, and all that is asked of it."""
        matchers = tuple([one for one in need.matchers if one.name != NAME])
        wanted = tuple(dict.fromkeys((*asked, *matchers)))
        return [one for one in self._recorders[need.name] if _fits(one.labels, wanted)], wanted

    def _table(self, need: Sample, asked: tuple[Matcher, ...], when: int) -> _Table:
        """What the selector has, by the labels that are asked for."""
        others = tuple([one for one in asked if one.op != "="])
        names = dict.fromkeys([one.name for one in asked if one.op == "="])
        key = need, when, (*others, *[Matcher(name, "=", "") for name in names])
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = _Table(self._series(need, when), frozenset(names), others)
        return table

    def _series(self, need: Sample, when: int) -> list[Labels]:
        """The selector's series that are there."""
        key = need, when
        found = self._there.get(key)
        if found is None:
            selection = self._storage.select(need.matchers)
            reach = self._lookback if need.reach is None else min(need.reach, self._lookback)
            end = np.array([when], np.int64)
            here: Bool = selection.latest(end, reach).present[:, 0]
            if need.count > 1 and here.any():
                span = self._lookback if need.reach is None else need.reach
                here = here & (selection.edges(end - span, end).counts[:, 0] >= need.count)
            labels = selection.labels
            found = self._there[key] = [labels[row] for row in here.nonzero()[0].tolist()]
        return found

    def _in_sight(self, asked: tuple[Matcher, ...], *, blindly: bool = True) -> bool:
        """Whether the engine is seen at work; `blindly`: what is said of it where the store knows of no daemon."""
        if self._sights is None:
            end = np.array([self._at], np.int64)
            self._sights = []
            for name in SIGHT:
                selection = self._storage.select((Matcher(NAME, "=", name),))
                latest = selection.latest(end, self._lookback)
                rows = latest.present[:, 0].nonzero()[0].tolist()
                self._sights += [(selection.labels[row], bool(latest.values[row, 0] == 1)) for row in rows]
        seen = [seen for labels, seen in self._sights if _fits(dict(labels), asked)]
        return all(seen) if seen else blindly


class _Table:
    """Series by the values that they have of some labels; a label that a series lacks is not asked of it."""

    def __init__(self, series: Sequence[Labels], names: frozenset[str], others: Sequence[Matcher]) -> None:
        self._shapes: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for labels in series:
            if others and not _fits(dict(labels), others):
                continue
            own = [pair for pair in labels if pair[0] in names]
            shape = tuple([name for name, _ in own])
            self._shapes.setdefault(shape, set()).add(tuple([value for _, value in own]))

    def has(self, asked: Sequence[Matcher]) -> bool:
        """Whether a series agrees with all that is asked of labels that it has."""
        if not self._shapes:
            return False
        wanted: dict[str, str] = {}
        for one in asked:
            if one.op == "=" and wanted.setdefault(one.name, one.value) != one.value:
                return False
        return any(
            tuple([wanted[name] for name in shape]) in values for shape, values in self._shapes.items()
        )


def _unset(asked: Sequence[Matcher], recorder: Recorder) -> tuple[Matcher, ...]:
    """What is asked of the series that a rule reads: not of the labels that it sets."""
    return tuple([one for one in asked if one.name not in recorder.labels])


def _fits(labels: Mapping[str, str], asked: Sequence[Matcher]) -> bool:
    """Whether nothing is asked of these labels that they are not."""
    return all(
        condition_of(one).matches(value) for one in asked if (value := labels.get(one.name)) is not None
    )


def _time(need: Sample | Then, at: int) -> int:
    return int(need.when.times(Steps(np.array([at], np.int64), at, at, 0))[0])
