"""Which endpoint it is: `webhook[0]` is a place in the configuration, and another may stand there after an edit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from pydantic import SecretStr

from exporter.notify.config.model import Endpoint

ADDRESS = (
    "url",
    "urls",
    "api_url",
    "webhook_url",
    "routing_key",
    "channel",
    "chat_id",
    "message_thread_id",
    "to",
)
"""Options that say who is told. All others, timeouts and passwords among them, may change, and it is the same endpoint."""


def identity(endpoint: Endpoint, key: bytes) -> str:
    """A hash of an endpoint's kind and address, 32 hexadecimal digits; without the key nobody can try addresses against it."""
    options = endpoint.options.model_dump()
    address = {name: options[name] for name in ADDRESS if name in options} or options
    text = json.dumps((endpoint.kind, address), sort_keys=True, default=_revealed)
    return hashlib.blake2b(text.encode(), key=key, digest_size=16).hexdigest()


def identities(endpoints: Iterable[Endpoint], key: bytes) -> dict[tuple[str, str], str]:
    """Of each `(receiver, integration)`."""
    return {(one.receiver, one.integration): identity(one, key) for one in endpoints}


def unchanged(before: Iterable[Endpoint], after: Iterable[Endpoint]) -> set[tuple[str, str]]:
    """Each `(receiver, integration)` that has the same settings in two configurations, secrets included."""
    places = {(one.receiver, one.integration): one for one in before}
    return {key for one in after if places.get(key := (one.receiver, one.integration)) == one}


def _revealed(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
