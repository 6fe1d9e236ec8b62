"""`python -m bench`: every benchmark, each in a process of its own so that none warms or burdens the next."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "bench.cycle",
    "bench.scrapers",
    "bench.ingest",
    "bench.rules",
    "bench.restart",
    "bench.daemon",
    "bench.notify",
    "bench.gateway",
)


def main() -> int:
    """Run all; the exit code of the first that fails."""
    for name in BENCHMARKS:
        sys.stdout.write(f"\n== python -m {name}\n")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-m", name], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
