"""`vllm-exporter keys add` and `keys list`: a new key is shown once, and the file keeps its digest."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.errors import ConfigError
from exporter.gateway.keys.file import parse_keys, read_keys, read_text
from exporter.gateway.keys.key import Key, digest, new_key
from exporter.promtool.table import table

LEAST_LENGTH = 20
"""Characters of a key that is taken over: a shorter one could be found by trying, because the digest is a fast one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands below `keys`."""
    commands = parser.add_subparsers(dest="keys_name", metavar="WHAT", required=True)
    add = commands.add_parser(
        "add", help="make a key, show it once, and add it to the file", allow_abbrev=False
    )
    add.add_argument("name", metavar="NAME", help="what the key is called in metrics and logs")
    add.add_argument(
        "--requests-per-minute",
        type=_limit,
        metavar="N",
        help="limit of this key; 0: none; without: the gateway's",
    )
    add.add_argument(
        "--tokens-per-minute", type=_limit, metavar="N", help="the same for tokens, prompt and reply"
    )
    add.add_argument(
        "--priority",
        choices=("interactive", "batch"),
        help="batch waits behind interactive (default interactive)",
    )
    add.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="a model that it may use; may be repeated; without: all",
    )
    add.add_argument(
        "--stdin",
        action="store_true",
        help="read a key that exists already from standard input, and show nothing",
    )
    listing = commands.add_parser("list", help="the keys by name, with their limits", allow_abbrev=False)
    for command in (add, listing):
        command.add_argument(
            "--file", type=Path, metavar="FILE", help="the keys file (default gateway.keys_file)"
        )
        command.add_argument("--config", type=Path, metavar="FILE", help="settings that name the keys file")


def main(args: argparse.Namespace) -> int:
    """Run one of them. Raises ConfigError with what is wrong with the file or the key."""
    path = args.file or _file_of_settings(args.config)
    return _add(path, args) if args.keys_name == "add" else _list(path)


def _file_of_settings(config: Path | None) -> Path:
    from exporter.settings import load_settings

    path = load_settings(config=config).gateway.keys_file
    if path is None:
        raise ConfigError(["no keys file: give --file, or set gateway.keys_file"])
    return path


def _limit(text: str) -> int:
    limit = int(text)
    if limit < 0:
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text}")
    return limit


def _add(path: Path, args: argparse.Namespace) -> int:
    key = _given_key() if args.stdin else new_key()
    append(
        path,
        entry(
            args.name,
            key,
            requests_per_minute=args.requests_per_minute,
            tokens_per_minute=args.tokens_per_minute,
            priority=args.priority,
            models=args.model,
        ),
    )
    if not args.stdin:
        sys.stdout.write(f"{key}\n")
    shown = "" if args.stdin else "; it is shown this once, its digest is all that is kept"
    sys.stderr.write(f"vllm-exporter: key {args.name} added to {path}{shown}\n")
    return 0


def _given_key() -> str:
    key = sys.stdin.read(4096).strip()
    if (
        len(key) < LEAST_LENGTH
        or len(key) >= 4000
        or not key.isascii()
        or not key.isprintable()
        or " " in key
    ):
        raise ConfigError(
            [f"standard input: expected one key of at least {LEAST_LENGTH} ASCII characters without spaces"]
        )
    return key


def entry(
    name: str,
    key: str,
    *,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    priority: str | None = None,
    models: Sequence[str] | None = None,
) -> str:
    """The `[[keys]]` table of a key. A basic string of TOML is written as JSON writes it."""
    lines = ["[[keys]]", f"name = {_quoted(name)}", f'hash = "sha256:{digest(key.encode()).hex()}"']
    if requests_per_minute is not None:
        lines.append(f"requests_per_minute = {requests_per_minute}")
    if tokens_per_minute is not None:
        lines.append(f"tokens_per_minute = {tokens_per_minute}")
    if priority is not None:
        lines.append(f'priority = "{priority}"')
    if models:
        lines.append(f"models = [{', '.join(map(_quoted, models))}]")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def append(path: Path, made: str) -> None:
    """Add a key's table at the end of the file, which is made if there is none; comments and the file's owner stay.

    Raises ConfigError, and then nothing has changed. Two at once wait for each other; a daemon that follows the file takes
    it when it has stayed as it is for a moment.
    """
    parse_keys(made, source=str(path))
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    with os.fdopen(fd, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = read_text(path)
        gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        parse_keys(before + gap + made, source=str(path))
        size = os.fstat(fd).st_size
        try:
            os.write(fd, (gap + made).encode())
            os.fsync(fd)
        except OSError as error:
            os.ftruncate(fd, size)
            raise ConfigError([f"{path}: {error.strerror}"]) from error


def _list(path: Path) -> int:
    for line in table(HEADINGS, [row(key) for key in read_keys(path)]):
        sys.stdout.write(f"{line}\n")
    return 0


HEADINGS = ("NAME", "PRIORITY", "REQUESTS/MIN", "TOKENS/MIN", "MODELS", "SHA256")


def row(key: Key) -> tuple[str, ...]:
    """A key for people: the first digits of a digest tell which one it is."""
    return (
        key.name,
        key.priority.name.lower(),
        _shown(key.requests_per_minute),
        _shown(key.tokens_per_minute),
        "all" if key.models is None else ", ".join(sorted(key.models)) or "none",
        ", ".join(f"{kept.hex()[:8]}…" for kept in key.digests),
    )


def _shown(limit: int | None) -> str:
    return "default" if limit is None else "none" if limit == 0 else str(limit)
