"""All shipped rules over a full head, beside Prometheus with the same groups over the same samples.

    python -m bench.rules [--days 3] [--rounds 5]

The series are those of the daemon's own page beside the mock engine, filled back to `--days`: every second over the
last ten minutes, every five minutes before; recorded series that are read over 30 days lie there for 30 days, every two minutes. Prometheus gets them as blocks
made by promtool. Both then evaluate every group each second, and what they use beyond doing nothing is the cost of one
evaluation. Ours is taken in the process itself, without the daemon around it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

from bench.daemon import exporter, free_port, get, mock_engine, running, steady, wait_for
from exporter.alerting.assembly import assemble
from exporter.alerting.conditions import Conditions
from exporter.alerting.needs import needed
from exporter.alerting.rulefile import load_rules
from exporter.exposition.parse import parse
from exporter.exposition.text import format_series
from exporter.storage.head import Head, Layout
from exporter.storage.model import NAME, Labels
from exporter.storage.retention import Retention

RULES = Path(__file__).parents[1] / "rules"
DAY = 86_400_000
LONG_DAYS = 30


def page_series() -> list[Labels]:
    """The label sets of the daemon's page, as they are stored."""
    with mock_engine(1) as engine_port, tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = exporter(
            "run", "--engine-url", f"http://127.0.0.1:{engine_port}", "--listen", f"127.0.0.1:{port}",
            "--data-dir", folder, "--set", "gpu.source=simulated", "--log-level", "error",
        )  # fmt: skip
        with running(*command):
            wait_for(port, b"vllm_slo_tokens_total")
            time.sleep(2)
            body = get(port)
    assert body is not None
    target = {"job": "vllm-exporter", "instance": "127.0.0.1:9108"}
    return [
        tuple(sorted({**dict(sample.series.labels), **target, NAME: sample.series.name}.items()))
        for sample in parse(body).samples
    ]


def groups_every(seconds: int) -> list[tuple[str, str]]:
    """The shipped rule files with every group at one interval: name and text."""
    found = []
    for path in sorted(RULES.glob("*.rules.yml")):
        text = path.read_text(encoding="utf-8")
        found.append((path.name, re.sub(r"^(\s+interval:).*$", rf"\1 {seconds}s", text, flags=re.MULTILINE)))
    return found


def stamps(now: int, days: float, step: int) -> np.ndarray:
    """Time stamps back from `now`: every `step` ms, and every second of the last ten minutes."""
    recent = np.arange(now - 600_000, now + 1, 1000)
    return np.concatenate([np.arange(recent[0] - int(days * DAY), recent[0], step), recent])


