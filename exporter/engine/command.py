"""The engine's command line, read as vLLM reads it: where it will listen, with which key, under which model names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from exporter.engine.secrets import is_secret_name, mask, mask_argv
from exporter.engine.words import ASSIGNMENT, server_start, shell_script, shell_words
from exporter.errors import ConfigError

__all__ = ["EngineCommand", "mask", "read_command"]

DEFAULT_PORT = 8000
"""vLLM's `--port` default, https://docs.vllm.ai/en/latest/cli/serve.html."""

_COMMON = frozenset({"auto", "default", "disabled", "empty", "enabled", "false", "none", "null", "true"})
"""Values of `…_KEY` and `…_TOKEN` that are no secret: masking them would garble every line."""
_MANY_VALUES = frozenset({"--api-key", "--served-model-name"})


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """Where a command listens for clients, as its own flags say."""

    host: str
    """`0.0.0.0` where they say nothing, as vLLM has it."""
    port: int
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_asks_clients: bool = False
    """Whether clients need a certificate, too (`--ssl-cert-reqs`)."""

    @property
    def tls(self) -> bool:
        """Whether clients speak HTTPS to it."""
        return bool(self.tls_cert_file or self.tls_key_file)


@dataclass(frozen=True)
class EngineCommand:
    """A command that starts an engine. Neither its `repr` nor `masked_argv` shows a secret."""

    argv: tuple[str, ...] = field(repr=False)
    base_url: str
    api_key: SecretStr | None
    masked_argv: tuple[str, ...]
    served_models: tuple[str, ...]
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Literal secrets that the engine might print, for `mask`."""
    remarks: tuple[str, ...] = ()
    """What is unwise about the command, one line each, for the log."""
    public: PublicAddress | None = None
    """Where clients find it; None where `engine.url` says where it listens, and not the flags."""
    immovable: str = ""
    """Why it cannot listen elsewhere, as far as its flags say; see `exporter.engine.moving`."""
    asked: tuple[str, ...] = field(default=(), repr=False)
    """What the user wrote, where `argv` was made of it with another port."""
    has_priorities: bool = False
    """Whether its scheduler takes requests by `priority` (`--scheduling-policy priority`); otherwise none may be sent."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells this command from another, wherever its engine listens."""
        return self.asked or self.argv

    @property
    def moved(self) -> bool:
        """Whether it listens on a loopback port of our choice."""
        return bool(self.asked)

    @property
    def line(self) -> str:
        """The masked command as one line for a person."""
        return shlex.join(self.masked_argv)


@dataclass
class _Flags:
    """What the innermost command says: flags with their values, positional arguments, variables set before it."""

    program: list[str]
    values: dict[str, list[str]]
    positional: list[str]
    variables: dict[str, str]

    def last(self, flag: str) -> str | None:
        values = self.values.get(flag)
        return values[-1] if values else None


def read_command(
    argv: Sequence[str], environ: Mapping[str, str], *, url: str | None, read_file: Callable[[str], str]
) -> EngineCommand:
    """Read the command that starts the engine.

    `environ` is what the command will inherit, `url` the setting `engine.url`, which wins over the flags;
    `read_file` returns the text of a `--config` file or raises OSError. Raises ConfigError for a command that
    cannot be right, or whose listening address cannot be known.
    """
    argv = tuple(argv)
    if not argv or not argv[0].strip():
        raise ConfigError(
            ["engine.command: empty; write the command after `--`, such as `-- vllm serve MODEL`"]
        )
    if bad := next((a for a in argv if "\0" in a), None):
        raise ConfigError([f"engine.command: {bad!r} contains a NUL byte"])
    flags = _innermost(argv, environ)
    if path := flags.last("--config"):
        try:
            _merge_config(flags, path, read_file)
        except ConfigError:
            if not url:  # with one, the file may be where only the engine sees it, as in a container
                raise
    keys = [key for key in flags.values.get("--api-key", ()) if key]
    if not keys and (key := flags.variables.get("VLLM_API_KEY", environ.get("VLLM_API_KEY"))):
        keys = [key]
    secrets = _secrets(flags, environ, keys)
    remarks = []
    if any(a == "--api-key" or a.startswith(("--api-key=", "--api_key")) for a in argv):
        remarks.append("--api-key shows in the process list; set VLLM_API_KEY in the environment instead")
    public = _public_address(flags) if not url else None
    return EngineCommand(
        argv=argv,
        base_url=_base_url(public) if public is not None else (url or "").rstrip("/"),
        api_key=SecretStr(keys[0]) if keys else None,
        masked_argv=mask_argv(argv, secrets),
        served_models=_served_models(flags),
        secrets=secrets,
        remarks=tuple(remarks),
        public=public,
        immovable=_immovable(flags, url),
        has_priorities=flags.last("--scheduling-policy") == "priority",
    )


