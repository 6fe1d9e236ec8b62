"""The supervisor over real child processes: fake_engine.py, which misbehaves on request."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from supervised import FAKE, PATIENCE, Bench, Page, free_port, running

from exporter.engine import adoption
from exporter.engine.life import POLL_SECONDS
from exporter.engine.states import EngineState
from exporter.engine.verdict import elsewhere
from exporter.exposition.block import Block


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        made = Bench(tmp_path, session)
        yield made
        await made.close()


async def test_an_engine_becomes_ready_and_stops_without_a_trace(bench: Bench) -> None:
    bench.start(
        "--say", "INFO 11-20 10:00:00 [core.py:1] Starting to load model x...", "--load-seconds", "0.2"
    )
    status = await bench.reach(EngineState.ready)
    assert status.models == ("tiny",)
    assert (status.mode, status.generation, status.expected_up) == ("supervised", 1, True)
    assert bench.metric("vllm_exporter_engine_up") == 1
    await bench.stop()
    assert bench.states == ["starting", "loading", "ready", "draining", "stopped"]
    assert not running(bench.pids()[0])
    assert not bench.supervisor.status.expected_up
    assert bench.metric('vllm_exporter_engine_state{state="stopped"}') == 1
    assert not (bench.folder / "engine.json").exists()


async def test_loading_is_shown_before_the_port_opens(bench: Bench) -> None:
    line = "Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.0it/s]"
    bench.start(
        "--say",
        "INFO 11-20 10:00:00 [x.py:1] Starting to load model x...",
        "--say",
        line,
        "--load-seconds",
        "60",
    )
    status = await bench.reach(EngineState.loading)
    await bench.until(lambda: bench.supervisor.status.load_ratio == 0.25)
    assert status.load_stage == "loading_weights"
    assert bench.metric("vllm_exporter_engine_load_progress_ratio") == 0.25
    assert bench.metric('vllm_exporter_engine_load_stage{stage="loading_weights"}') == 1
    assert bench.metric("vllm_exporter_engine_up") == 0
    assert not status.expected_up


async def test_a_crash_is_followed_by_a_restart_that_is_counted(bench: Bench) -> None:
    bench.start()
    first = await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    second = await bench.reach(EngineState.ready)
    assert bench.states == ["starting", "ready", "backoff", "starting", "ready"]
    assert second.restarts == {"killed": 1}
    assert second.epoch != first.epoch
    assert bench.metric('vllm_exporter_engine_restarts_total{reason="killed"}') == 1
    assert bench.metric('vllm_exporter_engine_last_failure_info{reason="killed"}') == 1


async def test_an_exit_with_code_zero_that_nobody_asked_for_is_a_crash(bench: Bench) -> None:
    bench.start("--exit-after", "0.2", "--exit-code", "0", crash_limit=2)
    await bench.reach(EngineState.failed)
    assert bench.states.count("backoff") == 1
    assert bench.supervisor.status.last_failure is not None
    assert bench.metric('vllm_exporter_engine_crashes_total{reason="exited"}') == 2


async def test_a_crash_while_loading_is_tried_again_until_it_works(bench: Bench) -> None:
    counter = bench.folder / "crashes"
    counter.write_text("2")
    bench.start("--crash-times", str(counter))
    await bench.reach(EngineState.ready)
    assert bench.supervisor.status.generation == 3
    assert bench.states.count("backoff") == 2


async def test_a_crash_loop_is_given_up_and_can_still_be_stopped(bench: Bench) -> None:
    bench.start("--exit-at-start", "3", restart_delay=0.01, crash_limit=3)
    status = await bench.reach(EngineState.failed)
    assert status.generation == 3
    assert len(bench.pids()) == 3
    await bench.stop()


async def test_a_failure_that_no_retry_mends_is_not_retried_and_names_what_to_change(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        bench.start(
            "--exit-at-start", "2", "--say", "api_server.py: error: unrecognized arguments: --frobnicate"
        )
        status = await bench.reach(EngineState.failed)
    assert status.last_failure is not None
    assert status.last_failure.reason == "bad_arguments"
    assert bench.pids() and len(bench.pids()) == 1
    told = [entry for entry in logs if entry["event"] == "engine_failed"]
    assert len(told) == 1
    assert "--frobnicate" in told[0]["error"]
    assert bench.metric('vllm_exporter_engine_last_failure_info{reason="bad_arguments"}') == 1
    await bench.stop()


async def test_a_command_that_does_not_exist_is_given_up_at_once(bench: Bench) -> None:
    bench.start(argv=("/nowhere/vllm", "serve", "x", "--port", str(bench.port)))
    status = await bench.reach(EngineState.failed)
    assert status.last_failure is not None
    assert status.last_failure.reason == "command_not_found"


async def test_what_is_unwise_in_the_command_is_told_once(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        bench.start(
            argv=("/nonexistent/vllm", "serve", "tiny", "--port", str(bench.port), "--api-key", "k-0123456")
        )
        await bench.reach(EngineState.failed)
        await bench.stop()
    (told,) = (entry for entry in logs if entry["event"] == "engine_command_remark")
    assert told["log_level"] == "warning"
    assert "VLLM_API_KEY" in told["advice"]


async def test_a_taken_port_is_diagnosed_without_a_start(bench: Bench) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", bench.port))
        other.listen()
        bench.start()
        status = await bench.reach(EngineState.failed)
        assert status.last_failure is not None
        assert status.last_failure.reason == "port_in_use"
        assert str(os.getpid()) in status.last_failure.message
        assert bench.pids() == []
        await bench.stop()


async def test_a_hung_engine_leaves_an_incident_and_is_restarted(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.ready)
    bench.steer(wedged=True)
    bench.page = Page(3.0, 2.0, 7.0)
    await bench.until(lambda: "unresponsive" in bench.states)
    bench.steer()
    bench.page = Page(0.0, 0.0, 7.0)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    await bench.reach(EngineState.ready)
    assert bench.states[:5] == ["starting", "ready", "unresponsive", "backoff", "starting"]
    assert bench.supervisor.status.restarts == {"hang": 1}
    assert bench.metric('vllm_exporter_engine_stalls_total{signal="no_progress"}') == 1
    assert bench.metric('vllm_exporter_engine_canaries_total{outcome="failed"}') == 1
    (folder,) = (bench.folder / "incidents").iterdir()
    assert json.loads((folder / "summary.json").read_text())["reason"] == "hang"
    assert not running(bench.pids()[0])


async def test_a_saturated_engine_whose_counters_move_is_left_alone(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.ready)
    bench.steer(wedged=True)
    for step in range(40):
        bench.page = Page(64.0, 900.0, float(step))
        await asyncio.sleep(0.05)
    assert bench.states == ["starting", "ready"]


async def test_a_wedged_engine_that_answers_the_canary_is_left_alone(bench: Bench) -> None:
    bench.start(canary_timeout=5.0)
    await bench.reach(EngineState.ready)
    bench.page = Page(3.0, 0.0, 7.0)
    await bench.until(lambda: bench.metric('vllm_exporter_engine_canaries_total{outcome="answered"}') >= 1)
    assert bench.states == ["starting", "ready"]


async def test_report_mode_tells_of_a_hang_and_of_its_end_and_kills_nothing(bench: Bench) -> None:
    bench.start(on_hang="report")
    await bench.reach(EngineState.ready)
    bench.steer(wedged=True)
    bench.page = Page(3.0, 2.0, 7.0)
    await bench.reach(EngineState.unresponsive)
    await bench.until(lambda: list((bench.folder / "incidents").glob("*")))
    bench.page = Page(3.0, 2.0, 8.0)
    await bench.reach(EngineState.ready)
    assert bench.states == ["starting", "ready", "unresponsive", "ready"]
    assert running(bench.pids()[0])


async def test_failing_health_makes_an_engine_unresponsive_and_restarts_it(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.ready)
    bench.steer(health=503)
    await bench.until(lambda: "backoff" in bench.states)
    bench.steer()
    await bench.reach(EngineState.ready)
    assert bench.supervisor.status.restarts == {"health": 1}


async def test_a_frozen_engine_is_noticed_by_its_silence_and_ended_although_it_cannot_act_on_signals(
    bench: Bench,
) -> None:
    bench.start(health_timeout=0.3)
    await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGSTOP)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    await bench.reach(EngineState.ready)
    assert bench.supervisor.status.restarts == {"health": 1}
    assert not running(bench.pids()[0])


async def test_an_engine_that_never_gets_ready_is_given_another_try_after_the_start_timeout(
    bench: Bench,
) -> None:
    bench.start("--load-seconds", "600", start_timeout=0.5, crash_limit=2)
    status = await bench.reach(EngineState.failed)
    assert status.last_failure is not None
    assert status.last_failure.reason == "start_timeout"
    assert status.restarts == {"start_timeout": 1}


async def test_an_engine_whose_key_the_daemon_does_not_know_is_told_of_once(bench: Bench) -> None:
    bench.steer(models=401)
    with structlog.testing.capture_logs() as logs:
        bench.start()
        await bench.until(lambda: any(entry["event"] == "engine_not_usable" for entry in logs))
        bench.steer()
        await bench.reach(EngineState.ready)
    (told,) = (entry for entry in logs if entry["event"] == "engine_not_usable")
    assert (told["log_level"], told["reason"]) == ("warning", "unauthorized")
    assert told["error"].endswith("/v1/models answered 401; set engine.api_key")
    await bench.stop()


LOADER = """
import os, subprocess, sys
core = subprocess.Popen([sys.executable, '-c', '''
import sys, time
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(segment._name, 'shared_memory')
open(sys.argv[1], 'w').write(segment.name)
time.sleep(600)
''', sys.argv[1]])
open(os.path.join(os.path.dirname(sys.argv[1]), 'core'), 'w').write(str(core.pid))
core.wait()
sys.exit(1)
"""


async def test_shared_memory_of_a_core_that_is_killed_while_it_loads_is_removed(bench: Bench) -> None:
    """It was noted at ready only, and stayed for good when it never came to that."""
    name = bench.folder / "segment"
    bench.start(argv=(sys.executable, "-c", LOADER, str(name)), restart_delay=60.0)
    await bench.until(lambda: name.exists() and name.read_text(), "the segment")
    await bench.until(
        lambda: (bench.folder / "core").exists() and (bench.folder / "core").read_text(), "the core"
    )
    segment = Path("/dev/shm") / name.read_text().lstrip("/")
    try:
        core = int((bench.folder / "core").read_text())
        await bench.until(lambda: core in bench.supervisor.pids(), "the core to be known")
        await asyncio.sleep(1.5 * POLL_SECONDS)
        os.kill(core, signal.SIGKILL)
        await bench.reach(EngineState.backoff)
        await bench.until(lambda: not segment.exists(), "the segment to go")
    finally:
        segment.unlink(missing_ok=True)
    await bench.stop()


async def test_an_engine_on_another_port_than_its_command_says_is_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrapper script that chooses the port itself left the daemon waiting for ever, without a word."""
    monkeypatch.setattr(elsewhere, "AFTER_SERVER_STARTS", 0.2)
    monkeypatch.setattr(elsewhere, "BETWEEN", 0.2)
    other = free_port()
    wrapper = bench.folder / "serve.sh"
    wrapper.write_text(f'#!/bin/sh\n"{sys.executable}" -S "{FAKE}" "$@" --port {other}\nexit $?\n')
    wrapper.chmod(0o700)
    flags = ("--port", str(bench.port), "--pidfile", str(bench.pidfile))
    say = ("--say", "INFO 11-20 10:00:00 [x.py:1] Starting vLLM API server 0 on http://0.0.0.0:1")
    with structlog.testing.capture_logs() as logs:
        bench.start(argv=(str(wrapper), *flags, *say), start_timeout=4.0, crash_limit=1)
        await bench.until(lambda: bench.supervisor.status.last_failure is not None)
    failure = bench.supervisor.status.last_failure
    assert failure is not None
    assert failure.reason == "start_timeout"
    expected = f"the engine listens on http://127.0.0.1:{other}, the daemon expects http://127.0.0.1:{bench.port}; set engine.url"
    assert failure.advice == expected
    assert [e["error"] for e in logs if e["event"] == "engine_not_usable"][:1] == [expected]
    await bench.stop()


