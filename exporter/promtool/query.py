"""`vllm-exporter query EXPR`: an instant or a range, from a running daemon or a Prometheus, as a table or JSON.

Exit codes: 0 there is an answer, 1 there is none, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable

from exporter.promtool import daemon
from exporter.promtool.client import QueryFailed, ask
from exporter.promtool.shown import result_lines
from exporter.web.api.parameters import MAX_POINTS, read_duration, read_time

Reader = Callable[[str], float]
ROWS = 30
"""About how many rows a range has whose step is not given."""
WIDE_COLUMNS = 10_000
"""For what is no terminal: a file has no edge."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("expression", metavar="EXPR", help="what to ask, in PromQL")
    parser.add_argument(
        "--time", metavar="TIME", help="when: unix seconds or RFC 3339; the end of a range (default now)"
    )
    parser.add_argument("--range", metavar="DURATION", help="a range that ends at --time, such as 1h")
    parser.add_argument(
        "--step",
        metavar="DURATION",
        help=f"time between two values of a range (default: about {ROWS} values)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as the API gives it")
    daemon.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Ask, and print."""
    try:
        endpoint, fields = _request(args, now=time.time())
        timeout, token = daemon.read_timeout(args), daemon.read_token(args)
        answer = ask(args.url, endpoint, fields, token=token, timeout=timeout)
    except (ValueError, OSError) as error:
        return _failed(str(error), 2)
    except QueryFailed as error:
        return _failed(str(error), 1)
    for warning in [*answer.get("warnings", ()), *answer.get("infos", ())]:
        sys.stderr.write(f"vllm-exporter: {warning}\n")
    data = answer["data"]
    if args.json:
        lines = [json.dumps(data, ensure_ascii=False, separators=(",", ":"))]
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE_COLUMNS
        lines = result_lines(data, columns=columns)
        if not lines:
            sys.stderr.write("vllm-exporter: no series has a value\n")
    return _print(lines)


def _request(args: argparse.Namespace, *, now: float) -> tuple[str, dict[str, str]]:
    """Endpoint and form; ValueError names the option that is wrong. `now` in unix seconds."""
    moment = now if args.time is None else _option("--time", read_time, args.time) / 1000
    if args.range is None:
        if args.step is not None:
            raise ValueError("--step goes with --range")
        return "query", {"query": args.expression, "time": f"{moment:.3f}"}
    length = _option("--range", read_duration, args.range) / 1000
    if length <= 0:
        raise ValueError(f"--range {args.range}: must be longer than nothing")
    if args.step is None:
        step = max(1.0, math.ceil(length / ROWS))
    else:
        step = _option("--step", read_duration, args.step) / 1000
    if step < 0.001 or length / step > MAX_POINTS:
        raise ValueError(
            f"--step {args.step}: at least a millisecond, and at most {MAX_POINTS} steps in the range"
        )
    return "query_range", {
        "query": args.expression,
        "start": f"{moment - length:.3f}",
        "end": f"{moment:.3f}",
        "step": f"{step:.3f}",
    }


def _option(name: str, read: Reader, text: str) -> float:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _failed(message: str, code: int) -> int:
    sys.stderr.write(f"vllm-exporter: {message}\n")
    return code


def _print(lines: list[str]) -> int:
    try:
        for line in lines:
            sys.stdout.write(line.encode("utf-8", "replace").decode("utf-8") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(f"cannot write the answer: {error.strerror}", 1)
    return 0