def column(labels: Labels, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values of one series: counters rise and start again now and then, gauges move about."""
    name = dict(labels)[NAME]
    if name.startswith("slo:"):
        return rng.random(len(times)) * 0.02
    if name.endswith(("_total", "_bucket", "_count", "_sum")):
        values = np.cumsum(rng.integers(0, 3, len(times)).astype(float))
        for reset in rng.integers(1, len(times), 3):
            values[reset:] -= values[reset]
        return np.abs(values)
    return np.round(rng.random(len(times)), 3)


def write_openmetrics(path: Path, series: Sequence[tuple[Labels, np.ndarray, np.ndarray]]) -> None:
    """A file for `promtool tsdb create-blocks-from openmetrics`."""
    with path.open("w", encoding="utf-8") as file:
        by_name: dict[str, list[tuple[Labels, np.ndarray, np.ndarray]]] = {}
        for one in series:
            by_name.setdefault(dict(one[0])[NAME], []).append(one)
        for name, members in by_name.items():
            file.write(f"# TYPE {name} unknown\n")
            for labels, times, values in members:
                head = format_series(name, [pair for pair in labels if pair[0] != NAME])
                file.writelines(
                    f"{head} {value!r} {stamp / 1000}\n"
                    for stamp, value in zip(times.tolist(), values.tolist(), strict=True)
                )
        file.write("# EOF\n")


class Ours:
    """The groups over a head in this process."""

    def __init__(self, series: Sequence[tuple[Labels, np.ndarray, np.ndarray]]) -> None:
        groups = [group for name, text in groups_every(1) for group in load_rules(text, name)]
        probe = Head(retention=Retention(3_600_000), memory_limit=1 << 30)
        retention = needed(
            assemble(groups, probe, interval=5.0).groups,
            base_ms=3_600_000,
            recorded_ms=LONG_DAYS * DAY,
            tolerance_ms=3_600_000,
        )
        self.head = Head(retention=retention, memory_limit=1 << 30)
        self.groups = assemble(groups, self.head, interval=5.0).groups
        by_times: dict[int, list[tuple[Labels, np.ndarray, np.ndarray]]] = {}
        for one in series:
            by_times.setdefault(len(one[1]), []).append(one)
        for number, members in enumerate(by_times.values()):
            flags = [
                dict(labels)[NAME].endswith(("_total", "_bucket", "_count", "_sum"))
                for labels, _, _ in members
            ]
            layout = Layout([labels for labels, _, _ in members], flags)
            matrix = np.array([values for _, _, values in members])
            stream = self.head.stream(f"bench-{number}")
            for place, stamp in enumerate(members[0][1].tolist()):
                stream.append(stamp, layout, matrix[:, place])

    def evaluate(self, at: int) -> float:
        """CPU seconds of one evaluation of every group."""
        conditions = Conditions(head=self.head)
        began = time.process_time()
        for group in self.groups:
            group.evaluate(at, conditions)
        return time.process_time() - began


def read_names(ours_text: Sequence[tuple[str, str]]) -> set[str]:
    """Every metric name that the rules mention."""
    return {word for _, text in ours_text for word in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", text)}


def series_for(days: float, now: int) -> list[tuple[Labels, np.ndarray, np.ndarray]]:
    """What the rules read, with its samples: the page's series, and the recorded ones that look back for 30 days."""
    rng = np.random.default_rng(1)
    names = read_names(groups_every(1))
    page = [labels for labels in page_series() if dict(labels)[NAME] in names]
    times = stamps(now, days, 300_000)
    series = [(labels, times, column(labels, times, rng)) for labels in page]
    first = Ours(series)
    first.evaluate(now)
    first.evaluate(now)
    recorded = first.head.series((), now - 1, now)
    long = stamps(now, LONG_DAYS, 120_000)
    for labels in recorded:
        name = dict(labels)[NAME]
        if re.search(
            rf"{re.escape(name)}(?:{{[^}}]*}})?\[30d\]", "".join(text for _, text in groups_every(1))
        ):
            series.append((labels, long[long < now - 1000], column(labels, long[long < now - 1000], rng)))
    return series


def prometheus_evaluating(folder: Path, *, rules: bool, seconds: float) -> float:
    """CPU ms a second of a Prometheus over the blocks in `folder`/data, with all groups at 1 s or none."""
    port = free_port()
    config: dict[str, object] = {"global": {"evaluation_interval": "1s"}}
    if rules:
        for name, text in groups_every(1):
            (folder / name).write_text(text, encoding="utf-8")
        config["rule_files"] = [f"{folder}/*.rules.yml"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    data = folder / ("with" if rules else "without")
    shutil.copytree(folder / "data", data)
    command = (
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=40d", "--log.level=error",
    )  # fmt: skip
    with running(*command, stderr=subprocess.DEVNULL) as process:
        wait_for(port, path="/-/ready")
        return steady(process, seconds, warm_up=4)[0]


def measure(days: float, rounds: int) -> Iterator[str]:
    """Lines of figures."""
    now = int(time.time() * 1000)
    series = series_for(days, now)
    samples = sum(len(times) for _, times, _ in series)
    ours = Ours(series)
    rules = sum(len(group.rules) for group in ours.groups)
    stats = ours.head.stats()
    yield f"{len(ours.groups)} groups, {rules} rules, over {len(series)} series with {samples} samples"
    yield f"  head: {stats.bytes / 1e6:.1f} MB, {stats.bytes / max(1, stats.samples):.1f} bytes a sample"
    ours.evaluate(now)
    costs = [ours.evaluate(now + 1000 * turn) * 1e3 for turn in range(1, 4 * rounds)]
    yield f"  ours: {statistics.median(costs):.2f} ms CPU for one evaluation of all"
    if not shutil.which("promtool") or not shutil.which("prometheus"):
        yield "  no Prometheus here to compare with"
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_openmetrics(folder / "samples.txt", series)
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "samples.txt", folder / "data"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (folder / "samples.txt").unlink()
        idle = prometheus_evaluating(folder, rules=False, seconds=10)
        busy = prometheus_evaluating(folder, rules=True, seconds=20)
    yield f"  Prometheus: {busy - idle:.2f} ms CPU a second for the same (with them {busy:.2f}, without {idle:.2f})"
    yield f"  ours / Prometheus: {statistics.median(costs) / (busy - idle):.2f}  (target 1, aim 0.5)"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.rules", description="All shipped rules over a full head."
    )
    parser.add_argument("--days", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for line in measure(options.days, options.rounds):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
