"""Pages that move as a busy engine's do: the real capture, its counters counting on."""

from __future__ import annotations

import random
import re
from pathlib import Path

CAPTURE = Path(__file__).parent.parent / "tests" / "data" / "vllm-0.32.0-metrics.txt"


def evolving_pages(*, engines: int = 1, count: int = 20, seed: int = 1) -> list[bytes]:
    """`count` successive pages of `engines` data-parallel ranks; histograms stay consistent, gauges wander."""
    rng = random.Random(seed)
    lines = _multiplied(CAPTURE.read_text(encoding="utf-8").splitlines(), engines)
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    pages = []
    for _ in range(count):
        pages.append(("\n".join(lines) + "\n").encode())
        lines = _moved(lines, types, rng)
    return pages


def _multiplied(lines: list[str], engines: int) -> list[str]:
    out: list[str] = []
    family: list[str] = []
    for line in [*lines, "#"]:
        if line.startswith("#"):
            for engine in range(engines):
                out += [text.replace('engine="0"', f'engine="{engine}"') for text in family]
            family = []
            out += [line] if line != "#" else []
        elif 'engine="0"' in line:
            family.append(line)
        else:
            out.append(line)
    return out


def _moved(lines: list[str], types: dict[str, str], rng: random.Random) -> list[str]:
    out = []
    threshold: dict[str, float] = {}
    for line in lines:
        if line.startswith("#"):
            out.append(line)
            continue
        series, _, text = line.rpartition(" ")
        name = series.partition("{")[0]
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        value = float(text)
        kind = types.get(name) or types.get(family, "gauge")
        if kind == "histogram":
            labels = re.sub(r'[,{]le="[^"]*"', "", series.partition("{")[2])
            key = family + labels.rstrip("}")
            observed = threshold.setdefault(key, rng.choice((0.01, 0.3, 2.5, 20.0, float("inf"))))
            le = re.search(r'le="([^"]*)"', series)
            if name.endswith("_sum"):
                value += 0.123 if observed != float("inf") else 0
            elif observed != float("inf") and (le is None or float(le.group(1)) >= observed):
                value += 3
        elif kind == "counter" and rng.random() < 0.7:
            value += rng.randrange(1, 500)
        elif kind == "gauge" and name.startswith("vllm:num_requests"):
            value = float(rng.randrange(0, 64))
        out.append(f"{series} {value!r}")
    return out
