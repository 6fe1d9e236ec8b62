"""A webhook's body by the user's own Jinja template, for consumers that want another shape than Alertmanager's.

The template sees the fields of the payload by their names there (`status`, `alerts`, `commonLabels`, …) and `now` (unix
seconds) and `facts`; a label that an alert has not is empty, as in Alertmanager's templates. It runs sandboxed.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from exporter.errors import ConfigError
from exporter.notify.receivers.blocking import BusyError, Threads
from exporter.notify.receivers.payload import time_text

if TYPE_CHECKING:
    from jinja2 import Environment, Template

BODY_LIMIT = 4 * 1024 * 1024
"""Largest body in bytes that a template may make."""
RENDER_SECONDS = 5.0
"""Longest time that a template may take."""
NAMES = (
    "receiver",
    "status",
    "alerts",
    "groupLabels",
    "commonLabels",
    "commonAnnotations",
    "externalURL",
    "version",
    "groupKey",
    "truncatedAlerts",
    "now",
    "facts",
)
"""What a template can speak of."""


class BodyError(Exception):
    """A template could not be carried out; the message shows neither values nor the template's text.

    `again`: it only took too long.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Body:
    """A compiled template; ConfigError, with the line, for one that cannot be."""

    def __init__(self, source: str, where: str) -> None:
        self._template = _compiled(source, where)
        self._threads = Threads("body", 4)

    async def render(self, values: Mapping[str, Any]) -> bytes:
        """The body in UTF-8, made in a thread: what a template costs is the user's affair, not the loop's.

        Raises:
            BodyError: the template failed, or takes more than `BODY_LIMIT` bytes or `RENDER_SECONDS`.
        """
        given = dict(values)
        try:
            return await self._threads.call(lambda: self._render(given), RENDER_SECONDS)
        except (TimeoutError, BusyError):
            message = f"the body template takes longer than {RENDER_SECONDS:g} s"
            raise BodyError(message, again=True) from None

    def _render(self, values: dict[str, Any]) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            for text in self._template.generate(values):
                pieces.append(text.encode("utf-8", "replace"))
                size += len(pieces[-1])
                if size > BODY_LIMIT:
                    raise BodyError(f"the body template made more than {BODY_LIMIT >> 20} MiB")
        except BodyError:
            raise
        except Exception as error:  # noqa: BLE001 - a template raises what it likes, and the message may hold a value
            raise BodyError(f"the body template failed with {type(error).__name__}") from None
        return b"".join(pieces)


def _compiled(source: str, where: str) -> Template:
    try:
        from jinja2 import TemplateSyntaxError, meta
    except ImportError:
        raise ConfigError(
            [f"{where}: a body template needs Jinja: pip install 'vllm-exporter[notify]'"]
        ) from None
    environment = _environment()
    try:
        tree = environment.parse(source)
        unknown = sorted(meta.find_undeclared_variables(tree) - set(NAMES) - set(environment.globals))
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError([f"{where}: line {error.lineno} of the body template: {error.message}"]) from None
    if unknown:
        raise ConfigError([f"{where}: the body template names {_named(name)}" for name in unknown])
    return template


def _named(name: str) -> str:
    near = get_close_matches(name, NAMES, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMES)}"
    return f"{name!r}, which is not there; {hint}"


@cache
def _environment() -> Environment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        autoescape=False, keep_trailing_newline=True, extensions=("jinja2.ext.do", "jinja2.ext.loopcontrols")
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
    environment.filters["rfc3339"] = time_text
    return environment