async def test_a_stop_waits_for_running_requests(bench: Bench) -> None:
    note = bench.folder / "term"
    bench.start("--note-term", str(note))
    await bench.reach(EngineState.ready)
    bench.page = Page(2.0, 1.0, 7.0)
    bench.supervisor.stop()
    await bench.reach(EngineState.draining)
    await asyncio.sleep(0.4)
    assert not note.exists()
    bench.page = Page(0.0, 0.0, 9.0)
    await bench.ended()
    assert note.exists()


async def test_a_drain_that_takes_too_long_ends_in_a_stop(bench: Bench) -> None:
    bench.start(drain_timeout=0.3)
    await bench.reach(EngineState.ready)
    bench.page = Page(2.0, 1.0, 7.0)
    assert await bench.stop() >= 0.3


async def test_a_second_stop_skips_the_drain(bench: Bench) -> None:
    bench.start(drain_timeout=600.0)
    await bench.reach(EngineState.ready)
    bench.page = Page(2.0, 1.0, 7.0)
    bench.supervisor.stop()
    await bench.reach(EngineState.draining)
    assert await bench.stop() < PATIENCE / 2


async def test_an_engine_that_swallows_sigterm_is_killed_and_its_orphans_with_it(bench: Bench) -> None:
    orphan = bench.folder / "orphan"
    bench.start("--ignore-term", "--orphan", str(orphan), kill_timeout=0.5)
    await bench.reach(EngineState.ready)
    await bench.stop()
    assert not running(bench.pids()[0])
    assert not running(int(orphan.read_text()))


