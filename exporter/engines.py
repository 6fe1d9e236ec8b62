"""The engines of this box: one, as ever, or several, each named; what the rest of the daemon asks of all of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import structlog

from exporter.errors import ConfigError
from exporter.settings.engines import shared_gpus
from exporter.state import Part
from exporter.watch import Watch, Watched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.engine.command import EngineCommand
    from exporter.engine.status import EngineStatus
    from exporter.notify.engine_facts import About
    from exporter.settings import EngineSettings, Settings
    from exporter.sli.summary import Summary
    from exporter.web.readiness import EngineGroup

log = structlog.get_logger(__name__)

FOLDER = "engines"
"""In the data folder: a folder for each of several engines."""
_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})


def watched_engines(settings: Settings) -> tuple[Watched, ...]:
    """Which engines the settings name, each with its command as far as it can be read. ConfigError has every mistake."""
    if not settings.engines:
        command = _command(settings.engine, settings.engine.command)
        return (Watched(settings.engine, command, settings.data_dir),)
    found: list[Watched] = []
    problems: list[str] = []
    for entry in settings.engines:
        folder = settings.data_dir / FOLDER / entry.name
        argv = with_gpus(entry.command, entry.gpus, os.environ)
        try:
            command = _command(entry, argv)
        except ConfigError as error:
            named = f"engines[{entry.name}]."
            problems += [
                problem.replace("engine.command", f"{named}command").replace("engine.url", f"{named}url")
                for problem in error.problems
            ]
            continue
        if command is not None and entry.gpus and PurePath(entry.command[0]).name in _CONTAINERS:
            remark = "gpus does not reach into a container: give the container its GPUs by its own flags"
            command = replace(command, remarks=(*command.remarks, remark))
        found.append(Watched(entry, command, folder, name=entry.name, gpus=entry.gpus))
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def stray_folders(settings: Settings) -> tuple[Path, ...]:
    """Folders in which a daemon with other engines may have left records of them."""
    names = {entry.name for entry in settings.engines}
    others = sorted(path for path in (settings.data_dir / FOLDER).glob("*/") if path.name not in names)
    return (settings.data_dir, *others) if names else tuple(others)


def warn_of_shared_gpus(settings: Settings) -> None:
    """Two engines on one GPU may be meant, but then each must be told how much of its memory it may take."""
    for gpu, names in shared_gpus(settings.engines).items():
        log.warning(
            "engines_share_a_gpu",
            gpu=gpu,
            engines=names,
            advice="each takes 90 % of its memory unless --gpu-memory-utilization says less",
        )


def with_gpus(argv: Sequence[str], gpus: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The command on these GPUs alone; indices count as nvidia-smi's do, unless the environment says how they count.

    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
    """
    if not gpus or not argv:
        return tuple(argv)
    variables = [f"CUDA_VISIBLE_DEVICES={','.join(gpus)}"]
    if "CUDA_DEVICE_ORDER" not in environ:
        variables.insert(0, "CUDA_DEVICE_ORDER=PCI_BUS_ID")
    return ("env", *variables, *argv)


def check_ports(engines: Iterable[Watched], *, why_no_gateway: str = "") -> None:
    """ConfigError where two engines would listen on one port, and no gateway moves them apart."""
    users: dict[int, str] = {}
    for engine in engines:
        public = None if engine.command is None else engine.command.public
        if public is None or engine.moves:
            continue
        other = users.setdefault(public.port, engine.name)
        if other != engine.name:
            because = f" ({why_no_gateway})" if why_no_gateway else ""
            raise ConfigError(
                [
                    f"engines: {other} and {engine.name} both listen on port {public.port}, and there is no gateway that gives them ports of their own{because}: give each its own --port, or set gateway.mode"
                ]
            )


def _command(options: EngineSettings, argv: Sequence[str]) -> EngineCommand | None:
    """What an engine's command line says of it; None in attach mode. ConfigError when it cannot be right."""
    if not argv:
        return None
    from exporter.engine.command import read_command

    command = read_command(
        argv,
        os.environ,
        url=options.url,
        read_file=lambda name: Path(name).read_text(encoding="utf-8"),
    )
    if options.api_key is not None:
        key = options.api_key
        command = replace(command, api_key=key, secrets=(*command.secrets, key.get_secret_value()))
    return command