def _innermost(argv: tuple[str, ...], environ: Mapping[str, str]) -> _Flags:
    """The flags of the server itself, with wrappers such as `env`, `uv run`, `nice` and `bash -c` taken off."""
    words = list(argv)
    variables: dict[str, str] = {}
    for _ in range(8):  # a shell inside a shell inside …
        script = shell_script(words)
        if script is None:
            break
        words = shell_words(script, {**environ, **variables}, variables)
    start = server_start(words)
    for word in words[:start]:
        if ASSIGNMENT.match(word):
            name, _, value = word.partition("=")
            variables[name] = value
    values, positional = _split_flags(words[start:])
    return _Flags(program=words[:start], values=values, positional=positional, variables=variables)


def _split_flags(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Flags (underscores as dashes, as vLLM takes both) with the values that follow, and what belongs to none."""
    values: dict[str, list[str]] = {}
    positional: list[str] = []
    flag = ""
    taken = 0
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            flag, taken = name.replace("_", "-"), 0
            if flag in _MANY_VALUES:
                values[flag] = []
            values.setdefault(flag, [])
            if equals:
                values[flag].append(value)
                flag = ""
        elif flag and (taken == 0 or flag in _MANY_VALUES):
            values[flag].append(word)
            taken += 1
        else:
            positional.append(word)
    return values, positional


def _merge_config(flags: _Flags, path: str, read_file: Callable[[str], str]) -> None:
    """Add what vLLM's `--config` YAML says; the command line's own flags win."""
    import yaml

    try:
        text = read_file(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([f"engine.command: --config {path}: {reason}"]) from error
    try:
        loaded: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            [f"engine.command: --config {path}: not YAML: {' '.join(str(error).split())}"]
        ) from error
    if loaded is None:
        return
    if not isinstance(loaded, dict):
        raise ConfigError(
            [f"engine.command: --config {path}: expected a mapping of flags, as in `port: 8000`"]
        )
    for key, value in loaded.items():
        flag = "--" + str(key).replace("_", "-")
        if flag in flags.values or value is None or value is False:
            continue
        items = value if isinstance(value, list) else [value]
        flags.values[flag] = [] if value is True else [str(item) for item in items]


def _public_address(flags: _Flags) -> PublicAddress:
    hint = "set engine.url to where it listens"
    if "--uds" in flags.values:
        raise ConfigError(
            [f"engine.command: --uds makes vLLM listen on a Unix socket only; use --port, or {hint}"]
        )
    if "--headless" in flags.values:
        raise ConfigError([f"engine.command: --headless starts no API server to watch; {hint}"])
    port = _port(flags, hint)
    host = (flags.last("--host") or "").strip()
    if "$" in host:
        raise ConfigError([f"engine.command: cannot know the value of --host {host}; {hint}"])
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host in ("", "*"):
        # The simulator is for one machine: it faces the network only when it is told to.
        host = "127.0.0.1" if flags.program[-1:] == ["simulate"] else "0.0.0.0"  # noqa: S104
    return PublicAddress(
        host,
        port,
        flags.last("--ssl-certfile") or None,
        flags.last("--ssl-keyfile") or None,
        (flags.last("--ssl-cert-reqs") or "0") != "0",
    )


def _base_url(public: PublicAddress) -> str:
    host = public.host
    if host == "0.0.0.0":  # noqa: S104  it faces every interface; the daemon talks over loopback
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    scheme = "https" if public.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{public.port}"


def _immovable(flags: _Flags, url: str | None) -> str:
    """Why the engine cannot listen elsewhere, whatever is added to its flags."""
    if url:
        return "engine.url says where it listens, its own flags do not"
    if "--grpc" in flags.values:
        return "--grpc makes it speak gRPC"
    if "--data-parallel-multi-port-external-lb" in flags.values:
        return "--data-parallel-multi-port-external-lb makes it listen on several ports"
    return ""


def _port(flags: _Flags, hint: str) -> int:
    if "--port" not in flags.values:
        return DEFAULT_PORT
    text = flags.last("--port")
    if text is None:
        raise ConfigError(["engine.command: --port needs a number, such as --port 8000"])
    if "$" in text:
        raise ConfigError([f"engine.command: cannot know the value of --port {text}; {hint}"])
    try:
        port = int(text)
    except ValueError:
        raise ConfigError([f"engine.command: --port {text!r} is not a number"]) from None
    if not 1 <= port <= 65535:
        raise ConfigError([f"engine.command: --port {port} is not between 1 and 65535"])
    return port


def _served_models(flags: _Flags) -> tuple[str, ...]:
    if names := flags.values.get("--served-model-name"):
        return tuple(dict.fromkeys(names))
    model = flags.last("--model") or flags.last("--model-tag")
    if model is None and flags.positional and flags.program:
        model = flags.positional[0]
    return (model,) if model else ()


def _secrets(flags: _Flags, environ: Mapping[str, str], keys: Sequence[str]) -> tuple[str, ...]:
    """Literal values that must not be shown, long enough that masking them does not eat ordinary text."""

    def candidates() -> Iterator[str]:
        yield from keys
        for flag, values in flags.values.items():
            if is_secret_name(flag):
                yield from values
        for name, value in (*flags.variables.items(), *environ.items()):
            if is_secret_name(name):
                yield value

    return tuple(dict.fromkeys(v for v in candidates() if len(v) >= 4 and v.lower() not in _COMMON))
