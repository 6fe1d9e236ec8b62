"""What is remembered of an engine's series between pages, so that totals neither jump nor go back.

Raw values are kept per series, also while a series is missing from the page: when it comes back, only what it gained
counts. They are kept by scope, which is one engine of one model (or what has no such labels): a restart forgets the
scope, and its series count from 0 again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from exporter.exposition.model import Series

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series: its name and its labels."""

Scope = tuple[str, str]
"""`model_name` and `engine`, empty where a series has none."""


def scope_of(labels: Iterable[tuple[str, str]]) -> Scope:
    """The scope that a series with these labels belongs to."""
    found = dict(labels)
    return found.get("model_name", ""), found.get("engine", "")


def without_bound(series: Series) -> Key:
    """The histogram that a bucket belongs to."""
    return series.name, tuple([label for label in series.labels if label[0] != "le"])


@dataclass(slots=True)
class ScopeMemory:
    """One scope since its engine started: last raw values, creation times, sources chosen, bucket bounds seen."""

    raw: dict[Key, float] = field(default_factory=dict)
    created: dict[Key, float] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    bounds: dict[Key, set[float]] = field(default_factory=dict)


class Memory:
    """All scopes of one engine."""

    def __init__(self) -> None:
        self.scopes: dict[Scope, ScopeMemory] = {}
        self.starts: dict[Key, float] = {}

    def scope(self, scope: Scope) -> ScopeMemory:
        """The memory of one scope, empty when it is new."""
        found = self.scopes.get(scope)
        if found is None:
            found = self.scopes[scope] = ScopeMemory()
        return found

    def forget(self, scope: Scope) -> None:
        """This scope's engine started again."""
        self.scopes.pop(scope, None)

    def forget_all(self) -> None:
        """The whole engine started again."""
        self.scopes.clear()
        self.starts.clear()

    def size(self) -> int:
        """Series remembered."""
        return sum(len(scope.raw) for scope in self.scopes.values())

    def models(self) -> set[str]:
        """Models that have been seen since the engine started."""
        return {model for model, _ in self.scopes}

    def state(self) -> dict[str, Any]:
        """All that `restored` needs, JSON-able."""
        return {
            "starts": [[name, list(labels), value] for (name, labels), value in self.starts.items()],
            "scopes": [
                {
                    "scope": list(scope),
                    "raw": [[name, list(labels), value] for (name, labels), value in memory.raw.items()],
                    "created": [
                        [name, list(labels), value] for (name, labels), value in memory.created.items()
                    ],
                    "chosen": memory.chosen,
                    # As text: infinities are no JSON.
                    "bounds": [
                        [name, list(labels), sorted(map(repr, bounds))]
                        for (name, labels), bounds in memory.bounds.items()
                    ],
                }
                for scope, memory in self.scopes.items()
            ],
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Memory:
        """The memory that `state` describes; KeyError, TypeError or ValueError when it is none."""
        memory = cls()
        memory.starts = _values(state["starts"])
        for entry in state["scopes"]:
            model, engine = entry["scope"]
            scope = memory.scope((str(model), str(engine)))
            scope.raw = _values(entry["raw"])
            scope.created = _values(entry["created"])
            scope.chosen = {str(canonical): str(source) for canonical, source in entry["chosen"].items()}
            scope.bounds = {
                (str(name), _labels(labels)): {float(bound) for bound in bounds}
                for name, labels, bounds in entry["bounds"]
            }
        return memory


def _values(entries: list[Any]) -> dict[Key, float]:
    return {(str(name), _labels(labels)): float(value) for name, labels, value in entries}


def _labels(entries: list[Any]) -> tuple[tuple[str, str], ...]:
    return tuple([(str(key), str(text)) for key, text in entries])
