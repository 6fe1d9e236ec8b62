"""The certificates with which the daemon's listeners speak TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from exporter.errors import ConfigError


def server_context(cert: Path | None, key: Path | None, *, section: str) -> ssl.SSLContext | None:
    """A listener's TLS context from its PEM files; None when none are configured.

    `section`: where the options `tls_cert_file` and `tls_key_file` stand. ConfigError names the file at fault.
    """
    if cert is None or key is None:
        return None
    for option, path in (("tls_cert_file", cert), ("tls_key_file", key)):
        _must_be_readable(f"{section}.{option}", path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except _PassphraseError as error:
        raise ConfigError(
            [f"{section}.tls_key_file {key}: the key has a passphrase; give one without (mode 0600)"]
        ) from error
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            problem = f"{section}.tls_key_file {key} is not the key of {section}.tls_cert_file {cert}"
        else:
            problem = (
                f"{section}.tls_cert_file {cert} and {section}.tls_key_file {key}: not a PEM certificate chain and its "
                f"PEM key ({error.reason or error})"
            )
        raise ConfigError([problem]) from error
    return context


def client_context(*, verify: bool) -> ssl.SSLContext:
    """The TLS context of connections to an engine; `verify`: whether its certificate is checked."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _must_be_readable(option: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError([f"{option} {path}: cannot be read: {error.strerror}"]) from error


class _PassphraseError(Exception):
    """OpenSSL asked for a passphrase; nobody sits at this terminal."""


def _no_passphrase() -> str:
    raise _PassphraseError
