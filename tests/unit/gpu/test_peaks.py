from __future__ import annotations

from exporter.gpu.peaks import MaskPeak, Peak


def test_before_the_first_reading_there_is_no_peak() -> None:
    assert Peak(15.0).scrape(0.0) is None


def test_a_spike_between_two_rare_scrapes_is_shown_once() -> None:
    peak = Peak(15.0)
    for tick in range(240):
        peak.add(tick / 2, 1.0 if tick == 3 else 0.1)
    assert peak.scrape(120.0) == 1.0
    for tick in range(240, 300):
        peak.add(tick / 2, 0.1)
    assert peak.scrape(150.0) == 0.1


def test_a_second_scraper_does_not_take_the_peak_away_from_the_first() -> None:
    peak = Peak(15.0)
    peak.add(0.0, 0.9)
    for tick in range(1, 20):
        peak.add(tick / 2, 0.1)
        assert peak.scrape(tick / 2) == 0.9
    for tick in range(20, 40):
        peak.add(tick / 2, 0.1)
    assert peak.scrape(20.0) == 0.1


def test_without_a_window_the_peak_is_never_below_the_latest_reading() -> None:
    peak = Peak(0.0)
    peak.add(0.0, 0.7)
    assert peak.scrape(0.0) == 0.7
    assert peak.scrape(5.0) == 0.7


def test_rising_and_falling_values_keep_the_window_exact() -> None:
    peak = Peak(2.0)
    values = [5, 3, 4, 1, 2, 6, 0, 0, 0, 0, 0]
    for tick, value in enumerate(values):
        peak.add(float(tick), value)
        peak.scrape(float(tick))
        assert peak.scrape(float(tick)) == max(values[max(0, tick - 2) : tick + 1])


def test_a_mask_keeps_every_bit_of_the_time() -> None:
    peak = MaskPeak(2.0)
    for tick, mask in enumerate([1, 4, 0, 0, 0, 0]):
        peak.add(float(tick), mask)
    assert peak.scrape(5.0) == 5
    assert peak.scrape(5.0) == 0


def test_a_bit_that_stays_set_stays_in_the_window() -> None:
    peak = MaskPeak(2.0)
    for tick in range(10):
        peak.add(float(tick), 4)
    peak.scrape(9.0)
    assert peak.scrape(9.0) == 4


def test_a_look_that_does_not_count_leaves_the_peak_for_the_scrape() -> None:
    peak = Peak(15.0)
    peak.add(0.0, 0.9)
    peak.add(60.0, 0.1)
    assert peak.scrape(60.0, counts=False) == 0.9
    assert peak.scrape(61.0) == 0.9
    assert peak.scrape(62.0) == 0.1


def test_a_look_at_a_mask_that_does_not_count_leaves_its_bits_for_the_scrape() -> None:
    peak = MaskPeak(1.0)
    peak.add(0.0, 4)
    peak.add(60.0, 1)
    assert peak.scrape(60.0, counts=False) == 5
    assert peak.scrape(60.0) == 5
    assert peak.scrape(60.0) == 1
