"""The keys file: TOML, one `[[keys]]` table a key; read whole, checked, and read again when it has changed.

[[keys]]
name = "team-a"
hash = "sha256:…"             # or a list of them, while a key is being replaced
requests_per_minute = 600      # each may be left out: the gateway's own limit; 0: none
tokens_per_minute = 1000000
priority = "batch"             # or "interactive", which it is without
models = ["llama"]             # all without
"""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.errors import ConfigError
from exporter.gateway.keys.check import Keys
from exporter.gateway.keys.key import PREFIX, Key
from exporter.gateway.model import Priority

log = structlog.get_logger(__name__)

FILE_BYTES: Final = 16 << 20
"""Largest file that is read: some 100,000 keys."""
_PRIORITIES: Final = {"interactive": Priority.INTERACTIVE, "batch": Priority.BATCH}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@:/+-]{0,63}$")]
Hash = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Limit = Annotated[int, Field(ge=0, lt=1 << 53, strict=True)]
Model = Annotated[str, Field(min_length=1, max_length=256)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    hash: Hash | Annotated[list[Hash], Field(min_length=1, max_length=8)]
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    models: list[Model] | None = None

    def key(self) -> Key:
        hashes = [self.hash] if isinstance(self.hash, str) else self.hash
        return Key(
            self.name,
            tuple(bytes.fromhex(text.partition(":")[2]) for text in hashes),
            self.requests_per_minute,
            self.tokens_per_minute,
            _PRIORITIES[self.priority],
            None if self.models is None else frozenset(self.models),
        )


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: list[_Entry] = []


def parse_keys(text: str, *, source: str) -> tuple[Key, ...]:
    """The keys of a file's text. Raises ConfigError with every mistake; no message repeats what might be a key."""
    try:
        document = _Document.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{source}: not TOML: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{source}: nested too deep"]) from None
    except ValidationError as error:
        raise ConfigError([f"{source}: {_words(found)}" for found in _distinct(error)]) from None
    keys = tuple(entry.key() for entry in document.keys)
    problems = _clashes(keys)
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    return keys


def _distinct(error: ValidationError) -> Iterable[tuple[str, str]]:
    """Place and message of each mistake; the two ways to write `hash` are one place."""
    found = {}
    for wrong in error.errors(include_url=False, include_input=False, include_context=False):
        place = [str(part) for part in wrong["loc"]]
        if "hash" in place:
            where = ".".join(place[: place.index("hash") + 1])
            found[where] = "expected sha256: and 64 hex digits, as `vllm-exporter keys add` writes it"
        else:
            found[".".join(place)] = wrong["msg"]
    return found.items()


def _words(found: tuple[str, str]) -> str:
    where, what = found
    return f"{where}: {what}" if where else what


def _clashes(keys: Iterable[Key]) -> list[str]:
    names: set[str] = set()
    digests: dict[bytes, str] = {}
    problems = []
    for key in keys:
        if key.name in names:
            problems.append(f"two keys are called {key.name!r}; to replace one give it a list of hashes")
        if key.name.startswith(PREFIX):
            problems.append("the name of a key begins with sk-, as keys do: give it another name")
        names.add(key.name)
        for digest in key.digests:
            if digest in digests:
                problems.append(f"{digests[digest]!r} and {key.name!r} have the same hash")
            digests[digest] = key.name
    return problems


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Blocks; raises ConfigError with every mistake in it."""
    return parse_keys(read_text(path), source=str(path))


def read_text(path: Path) -> str:
    """The file's text. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}: no such file; `vllm-exporter keys add NAME --file {path}` makes the first key"]
        ) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    if len(data) > FILE_BYTES:
        raise ConfigError([f"{path}: longer than {FILE_BYTES} bytes"])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8: {error.reason} at byte {error.start}"]) from None


Stamp = tuple[int, int, int] | None
"""Inode, size and time of change of a file; None when there is none."""


class KeysFile:
    """A keys file that is followed: `keys` are those of its last good state."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises ConfigError."""
        self.path = path
        self._stamp = self._seen = stamp_of(path)
        self.keys = Keys(read_keys(path))

    async def follow(self) -> None:
        """Look whether the file has changed, and read it when it has stayed as it is since the last look.

        To be called every second or two: a file that somebody writes in place is not read half-written.
        """
        stamp = await asyncio.to_thread(stamp_of, self.path)
        if stamp == self._stamp or stamp != self._seen:
            self._seen = stamp
            return
        await self.reload()

    async def reload(self) -> tuple[str, ...]:
        """Read the file now; the mistakes in it. One with mistakes changes nothing, and is told in the log."""
        self._stamp = self._seen = await asyncio.to_thread(stamp_of, self.path)
        try:
            keys = await asyncio.to_thread(read_keys, self.path)
        except ConfigError as error:
            log.warning("gateway_keys_not_reloaded", errors=error.problems, still_good=len(self.keys))
            return tuple(error.problems)
        before = len(self.keys)
        self.keys.replace(keys)
        log.info("gateway_keys_reloaded", keys=len(keys), before=before)
        return ()


def stamp_of(path: Path) -> Stamp:
    """What tells a file's states apart. Blocks for microseconds on a local disk."""
    try:
        found = os.stat(path)  # noqa: PTH116  one call, no object
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
