"""The commands. Exit codes: 0 done, or stopped as asked; 1 the daemon failed; 2 wrong usage or configuration.

An engine that failed is no exit: the daemon stays to tell of it.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from exporter import __version__
from exporter.errors import ConfigError

EXIT_OK, EXIT_USAGE = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
        if not command:
            return _usage_error("nothing follows --; give the engine's command, such as: -- vllm serve MODEL")
    parser = _parser(arguments)
    args = parser.parse_args(arguments)
    if command and args.command_name != "run":
        return _usage_error(f"{args.command_name} takes no engine command after --")
    try:
        return int(args.function(args, command))
    except ConfigError as error:
        for problem in error.problems:
            print(f"vllm-exporter: {problem}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130


class _Command(Protocol):
    """A module that is a command of its own."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def main(self, args: argparse.Namespace) -> int: ...


def _add_command(parser: argparse.ArgumentParser, module: str, words: str, arguments: Sequence[str]) -> None:
    """A command whose flags cost an import: they are there only when the command line begins with its words."""
    if list(arguments[: len(words.split())]) == words.split():
        command = cast("_Command", importlib.import_module(module))
        command.add_arguments(parser)
        parser.set_defaults(function=lambda args, _command: command.main(args))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The whole command line, as far as these arguments need it."""
    parser = argparse.ArgumentParser(
        prog="vllm-exporter",
        description="Prometheus exporter and supervisor for vLLM.",
        epilog="vllm-exporter run -- vllm serve MODEL starts and supervises an engine; "
        "vllm-exporter run --engine-url http://host:8000 attaches to one.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vllm-exporter {__version__}")
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="supervise an engine, or attach to one, and serve /metrics",
        usage="vllm-exporter run [options] [-- ENGINE COMMAND]",
        allow_abbrev=False,
    )
    _add_run_flags(run)
    run.set_defaults(function=_run)

    demo = commands.add_parser(
        "demo", help="run on the built-in simulator under synthetic traffic", allow_abbrev=False
    )
    _add_run_flags(demo)
    demo.add_argument(
        "--traffic", type=float, default=2.0, metavar="RPS", help="requests a second (default 2)"
    )
    demo.set_defaults(function=_demo)

    simulation = commands.add_parser("simulate", help="be a vLLM look-alike", allow_abbrev=False)
    _add_command(simulation, "exporter.simulator.cli", "simulate", arguments)

    check = commands.add_parser("check", help="check a file", allow_abbrev=False)
    checks = check.add_subparsers(dest="check_name", metavar="WHAT", required=True)
    config = checks.add_parser("config", help="print the effective configuration, or every mistake in it")
    config.add_argument(
        "file", type=Path, nargs="?", help="TOML or YAML file; without it, environment and defaults"
    )
    config.set_defaults(function=_check_config)
    rules = checks.add_parser(
        "rules", help="check rule files, as promtool check rules does", allow_abbrev=False
    )
    _add_command(rules, "exporter.promtool.check", "check rules", arguments)

    test = commands.add_parser("test", help="run tests", allow_abbrev=False)
    tests = test.add_subparsers(dest="test_name", metavar="WHAT", required=True)
    rules = tests.add_parser(
        "rules", help="run unit tests of rule files, as promtool test rules does", allow_abbrev=False
    )
    _add_command(rules, "exporter.promtool.unittest", "test rules", arguments)

    notify = tests.add_parser(
        "notify",
        help="send a marked test alert to the receivers, and say what they answer",
        allow_abbrev=False,
    )
    _add_command(notify, "exporter.notify.commands.test", "test notify", arguments)

    letters = commands.add_parser(
        "notify", help="what waits to be sent, what was given up, and send it again", allow_abbrev=False
    )
    _add_command(letters, "exporter.notify.commands.letters", "notify", arguments)

    keys = commands.add_parser("keys", help="API keys that the gateway checks", allow_abbrev=False)
    _add_command(keys, "exporter.gateway.keys.command", "keys", arguments)

    query = commands.add_parser("query", help="ask a running daemon in PromQL", allow_abbrev=False)
    _add_command(query, "exporter.promtool.query", "query", arguments)

    rule_files = commands.add_parser("rules", help="make rule files", allow_abbrev=False)
    makers = rule_files.add_subparsers(dest="rules_name", metavar="WHAT", required=True)
    generate = makers.add_parser(
        "generate", help="service level objectives into recording and alerting rules", allow_abbrev=False
    )
    _add_command(generate, "exporter.slo.command", "rules generate", arguments)
    return parser


def _rate(text: str) -> float:
    """Requests a second, from 0 to 1000."""
    rate = float(text)
    if not 0 <= rate <= 1000:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1000, got {text}")
    return rate


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    from exporter.settings import FLAGS, option_names

    options = option_names()
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML or YAML file of settings")
    shown: dict[str, dict[str, Any]] = {
        "--listen": {"metavar": "HOST:PORT"},
        "--engine-url": {"metavar": "URL"},
        "--scrape-interval": {"metavar": "SECONDS"},
        "--data-dir": {"metavar": "DIR"},
        "--on-exit": {"metavar": "stop|keep"},
        "--rules": {"metavar": "FILES", "action": "append"},
        "--webhook": {"metavar": "URL", "action": "append"},
        "--log-format": {"metavar": "json|console"},
        "--log-level": {"metavar": "LEVEL"},
    }
    for flag, name in FLAGS.items():
        text = (options[name].description or "").replace("%", "%%")
        parser.add_argument(flag, dest=name, help=text, default=None, **shown[flag])
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="any other setting by its dotted name, such as engine.drain_timeout=60; may be repeated",
    )


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    from exporter.settings import FLAGS

    flags: dict[str, Any] = {}
    for assignment in args.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError([f"flag --set {assignment}: expected SETTING=VALUE"])
        flags[name.strip()] = value
    given = {name: getattr(args, name) for name in FLAGS.values()}
    flags.update({name: value for name, value in given.items() if value is not None})
    for name in ("rules.files", "notify.webhooks"):
        if given[name] is not None:
            flags[name] = tuple(word for text in given[name] for word in shlex.split(text))
    return flags


def _run(args: argparse.Namespace, command: list[str]) -> int:
    from exporter.settings import load_settings

    flags = _flags(args)
    if command:
        flags["engine.command"] = tuple(command)
    settings = load_settings(flags, config=args.config)
    if not settings.engine.command and not settings.engine.url and not settings.engines:
        raise ConfigError(
            [
                "no engine: give its command after --, or --engine-url to attach to one that runs, or several as [[engines]]"
            ]
        )
    from exporter.app import serve

    return serve(settings)


def _demo(args: argparse.Namespace, _command: list[str]) -> int:
    from exporter.demo import clients, clients_url, demo_settings
    from exporter.settings import load_settings

    settings = load_settings(demo_settings(_flags(args)), config=args.config)
    from exporter.app import serve

    with clients(clients_url(settings), requests_per_second=args.traffic):
        return serve(settings)


def _check_config(args: argparse.Namespace, _command: list[str]) -> int:
    from exporter.alerting.files import read_groups
    from exporter.engines import check_ports, watched_engines
    from exporter.gateway.address import Candidate, GatewayOff
    from exporter.gateway.check import check_gateway
    from exporter.notify.receivers.build import load_receivers
    from exporter.settings import load_settings
    from exporter.settings.engines import shared_gpus
    from exporter.settings.show import as_toml

    settings = load_settings(config=args.file)
    # A command that cannot be read is a mistake too, and so is a rule file.
    engines = watched_engines(settings)
    read_groups(settings.rules.files, builtin=settings.rules.builtin)
    load_receivers(settings.notify)
    gateway = check_gateway(settings, [Candidate(engine.id, engine.command) for engine in engines])
    if isinstance(gateway, GatewayOff):
        check_ports(engines, why_no_gateway=gateway.reason)
    for gpu, names in shared_gpus(settings.engines).items():
        print(f"vllm-exporter: GPU {gpu} is given to {' and '.join(names)}", file=sys.stderr)
    if isinstance(gateway, GatewayOff) and gateway.reason:
        print(f"vllm-exporter: the gateway would be off: {gateway.reason}", file=sys.stderr)
    print(as_toml(settings), end="")
    return EXIT_OK


def _usage_error(message: str) -> int:
    print(f"vllm-exporter: {message}", file=sys.stderr)
    return EXIT_USAGE
