"""An engine that listens on another port than the daemon expects: looked for rarely, and only where nobody answers.

vLLM's processes listen on ports of their own too (ZeroMQ, torch.distributed), which are not to be disturbed while the
model loads, so nothing is asked before the output says that the server starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from exporter.engine.process.ports import listening
from exporter.engine.process.procfs import ProcessId
from exporter.engine.verdict.probes import EngineClient

AFTER_SERVER_STARTS = 10.0
"""Seconds from the line that says so; by then a server that listens where it is expected is found."""
AFTER_SILENCE = 60.0
"""Seconds without any word about loading: the output goes somewhere else, or it is no vLLM."""
BETWEEN = 30.0
_ASKED = 16
"""Sockets that are asked in one search."""
_TIMEOUT = 2.0


class SearchPlan:
    """When to search. `began`: monotonic seconds of the start."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._next: float | None = None

    def due(self, now: float, *, stage: str | None) -> bool:
        """Whether to search now; `stage`: the latest stage of loading that the output names, None when none."""
        if self._next is None and stage == "starting_server":
            self._next = now + AFTER_SERVER_STARTS
        elif self._next is None and stage is None and now - self._began >= AFTER_SILENCE:
            self._next = now
        if self._next is None or now < self._next:
            return False
        self._next = now + BETWEEN
        return True


async def find_elsewhere(members: Iterable[ProcessId], client: EngineClient) -> str | None:
    """The base URL of a socket of these processes whose `/health` answers 200; None when there is none."""
    sockets = await asyncio.to_thread(listening, tuple(members))
    for host, port in sockets[:_ASKED]:
        url = f"{client.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        if (host, port) != client.address and await client.healthy_at(url, _TIMEOUT):
            return url
    return None
