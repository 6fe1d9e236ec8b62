"""One cycle of the daemon (parse, normalise, derive, store, render) beside prometheus_client's parse and print.

    python -m bench.cycle [--pages 60] [--rounds 5]

Both get the same pages of an engine under load, about 30 % of whose series move from page to page: vLLM 0.32's real page
and 32 ranks' worth of it. Rounds are interleaved in one process; figures are medians of CPU time. A cycle of ours ends
with the whole page, ours and the engine's families; the peer prints the engine's alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import islice, pairwise

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bench.pages import CAPTURE, evolving
from exporter.exposition.block import Block
from exporter.exposition.layout import PageReader
from exporter.exposition.page import Page, PassThroughBlock
from exporter.settings import SliSettings
from exporter.sli import Indicators

STAGES = ("parse", "normalise, derive, store", "render text", "render OpenMetrics")


class Ours:
    """The daemon's own path, from the body of a page to the bytes of `/metrics`."""

    def __init__(self) -> None:
        self.reader = PageReader(reserved_prefixes=("vllm_slo_", "vllm_exporter_", "nvidia_gpu_"))
        self.source, block = PassThroughBlock(), Block()
        self.indicators = Indicators(SliSettings(), block, model_limit=64, scrape_interval=1.0)
        self.page = Page((self.source, block))
        self.now = 1_790_000_000.0
        self.samples = self.changed = 0

    def cycle(self, body: bytes) -> tuple[float, ...]:
        """Take in one page and print in both formats; the CPU seconds of each stage."""
        clock = time.process_time
        marks = [clock()]
        row = self.reader.read(body)
        marks.append(clock())
        self.now += 1.0
        self.indicators.apply(row, now=self.now, epoch="bench")
        self.source.show(self.reader.passthrough())
        marks.append(clock())
        self.page.render(openmetrics=False, gzip=False)
        marks.append(clock())
        self.page.render(openmetrics=True, gzip=False)
        marks.append(clock())
        self.samples, self.changed = len(row.values), len(row.changed)
        return tuple(end - start for start, end in pairwise(marks))


class Parsed(Collector):
    """The families that prometheus_client's parser made, for its own printer."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        return self.families


class Peer:
    """prometheus_client: parse a page into families, print them with `generate_latest`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.parsed = Parsed()
        self.registry.register(self.parsed)

    def cycle(self, body: bytes) -> tuple[float, ...]:
        """The CPU seconds of parsing and of printing."""
        begun = time.process_time()
        self.parsed.families = list(text_string_to_metric_families(body.decode()))
        parsed = time.process_time()
        generate_latest(self.registry)
        return parsed - begun, time.process_time() - parsed


def measure(engines: int, pages: int, rounds: int) -> dict[str, object]:
    """Medians over all pages of all rounds, in milliseconds, and the ratios to the peer."""
    source = evolving(CAPTURE.read_text(encoding="utf-8"), engines=engines)
    ours, peer = Ours(), Peer()
    for body in islice(source, 3):  # what is made once per layout, and the peer's own caches
        ours.cycle(body)
        peer.cycle(body)
    mine: list[tuple[float, ...]] = []
    theirs: list[tuple[float, ...]] = []
    moved: list[int] = []
    for _ in range(rounds):
        bodies = list(islice(source, pages))
        mine += _timed(ours.cycle, bodies, lambda: moved.append(ours.changed))
        theirs += _timed(peer.cycle, bodies[: max(3, pages // 10)], lambda: None)
    stages = {name: _median(times[i] for times in mine) for i, name in enumerate(STAGES)}
    text = _median(sum(times[:3]) for times in mine)
    both = _median(sum(times) for times in mine)
    other = _median(sum(times) for times in theirs)
    return {
        "engines": engines,
        "samples": ours.samples,
        "changed": statistics.median(moved) / ours.samples,
        "stages_ms": stages,
        "text_ms": text,
        "both_formats_ms": both,
        "peer_ms": other,
        "peer_parse_ms": _median(times[0] for times in theirs),
        "peer_render_ms": _median(times[1] for times in theirs),
        "ratio_text": other / text,
        "ratio_both_formats": other / both,
    }


def _timed(
    cycle: Callable[[bytes], tuple[float, ...]], bodies: list[bytes], after: Callable[[], None]
) -> Iterator[tuple[float, ...]]:
    gc.collect()
    for body in bodies:
        yield cycle(body)
        after()


def _median(seconds: Iterable[float]) -> float:
    return statistics.median(seconds) * 1e3


def _print(result: dict[str, object]) -> None:
    write = sys.stdout.write
    write(
        f"\n{result['engines']} engine(s): {result['samples']} samples, "
        f"{result['changed']:.0%} of them changed from page to page\n"
    )
    stages = result["stages_ms"]
    assert isinstance(stages, dict)
    for name, value in stages.items():
        write(f"  {name:<28}{value:9.3f} ms\n")
    write(f"  {'ours, one format':<28}{result['text_ms']:9.3f} ms\n")
    write(f"  {'ours, both formats':<28}{result['both_formats_ms']:9.3f} ms\n")
    write(
        f"  {'prometheus_client':<28}{result['peer_ms']:9.3f} ms"
        f"   (parse {result['peer_parse_ms']:.3f}, generate_latest {result['peer_render_ms']:.3f})\n"
    )
    write(
        f"  the peer takes {result['ratio_text']:.1f} times as long as one format, "
        f"{result['ratio_both_formats']:.1f} times as long as both\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; with `--json`, one object per page size."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cycle", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--pages", type=int, default=60, help="pages a round for one engine; a sixth of them for 32"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", type=int, nargs="*", default=[1, 32])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if not options.json:
        sys.stdout.write(
            f"One cycle, CPU medians; Python {platform.python_version()}, "
            f"prometheus_client {version('prometheus_client')}\n"
        )
    for engines in options.engines:
        pages = options.pages if engines == 1 else max(5, options.pages // 6)
        result = measure(engines, pages, options.rounds)
        if options.json:
            sys.stdout.write(json.dumps(result) + "\n")
        else:
            _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
