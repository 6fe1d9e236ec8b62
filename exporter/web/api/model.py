"""What the API asks of the rest of the daemon, and what it says when it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from exporter.storage.model import Labels, Matcher, Storage

if TYPE_CHECKING:
    from exporter.promql.model import Budget, Matrix, Value

ErrorType = Literal[
    "bad_data",
    "execution",
    "timeout",
    "canceled",
    "internal",
    "unavailable",
    "not_found",
    "unauthorized",
]
STATUS: Mapping[str, int] = MappingProxyType(
    {
        "bad_data": 400,
        "unauthorized": 401,
        "not_found": 404,
        "execution": 422,
        "canceled": 499,
        "internal": 500,
        "timeout": 503,
        "unavailable": 503,
    }
)
"""The HTTP status of each error type, as in Prometheus' web/api/v1/api.go; `unauthorized` is our own."""


class ApiError(Exception):
    """A request that gets no data; `kind` is the answer's `errorType`."""

    def __init__(self, kind: ErrorType, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorType = kind

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return STATUS[self.kind]


class Figures(Protocol):
    """What a store tells of itself, as far as the API shows it."""

    @property
    def oldest_ms(self) -> int | None:
        """When the first sample was taken, in milliseconds."""


class Store(Storage, Protocol):
    """The samples; every method may be called from several threads. Windows `(lo, hi]` in milliseconds."""

    def series(self, matchers: Sequence[Matcher], lo: int, hi: int) -> Sequence[Labels]:
        """The series that fit all matchers and have samples in the window."""

    def label_names(self, matchers: Sequence[Matcher], lo: int, hi: int) -> Sequence[str]:
        """The label names of these series; no matchers: of all."""

    def label_values(self, name: str, matchers: Sequence[Matcher], lo: int, hi: int) -> Sequence[str]:
        """The values of one label among these series; no matchers: of all."""

    def stats(self) -> Figures:
        """Figures about what is held."""


class Compiled(Protocol):
    """A compiled expression, used by one thread at a time."""

    @property
    def kind(self) -> str:
        """What it gives at one time: `vector`, `matrix`, `scalar` or `string`."""

    def instant(self, storage: Storage, at: int, budget: Budget, *, lookback: int = ...) -> Value | Matrix:
        """The value at one time, in milliseconds."""

    def range(
        self, storage: Storage, start: int, end: int, step: int, budget: Budget, *, lookback: int = ...
    ) -> Value:
        """The value at each step from `start` to `end`, both included, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that is scraped. Times: unix seconds, durations: seconds."""

    job: str
    url: str
    labels: Mapping[str, str]
    health: Literal["up", "down", "unknown"]
    interval: float
    timeout: float
    last_error: str = ""
    last_scrape: float | None = None
    last_duration: float = 0.0
    discovered: Mapping[str, str] = field(default_factory=dict)