class Engines:
    """All engines under watch; event loop only. `window` of the summary over several, in seconds."""

    def __init__(self, watches: Sequence[Watch], *, window: float) -> None:
        self.watches = tuple(watches)
        self.names = tuple(watch.watched.name for watch in watches)
        """Their labels `instance`; an empty one for the only engine."""
        self.several = self.names != ("",)
        self._by_name = dict(zip(self.names, self.watches, strict=True))
        self._together = None
        self._models: dict[str, frozenset[str]] = {}
        if self.several:
            from exporter.sli.together import Together

            self._together = Together([watch.indicators.report for watch in watches], window=window)
        for watch in watches:
            command = watch.watched.command
            self._models[watch.watched.name] = frozenset(() if command is None else command.served_models)
            self._know(watch.watched.name, watch.engine.status)
            watch.engine.subscribe(self._follower(watch.watched.name))

    def get(self, name: str) -> Watch | None:
        """The engine of this name."""
        return self._by_name.get(name)

    def pids(self) -> frozenset[int]:
        """The processes of all engines."""
        return frozenset().union(*(watch.engine.pids() for watch in self.watches))

    def load(self) -> float:
        """How busy the busiest is, from 0 to 1, for simulated GPUs."""
        return max(watch.load() for watch in self.watches)

    def output_tokens_total(self) -> float | None:
        """Output tokens of all engines over their restarts; None before any page."""
        totals = [watch.indicators.output_tokens_total() for watch in self.watches]
        known = [total for total in totals if total is not None]
        return sum(known) if known else None

    def standing(self) -> EngineStatus | EngineGroup:
        """How the engine is; or how all are, and which models they serve."""
        if not self.several:
            return self.watches[0].engine.status
        from exporter.web.readiness import EngineGroup

        return EngineGroup({name: watch.engine.status for name, watch in self._by_name.items()}, self._models)

    def summary(self) -> Summary:
        """The summary over all engines."""
        return self.watches[0].indicators.summary() if self._together is None else self._together.summary()

    def advance(self, now: float) -> None:
        """A scrape of all engines is over, at `now` in unix seconds."""
        if self._together is not None:
            self._together.advance(now)

    def facts(self) -> About:
        """What messages say of the engines."""
        if not self.several:
            return self.watches[0].facts()
        from exporter.notify.engine_facts import FactsOfSeveral

        return FactsOfSeveral({name: watch.facts() for name, watch in self._by_name.items()})

    def in_words(self) -> str:
        """Every engine's state, in a line for systemd."""
        if not self.several:
            return f"engine {self.watches[0].engine.status.state}"
        states = ", ".join(f"{name} {watch.engine.status.state}" for name, watch in self._by_name.items())
        return f"engines: {states}"

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what the daemon before saved; before anybody is shown the page."""
        for watch in self.watches:
            watch.restore(saved)
        if self._together is not None:
            self._together.restore(saved.get(FOLDER, {}))

    def parts(self) -> tuple[Part, ...]:
        """What `restore` needs in the next daemon."""
        parts = tuple(part for watch in self.watches for part in watch.parts())
        if self._together is not None:
            parts += (Part(FOLDER, self._together.state, self._together.state),)
        return parts

    async def run(self) -> None:
        """Live until all are stopped; one that fails is no other's end."""
        if not self.several:
            await self.watches[0].engine.run()
            return
        async with asyncio.TaskGroup() as tasks:
            for name, watch in self._by_name.items():
                tasks.create_task(_named(name, watch), name=f"engine {name}")

    def stop(self) -> None:
        """Ask all of them for the end, at once."""
        for watch in self.watches:
            watch.engine.stop()

    def close(self) -> None:
        """Give the connections to the engines back."""
        for watch in self.watches:
            watch.scraper.close()

    def _follower(self, name: str) -> Callable[[EngineStatus], None]:
        return lambda status: self._know(name, status)

    def _know(self, name: str, status: EngineStatus) -> None:
        """Remember what an engine serves: one that is down still is where its models are served."""
        if status.models:
            self._models[name] = frozenset(status.models)


async def _named(name: str, watch: Watch) -> None:
    """An engine's life, with its name in each line of the log."""
    with structlog.contextvars.bound_contextvars(engine=name):
        await watch.engine.run()
