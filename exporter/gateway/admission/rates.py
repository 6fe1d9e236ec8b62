"""Which rate limits a request is under, whether it may pass them now, and what it costs when it is over."""

from __future__ import annotations

from exporter.gateway.admission import refusals
from exporter.gateway.admission.buckets import ClientMeters, KeyMeters, Meter, model_meters
from exporter.gateway.admission.limits import Limits
from exporter.gateway.model import Exchange, Refusal
from exporter.settings.gateway import GatewaySettings

FORGET_EVERY = 10.0
"""Seconds between two looks for meters that are as good as new."""


class Rates:
    """The meters of all keys, clients and models."""

    __slots__ = ("_clients", "_forgot_at", "_keys", "_models", "charges", "everybody")

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = KeyMeters(settings.requests_per_minute, settings.tokens_per_minute)
        self._clients = ClientMeters(settings.requests_per_minute, settings.tokens_per_minute)
        self._models = model_meters(settings.model_requests_per_minute, settings.model_tokens_per_minute)
        self._forgot_at = float("-inf")
        self.everybody = bool(settings.requests_per_minute or settings.tokens_per_minute or self._models)
        """Whether requests without a key may be under limits."""
        self.charges = bool(settings.tokens_per_minute or settings.model_tokens_per_minute)
        """Whether anybody has a limit of tokens, as far as we have seen."""

    def of(self, exchange: Exchange, limits: Limits | None, now: float) -> tuple[Meter | None, Meter | None]:
        """The meter of whoever asks (a key, or without one an address), and that of the model."""
        by_model = self._models.get(exchange.model)
        if limits is None:
            return self._clients.of(exchange.client), by_model
        own = self._keys.of(limits.name, limits.requests_per_minute, limits.tokens_per_minute, now)
        if own is not None and own.tokens is not None:
            self.charges = True
        return own, by_model

    def charge(self, exchange: Exchange, now: float) -> None:
        """Tokens as the engine told them; of a reply that nobody saw the end of, those that were seen."""
        output = exchange.output_tokens
        tokens = (exchange.input_tokens or 0) + (exchange.tokens_seen if output is None else output)
        if not tokens:
            return
        own = self._clients.of(exchange.client) if exchange.key is None else self._keys.get(exchange.key)
        if own is not None:
            own.spend(tokens, now)
        by_model = self._models.get(exchange.model)
        if by_model is not None:
            by_model.spend(tokens, now)

    def tick(self, now: float) -> None:
        """Forget, now and then, what is as good as new."""
        if now >= self._forgot_at + FORGET_EVERY:
            self._forgot_at = now
            self._keys.forget_idle(now)
            self._clients.forget_idle(now)


def over_limit(own: Meter | None, by_model: Meter | None, exchange: Exchange, now: float) -> Refusal | None:
    """The refusal of whichever limit keeps a request out for longest; None where none does."""
    own_wait = 0.0 if own is None else own.wait(now)
    model_wait = 0.0 if by_model is None else by_model.wait(now)
    if own is not None and own_wait > 0.0 and own_wait >= model_wait:
        whose = "your address" if exchange.key is None else "your API key"
        return refusals.over_limit("rate_limit_exceeded", whose, *own.exhausted(now), own_wait)
    if by_model is not None and model_wait > 0.0:
        whose = f"the model `{exchange.model}`"
        return refusals.over_limit("model_rate_limit_exceeded", whose, *by_model.exhausted(now), model_wait)
    return None
