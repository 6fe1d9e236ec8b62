"""What the gateway costs and adds, beside nginx, HAProxy, vllm-router and a plain aiohttp relay in the same run.

    python -m bench.gateway [--rounds 3] [--seconds 1] [--only nginx,…] [--what "a short request,…"]

Each proxy has a core of its own in front of one mock engine, which has another, as have the clients. Rounds go through
all proxies in turn, so that what else the machine does falls on each. CPU is that of the proxy and its children; the
daemon's holds all else that it does: scrapes, rules, storage. Each answer is checked from its first byte to its last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.gateway.proxies import Cores, Proxy, compile_all, engine, found, on_cores, started


class Load(NamedTuple):
    """What clients do: `load.c` says what the numbers are."""

    clients: int
    warm_up: float
    tokens: int = 0
    rate: int = 0
    pause: float = 0.0
    body: int = 0
    traced: int = 0
    seconds: float = 1.0
    """As a multiple of `--seconds`."""


class WrongError(Exception):
    """Answers were not those of the engine."""


class Line(NamedTuple):
    """A figure that is printed of a load; `scale` of what was measured."""

    what: str
    figure: str
    target: float = 0.0
    """At most so many times nginx's; 0 for none."""


LOADS: dict[str, tuple[Load, tuple[Line, ...]]] = {
    "a short request": (
        Load(clients=32, warm_up=0.5),
        (Line("CPU µs a request", "cpu_request", 1.5), Line("requests a second", "requests")),
    ),
    "a short request with a traceparent of its own": (
        Load(clients=32, warm_up=0.5, traced=1), (Line("CPU µs a request", "cpu_request", 1.5),),
    ),
    "a prompt of 100 kB": (Load(clients=8, warm_up=0.5, body=100_000), (Line("CPU µs a request", "cpu_request"),)),
    "streams one after another, 1 client": (
        Load(clients=1, warm_up=0.3, tokens=1),
        (Line("TTFT p50, µs", "ttft_p50"), Line("added p50, µs", "added_p50"), Line("TTFT p99, µs", "ttft_p99")),
    ),
    "streams of 10 tokens at 50/s, 32 clients": (
        Load(clients=32, warm_up=0.6, tokens=10, rate=50, pause=0.04, seconds=4),
        (Line("TTFT p50, µs", "ttft_p50"), Line("added p50, µs", "added_p50", 1.5), Line("TTFT p99, µs", "ttft_p99")),
    ),
    "streams of 10 tokens at 50/s, 256 clients": (
        Load(clients=256, warm_up=0.6, tokens=10, rate=50, pause=0.04),
        (Line("TTFT p50, µs", "ttft_p50"), Line("added p50, µs", "added_p50"), Line("TTFT p99, µs", "ttft_p99")),
    ),
    "256 streams at 20 tokens/s": (
        Load(clients=256, warm_up=1.0, tokens=1_000_000, rate=20, seconds=2),
        (Line("CPU µs a chunk", "cpu_token", 1.5), Line("share of a core", "core")),
    ),
    "256 streams at 100 tokens/s": (
        Load(clients=256, warm_up=1.0, tokens=1_000_000, rate=100), (Line("CPU µs a chunk", "cpu_token"), Line("share of a core", "core")),
    ),
    "32 streams as fast as they are read": (
        Load(clients=32, warm_up=0.5, tokens=1_000_000), (Line("chunks a second", "tokens"), Line("CPU µs a chunk", "cpu_token")),
    ),
    "streams of 100 tokens at 2500/s": (
        Load(clients=8, warm_up=0.5, tokens=100, rate=2500, seconds=2), (Line("CPU µs a chunk", "cpu_token"),),
    ),
    "streams of 10,000 tokens at 2500/s": (
        Load(clients=8, warm_up=0.5, tokens=10_000, rate=2500, seconds=2), (Line("CPU µs a chunk", "cpu_token"),),
    ),
}  # fmt: skip


OF_A_PROXY = frozenset({"cpu_request", "cpu_token", "core", "added_p50"})
"""What a line without a proxy has none of."""
NAME, CELL = 28, 26
"""Widths of what is printed."""


