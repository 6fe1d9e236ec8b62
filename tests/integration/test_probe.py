"""The probe over a real engine process, the simulator, with its faults; scrapes, /health and probes as the daemon makes them."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from supervised import Bench as SupervisorBench
from supervised import Page

from exporter.engine import attached
from exporter.engine.states import EngineState
from exporter.exposition.block import Block
from exporter.gateway.probe.plan import ProbePolicy
from exporter.gateway.probe.probe import Probe
from exporter.gpu import GpuSampler
from exporter.settings import EngineSettings, GpuSettings, ScrapeSettings, Settings, SliSettings
from exporter.settings.gateway import GatewaySettings
from exporter.watch import Watch, WatchBlocks, Watched

PATIENCE = 30.0
SLOW = 40.0
"""Makes a step of the simulator take longer than a probe may, and far less than a canary."""
CHAT = {"messages": [{"role": "user", "content": "go on"}], "stream": True, "ignore_eos": True}


class Bench:
    """A simulated engine of somebody else's, and the daemon's watch over it."""

    def __init__(self, folder: Path, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.in_flight = 0
        self.token_at: float | None = None
        self.states: list[str] = []
        settings = Settings(
            data_dir=folder,
            engine=EngineSettings(
                url=url,
                health_interval=0.2,
                hang_timeout=0.8,
                hang_grace=0.0,
                canary_timeout=2.0,
            ),
            scrape=ScrapeSettings(interval=0.05, timeout=1.0),
            gateway=GatewaySettings(probe_interval=0.3, probe_timeout=0.3),
        )
        self.blocks = WatchBlocks()
        self.watch = Watch(
            Watched(settings.engine, None, folder),
            self.blocks,
            settings,
            session,
            GpuSampler(GpuSettings(source="off"), self.blocks.engine),
            landed=lambda row, now: None,
            in_flight=lambda: self.in_flight,
            token_at=lambda: self.token_at,
        )
        self.watch.engine.subscribe(lambda status: self.states.append(status.state.value))
        works = (self.watch.engine.run, self._scrape, self._ask_health, self._probe)
        self.tasks = [asyncio.create_task(work()) for work in works]

    async def _scrape(self) -> None:
        while True:
            await self.watch.scraper.scrape()
            await asyncio.sleep(0.05)

    async def _ask_health(self) -> None:
        while True:
            await self.watch.engine.probe()
            await asyncio.sleep(0.2)

    async def _probe(self) -> None:
        probe = self.watch.probe
        assert probe is not None
        while True:
            await probe.tick()
            await asyncio.sleep(0.05)

    async def fault(self, **changes: Any) -> None:
        async with self.session.post(f"{self.url}/sim/faults", json=changes) as answer:
            assert answer.status == 200

    async def stream(self, tokens: int) -> None:
        """One user: a chat to its end."""
        async with self.session.post(
            f"{self.url}/v1/chat/completions", json={**CHAT, "max_tokens": tokens}
        ) as answer:
            await answer.read()

    def value(self, series: str) -> float:
        page = b"".join(
            block.render(openmetrics=False) for block in (self.blocks.indicators, self.blocks.engine)
        ).decode()
        found = [line for line in page.splitlines() if line.startswith(series)]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    def probes(self, outcome: str) -> float:
        return self.value(f'vllm_slo_probe_requests_total{{model_name="sim-8b",outcome="{outcome}"}}')

    def canaries(self, outcome: str) -> float:
        return self.value(f'vllm_exporter_engine_canaries_total{{outcome="{outcome}"}}')

    async def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            for task in self.tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, (self.states, self.watch.engine.status)
            await asyncio.sleep(0.01)

    async def reach(self, state: EngineState) -> None:
        await self.until(lambda: self.watch.engine.status.state is state)

    async def close(self) -> None:
        self.watch.scraper.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(attached, "LOOK_SECONDS", 0.05)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exporter", "simulate", "--port", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            made = Bench(tmp_path, f"http://127.0.0.1:{port}", session)
            try:
                await made.reach(EngineState.ready)
                made.states.clear()
                yield made
            finally:
                await made.close()
    finally:
        engine.kill()
        await engine.wait()


async def test_an_idle_engine_is_probed_and_measured(bench: Bench) -> None:
    await bench.until(lambda: bench.probes("success") >= 3)
    assert bench.value('vllm_slo_probe_success{model_name="sim-8b"}') == 1
    count = bench.value('vllm_slo_probe_time_to_first_token_seconds_count{model_name="sim-8b"}')
    total = bench.value('vllm_slo_probe_time_to_first_token_seconds_sum{model_name="sim-8b"}')
    assert 0 < total / count < 0.5
    assert bench.value("vllm_total_requests") <= 1, (
        "they are not among the users', but where a page cut one in two"
    )
    assert EngineState.unresponsive not in bench.states


async def test_a_busy_engine_is_not_probed_and_an_idle_one_again_is(bench: Bench) -> None:
    users = [asyncio.create_task(bench.stream(150)) for _ in range(3)]
    await bench.until(lambda: bench.value('vllm_slo_requests_running{model_name="sim-8b"') == 3)
    before = bench.probes("success")
    await asyncio.gather(*users)
    assert bench.probes("success") - before <= 1  # one may have been on its way
    await bench.until(lambda: bench.probes("success") > before)


async def test_an_engine_that_hangs_while_nobody_asks_is_found_and_its_recovery_too(bench: Bench) -> None:
    await bench.until(lambda: bench.probes("success") >= 1)
    await bench.fault(wedge=True)
    await bench.reach(EngineState.unresponsive)
    assert bench.probes("timeout") >= 2, "before any verdict another question is asked"
    assert bench.canaries("failed") == 1
    assert bench.value('vllm_slo_probe_success{model_name="sim-8b"}') == 0
    await bench.fault(wedge=False)
    await bench.reach(EngineState.ready)


async def test_a_slow_engine_whose_probes_take_too_long_is_not_called_hung(bench: Bench) -> None:
    await bench.until(lambda: bench.probes("success") >= 1)
    await bench.fault(slow=SLOW)
    await bench.until(lambda: bench.probes("timeout") >= 4)
    assert bench.canaries("failed") == 0
    assert EngineState.unresponsive not in bench.states


async def test_a_slow_engine_that_works_for_others_is_busy_and_needs_no_canary(bench: Bench) -> None:
    await bench.until(lambda: bench.probes("success") >= 1)
    await bench.fault(slow=SLOW)
    users = [asyncio.create_task(bench.stream(4)) for _ in range(3)]
    await asyncio.gather(*users)
    assert EngineState.unresponsive not in bench.states
    assert bench.canaries("failed") == bench.canaries("answered") == 0


async def test_a_wedged_engine_whose_page_shows_nothing_is_called_hung_for_the_requests_at_the_gateway(
    bench: Bench,
) -> None:
    await bench.until(lambda: bench.probes("success") >= 1)
    await bench.fault(wedge=True)
    user = asyncio.create_task(bench.stream(5))
    bench.in_flight = 1
    probes = bench.probes("timeout")
    await bench.reach(EngineState.unresponsive)
    assert bench.value('vllm_slo_requests_running{model_name="sim-8b"') == 0
    assert bench.value('vllm_slo_requests_waiting{model_name="sim-8b"') == 0
    assert bench.probes("timeout") <= probes + 1, (
        "requests at the gateway are traffic: they are demand enough"
    )
    user.cancel()
    await asyncio.gather(user, return_exceptions=True)


async def test_tokens_at_the_gateway_keep_an_engine_with_a_frozen_page_from_being_called_hung(
    bench: Bench,
) -> None:
    await bench.until(lambda: bench.probes("success") >= 1)
    bench.in_flight = 1
    await bench.until(lambda: bench.value("vllm_exporter_scrape_success") == 1)
    await bench.fault(wedge=True)  # its page stands still, and would be taken for an engine's that does
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        bench.token_at = time.monotonic()
        await asyncio.sleep(0.05)
    assert EngineState.unresponsive not in bench.states
    assert bench.canaries("failed") == 0


async def test_an_engine_that_says_nothing_at_all_is_found(bench: Bench) -> None:
    await bench.until(lambda: bench.probes("success") >= 1)
    await bench.fault(silent=True)
    await bench.reach(EngineState.unresponsive)
    assert bench.probes("timeout") >= 2


async def test_an_engine_of_ours_that_hangs_while_nobody_asks_leaves_an_incident_and_is_restarted(
    tmp_path: Path,
) -> None:
    async with aiohttp.ClientSession() as session:
        ours = SupervisorBench(tmp_path, session)
        try:
            supervisor = ours.start()
            await ours.reach(EngineState.ready)
            probe = Probe(ProbePolicy(0.2, 0.2), supervisor, Block(), SliSettings(), page_patience=0.0)
            ours.steer(wedged=True)
            deadline = time.monotonic() + PATIENCE
            while "unresponsive" not in ours.states:
                assert time.monotonic() < deadline, ours.states
                probe.page_landed(Page(0.0, 0.0, 7.0), time.monotonic())
                await probe.tick()
                await asyncio.sleep(0.05)
            ours.steer()
            await ours.until(lambda: supervisor.status.generation == 2)
            assert supervisor.status.restarts == {"hang": 1}
            assert [path.name for path in (tmp_path / "incidents").iterdir()]
            await ours.reach(EngineState.ready)
        finally:
            await ours.close()
