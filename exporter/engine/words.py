"""A command line's words, and those of a shell script in it: where the server's own flags begin."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from exporter.errors import ConfigError

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh"})
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", "(", ")", "\n"})
_ENTRY_MODULES = (
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.api_server",
)


def script_place(words: Sequence[str]) -> int | None:
    """Index of the text after `-c` when the words run a shell, `env`-style prefixes included."""
    for index, word in enumerate(words):
        if PurePath(word).name in _SHELLS:
            for place in range(index + 1, len(words)):
                option = words[place]
                if option.startswith("-") and not option.startswith("--") and "c" in option:
                    return place + 1 if place + 1 < len(words) else None
                if not option.startswith("-"):
                    return None
            return None
        if word == "vllm" or word.endswith("/vllm"):
            return None
    return None


def shell_script(words: Sequence[str]) -> str | None:
    """The text after `-c` when the words run a shell."""
    place = script_place(words)
    return None if place is None else words[place]


def shell_words(script: str, environ: Mapping[str, str], variables: dict[str, str]) -> list[str]:
    """The words of the script's command that looks like a server, or of its last command; `$NAME` filled in."""
    commands = shell_commands(script, environ, variables)
    servers = [c for c in commands if server_start(c) or shell_script(c) is not None]
    return (servers or commands or [[]])[-1]


def shell_commands(script: str, environ: Mapping[str, str], variables: dict[str, str]) -> list[list[str]]:
    """The commands of a script in their order, as words; the variables that it sets go into `variables`.

    Raises ConfigError where quotes are left open.
    """
    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise ConfigError([f"engine.command: the shell script cannot be read: {error}"]) from error
    commands: list[list[str]] = [[]]
    known = dict(environ)
    for token in tokens:
        if token in _SEPARATORS or set(token) <= set(";&|()\n"):
            commands.append([])
            continue
        word = _expand(token, known)
        command = commands[-1]
        if ASSIGNMENT.match(word) and (not command or command == ["export"]):
            name, _, value = word.partition("=")
            known[name] = variables[name] = value
        else:
            command.append(word)
    return [c for c in commands if c and c != ["export"]]


_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_]\w*)(?::?-(?P<default>[^}]*))?\}|(?P<bare>[A-Za-z_]\w*))")


def _expand(word: str, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        return environ.get(name) or (match["default"] if match["default"] is not None else match[0])

    return _VARIABLE.sub(value, word)


def server_start(words: Sequence[str]) -> int:
    """Index of the first argument of the server itself; 0 when no known server is named."""
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        if PurePath(word).name == "vllm" and following == "serve":
            return index + 2
        if word == "-m" and following in _ENTRY_MODULES:
            skip = 3 if words[index + 2 : index + 3] == ["serve"] else 2
            return index + skip
        if (word == "-m" and following == "exporter") or PurePath(word).name == "vllm-exporter":
            for place in range(index + 1, len(words)):
                if words[place] == "simulate":
                    return place + 1
    return 0
