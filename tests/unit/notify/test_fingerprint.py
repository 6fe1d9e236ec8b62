"""The numbers of label sets."""

from __future__ import annotations

from exporter.notify.fingerprint import fingerprint, show


def test_the_number_is_the_one_of_prometheus_own_test() -> None:
    assert show(fingerprint(())) == "cbf29ce484222325"
    labels = (("fear", "love is not enough"), ("name", "garland, briggs"))
    assert fingerprint(labels) == 5799056148416392346


def test_half_a_surrogate_pair_has_a_number_of_its_own() -> None:
    """It is no text, but labels are whatever somebody sent, and one alert must not stop the others."""
    numbers = {
        fingerprint((("a", text),)) for text in ("\ud800", "\ud801", "", "?", "\N{REPLACEMENT CHARACTER}")
    }
    assert len(numbers) == 5
