"""Types of values in receivers' options, each refusing what Alertmanager refuses, without showing what may be secret."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

SECRET_MASK = "<secret>"  # noqa: S105 - what stands in place of one
"""What Alertmanager shows in place of a secret."""
SECRET_URL_MASK = f"http://{SECRET_MASK}"
"""The same where a reader must find a URL: to Alertmanager before 0.26 that of a webhook is no secret."""

DEFAULT_TIMEOUT = 10.0
"""Seconds for one attempt, where the configuration does not say."""

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+")
_GO_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")


def check_url(text: str) -> str:
    """The URL itself; ValueError, which does not show it, where it is no http or https URL with a host."""
    if SECRET_MASK in text:
        raise ValueError(f"{SECRET_MASK} is what stands in place of the secret when a configuration is shown")
    if "{{" in text:
        raise ValueError("a template is not carried out here: expected an http or https URL")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("a URL has no spaces or control characters")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected an http or https URL with a host")
    return text


def _check_secret_url(secret: SecretStr) -> SecretStr:
    check_url(secret.get_secret_value())
    return secret


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text.strip():
        raise ValueError("it is empty")
    if text == SECRET_MASK:
        raise ValueError(f"{SECRET_MASK} is what stands in place of the secret when a configuration is shown")
    return secret


def _seconds(value: object) -> object:
    """Go's durations, such as `1m30s`; a bare number would be nanoseconds to Alertmanager, and is refused."""
    if not isinstance(value, str) or value == "0":
        return value
    if not _GO_DURATION.fullmatch(value):
        raise ValueError("expected a duration with its unit, such as 10s")
    return sum(float(count) * _GO_UNITS[unit] for count, unit in _GO_PART.findall(value))


def _plain(text: str) -> str:
    if "{{" in text:
        raise ValueError("Go templates are not carried out here: say it in plain words, or leave it out")
    return text


def _without_user(text: str) -> str:
    """ValueError for a URL with a user or password in it, which anybody would see who may see the configuration."""
    try:
        held = "@" in urlsplit(text).netloc
    except ValueError:  # its message shows the URL
        held = "@" in text
    if held:
        raise ValueError(
            "a user or password in it would be shown to anybody: take it out (http_config.basic_auth is for it)"
        )
    return text


def refuse_special(path: Path) -> None:
    """OSError where it is no regular file: whoever opens a pipe waits until somebody else does, and a daemon must not."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no file")


def _readable(path: Path) -> Path:
    try:
        refuse_special(path)
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    return path


def _host_and_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536 or not host:
        raise ValueError("expected HOST:PORT, such as smtp.example.org:587")
    return text


Url = Annotated[str, AfterValidator(check_url), AfterValidator(_without_user)]
"""A URL that may be shown."""
SecretUrl = Annotated[SecretStr, AfterValidator(_check_secret_url)]
"""A URL that is a secret, as a webhook's is: whoever has it can post there."""
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Plain = Annotated[str, AfterValidator(_plain)]
"""Text that Alertmanager would take for a Go template; ours has none in it."""
PlainUrl = Annotated[Plain, AfterValidator(_without_user)]
"""A link or a picture, which is handed on as it is, and may be shown."""
Timeout = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0, le=300, allow_inf_nan=False),
    AfterValidator(lambda seconds: seconds or DEFAULT_TIMEOUT),
]
"""Seconds; 0 is the default of 10."""
ReadableFile = Annotated[Path, AfterValidator(_readable)]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
