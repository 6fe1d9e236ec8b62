from __future__ import annotations

from exporter.gpu.energy import GAP_SECONDS, EnergyCounter


def test_the_counter_of_the_device_is_taken_as_it_is() -> None:
    counter = EnergyCounter()
    assert counter.update(0.0, joules=1000.0, watts=300.0) == 1000.0
    assert counter.update(0.5, joules=1150.0, watts=300.0) == 1150.0


def test_a_counter_that_starts_again_goes_on() -> None:
    counter = EnergyCounter()
    counter.update(0.0, joules=1000.0, watts=None)
    assert counter.update(60.0, joules=20.0, watts=None) == 1020.0
    assert counter.update(61.0, joules=30.0, watts=None) == 1030.0


def test_a_counter_that_cannot_be_read_once_loses_and_doubles_nothing() -> None:
    counter = EnergyCounter()
    counter.update(0.0, joules=1000.0, watts=300.0)
    assert counter.update(0.5, joules=None, watts=300.0) == 1000.0
    assert counter.update(1.0, joules=1300.0, watts=300.0) == 1300.0


def test_without_a_counter_power_is_integrated() -> None:
    counter = EnergyCounter()
    assert counter.update(0.0, joules=None, watts=100.0) == 0.0
    assert counter.update(0.5, joules=None, watts=200.0) == 75.0
    assert counter.update(1.0, joules=None, watts=200.0) == 175.0


def test_a_gap_between_power_readings_is_not_guessed() -> None:
    counter = EnergyCounter()
    counter.update(0.0, joules=None, watts=100.0)
    assert counter.update(GAP_SECONDS + 1, joules=None, watts=100.0) == 0.0
    assert counter.update(GAP_SECONDS + 2, joules=None, watts=100.0) == 100.0


def test_a_gpu_that_tells_neither_has_no_energy() -> None:
    assert EnergyCounter().update(0.0, joules=None, watts=None) is None
