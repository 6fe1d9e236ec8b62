"""The options by which a command finds a running daemon: where it is, its token, how long to wait."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from exporter.web.api.parameters import read_duration

DEFAULT_URL = "http://127.0.0.1:9108"
TOKEN_VARIABLE = "VLLM_EXPORTER_WEB__BEARER_TOKEN"  # noqa: S105  # a name, no secret


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the daemon (default {DEFAULT_URL})")
    parser.add_argument("--token", help=f"bearer token (default: ${TOKEN_VARIABLE}); visible to others in ps")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds the bearer token")
    parser.add_argument("--timeout", default="40s", metavar="DURATION", help="longest wait (default 40s)")


def read_timeout(args: argparse.Namespace) -> float:
    """Seconds; ValueError names the option."""
    timeout = read_duration(args.timeout) / 1000
    if timeout <= 0:
        raise ValueError(f"--timeout {args.timeout}: must be longer than nothing")
    return timeout


def read_token(args: argparse.Namespace) -> str | None:
    """The token, where there is one; ValueError or OSError."""
    if args.token_file is not None:
        if args.token is not None:
            raise ValueError("--token and --token-file: give one of the two")
        token = args.token_file.read_text(encoding="utf-8").strip()
        if not token:
            raise ValueError(f"--token-file {args.token_file} is empty")
    else:
        token = args.token or os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token.isprintable() or not token.isascii():
        raise ValueError("the token has characters that no header takes")
    return token or None
