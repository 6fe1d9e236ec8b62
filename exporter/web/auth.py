"""Who may read: a bearer token, compared in constant time."""

from __future__ import annotations

import hmac

from pydantic import SecretStr

OPEN_PATHS = frozenset({"/-/healthy", "/-/ready", "/health", "/rules/RUNBOOK.md"})
"""Answered without a token: for load balancers and orchestrators, and the shipped runbook for whoever follows the link in
a message at night."""


class BearerToken:
    """The token that a request must show; without one configured, every request is welcome."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = None if token is None else token.get_secret_value().encode()

    @property
    def required(self) -> bool:
        """Whether a token is configured."""
        return self._token is not None

    def accepts(self, authorization: str | None) -> bool:
        """Whether this `Authorization` header opens the door (RFC 6750; the scheme's case does not matter)."""
        if self._token is None:
            return True
        scheme, _, shown = (authorization or "").partition(" ")
        shown_bytes = shown.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown_bytes, self._token)
