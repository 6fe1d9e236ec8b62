"""What the page shows of notifications."""

from __future__ import annotations

from exporter.exposition.block import Block
from exporter.notify.metrics import FAMILIES, NotifyMetrics
from exporter.notify.outbox.stats import OutboxStats


def page(block: Block) -> str:
    return block.render(openmetrics=False).decode()


def test_every_family_says_what_it_is_once() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    assert all(name.startswith("vllm_exporter_") for name in names)
    assert all(family.help.endswith(".") for family in FAMILIES)


def test_every_family_can_be_filled() -> None:
    block = Block()
    metrics = NotifyMetrics(block)
    key = ("r", "webhook[0]")
    metrics.endpoints([key])
    metrics.attempted(key, "delivered", 0.2)
    metrics.became(key, "delivered")
    metrics.delayed(key, -3.0)
    metrics.dead_letters(2, dropped=1)
    metrics.received("firing", 3)
    metrics.suppressed("silence", 2)
    metrics.alerts({"active": 4})
    metrics.groups(5)
    metrics.silences({"pending": 1})
    metrics.reloaded(12.0)
    metrics.outbox(OutboxStats(7, {"full": 2}, {"corrupt": 1}, 4096))
    text = page(block)
    assert all(f"# TYPE {family.name} " in text for family in FAMILIES)
    metrics.not_reloaded()
    assert "vllm_exporter_notify_config_last_reload_success 0\n" in page(block)


def test_what_failed_shows_from_the_start_so_that_its_rise_is_seen() -> None:
    block = Block()
    NotifyMetrics(block).endpoints([("chat", "slack[0]"), ("chat", "webhook[0]")])
    text = page(block)
    for outcome in ("delivered", "failed", "dead", "superseded"):
        assert f'vllm_exporter_notifications_total{{receiver="chat",outcome="{outcome}"}} 0\n' in text


def test_an_endpoint_that_goes_takes_its_series_along_and_others_keep_theirs() -> None:
    block = Block()
    metrics = NotifyMetrics(block)
    metrics.endpoints([("a", "webhook[0]"), ("b", "webhook[0]")])
    for receiver in "ab":
        metrics.became((receiver, "webhook[0]"), "failed")
        metrics.attempted((receiver, "webhook[0]"), "retry", 1.0)
        metrics.delayed((receiver, "webhook[0]"), 1.0)
    metrics.endpoints([("b", "webhook[0]")])
    metrics.became(("a", "webhook[0]"), "failed")
    metrics.pending(("a", "webhook[0]"), 3)
    metrics.circuit(("a", "webhook[0]"), "open")
    text = page(block)
    assert 'receiver="a"' not in text
    assert 'vllm_exporter_notifications_total{receiver="b",outcome="failed"} 1\n' in text
