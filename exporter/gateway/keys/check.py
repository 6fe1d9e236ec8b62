"""Whose key a request carries: one digest and one look-up, whatever the number of keys."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from exporter.gateway.keys.key import Key
from exporter.gateway.model import Outcome, Refusal

_SCHEME: Final = b"Bearer "

_MISSING: Final = Refusal(
    401,
    "invalid_request_error",
    "missing_api_key",
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY).",
    Outcome.CLIENT_ERROR,
)
_WRONG: Final = Refusal(
    401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.", Outcome.CLIENT_ERROR
)
_OTHER_SCHEME: Final = Refusal(
    401,
    "invalid_request_error",
    "invalid_api_key",
    "The Authorization header is not of the form Authorization: Bearer YOUR_KEY.",
    Outcome.CLIENT_ERROR,
)


class Keys:
    """The keys that are good at this moment.

    What is compared is the SHA-256 digest of what a client sent. How long that takes tells at most how many bytes of that
    digest are right, and nobody can aim at a digest: there is no way from a digest that is nearly right to a key that is.
    So the look-up may be a dict's. Nothing that a client sent is remembered.
    """

    __slots__ = ("_by_digest", "_by_name")

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.replace(keys)

    def __len__(self) -> int:
        return len(self._by_name)

    def replace(self, keys: Iterable[Key]) -> None:
        """From now on these are the keys; requests that are under way go on."""
        self._by_name = {key.name: key for key in keys}
        self._by_digest = {digest: key for key in self._by_name.values() for digest in key.digests}

    def named(self, name: str | None) -> Key | None:
        """The key of this name; None for none, or where it is no longer good."""
        return self._by_name.get(name) if name is not None else None

    def check(self, authorization: bytes | None, api_key: bytes | None = None) -> Key | Refusal:
        """The key of a request by its `Authorization` header, or else its `x-api-key` (Anthropic's clients); or a 401."""
        if authorization is not None and authorization[:7] == _SCHEME:
            found = self._by_digest.get(sha256(authorization[7:]).digest())
            if found is not None:
                return found
        return self._look_closer(authorization, api_key)

    def _look_closer(self, authorization: bytes | None, api_key: bytes | None) -> Key | Refusal:
        if authorization is None or not authorization.strip():
            if api_key is None or not api_key.strip():
                return _MISSING
            return self._by_digest.get(sha256(api_key.strip()).digest(), _WRONG)
        scheme, _, given = authorization.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            return _OTHER_SCHEME
        if not given.strip():
            return _MISSING
        return self._by_digest.get(sha256(given.strip()).digest(), _WRONG)
