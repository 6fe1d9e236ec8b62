"""10,000 alerts at once through the real way: store, rules, dispatcher, outbox on disk, delivery, webhook.

`python -m bench.storm CONFIG ALERTS` is one process, as the daemon is, without an engine; it prints its figures as
JSON. `bench.notify` runs it, so that the sink and the peer burden neither its memory nor its time.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from bench.daemon import resident_mb
from exporter import logs
from exporter.alerting.evaluator import Evaluator
from exporter.exposition.block import Block
from exporter.notify.config.load import load_config
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.intake import Intake
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Context, Notification, Outcome
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import build
from exporter.settings import RuleSettings
from exporter.storage.head import Head, Layout
from exporter.storage.retention import Retention

RULES = """
groups:
  - name: storm
    interval: 1s
    rules:
      - alert: Storm
        expr: load > 0.9
        labels: {severity: critical}
        annotations:
          summary: A host is overloaded
          description: '{{ $labels.instance }} has a load of {{ $value | humanizePercentage }}.'
"""
CLUSTERS = 100
HOUR_MS = 3_600_000


async def storm(config: str, alerts: int, folder: Path) -> dict[str, float]:
    """Every series breaches at once: seconds until the last notification was taken, and what it cost."""
    (folder / "storm.rules.yml").write_text(RULES)
    head = Head(retention=Retention(HOUR_MS), memory_limit=256 << 20)
    layout = Layout(
        [
            (("__name__", "load"), ("cluster", f"c{n % CLUSTERS:02}"), ("instance", f"host-{n:05}:9100"))
            for n in range(alerts)
        ]
    )
    stream = head.stream("scrape")
    settings = RuleSettings(files=(str(folder / "storm.rules.yml"),), builtin=False)
    block = Block()
    evaluator = Evaluator(settings, head, block, external_url="http://127.0.0.1:9108")
    await evaluator.load()

    done = asyncio.Event()
    told = {"alerts": 0, "notifications": 0}
    fired = {"alerts": 0, "at": 0.0}

    def observe(notification: Notification, outcome: Outcome) -> None:
        assert outcome.result == "delivered", outcome
        told["alerts"] += len(notification.alerts)
        told["notifications"] += 1
        if told["alerts"] >= alerts:
            done.set()

    loaded = load_config(config, "storm.yml")
    outbox = Outbox.open(folder / "notify.db")
    metrics = NotifyMetrics(block)
    receivers = {(one.receiver, one.integration): build(one) for one in loaded.endpoints}
    delivery = Delivery(
        receivers,
        outbox,
        context=lambda: Context("http://127.0.0.1:9108", time.time()),
        metrics=metrics,
        observe=observe,
    )
    dispatcher = Dispatcher(loaded, outbox, deliver=delivery.take, metrics=metrics)

    def put(batch: list) -> None:  # type: ignore[type-arg]
        fired["alerts"] += len(batch)
        fired["at"] = time.perf_counter()
        dispatcher.put(batch)

    Intake(evaluator, put, external_url="http://127.0.0.1:9108")  # type: ignore[arg-type]
    tasks = [asyncio.create_task(work) for work in (delivery.run(), dispatcher.run())]

    now = time.time()
    stream.append(round((now - 1) * 1000), layout, np.zeros(alerts))
    await evaluator.tick(now - 1)
    before = resident_mb_now()
    began, cpu = time.perf_counter(), time.process_time()
    stream.append(round(now * 1000), layout, np.ones(alerts))
    await evaluator.tick(now)
    async with asyncio.timeout(60):
        await done.wait()
    ended = time.perf_counter()
    used = time.process_time() - cpu
    assert fired["alerts"] == alerts, fired
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    await outbox.close()
    evaluator.close()
    return {
        "evaluated": fired["at"] - began,
        "sent": ended - began,
        "cpu": used,
        "notifications": told["notifications"],
        "before_mb": before,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def resident_mb_now() -> float:
    """Resident set of this process, in MB."""
    import os

    return resident_mb(os.getpid())


def main() -> None:
    """One storm."""
    config, alerts = sys.argv[1:3]
    logs.configure("text", "error")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(storm(config, int(alerts), Path(folder)))))


if __name__ == "__main__":
    main()