async def test_what_a_crashed_engine_leaves_is_gone_before_the_next_start(bench: Bench) -> None:
    orphan = bench.folder / "orphan"
    bench.start("--orphan", str(orphan), kill_timeout=0.3)
    await bench.reach(EngineState.ready)
    left = int(orphan.read_text())
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    assert not running(left)


async def test_a_restart_waits_for_the_memory_of_the_old_processes_to_leave_the_gpus(bench: Bench) -> None:
    asked: list[frozenset[int]] = []
    held = {"bytes": 5}

    def memory(pids: frozenset[int]) -> int | None:
        asked.append(pids)
        return held["bytes"]

    bench.gpu_memory_of = memory
    bench.start()
    await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: asked)
    await asyncio.sleep(0.3)
    assert bench.supervisor.status.state is EngineState.backoff
    assert bench.pids()[0] in asked[0]
    held["bytes"] = 0
    await bench.reach(EngineState.ready)


async def test_the_restart_does_not_wait_for_gpu_memory_for_ever(bench: Bench) -> None:
    bench.gpu_memory_of = lambda pids: 5
    bench.start(gpu_release_timeout=0.2)
    await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)


@pytest.mark.parametrize("state", ["starting", "loading", "backoff", "unresponsive"])
async def test_a_stop_works_in_every_state(bench: Bench, state: str) -> None:
    loading = ("--say", "INFO 11-20 10:00:00 [core.py:1] Starting to load model x...")
    flags = {
        "starting": ("--load-seconds", "600"),
        "loading": (*loading, "--load-seconds", "600"),
        "backoff": ("--exit-at-start", "1"),
        "unresponsive": (),
    }[state]
    bench.start(*flags, restart_delay=600.0, restart_delay_max=600.0, on_hang="report")
    if state == "unresponsive":
        await bench.reach(EngineState.ready)
        bench.steer(health=503)
    await bench.reach(EngineState(state))
    await bench.until(bench.pids)
    assert await bench.stop() < PATIENCE / 2
    assert not any(running(pid) for pid in bench.pids())


