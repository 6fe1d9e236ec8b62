from __future__ import annotations

from collections.abc import Callable

import pynvml

from exporter.gpu.nvml import NvmlPort
from exporter.gpu.port import GpuUnavailableError
from exporter.gpu.reading import DriverInfo, Snapshot
from exporter.gpu.replay import ReplayLibrary
from exporter.gpu.sampling import OUTAGE_SECONDS, RETRY_SECONDS, RETRY_SECONDS_MAX, Sampling

Install = Callable[..., ReplayLibrary]


def run(sampling: Sampling, start: float, end: float, step: float = 0.5) -> list[Snapshot]:
    return [sampling.step(start + index * step) for index in range(int((end - start) / step))]


def energy(library: ReplayLibrary, millijoules: int, device: int = 0) -> None:
    library.capture["devices"][device]["nvmlDeviceGetFieldValues"]["by"]["83:0"]["value"] = millijoules


def test_a_gpu_that_falls_off_the_bus_is_named_and_the_others_go_on(install: Install) -> None:
    library = install("h100", copies=8)
    sampling = Sampling(NvmlPort())
    assert sampling.step(0.0).reason == "ok"
    library.lost.add(3)
    snapshot = sampling.step(0.5)
    assert snapshot.reason == "gpu_lost"
    assert [one.index for one in snapshot.readings] == [0, 1, 2, 4, 5, 6, 7]
    assert [(one.identity.index, one.reason) for one in snapshot.lost] == [(3, "gpu_lost")]
    # Initialised anew by now, the driver does not even show the GPU; it is still missed.
    for later in run(sampling, 1.0, 20.0):
        assert len(later.readings) == 7
        assert later.reason == "gpu_lost"
    library.lost.clear()
    last = run(sampling, 20.0, 90.0)[-1]
    assert last.reason == "ok"
    assert len(last.readings) == 8


def test_a_lost_gpu_is_looked_for_less_and_less_often(install: Install) -> None:
    library = install("h100", copies=2)
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    library.lost.add(1)
    library.calls.clear()
    run(sampling, 0.5, 600.0)
    assert 8 <= library.calls["nvmlInitWithFlags"] <= 16
    assert library.initialised == 1


def test_the_last_gpu_lost_leaves_a_reason(install: Install) -> None:
    library = install("h100")
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    library.lost.add(0)
    reasons = {one.reason for one in run(sampling, 0.5, 10.0)}
    assert reasons == {"gpu_lost"}
    library.lost.clear()
    assert run(sampling, 10.0, 30.0)[-1].reason == "ok"


def test_after_a_driver_reload_new_handles_are_taken_and_energy_goes_on(install: Install) -> None:
    library = install("h100")
    sampling = Sampling(NvmlPort())
    before = sampling.step(0.0).readings[0].energy_joules
    assert before == 987654.321
    library.reload()
    energy(library, 5_000)
    gone = sampling.step(0.5)
    assert (gone.reason, gone.readings) == ("driver_unloaded", ())
    assert sampling.step(0.5 + RETRY_SECONDS / 2).readings == ()
    back = sampling.step(0.5 + RETRY_SECONDS)
    assert back.reason == "ok"
    assert back.readings[0].energy_joules == before + 5
    energy(library, 7_000)
    assert sampling.step(3.0).readings[0].energy_joules == before + 7


def test_stale_handles_of_a_reloaded_driver_are_noticed_though_no_error_says_so(install: Install) -> None:
    """Another user of the library in this process may have kept it initialised: calls then fail as invalid."""
    library = install("h100")
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    library.reload()
    library.initialised = 1
    snapshot = sampling.step(0.5)
    assert snapshot.reason == "not_answering"
    assert run(sampling, 1.0, 5.0)[-1].reason == "ok"


def test_a_driver_that_comes_later_is_found(install: Install) -> None:
    library = install("h100")
    library.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    sampling = Sampling(NvmlPort())
    early = run(sampling, 0.0, 300.0)
    assert {one.reason for one in early} == {"driver_not_loaded"}
    tries = library.calls["nvmlInitWithFlags"]
    assert 5 <= tries <= 12
    library.init_error = 0
    assert run(sampling, 300.0, 300.0 + RETRY_SECONDS_MAX + 1)[-1].reason == "ok"


def test_what_was_unsupported_is_tried_again_in_a_new_session(install: Install) -> None:
    library = install("h100")
    library.errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    sampling = Sampling(NvmlPort())
    assert sampling.step(0.0).readings[0].power_watts is None
    library.errors.clear()
    library.reload()
    assert run(sampling, 0.5, 5.0)[-1].readings[0].power_watts == 512.345


def test_sessions_are_bracketed_by_their_callbacks(install: Install) -> None:
    library = install("h100")
    seen: list[str] = []
    sampling = Sampling(
        NvmlPort(), on_open=lambda: seen.append("open"), on_close=lambda: seen.append("close")
    )
    sampling.step(0.0)
    library.reload()
    run(sampling, 0.5, 3.0)
    sampling.close()
    sampling.close()
    assert seen == ["open", "close", "open", "close"]
    assert library.initialised == 0


def test_a_port_that_crashes_is_an_outage_and_not_the_end() -> None:
    class Crashing:
        has_events = False
        crashes = True

        def open(self, now: float) -> DriverInfo:
            if self.crashes:
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a name that is none")
            return DriverInfo()

        def read(self, now: float):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError

        def close(self) -> None: ...

    port = Crashing()
    sampling = Sampling(port)  # type: ignore[arg-type]
    assert sampling.step(0.0).reason == "internal_error"
    port.crashes = False
    assert sampling.step(2.0).reason == "internal_error"
    assert sampling.step(2.5).readings == ()


def test_without_a_driver_there_is_nothing_to_do_before_the_next_try() -> None:
    sampling = Sampling(Absent())
    now, steps = 0.0, 0
    while now < 600:
        assert sampling.step(now).reason == "library_not_found"
        assert 0 < sampling.pause(now) <= OUTAGE_SECONDS
        now, steps = now + sampling.pause(now), steps + 1
    assert 600 / OUTAGE_SECONDS <= steps < 150


def test_a_driver_that_answers_leaves_no_pause(install: Install) -> None:
    install("h100")
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    assert sampling.pause(0.0) == 0


class Absent(NvmlPort):
    """A machine without a driver."""

    def open(self, now: float) -> DriverInfo:
        raise GpuUnavailableError("library_not_found", "no such library")
