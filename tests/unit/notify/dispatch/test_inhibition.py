from __future__ import annotations

from exporter.notify.config.model import Inhibition
from exporter.notify.dispatch.inhibition import Inhibitor
from exporter.storage.model import Matcher

DOWN = Inhibition(
    (Matcher("alertname", "=", "EngineDown"),),
    (Matcher("alertname", "=~", "Slow|Queue"),),
    ("instance",),
)


def test_an_alert_holds_back_those_that_agree_with_it() -> None:
    inhibitor = Inhibitor([DOWN])
    inhibitor.fires(1, {"alertname": "EngineDown", "instance": "a"})
    assert inhibitor.inhibitor({"alertname": "Slow", "instance": "a"}) == 1
    assert inhibitor.inhibitor({"alertname": "Slow", "instance": "b"}) is None
    assert inhibitor.inhibitor({"alertname": "Hot", "instance": "a"}) is None


def test_a_label_that_both_lack_is_agreed_on() -> None:
    inhibitor = Inhibitor([DOWN])
    inhibitor.fires(1, {"alertname": "EngineDown"})
    assert inhibitor.inhibitor({"alertname": "Slow"}) == 1


def test_it_holds_nothing_back_once_it_has_ended() -> None:
    inhibitor = Inhibitor([DOWN])
    values = {"alertname": "EngineDown", "instance": "a"}
    inhibitor.fires(1, values)
    inhibitor.fires(2, {**values, "gpu": "1"})
    inhibitor.ends(1, values)
    assert inhibitor.inhibitor({"alertname": "Slow", "instance": "a"}) == 2
    inhibitor.ends(2, {**values, "gpu": "1"})
    assert inhibitor.inhibitor({"alertname": "Slow", "instance": "a"}) is None


def test_alerts_that_fit_both_sides_hold_neither_themselves_nor_each_other_back() -> None:
    both = Inhibition((Matcher("severity", "=~", "critical|warning"),), (Matcher("severity", "!=", ""),), ())
    inhibitor = Inhibitor([both])
    inhibitor.fires(1, {"severity": "critical"})
    inhibitor.fires(2, {"severity": "warning"})
    assert inhibitor.inhibitor({"severity": "critical"}) is None
    assert inhibitor.inhibitor({"severity": "warning"}) is None
    assert inhibitor.inhibitor({"severity": "info"}) == 1


def test_an_alert_that_fits_both_sides_is_held_back_by_one_that_does_not() -> None:
    rule = Inhibition((Matcher("severity", "!=", ""),), (Matcher("severity", "=", "warning"),), ())
    inhibitor = Inhibitor([rule])
    inhibitor.fires(1, {"severity": "warning"})
    assert inhibitor.inhibitor({"severity": "warning"}) is None
    inhibitor.fires(2, {"severity": "critical"})
    assert inhibitor.inhibitor({"severity": "warning"}) == 2
