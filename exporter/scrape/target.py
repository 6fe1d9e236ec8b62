"""The engine, as a scrape sees it."""

from __future__ import annotations

from pydantic import SecretStr
from yarl import URL

from exporter.engine.status import Engine, EngineStatus


class EngineTarget:
    """Where the page of an engine is, and what a missing one means; `key` goes into each request."""

    def __init__(self, engine: Engine, key: SecretStr | None) -> None:
        self._engine = engine
        self._page = "", URL()
        self.headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}

    @property
    def metrics_url(self) -> URL:
        """The same object for as long as the engine listens where it does."""
        base_url = self._engine.status.base_url
        if base_url != self._page[0]:
            self._page = base_url, URL(base_url) / "metrics"
        return self._page[1]

    @property
    def epoch(self) -> str:
        return self._engine.status.epoch

    @property
    def scrapable(self) -> bool:
        """Somebody else's engine may answer at any time; ours, once it has been ready, be it under another daemon."""
        status = self._engine.status
        if status.mode == "attached" or _is_taken_over(status):
            return True
        return status.state in ("ready", "unresponsive", "draining")

    @property
    def serving(self) -> bool:
        """False for an engine that shows a page and serves nobody."""
        return self._engine.status.state != "unresponsive"

    @property
    def down(self) -> bool:
        """Whether the users' requests fail now: it was ready once, nobody asked it to stop, and it does not serve."""
        status = self._engine.status
        return status.expected_up and not status.serving and not _is_taken_over(status)


def _is_taken_over(status: EngineStatus) -> bool:
    """Whether the engine was ready under an earlier daemon, and this one has not heard from it yet."""
    return status.mode == "adopted" and status.state == "starting" and status.ready_since is not None
