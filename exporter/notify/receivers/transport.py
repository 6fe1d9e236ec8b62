"""From `http_config` to what a request takes: headers, TLS and the secrets that no answer may show."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict
from pydantic import SecretStr

from exporter.errors import ConfigError
from exporter.notify.config.receivers import HttpConfig, TlsConfig
from exporter.notify.config.values import DEFAULT_TIMEOUT
from exporter.notify.receivers.http import Transport
from exporter.notify.receivers.masking import Masker, basic

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NOT_OURS_TO_SET = frozenset({"content-length", "transfer-encoding", "connection", "host"})


def transport_of(
    options: HttpConfig,
    where: str,
    *,
    timeout: float,
    urls: Iterable[SecretStr | str] = (),
    secrets: Iterable[SecretStr | None] = (),
    headers: Mapping[str, SecretStr] | None = None,
) -> Transport:
    """How to talk to an endpoint; `headers` and `secrets` are what it has beyond its HTTP options.

    Raises:
        ConfigError: a header that cannot be, a certificate file that is none.
    """
    given: CIMultiDict[str] = CIMultiDict()
    hidden = [one.get_secret_value() for one in secrets if one is not None]
    hidden += _authorize(given, options)
    for name, all_values in options.http_headers.items():
        inner = [secret.get_secret_value() for secret in all_values.secrets]
        hidden += inner
        for value in (*all_values.values, *inner):
            given.add(name, value)
    for name, secret in (headers or {}).items():
        given[name] = secret.get_secret_value()
        hidden.append(given[name])
    problems = [problem for name, value in given.items() if (problem := _header_problem(name, value))]
    if problems:
        raise ConfigError([f"{where}: {problem}" for problem in problems])
    return Transport(
        headers=given,
        tls=tls_of(options.tls_config, where),
        server_name=options.tls_config.server_name or None,
        follow_redirects=options.follow_redirects,
        timeout=timeout or DEFAULT_TIMEOUT,
        masker=Masker(hidden, (url if isinstance(url, str) else url.get_secret_value() for url in urls)),
    )


def tls_of(options: TlsConfig, where: str) -> ssl.SSLContext | bool:
    """How the other side is known; True is the system's own way.

    Raises:
        ConfigError: a file that holds no certificate or key, or a key with a password.
    """
    if not (options.ca_file or options.cert_file or options.insecure_skip_verify):
        return True
    file = options.ca_file
    try:
        context = ssl.create_default_context(cafile=str(file) if file else None)
        file = options.cert_file
        if options.cert_file and options.key_file:
            # OpenSSL would ask on the terminal for the password of a key that has one.
            context.load_cert_chain(options.cert_file, options.key_file, password=lambda: "")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "it cannot be used"
        raise ConfigError([f"{where}: tls_config: {file}: {str(why).lower().replace('_', ' ')}"]) from None
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _authorize(given: CIMultiDict[str], options: HttpConfig) -> list[str]:
    """Set the header by which we say who we are; the secrets in it."""
    if options.basic_auth is not None:
        password = options.basic_auth.password
        text = password.get_secret_value() if password is not None else ""
        code = basic(options.basic_auth.username, text)
        given["Authorization"] = f"Basic {code}"
        return [text, code]
    if options.bearer_token is not None:
        token = options.bearer_token.get_secret_value().strip()
        given["Authorization"] = f"Bearer {token}"
        return [token]
    if options.authorization is not None and options.authorization.credentials is not None:
        token = options.authorization.credentials.get_secret_value().strip()
        given["Authorization"] = f"{options.authorization.type.strip() or 'Bearer'} {token}"
        return [token]
    return []


def _header_problem(name: str, value: str) -> str:
    if not name or not set(name) <= _TOKEN:
        return (
            "the headers: one has a name that cannot be"  # not shown: it may be a secret in the wrong place
        )
    if name.lower() in _NOT_OURS_TO_SET:
        return f"the header {name} is set by the program"
    if any(character != "\t" and not character.isprintable() for character in value):
        return f"the value of the header {name} has a line break or a control character"
    return ""
