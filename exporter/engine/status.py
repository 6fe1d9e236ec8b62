"""What an engine is known to be at a moment, for everybody who asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import EngineState
from exporter.engine.verdict.hang import Progress
from exporter.engine.verdict.question import TokenAnswer

Mode = Literal["supervised", "attached", "adopted"]


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One moment of an engine. Times are unix seconds; None where there is nothing to say yet."""

    mode: Mode
    base_url: str
    state: EngineState = EngineState.stopped
    since: float = 0.0
    """When the state was entered."""
    pid: int | None = None
    epoch: str = ""
    """Names this incarnation; the same again when a restarted daemon adopts it."""
    generation: int = 0
    """Counts the incarnations that were started, over restarts of the daemon too where an engine is adopted."""
    started_at: float | None = None
    ready_since: float | None = None
    """When this incarnation became ready for the first time."""
    was_ready: bool = False
    """Whether any incarnation was ever ready."""
    restarts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Starts after a crash or a hang, by the reason of the failure before."""
    last_failure: Failure | None = None
    load_stage: str | None = None
    load_ratio: float | None = None
    models: tuple[str, ...] = ()
    asked_to_stop: bool = False

    @property
    def expected_up(self) -> bool:
        """Whether time without an answer is the users' loss: once ready, until we are asked to stop it."""
        return self.was_ready and not self.asked_to_stop

    @property
    def serving(self) -> bool:
        """Whether a request sent now has a chance."""
        return self.state is EngineState.ready


class Engine(Protocol):
    """An engine that the rest of the daemon watches: supervised or only attached to."""

    @property
    def status(self) -> EngineStatus: ...

    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None:
        """Call back at each change, at once and in the event loop."""

    def observe(self, progress: Progress | None, *, now: float, token_at: float | None = None) -> None:
        """A scrape landed, or failed (None). `now`: when its request was sent or later, in monotonic seconds; `token_at`:
        when the gateway last saw a token of a user's, None where it saw none."""

    async def ask(self, prompt: str, timeout: float) -> TokenAnswer:  # noqa: ASYNC109
        """Ask a ready engine for one token after `prompt`, before everybody's requests where it knows priorities."""

    def answered(self, now: float) -> None:
        """A question got its token at `now`: the engine works."""

    def unanswered(self, since: float, now: float) -> None:
        """Two different questions in a row, the first at `since`, got no answer, and nothing moved meanwhile: work that is
        wanted and not done, for the hang verdict."""

    async def probe(self) -> None:
        """Ask `/health` once, if the state is one in which that says something; never raises for a bad answer."""

    async def run(self) -> None:
        """Live until stopped; the only writer of the state."""

    def pids(self) -> frozenset[int]:
        """The engine's processes as last seen; empty when they are somebody else's."""

    def stop(self) -> None:
        """Ask for the end: the first call drains, a second one skips what is left of the drain."""

    def state(self) -> dict[str, Any]:
        """Every count, for `restore` in the next daemon. JSON-able."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` said last; call it before `run`, and before anybody is shown the page."""