async def test_a_stop_before_the_start_starts_nothing(bench: Bench) -> None:
    bench.start()
    await bench.stop()
    assert bench.pids() == []


async def test_a_kept_engine_is_adopted_by_the_next_start_with_its_counts(bench: Bench) -> None:
    bench.start(on_exit="keep")
    await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    first = await bench.reach(EngineState.ready)
    await bench.stop()
    assert running(bench.pids()[1])

    bench.start(on_exit="keep")
    second = await bench.reach(EngineState.ready)
    assert (second.mode, second.generation) == ("adopted", 2)
    assert (second.pid, second.epoch) == (first.pid, first.epoch)
    assert second.restarts == {"killed": 1}
    assert second.ready_since == first.ready_since
    assert bench.pids()[2:] == []

    os.kill(bench.pids()[1], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 3)
    third = await bench.reach(EngineState.ready)
    assert third.mode == "supervised"
    assert third.last_failure is not None
    os.kill(bench.pids()[2], signal.SIGKILL)


async def test_a_daemon_that_dies_without_a_word_leaves_a_record_that_is_good_enough_to_adopt(
    bench: Bench,
) -> None:
    bench.start(on_exit="keep")
    first = await bench.reach(EngineState.ready)
    record = bench.folder / "engine.json"
    await bench.until(lambda: record.exists() and json.loads(record.read_text())["ready_since"])
    await bench.abandon()
    assert running(bench.pids()[0])
    bench.start(on_exit="keep")
    second = await bench.reach(EngineState.ready)
    assert (second.mode, second.epoch) == ("adopted", first.epoch)
    assert (second.started_at, second.ready_since) == (first.started_at, first.ready_since)


