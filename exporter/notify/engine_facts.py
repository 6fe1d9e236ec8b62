"""What the daemon knows of its engine, for messages: why it ended, and what it said last.

An alert about the engine says that something is wrong; these say what. Texts are masked and short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from exporter.engine.output.logfile import read_tail
from exporter.engine.secrets import mask
from exporter.engine.status import EngineStatus
from exporter.notify.last_words import last_lines
from exporter.storage.model import Labels

ABOUT_THE_ENGINE = frozenset(
    {
        "VLLMEngineCrashed",
        "VLLMEngineDown",
        "VLLMEngineFailed",
        "VLLMEngineRestarting",
        "VLLMEngineUnresponsive",
    }
)
"""Alerts of `rules/engine.rules.yml` that an engine's failure leads to."""
TAIL_BYTES = 32 << 10
"""Of the output that is looked at: little enough to be read in the event loop, out of the page cache."""


class About(Protocol):
    """Who knows the engines: called where an alert begins to fire, and asked for each message."""

    def __call__(self, labels: Labels) -> Mapping[str, str]:
        """Annotations for an alert with these labels."""

    def facts(self) -> dict[str, str]:
        """What a message may say of the box: `engine` and `model`."""


class EngineFacts:
    """Annotations for alerts about the engine; to be called where such an alert begins to fire.

    `output`: the file that the engine writes to, where it is ours. `secrets` are masked, and so is what looks like one.
    """

    def __init__(
        self,
        status: Callable[[], EngineStatus],
        output: Path | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self._status = status
        self._output = output
        self._secrets = tuple(secrets)

    def __call__(self, labels: Labels) -> Mapping[str, str]:
        """`diagnosis` and `last_log`, as far as they are known; nothing for alerts about something else."""
        name = next((value for label, value in labels if label == "alertname"), "")
        if name not in ABOUT_THE_ENGINE:
            return {}
        failure = self._status().last_failure
        said = {
            "diagnosis": "" if failure is None else mask(failure.line, self._secrets),
            "last_log": ""
            if self._output is None
            else last_lines(read_tail(self._output, TAIL_BYTES), self._secrets),
        }
        return {name: text for name, text in said.items() if text}

    def facts(self) -> dict[str, str]:
        """What a message may say of the box: `engine` and `model`."""
        status = self._status()
        facts = {"engine": status.state.value, "model": ", ".join(status.models)}
        return {name: text for name, text in facts.items() if text}


class FactsOfSeveral:
    """The same for several engines, by their names: an alert about an engine has its name as `instance`."""

    def __init__(self, engines: Mapping[str, EngineFacts]) -> None:
        self._engines = dict(engines)

    def __call__(self, labels: Labels) -> Mapping[str, str]:
        """What is known of the engine that the alert is about."""
        name = next((value for label, value in labels if label == "instance"), "")
        engine = self._engines.get(name)
        return {} if engine is None else engine(labels)

    def facts(self) -> dict[str, str]:
        """How each engine is, and every model once."""
        each = {name: engine.facts() for name, engine in self._engines.items()}
        models = dict.fromkeys(model for facts in each.values() if (model := facts.get("model")))
        facts = {
            "engine": ", ".join(f"{name} {facts['engine']}" for name, facts in each.items()),
            "model": ", ".join(models),
        }
        return {name: text for name, text in facts.items() if text}
