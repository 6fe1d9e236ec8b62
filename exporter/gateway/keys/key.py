"""One API key: what its holder may do. The key itself is never kept, only its digest.

The digest is plain SHA-256. Slow hashes (bcrypt, scrypt) make up for passwords that people choose; a key of ours is
256 random bits, which nobody finds by trying, so a slow hash would protect nothing and cost each request its time
(OWASP Password Storage Cheat Sheet and NIST SP 800-63B 5.1.1 speak of memorized secrets only).
https://pages.nist.gov/800-63-3/sp800-63b.html
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from exporter.gateway.model import Priority

PREFIX = "sk-"
"""What clients and scanners for leaked secrets know a key by; our own log masks what begins so."""
RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A key by its name. A limit that is None is the gateway's own; 0 is no limit."""

    name: str
    digests: tuple[bytes, ...] = field(default=(), repr=False)
    """SHA-256 of the key; several while one is being replaced by the next."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    priority: Priority = Priority.INTERACTIVE
    """The best that its requests can have."""
    models: frozenset[str] | None = None
    """The only models that it may use; None for all."""

    def may_use(self, model: str) -> bool:
        """Whether requests for this model are let through."""
        return self.models is None or model in self.models


def new_key() -> str:
    """A random key of 256 bits: `sk-` and 43 characters."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest(key: bytes) -> bytes:
    """What is kept of a key: 32 bytes."""
    return hashlib.sha256(key).digest()


def asked_priority(value: bytes) -> Priority | None:
    """What a client's `X-Priority` asks for; None for other words."""
    word = value.strip().lower()
    if word == b"batch":
        return Priority.BATCH
    return Priority.INTERACTIVE if word == b"interactive" else None
