"""`vllm-exporter notify list|resend`: what a running daemon has not delivered, and sending it again.

Exit codes: 0 done, 1 not done, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from exporter.promtool import daemon
from exporter.promtool.client import QueryFailed, ask_of_daemon
from exporter.promtool.table import printable, table

ENDPOINT = "notifications"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands and their options."""
    commands = parser.add_subparsers(dest="notify_command", metavar="WHAT", required=True)
    listing = commands.add_parser(
        "list", help="show endpoints, waiting notifications and dead letters", allow_abbrev=False
    )
    listing.add_argument("--json", action="store_true", help="print everything as the API gives it")
    daemon.add_arguments(listing)
    again = commands.add_parser("resend", help="send dead letters again", allow_abbrev=False)
    again.add_argument("numbers", metavar="NUMBER", nargs="*", type=_number, help="as `notify list` shows it")
    again.add_argument("--all", action="store_true", help="send every dead letter again")
    daemon.add_arguments(again)


def main(args: argparse.Namespace) -> int:
    """Ask the daemon, and print."""
    try:
        if args.notify_command == "list":
            return _list(args)
        if args.all == bool(args.numbers):
            raise ValueError("give the numbers of dead letters, or --all")
        return _resend(args)
    except (ValueError, OSError) as error:
        return _failed(str(error), 2)
    except QueryFailed as error:
        return _failed(str(error), 1)


def _list(args: argparse.Namespace) -> int:
    data = _ask(args, ENDPOINT)
    if args.json:
        sys.stdout.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")
        return 0
    for line in shown(data):
        sys.stdout.write(line.encode("utf-8", "replace").decode() + "\n")
    return 0


def _resend(args: argparse.Namespace) -> int:
    numbers = args.numbers
    if args.all:
        numbers = sorted(int(letter["number"]) for letter in _ask(args, ENDPOINT)["dead_letters"])
        if not numbers:
            sys.stderr.write("vllm-exporter: there are no dead letters\n")
    code = 0
    for number in numbers:
        try:
            _ask(args, f"{ENDPOINT}/{quote(str(number))}/resend", {})
        except QueryFailed as error:
            code = _failed(f"{number}: {error}", 1)
        else:
            sys.stdout.write(
                f"{number}: it is on its way; `vllm-exporter notify list` says what comes of it\n"
            )
    return code


def shown(data: Mapping[str, Any]) -> list[str]:
    """The answer of the API as tables."""
    lines = table(
        ("RECEIVER", "ENDPOINT", "CIRCUIT", "WAITING", "LAST DELIVERED", "LAST ANSWER"),
        (
            (
                one["receiver"],
                one["integration"],
                one["circuit"].replace("_", " "),
                str(one["waiting"]),
                one["last_delivered"] or "never",
                _answer(one["last_outcome"]),
            )
            for one in data["endpoints"]
        ),
        right=(3,),
    )
    if not data["endpoints"]:
        lines = ["Nobody is told: no endpoint is configured."]
    if problem := data["outbox"]["problem"]:
        lines += [f"The outbox cannot be written ({printable(problem)}): what waits is in memory alone."]
    if waiting := list(_waiting(data["endpoints"])):
        header = (
            "NUMBER",
            "RECEIVER",
            "ENDPOINT",
            "STATUS",
            "ALERTS",
            "ATTEMPTS",
            "NEXT ATTEMPT",
            "LAST ANSWER",
        )
        lines += ["", "Waiting:", *table(header, waiting, right=(0, 4, 5))]
    if letters := [_letter(one) for one in data["dead_letters"]]:
        header = ("NUMBER", "RECEIVER", "ENDPOINT", "STATUS", "ALERTS", "ATTEMPTS", "GIVEN UP", "LAST ANSWER")
        lines += ["", "Dead letters:", *table(header, letters, right=(0, 4, 5))]
    return lines


def _waiting(endpoints: Iterable[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for endpoint in endpoints:
        for one in endpoint["queue"]:
            yield (
                str(one["number"]),
                endpoint["receiver"],
                endpoint["integration"],
                one["status"],
                _alerts(one),
                str(one["attempts"]),
                one["next_attempt"] or "now",
                _answer(one["outcome"]),
            )


def _letter(one: Mapping[str, Any]) -> Sequence[str]:
    return (
        str(one["number"]),
        one["receiver"],
        one["integration"],
        one["status"],
        _alerts(one),
        str(one["attempts"]),
        one["given_up_at"],
        _answer(one["outcome"]),
    )


def _alerts(one: Mapping[str, Any]) -> str:
    names = ", ".join(one["alert_names"])
    return f"{one['alerts']} ({names})" if names else str(one["alerts"])


def _answer(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return "none yet"
    text = str(outcome["detail"])
    return (
        f"{text}: {outcome['answer'][:80]}"
        if outcome["answer"] and outcome["result"] != "delivered"
        else text
    )


def _ask(args: argparse.Namespace, endpoint: str, body: Any = None) -> Any:
    answer = ask_of_daemon(
        args.url, endpoint, body, token=daemon.read_token(args), timeout=daemon.read_timeout(args)
    )
    return answer["data"]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"expected the number of a dead letter, got {text[:40]!r}")
    return int(text)


def _failed(message: str, code: int) -> int:
    sys.stderr.write(f"vllm-exporter: {message}\n")
    return code
