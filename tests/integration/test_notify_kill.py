"""`kill -9` at 200 random moments of a script of 50 transitions: the sink has every one, in order.

In every second script the sink turns requests away now and then. What it has turned away may be missing when a newer one
of its group has come; nothing else may.

Several scripts, each cut short about a dozen times; four side by side. How often a kill hit a transaction or a
request under way is counted, so that it is known what was tested.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bad_receiver import BadReceiver, Fault, answers, resets
from notify_life import TRANSITIONS, Marks, transition

from exporter.notify.delivery.pace import Pace

KILLS = 200
SIDE_BY_SIDE = 4
KILLS_PER_SCRIPT = 14
LONGEST_LIFE_SECONDS = 0.08
"""So long that several lives make up a script; it is halved where scripts end too early, and doubled where lives end before they begin."""


class Lives:
    """A process that forks lives; see notify_life."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("notify_life.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._errors: list[str] = []
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._errors.extend, args=(self._process.stderr,))
        self._reader.start()

    def live(self, folder: Path, url: str, seconds: float | None) -> bool:
        """One life; whether it was killed before it had done all."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"folder": str(folder), "url": url, "seconds": seconds}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        assert said == "killed" or said == "done 0", (said, self._errors)
        return said == "killed"

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


def waits_to_be_retried(folder: Path) -> bool:
    """Whether there is something that has failed and is still wanted."""
    try:
        connection = sqlite3.connect(f"{(folder / 'notify.db').as_uri()}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return False  # killed before it was there
    try:
        return bool(connection.execute("SELECT 1 FROM notification WHERE attempts > 0").fetchone())
    except sqlite3.OperationalError:
        return False  # killed before it was whole
    finally:
        connection.close()


def one_script(
    lives: Lives, folder: Path, dice: random.Random, longest: float, *, failing: float
) -> Counter[str]:
    """A script with its kills, to its end; what the kills hit. `failing`: this part of requests is turned away."""
    hits: Counter[str] = Counter()
    marks = Marks.begin(folder / "marks")

    def whim() -> Fault | None:
        faults = (answers(429), answers(500), answers(503, retry_after="0"), resets)
        return dice.choice(faults) if dice.random() < failing else None

    with BadReceiver(delay=lambda: dice.uniform(0.0, 0.004), whim=whim) as sink:
        while hits["kills"] < KILLS_PER_SCRIPT and lives.live(folder, sink.url, dice.uniform(0.0, longest)):
            hits["kills"] += 1
            for field in ("commits", "requests"):
                if marks[field] > marks[f"{field}_ended"]:
                    hits[field] += 1
                    marks[f"{field}_ended"] = marks[field]
            hits["retries"] += waits_to_be_retried(folder)
            hits["midway"] += 0 < marks["transitions"] < TRANSITIONS
        assert not lives.live(folder, sink.url, None), "it took more than a minute"
        told = [one for taken in sink.taken for one in transitions_of(taken.body)]
        turned_away = {one for body in sink.turned_away for one in transitions_of(json.loads(body))}
    expected = {(group, number, "firing" if fires else "resolved") for number, (group, fires) in enumerate(map(transition, range(TRANSITIONS)))}  # fmt: skip
    last = {group: number for group, number, _ in sorted(expected, key=lambda one: one[1])}
    superseded = {one for one in turned_away if one[1] != last[one[0]]}
    assert set(told) <= expected
    assert not expected - set(told) - superseded, f"lost: {sorted(expected - set(told) - superseded)}"
    assert bool(turned_away) == bool(failing)
    for group in {group for group, _, _ in told}:
        numbers = [number for name, number, _ in told if name == group]
        assert numbers == sorted(numbers), f"{group} is out of order: {numbers}"
    hits["told twice"] = len(told) - len(set(told))
    # At most what was in flight comes twice: of a group one, as the order shows, and so many groups at a time.
    assert hits["told twice"] <= hits["kills"] * Pace().parallel
    return hits


def transitions_of(body: Any) -> list[tuple[str, int, str]]:
    """Group, number and status of each alert in a request."""
    return [
        (one["labels"]["group"], int(one["annotations"]["number"]), one["status"]) for one in body["alerts"]
    ]


def lane(number: int, folder: Path, kills: int) -> Counter[str]:
    """One script after another until so many kills are made."""
    dice = random.Random(number)
    lives = Lives()
    total: Counter[str] = Counter()
    longest = LONGEST_LIFE_SECONDS
    try:
        while total["kills"] < kills:
            place = folder / f"{number}-{total['scripts']}"
            place.mkdir()
            hits = one_script(lives, place, dice, longest, failing=0.3 * (total["scripts"] % 2))
            total += hits
            total["scripts"] += 1
            longest = min(1.0, longest * 2) if hits["midway"] < hits["kills"] / 2 else longest
            longest = longest / 2 if hits["kills"] < KILLS_PER_SCRIPT / 2 else longest
    finally:
        lives.end()
    return total


@pytest.mark.timeout(300)
def test_kill_9_at_200_random_moments_loses_nothing_and_keeps_order(tmp_path: Path) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as lanes:
        share = KILLS // SIDE_BY_SIDE
        results = list(lanes.map(lambda number: lane(number, tmp_path, share), range(SIDE_BY_SIDE)))
    total = sum(results, Counter())
    assert total["kills"] >= KILLS
    assert total["midway"] >= KILLS // 4, total
    assert total["commits"] and total["requests"] and total["retries"], total
