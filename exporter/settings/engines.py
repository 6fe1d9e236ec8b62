"""Several engines under one daemon: `[[engines]]`, each with its name, its GPUs, and what it has of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from exporter.settings.sections import EngineSettings, is_secret

NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""What may name an engine: it is a label, and a folder."""
_GPU = re.compile(r"\d{1,3}|(GPU|MIG)-[0-9a-fA-F/-]+")
_EACH_ITS_OWN = frozenset({"command", "url"})
_OF_A_PROCESS = frozenset({"on_exit"})
"""Options that make no sense for an engine that somebody else runs; what all share is not meant for that one."""


def _split_gpus(value: object) -> object:
    """A string, as the environment gives it, becomes what stands between its commas; a number its digits."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(
        str(one).strip() if isinstance(one, (int, str)) and not isinstance(one, bool) else one
        for one in value
    )


class EngineEntry(EngineSettings):
    """One of several engines; what it does not say, `[engine]` says for all of them."""

    name: str = Field(description="Name of the engine: label `instance` of its series, and its folder.")
    gpus: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_gpus)] = Field(
        (),
        description="GPUs of the engine, as indices (as nvidia-smi counts them) or UUIDs: CUDA_VISIBLE_DEVICES of its process; by default all that the daemon may see.",
    )

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not NAME.fullmatch(value) or not value.strip("."):
            raise ValueError(f"{value!r} is no name: up to 64 letters, digits, `_`, `.` and `-`")
        return value

    @field_validator("gpus")
    @classmethod
    def _are_gpus(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for gpu in value:
            if not _GPU.fullmatch(gpu):
                raise ValueError(f"{gpu!r} is no GPU: give indices such as 0, or UUIDs such as GPU-8f6a…")
        if len(set(value)) != len(value):
            raise ValueError("the same GPU twice")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> EngineEntry:
        if not self.command and not self.url:
            raise ValueError("a command or a url is missing: what starts it, or where it runs")
        if self.gpus and not self.command:
            raise ValueError(
                "gpus needs a command: the GPUs of an engine that somebody else runs are not ours to choose"
            )
        return self


def read_entries(value: object, shared: EngineSettings | None) -> object:
    """The entries as they come, with what `[engine]` says for all; ValueError where the two do not go together.

    `shared` None: `[engine]` has mistakes of its own.
    """
    if isinstance(value, str):  # the environment, `--set`
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"expected a JSON list of engines: {error}") from None
    if not isinstance(value, (list, tuple)):
        raise ValueError("expected a list of engines: [[engines]] in TOML")
    if value and shared is not None and (shared.command or shared.url):
        said = "command (or what follows -- on the command line)" if shared.command else "url"
        raise ValueError(
            f"there is an engine.{said}, too: move it into an entry of [[engines]]; [engine] then holds what all engines share"
        )
    common = {} if shared is None else {key: getattr(shared, key) for key in shared.model_fields_set}
    return tuple(_with_common(one, common) if isinstance(one, Mapping) else one for one in value)


def _with_common(own: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """An entry, and what it does not say of the shared options."""
    left_out = set(_EACH_ITS_OWN)
    for key, option in EngineSettings.model_fields.items():
        if not is_secret(option.annotation):
            continue
        if own.get(key) is not None or own.get(f"{key}_file") is not None:
            left_out |= {key, f"{key}_file"}
        elif common.get(f"{key}_file") is not None:
            left_out.add(key)  # it is read from there again
    if not own.get("command"):
        left_out |= _OF_A_PROCESS
    return {**{key: value for key, value in common.items() if key not in left_out}, **own}


def check_entries(entries: tuple[EngineEntry, ...], instance: str | None) -> tuple[EngineEntry, ...]:
    """The same entries; ValueError where two have one name, or one has the daemon's own `instance`."""
    names = [entry.name for entry in entries]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several engines are named {', '.join(doubles)}: each needs a name of its own")
    if instance in names:
        raise ValueError(f"an engine is named {instance}, as the daemon is in rules.instance")
    folded = [name.casefold() for name in names]
    if len(set(folded)) < len(folded):
        raise ValueError("names of engines differ in more than upper and lower case: each is a folder")
    return entries


def shared_gpus(entries: Iterable[EngineEntry]) -> dict[str, tuple[str, ...]]:
    """GPUs that more than one engine is given, with the engines' names."""
    users: dict[str, list[str]] = {}
    for entry in entries:
        for gpu in entry.gpus:
            users.setdefault(gpu, []).append(entry.name)
    return {gpu: tuple(names) for gpu, names in users.items() if len(names) > 1}