def measure(
    folder: Path, proxy: Proxy, load: Load, seconds: float, cores: frozenset[int]
) -> dict[str, float]:
    """One load on one proxy: figures by name."""
    command = [
        str(folder / "load"),
        *map(str, (proxy.port, load.clients, load.warm_up, seconds * load.seconds, load.tokens, load.rate)),
        *map(str, (load.pause, load.body, load.traced)),
    ]
    with on_cores(command, cores, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"begin\n":
            raise RuntimeError(f"{proxy.name}: the load did not begin")
        before = proxy.cpu()
        text = process.stdout.readline()
        used = proxy.cpu() - before
    result = json.loads(text)
    if result["wrong"]:
        raise WrongError(f"{proxy.name}: {result['wrong']} wrong answers: {result['why']}")
    if not result["tokens"] and not result["requests"]:
        raise RuntimeError(f"{proxy.name}: nothing came")
    took = result["seconds"]
    figures = {
        "requests": result["requests"] / took,
        "tokens": result["tokens"] / took,
        "core": used / took,
    }
    if result["requests"]:
        figures["cpu_request"] = used / result["requests"] * 1e6
    if result["tokens"]:
        figures["cpu_token"] = used / result["tokens"] * 1e6
    for name in ("ttft", "whole"):
        if result[f"{name}_us"]:
            figures[f"{name}_p50"], figures[f"{name}_p99"], _ = result[f"{name}_us"]
    return figures


def report(name: str, lines: Sequence[Line], results: dict[str, list[dict[str, float]]]) -> None:
    """A row for each peer: medians, and their ratios to nginx."""
    middles = {
        peer: {key: statistics.median(one[key] for one in rounds if key in one) for key in rounds[0]}
        for peer, rounds in results.items()
    }
    direct = middles.get("direct", {}).get("ttft_p50")
    for middle in middles.values():
        if direct is not None:
            middle["added_p50"] = middle["ttft_p50"] - direct
    base = middles.get("nginx", {})
    heads = [line.what + (f", ≤ {line.target:g} ×" if line.target else "") for line in lines]
    print(f"\n{name}\n{'':{NAME}}" + "".join(f"  {head:>{CELL}}" for head in heads))
    for peer, middle in middles.items():
        cells = []
        for line in lines:
            value, ours_only = middle.get(line.figure), line.figure in OF_A_PROXY
            if value is None or (peer == "direct" and ours_only):
                cells.append("")
            elif base.get(line.figure):
                cells.append(f"{number(value)} {value / base[line.figure]:6.2f} ×")
            else:
                cells.append(f"{number(value)}         ")
        if any(cells):
            print(f"  {peer:{NAME - 2}}" + "".join(f"  {cell:>{CELL}}" for cell in cells))


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def main() -> None:
    """Everything, in about eight minutes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway", description="The gateway beside other proxies."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round")
    parser.add_argument("--only", help="names of proxies, with commas between")
    parser.add_argument("--what", help="the loads whose names hold one of these words, with commas between")
    parser.add_argument("--vllm-router", help="its program, where it is not on the PATH")
    parser.add_argument(
        "--also", action="append", default=[], help="another one: NAME=COMMAND with {port} and {engine}"
    )
    options = parser.parse_args()
    if not shutil.which("cc"):
        print("left out: there is no C compiler (cc) for the mock engine and the clients")
        return
    peers = found(options.vllm_router, options.also)
    missing = {"nginx", "haproxy", "vllm-router", "LiteLLM"} - set(peers)
    if missing:
        print(f"not here, and left out: {', '.join(sorted(missing))}")
    if options.only:
        peers = {name: make for name, make in peers.items() if name in options.only.split(",")}
    words = options.what.split(",") if options.what else [""]
    loads = {name: load for name, load in LOADS.items() if any(word in name for word in words)}
    cores = Cores.divided()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        compile_all(folder)
        port = stack.enter_context(engine(folder, cores.engine))
        proxies = [Proxy("direct", port, 0)]
        proxies += [
            stack.enter_context(started(name, make, port, cores.proxy)) for name, make in peers.items()
        ]
        print(
            f"one engine, {'a core each for proxy, engine and clients' if cores.proxy else 'cores shared'} of"
            f" {os.cpu_count()}; medians of {options.rounds} rounds, and × nginx"
        )
        for name, (load, lines) in loads.items():
            results: dict[str, list[dict[str, float]]] = {proxy.name: [] for proxy in proxies}
            for number in range(options.rounds):
                turn = number % len(proxies)
                for proxy in proxies[turn:] + proxies[:turn]:
                    if proxy.name not in results:
                        continue
                    try:
                        results[proxy.name].append(measure(folder, proxy, load, options.seconds, cores.load))
                    except WrongError as error:
                        if proxy.name.startswith("vllm-exporter"):
                            raise
                        del results[proxy.name]
                        print(f"\nleft out of {name}: {error}")
            report(name, lines, results)
        print("\nmemory afterwards, MB")
        for proxy in proxies[1:]:
            print(f"  {proxy.name:{NAME - 2}}  {proxy.resident():{CELL - 9}.0f}")


if __name__ == "__main__":
    main()
