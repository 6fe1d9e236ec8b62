"""The simulator's life after loading: serve, carry out faults, and end as vLLM ends."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time

from aiohttp import web

from exporter.simulator import console
from exporter.simulator.children import Children
from exporter.simulator.engine import FaultBoard, Rank, Ranks
from exporter.simulator.faults import Crash, Plan
from exporter.simulator.metrics import PageMetrics, cache_config
from exporter.simulator.options import Options
from exporter.simulator.scheduler import Scheduler
from exporter.simulator.server import Server

STATS_INTERVAL = 10.0
"""Seconds between two throughput lines, as in vLLM."""

FLOOD_INTERVAL = 0.02
"""Seconds between two lumps of a flooded log."""

CUT_OFF = 0.05
"""Seconds that open connections get at the end; aiohttp takes 0 for no limit."""

ENGINE_DEATH_EXIT = 1.0
"""Seconds from the death of the engine core to the exit of the server (0.5 to 4.9 seen)."""


def serve(options: Options, listener: socket.socket, children: Children) -> int:
    """Listen and answer until a signal or a fault ends it; the exit code."""
    return asyncio.run(_Process(options, listener, children).run())


class _Process:
    def __init__(self, options: Options, listener: socket.socket, children: Children) -> None:
        self._children = children
        self._options = options
        self._listener = listener
        self._board = FaultBoard()
        shape = options.shape
        cache = cache_config(
            blocks=shape.blocks,
            block_size=shape.block_size,
            max_model_len=shape.max_model_len,
            prefix_caching=shape.prefix_caching,
        )
        metrics = PageMetrics(options.served[0], options.ranks, cache)
        self._ranks = Ranks(
            [
                Rank(
                    Scheduler(shape, options.cost, seed=options.seed + index),
                    metrics.engines[index],
                    self._board,
                )
                for index in range(options.ranks)
            ]
        )
        self._server = Server(options, self._ranks, metrics, self._board)
        self._server.crash = self._crash
        self._over = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop_asked)
        if self._children.pids:
            loop.add_signal_handler(signal.SIGCHLD, self._look_at_children)
            self._look_at_children()
        runner = web.AppRunner(
            self._server.app(),
            handle_signals=False,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=CUT_OFF,
        )
        await runner.setup()
        site = web.SockSite(runner, self._listener, backlog=2048)
        console.uvicorn(f"Started server process [{os.getpid()}]")
        console.uvicorn("Waiting for application startup.")
        await site.start()
        console.uvicorn("Application startup complete.")
        for plan in self._options.faults:
            loop.call_later(plan.after, self._server.begin, plan)
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(rank.run()) for rank in self._ranks.ranks]
            work.append(group.create_task(self._log_stats()))
            work.append(group.create_task(self._flood()))
            if self._options.traffic:
                from exporter.simulator.traffic import Traffic, base_url

                own = base_url(self._listener.getsockname()[:2])
                work.append(group.create_task(Traffic(self._options, own).run()))
            await self._over.wait()
            await self._drain()
            await site.stop()
            for task in work:
                task.cancel()
        if self._children.pids:
            loop.remove_signal_handler(signal.SIGCHLD)
            self._children.end()
        if self._options.sigterm == "hang" and not self._ranks.dead:
            # Seen in vLLM: the engine is gone, the port closed, clients freeze, and the process stays.
            await asyncio.get_running_loop().create_future()
        console.uvicorn("Shutting down")
        await runner.cleanup()
        console.uvicorn("Waiting for application shutdown.")
        console.uvicorn("Application shutdown complete.")
        console.uvicorn(f"Finished server process [{os.getpid()}]")
        return 0

    def _stop_asked(self) -> None:
        if self._options.sigterm == "ignore":
            return
        console.log("[shutdown] API server: shutdown triggered", "launcher.py:254")
        self._server.accepting = False
        self._over.set()

    def _look_at_children(self) -> None:
        """A process of the engine died, was stopped or goes on: so does the engine."""
        for change in self._children.changes():
            if change == "died":
                if not self._ranks.dead:
                    self._crash(Crash())
            else:
                self._server.begin(Plan(0.0, {"wedge": change == "stopped"}, None))

    async def _drain(self) -> None:
        """Let running requests finish within `--shutdown-timeout`; by default they are cut off."""
        deadline = time.monotonic() + self._options.shutdown_timeout
        while self._ranks.unfinished and not self._ranks.dead and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _crash(self, crash: Crash) -> None:
        """End the process as the fault says, with nothing cleaned up."""
        if crash.is_engine_core:
            text = "engine core exited unexpectedly; starting cleanup"
            console.log(f"[shutdown] MPClient: {text}", "core_client.py:817", level="WARNING")
            for line in (
                "AsyncLLM output_handler failed.",
                "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
            ):
                console.log(line, "async_llm.py:906", level="ERROR")
            self._ranks.die()
            asyncio.get_running_loop().call_later(ENGINE_DEATH_EXIT, self._over.set)
        elif crash.signal is not None:
            # A core file of a simulated crash helps nobody.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(crash.signal, signal.SIG_DFL) if crash.signal not in (
                signal.SIGKILL,
                signal.SIGSTOP,
            ) else None
            os.kill(os.getpid(), crash.signal)
        else:
            os._exit(crash.exit_code or 0)

    async def _log_stats(self) -> None:
        """Throughput and queue lines while there is traffic; an idle engine is quiet."""
        before: list[tuple[int, int]] = [(0, 0)] * len(self._ranks.ranks)
        while True:
            await asyncio.sleep(STATS_INTERVAL)
            for index, rank in enumerate(self._ranks.ranks):
                prompt, generation = (
                    rank.prompt_tokens - before[index][0],
                    rank.generation_tokens - before[index][1],
                )
                before[index] = (rank.prompt_tokens, rank.generation_tokens)
                if not (prompt or generation):
                    continue
                hit_rate = 100 * rank.prefix_hits / max(1, rank.prefix_queries)
                console.log(
                    f"Engine {index:03d}: Avg prompt throughput: {prompt / STATS_INTERVAL:.1f} tokens/s, "
                    f"Avg generation throughput: {generation / STATS_INTERVAL:.1f} tokens/s, "
                    f"Running: {rank.scheduler.running} reqs, Waiting: {rank.scheduler.waiting} reqs, "
                    f"GPU KV cache usage: {100 * rank.scheduler.kv_cache_usage:.1f}%, "
                    f"Prefix cache hit rate: {hit_rate:.1f}%",
                    "loggers.py:335",
                )

    async def _flood(self) -> None:
        """Print senseless lines at the rate that a fault asks for; a slow reader slows the server, as it would vLLM."""
        while True:
            await self._board.flooding.wait()
            lines = max(1, round(self._board.faults.log_lines * FLOOD_INTERVAL))
            console.log("\n".join(["Received request that nobody will read about"] * lines), "flood.py:1")
            await asyncio.sleep(FLOOD_INTERVAL)