async def test_a_kept_engine_is_adopted_by_a_daemon_that_stops_it_in_the_end_and_tied_to_it(
    bench: Bench,
) -> None:
    note = bench.folder / "term"
    flags = ("--note-term", str(note))
    bench.start(*flags, on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.stop()
    bench.start(*flags, on_exit="stop")
    status = await bench.reach(EngineState.ready)
    assert (status.mode, status.generation, status.pid) == ("adopted", 1, bench.pids()[0])
    assert not note.exists()
    record = bench.folder / "engine.json"
    await bench.until(lambda: json.loads(record.read_text())["kept"] is False)

    bench.page = Page(2.0, 1.0, 7.0)
    bench.supervisor.stop()
    await bench.reach(EngineState.draining)
    await asyncio.sleep(0.2)
    assert not note.exists()
    bench.page = Page(0.0, 0.0, 9.0)
    await bench.ended()
    assert not running(bench.pids()[0])
    assert not record.exists()
    assert len(bench.pids()) == 1


async def test_an_engine_whose_daemon_died_without_wanting_it_kept_is_not_adopted(bench: Bench) -> None:
    bench.start(on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.stop()
    record = bench.folder / "engine.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "kept": False}))
    bench.start(on_exit="keep")
    status = await bench.reach(EngineState.ready)
    assert (status.mode, status.generation, status.restarts) == ("supervised", 2, {})
    assert not running(bench.pids()[0])


async def test_a_kept_engine_with_another_command_finishes_its_requests_and_is_replaced(bench: Bench) -> None:
    note = bench.folder / "term"
    bench.start("--note-term", str(note), on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.stop()
    bench.steer(running=2, waiting=1)
    with structlog.testing.capture_logs() as logs:
        bench.start("--model", "other", on_exit="stop")
        await bench.until(lambda: any(e["event"] == "engine_of_earlier_run_stopped" for e in logs))
        await asyncio.sleep(0.5)
        assert not note.exists()
        bench.steer()
        status = await bench.reach(EngineState.ready)
    assert (status.mode, status.generation, status.models) == ("supervised", 2, ("other",))
    assert note.exists()
    assert not running(bench.pids()[0])
    (told,) = [e for e in logs if e["event"] == "engine_of_earlier_run_stopped"]
    assert (told["pid"], told["found"]) == (bench.pids()[0], "other_command")
    assert any(e["event"] == "engine_of_earlier_run_drained" for e in logs)


async def test_an_engine_with_another_command_is_waited_for_no_longer_than_the_drain_timeout(
    bench: Bench,
) -> None:
    bench.start(on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.stop()
    bench.steer(running=2)
    bench.start("--model", "other", drain_timeout=0.3)
    status = await bench.reach(EngineState.ready)
    assert status.models == ("other",)
    assert not running(bench.pids()[0])


async def test_a_stop_while_an_earlier_engine_drains_leaves_it_where_engines_are_kept(bench: Bench) -> None:
    bench.start(on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.stop()
    bench.steer(running=2)
    bench.start("--model", "other", on_exit="keep")
    await asyncio.sleep(0.3)
    assert await bench.stop() < PATIENCE / 2
    assert running(bench.pids()[0])
    assert (bench.folder / "engine.json").exists()


async def test_a_stop_asked_again_while_the_processes_end_kills_them(bench: Bench) -> None:
    note = bench.folder / "term"
    bench.start("--ignore-term", "--note-term", str(note), kill_timeout=600.0)
    await bench.reach(EngineState.ready)
    bench.supervisor.stop()
    await bench.until(note.exists)
    assert await bench.stop() < PATIENCE / 2
    assert not running(bench.pids()[0])


async def test_two_stops_at_once_still_ask_the_processes_before_they_are_killed(bench: Bench) -> None:
    note = bench.folder / "term"
    bench.start("--note-term", str(note), kill_timeout=600.0)
    await bench.reach(EngineState.ready)
    bench.supervisor.stop()
    await bench.stop()
    assert note.exists()


async def test_counts_and_the_crash_budget_outlive_the_daemon_and_show_before_it_runs(bench: Bench) -> None:
    bench.start(on_exit="keep", crash_limit=3)
    await bench.reach(EngineState.ready)
    for generation in (2, 3):
        os.kill(bench.pids()[-1], signal.SIGKILL)
        await bench.until(lambda g=generation: bench.supervisor.status.generation == g)
        if generation == 2:
            await bench.reach(EngineState.ready)
    saved = bench.supervisor.state()
    await bench.reach(EngineState.ready)
    await bench.abandon()

    bench.block = Block()
    bench.start(on_exit="keep", crash_limit=3, saved=saved)
    assert bench.metric('vllm_exporter_engine_restarts_total{reason="killed"}') == 2
    assert bench.metric('vllm_exporter_engine_crashes_total{reason="killed"}') == 2
    assert bench.supervisor.status.generation == 3
    await bench.reach(EngineState.ready)
    os.kill(bench.pids()[-1], signal.SIGKILL)
    await bench.reach(EngineState.failed)
    assert bench.metric('vllm_exporter_engine_crashes_total{reason="killed"}') >= 2
    await bench.stop()
    assert bench.supervisor.state()["crashes"] == []


async def test_the_record_alone_is_enough_for_restarts_to_show_before_the_daemon_runs(bench: Bench) -> None:
    bench.start(on_exit="keep")
    await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    await bench.reach(EngineState.ready)
    await bench.stop()
    bench.block = Block()
    bench.start(on_exit="keep", saved={"restarts": {"killed": 0, "hang": 4}})
    assert bench.metric('vllm_exporter_engine_restarts_total{reason="killed"}') == 1
    assert bench.metric('vllm_exporter_engine_restarts_total{reason="hang"}') == 4
    await bench.reach(EngineState.ready)
    assert bench.supervisor.status.restarts == {"killed": 1, "hang": 4}


async def test_counts_go_on_where_the_engine_is_stopped_with_the_daemon(bench: Bench) -> None:
    bench.start("--say", "INFO 11-20 10:00:00 [core.py:1] hello")
    await bench.reach(EngineState.ready)
    await bench.stop()
    lines = bench.metric('vllm_exporter_engine_log_lines_total{level="info"}')
    saved = bench.supervisor.state()
    assert lines >= 1
    bench.block = Block()
    bench.start(saved=saved)
    assert bench.metric('vllm_exporter_engine_log_lines_total{level="info"}') == lines
    status = await bench.reach(EngineState.ready)
    assert (status.generation, status.mode) == (2, "supervised")


async def test_output_that_was_counted_before_the_daemon_died_is_not_counted_again(bench: Bench) -> None:
    bench.start(*("--say", "INFO 11-20 10:00:00 [core.py:1] hello") * 5, on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.until(
        lambda: bench.supervisor.state()["counters"]["vllm_exporter_engine_log_lines_total"].get("info") == 5
    )
    saved = bench.supervisor.state()
    await bench.abandon()
    record = bench.folder / "engine.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "output_offset": 0}))
    with structlog.testing.capture_logs() as logs:
        bench.start(*("--say", "INFO 11-20 10:00:00 [core.py:1] hello") * 5, on_exit="keep", saved=saved)
        await bench.reach(EngineState.ready)
        await asyncio.sleep(0.3)
    assert bench.supervisor.status.mode == "adopted"
    assert [e for e in logs if e.get("line") == "hello"] == []


@pytest.mark.parametrize("became", ["folder", "nothing"])
async def test_a_kept_engine_is_adopted_although_its_output_cannot_be_read(bench: Bench, became: str) -> None:
    bench.start(on_exit="keep")
    await bench.reach(EngineState.ready)
    await bench.stop()
    (bench.folder / "engine.log").unlink()
    if became == "folder":
        (bench.folder / "engine.log").mkdir()
    bench.start(on_exit="keep")
    status = await bench.reach(EngineState.ready)
    assert (status.mode, status.generation) == ("adopted", 1)


async def test_a_data_folder_that_became_read_only_does_not_end_the_daemon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting the record of a crashed engine raised EROFS, and the daemon ended with the engine."""
    bench.start()
    await bench.reach(EngineState.ready)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", read_only)
    monkeypatch.setattr(tempfile, "tempdir", str(bench.folder.parent))
    monkeypatch.setattr(adoption.os, "open", read_only_open(bench.folder))
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    await bench.reach(EngineState.ready)
    await bench.stop()


def read_only_open(folder: Path) -> Callable[..., int]:
    """`os.open` as it is when nothing under `folder` can be written."""
    real = os.open

    def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more, **named)

    return opened


async def test_a_crash_is_known_counted_and_logged_within_moments_of_the_exit(bench: Bench) -> None:
    took = []
    bench.start(restart_delay=0.01, crash_limit=50)
    for generation in range(1, 4):
        await bench.until(lambda g=generation: bench.supervisor.status.generation == g)
        await bench.reach(EngineState.ready)
        bench.seen.clear()
        killed = time.time()
        os.kill(bench.pids()[-1], signal.SIGKILL)
        await bench.until(lambda: any(s.state is EngineState.backoff for _, s in bench.seen))
        took.append(next(at for at, s in bench.seen if s.state is EngineState.backoff) - killed)
    assert min(took) < 0.05


async def test_an_engine_is_not_left_behind_when_the_supervisor_is_cancelled(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.ready)
    await bench.close()
    assert not running(bench.pids()[0])
