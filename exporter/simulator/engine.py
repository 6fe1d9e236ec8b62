"""Runs schedulers against the clock and hands each request its tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from exporter.simulator.faults import Faults
from exporter.simulator.metrics import EngineMetrics
from exporter.simulator.scheduler import FinishReason, Output, Request, Scheduler


class EngineDeadError(Exception):
    """The engine behind the server is gone; every request fails."""


class FaultBoard:
    """The faults of the moment; waiting on them costs nothing."""

    def __init__(self) -> None:
        self._faults = Faults()
        self.moving = asyncio.Event()
        """Set while the engine is not wedged."""
        self.moving.set()
        self.flooding = asyncio.Event()
        """Set while the log is flooded."""

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        if faults.wedge:
            self.moving.clear()
        else:
            self.moving.set()
        if faults.log_lines:
            self.flooding.set()
        else:
            self.flooding.clear()


class TokenQueue:
    """The tokens of one request, in order, as they come."""

    def __init__(self, rank: Rank, request: Request) -> None:
        self.rank = rank
        self.request = request
        self._queue: asyncio.Queue[Output | None] = asyncio.Queue()

    def put(self, output: Output | None) -> None:
        self._queue.put_nowait(output)

    async def get(self) -> Output:
        """The next token; EngineDeadError when none will come."""
        output = await self._queue.get()
        if output is None:
            raise EngineDeadError
        return output

    def end(self, reason: FinishReason) -> None:
        """Finish the request now, if it has not finished, and free its blocks."""
        self.rank.end(self.request.id, reason)


class Rank:
    """One engine core: a scheduler, its clock and its subscribers."""

    def __init__(self, scheduler: Scheduler, metrics: EngineMetrics, board: FaultBoard) -> None:
        self.scheduler = scheduler
        self._metrics = metrics
        self._board = board
        self._queues: dict[str, TokenQueue] = {}
        self._work = asyncio.Event()
        self.dead = False
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def load(self) -> int:
        """As vLLM's data-parallel balancer weighs it: waiting requests count four times."""
        return 4 * self.scheduler.waiting + self.scheduler.running

    def submit(self, request: Request) -> TokenQueue:
        if self.dead:
            raise EngineDeadError
        self.scheduler.add(request, time.monotonic())
        queue = self._queues[request.id] = TokenQueue(self, request)
        self._work.set()
        return queue

    def end(self, request_id: str, reason: FinishReason) -> None:
        self._queues.pop(request_id, None)
        request = self.scheduler.abort(request_id, time.monotonic(), reason)
        if request is not None and not self.dead:
            self._metrics.finished(request)
            if not self._board.faults.wedge:
                self._metrics.gauges(self.scheduler)

    def die(self) -> None:
        """Stop for good; every subscriber learns that the engine is dead."""
        self.dead = True
        self._work.set()
        for queue in self._queues.values():
            queue.put(None)
        self._queues.clear()

    async def run(self) -> None:
        """Step by step until dead; idle while there is nothing to do, still while wedged."""
        loop = asyncio.get_running_loop()
        while not self.dead:
            result = self.scheduler.step(time.monotonic(), slowdown=self._board.faults.slow)
            self._metrics.step(result, self.scheduler)
            self.generation_tokens += len(result.outputs)
            self.prompt_tokens += sum(request.prompt_tokens for request in result.prefilled)
            self.prefix_queries += result.prefix_queries
            self.prefix_hits += result.prefix_hits
            for output in result.outputs:
                queue = self._queues.get(output.request.id)
                if queue is not None:
                    queue.put(output)
                    if output.finish_reason is not None:
                        del self._queues[output.request.id]
            if result.ends_at is None:
                self._work.clear()
                await self._work.wait()
            else:
                await asyncio.sleep(max(0.0, result.ends_at - loop.time()))
            await self._board.moving.wait()


class Ranks:
    """The data-parallel engines behind one server; a request goes where the load is least."""

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self.ranks = ranks

    @property
    def dead(self) -> bool:
        return any(rank.dead for rank in self.ranks)

    @property
    def unfinished(self) -> int:
        return sum(rank.scheduler.unfinished for rank in self.ranks)

    @property
    def queued_prompt_tokens(self) -> int:
        """Prompt tokens of the requests that have no token yet."""
        return sum(rank.scheduler.queued_prompt_tokens for rank in self.ranks)

    def submit(self, request: Request) -> TokenQueue:
        if self.dead:
            raise EngineDeadError
        return min(self.ranks, key=lambda rank: rank.load).submit(request)

    def die(self) -> None:
        for rank in self.ranks:
            rank.die()
