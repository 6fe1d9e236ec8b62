"""Pages that evolve as an engine's under load do: a real capture whose counters and histograms move."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

CAPTURE = Path(__file__).parents[1] / "tests" / "data" / "vllm-0.32.0-metrics.txt"

_LE = re.compile(r'le="([^"]*)",?')


def evolving(capture: str, *, engines: int = 1, moving: float = 0.6, seed: int = 1) -> Iterator[bytes]:
    """Endless pages of `engines` ranks; at each step a histogram, counter or gauge moves with the chance `moving`.

    An observation moves the buckets above it, so that of all series about half of `moving` change from page to page.
    """
    rng = random.Random(seed)
    heads: list[str] = []
    values: list[float] = []
    groups: dict[str, list[int]] = defaultdict(list)
    for line in _ranks(capture.splitlines(), engines):
        head, _, text = line.rpartition(" ")
        if not line.startswith("#"):
            group = re.sub(r"_(bucket|count|sum)(?=\{|$)", "", _LE.sub("", head))
            if "_created" not in head and "_info" not in head and "_start_time" not in head:
                groups[group].append(len(heads))
            values.append(float(text))
        else:
            head, text = line, ""
            values.append(0.0)
        heads.append(head)
    printed = [_line(head, value) for head, value in zip(heads, values, strict=True)]
    members = list(groups.values())
    while True:
        yield ("\n".join(printed) + "\n").encode()
        for places in members:
            if rng.random() < moving:
                for place in places[rng.randrange(len(places)) if len(places) > 3 else 0 :]:
                    values[place] += rng.random() if "_sum" in heads[place] else 1.0
                    printed[place] = _line(heads[place], values[place])


def _line(head: str, value: float) -> str:
    return head if head.startswith("#") else f"{head} {value!r}"


def _ranks(lines: list[str], engines: int) -> Iterator[str]:
    """The page with the series of engine 0 repeated for each rank, family by family as the client library prints."""
    family: list[str] = []
    for line in [*lines, "#"]:
        if line.startswith("#"):
            for rank in range(engines):
                for sample in family:
                    if 'engine="0"' in sample:
                        yield sample.replace('engine="0"', f'engine="{rank}"')
                    elif rank == 0:
                        yield sample
            family = []
            if line != "#":
                yield line
        else:
            family.append(line)
