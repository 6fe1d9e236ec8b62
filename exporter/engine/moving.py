"""The engine's command with another port, on loopback only: where its own flags stand, `--port` and `--host` are set anew.

The gateway then listens where the engine would have. Where nothing can be changed safely, the answer says why.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePath
from urllib.parse import urlsplit

from exporter.engine.command import EngineCommand
from exporter.engine.process.ports import port_is_free
from exporter.engine.secrets import mask_argv
from exporter.engine.words import script_place, server_start, shell_commands
from exporter.errors import ConfigError

LOOPBACK = "127.0.0.1"

_OWN_NETWORK = frozenset(
    {
        "docker", "podman", "nerdctl", "docker-compose", "ctr", "crictl", "kubectl", "oc", "lxc", "lxc-attach",
        "lxc-execute", "machinectl", "systemd-nspawn", "enroot", "flatpak", "ssh", "srun", "sbatch", "mpirun",
        "mpiexec", "nsenter", "unshare", "bwrap", "firejail", "ip",
    }
)  # fmt: skip
"""Programs that run what follows in a network, or on a machine, where our loopback may not be the engine's."""
_TLS = frozenset({"--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-ciphers"})
_TLS_SWITCHES = frozenset({"--enable-ssl-refresh", "--no-enable-ssl-refresh"})


@dataclass(frozen=True, slots=True)
class Unmovable:
    """Why a command cannot be given another port."""

    reason: str


def moved(command: EngineCommand, port: int) -> EngineCommand | Unmovable:
    """The command that makes the same engine listen on this port of 127.0.0.1, without TLS; or why there is none."""
    if command.immovable:
        return Unmovable(command.immovable)
    public = command.public
    if public is None:
        return Unmovable("its own flags do not say where it listens")
    if public.tls_asks_clients:
        return Unmovable("--ssl-cert-reqs makes it ask clients for certificates, which the gateway does not")
    asked = command.identity
    argv = _with_flags(list(asked), _flags(port, tls=public.tls))
    if isinstance(argv, Unmovable):
        return argv
    return replace(
        command,
        argv=tuple(argv),
        base_url=f"http://{LOOPBACK}:{port}",
        masked_argv=mask_argv(argv, command.secrets),
        asked=asked,
    )


def _flags(port: int, *, tls: bool) -> dict[str, tuple[str, ...]]:
    """By flag what sets it anew. An empty file name is none to vLLM, whatever its `--config` file says."""
    flags: dict[str, tuple[str, ...]] = {"--port": ("--port", str(port)), "--host": ("--host", LOOPBACK)}
    if tls:
        flags |= {flag: (f"{flag}=",) for flag in ("--ssl-keyfile", "--ssl-certfile")}
    return flags


def _with_flags(argv: list[str], flags: Mapping[str, tuple[str, ...]]) -> list[str] | Unmovable:
    place = script_place(argv)
    if place is not None:
        if (stranger := _own_network(argv[:place])) is not None:
            return stranger
        script = _script_with_flags(argv[place], flags)
        return script if isinstance(script, Unmovable) else [*argv[:place], script, *argv[place + 1 :]]
    start = server_start(argv)
    if not start:
        return Unmovable("it names no server whose flags are known, such as `vllm serve`")
    if (stranger := _own_network(argv[:start])) is not None:
        return stranger
    if "--" in argv[start:]:
        return Unmovable("its flags end with --")
    return [*argv[:start], *_set_anew(argv[start:], flags)]


def _script_with_flags(script: str, flags: Mapping[str, tuple[str, ...]]) -> str | Unmovable:
    """The script with flags at its end, where that is the end of the server's own command.

    What the script itself says stays: of two values of a flag vLLM takes the last one.
    """
    text = re.sub(r"[\s;]+$", "", script)
    commands: list[list[str]] = []
    with contextlib.suppress(ConfigError):
        commands = shell_commands(text, {}, {})
    last = commands[-1] if commands else []
    start = server_start(last)
    if not start or text.endswith(("&", "|", "(", ")", "{", "}", "\\")):
        return Unmovable("its shell script does not end with the server's own command")
    if any(server_start(command) for command in commands[:-1]):
        return Unmovable("its shell script starts more than one server")
    if "<<" in text or "`" in text or "--" in last[start:] or any(word.startswith("#") for word in last):
        return Unmovable("its shell script is too intricate to add a flag to")
    stranger = _own_network(last[:start])
    return stranger if stranger is not None else " ".join((text, *chain.from_iterable(flags.values())))


def _own_network(words: Sequence[str]) -> Unmovable | None:
    for word in words:
        name = PurePath(word).name
        if name in _OWN_NETWORK:
            return Unmovable(f"{name} may give it a network of its own")
    return None


def _set_anew(words: Sequence[str], flags: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The server's flags with these values, each where it stood, or else at the end.

    None is just left out: what follows it might then be read as one more value of the flag before it.
    """
    there: list[str] = []
    missing = dict(flags)
    dropping = False
    for word in words:
        flag, equals, _ = word.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else ""
        if flag in flags:
            there += flags[flag]
            missing.pop(flag, None)
        elif flag in _TLS:
            there.append(f"{flag}=")
        elif flag in _TLS_SWITCHES:
            there.append("--ssl-keyfile=")
        elif flag or not dropping:
            there.append(word)
        dropping = (flag in flags or flag in _TLS) and not equals
    return [*there, *chain.from_iterable(missing.values())]


class Berth:
    """A loopback port for an engine: chosen free, and kept from everybody but the engine.

    A vLLM server needs some ten seconds from its start until it binds its port, in which any other program may be given it.
    So it is bound here, and not listened on: Linux lets a socket bind it that sets SO_REUSEADDR, as every server's does, and
    gives it to nobody who asks for any port at all.
    """

    def __init__(self, command: EngineCommand) -> None:
        """Choose a port. Raises ConfigError for a command that cannot be moved, OSError where no port is free."""
        self._asked = command
        self._held: socket.socket | None = None
        self._port: int | None = None
        self._keeps = True
        self.command = self._choose()
        """The command with the present port."""

    def ready(self) -> EngineCommand:
        """The command for a start that follows at once: on the same port, or on another where somebody listens there.

        Blocks for some milliseconds. Raises OSError where no port is free.
        """
        if self._port is None or not port_is_free(LOOPBACK, self._port):
            self.command = self._choose()
        return self.command

    def take(self, base_url: str, *, was_moved: bool) -> EngineCommand:
        """The command of an engine that an earlier daemon started, and that listens there: moved then, or where it would."""
        self.release()
        self._port = None  # the engine after this one gets a port of ours
        command = moved(self._asked, urlsplit(base_url).port or 0) if was_moved else self._asked
        assert isinstance(command, EngineCommand), "it has been moved once"
        self.command = command
        return command

    def distrust(self) -> None:
        """The engine could not have its port: the next one is another, and is not bound here in advance."""
        self.release()
        self._port = None
        self._keeps = False

    def release(self) -> None:
        """Keep the port no longer."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _choose(self) -> EngineCommand:
        self.release()
        held = _free_port()
        port: int = held.getsockname()[1]
        command = moved(self._asked, port)
        if isinstance(command, Unmovable):
            held.close()
            raise ConfigError([f"engine.command: cannot be given another port: {command.reason}"])
        self._port = port
        if self._keeps:
            self._held = held
        else:
            held.close()
        return command


def _free_port() -> socket.socket:
    """A socket on a loopback port that nobody has, which lets a server bind it beside."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind((LOOPBACK, 0))  # without SO_REUSEADDR: nobody else has it bound
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        held.close()
        raise
    return held
