"""Rate limits as token buckets: requests and tokens a minute, of a key, a client address or a model.

A bucket holds a minute's worth and refills steadily, so whoever was silent may send a minute's worth at once. It is kept as one
number, the moment when it will be full again (the virtual scheduling form of the leaky bucket, ITU-T I.371 Annex A, which
others call GCRA): one that is full is as good as new, and may be forgotten.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Mapping

WINDOW = 60.0
"""Seconds in which an empty bucket fills: limits are per minute."""
CLIENTS_REMEMBERED = 16384
"""Client addresses whose buckets are kept, a quarter of a kilobyte each; beyond, the one not seen for longest is forgotten."""
_ROUNDING = 1e-9


class Bucket:
    """One bucket. Times are seconds of any one monotonic clock."""

    __slots__ = ("_cost", "_full_at")

    def __init__(self, per_minute: int) -> None:
        self._cost = WINDOW / per_minute
        self._full_at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until there is one in it; 0 where there is."""
        wait = self._full_at - now - (WINDOW - self._cost)
        return wait if wait > _ROUNDING else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take some out, and more than there is where it has to be: then it is empty for longer."""
        if self._full_at < now:
            self._full_at = now
        self._full_at += amount * self._cost

    def level(self, now: float) -> float:
        """How much is in it; below zero where too much was taken."""
        return (WINDOW - max(0.0, self._full_at - now)) / self._cost

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._full_at <= now

    def at_rate(self, per_minute: int, now: float) -> Bucket:
        """The same debt under another limit."""
        other = Bucket(per_minute)
        other.take(max(0.0, self._full_at - now) / self._cost, now)
        return other


class Meter:
    """Both buckets of one holder; None where it has no such limit."""

    __slots__ = ("requests", "requests_per_minute", "tokens", "tokens_per_minute")

    def __init__(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.requests = Bucket(requests_per_minute) if requests_per_minute else None
        self.tokens = Bucket(tokens_per_minute) if tokens_per_minute else None

    def wait(self, now: float) -> float:
        """Seconds until a request may pass; 0 where it may now."""
        wait = 0.0 if self.requests is None else self.requests.wait(now)
        return wait if self.tokens is None else max(wait, self.tokens.wait(now))

    def exhausted(self, now: float) -> tuple[str, int]:
        """What a request waits for longest, in OpenAI's words, and how much of it there is a minute."""
        requests = 0.0 if self.requests is None else self.requests.wait(now)
        tokens = 0.0 if self.tokens is None else self.tokens.wait(now)
        if tokens > requests:
            return "tokens per min (TPM)", self.tokens_per_minute
        return "requests per min (RPM)", self.requests_per_minute

    def begin(self, now: float) -> None:
        """A request passes."""
        if self.requests is not None:
            self.requests.take(1.0, now)

    def spend(self, tokens: int, now: float) -> None:
        """A request took so many tokens."""
        if self.tokens is not None:
            self.tokens.take(tokens, now)

    def is_idle(self, now: float) -> bool:
        """Whether it is as good as new."""
        return (self.requests is None or self.requests.is_full(now)) and (
            self.tokens is None or self.tokens.is_full(now)
        )

    def changed(self, requests_per_minute: int, tokens_per_minute: int, now: float) -> Meter:
        """The same holder under other limits: what it owes it still owes."""
        other = Meter(requests_per_minute, tokens_per_minute)
        if self.requests is not None and requests_per_minute:
            other.requests = self.requests.at_rate(requests_per_minute, now)
        if self.tokens is not None and tokens_per_minute:
            other.tokens = self.tokens.at_rate(tokens_per_minute, now)
        return other


class KeyMeters:
    """The meters of API keys, by name. `requests_per_minute`, `tokens_per_minute`: of a key that has no limits of its own."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._meters: dict[str, Meter] = {}

    def of(self, name: str, requests: int | None, tokens: int | None, now: float) -> Meter | None:
        """The meter of a key with these limits (None: the default); None where it has none."""
        requests = self._requests_per_minute if requests is None else requests
        tokens = self._tokens_per_minute if tokens is None else tokens
        meter = self._meters.get(name)
        if meter is None:
            if not requests and not tokens:
                return None
            meter = self._meters[name] = Meter(requests, tokens)
        elif meter.requests_per_minute != requests or meter.tokens_per_minute != tokens:
            meter = self._meters[name] = meter.changed(requests, tokens, now)
        return meter

    def get(self, name: str) -> Meter | None:
        """The meter of a key that was seen before."""
        return self._meters.get(name)

    def forget_idle(self, now: float) -> None:
        """Drop what is as good as new: keys come and go with their file."""
        for name in [name for name, meter in self._meters.items() if meter.is_idle(now)]:
            del self._meters[name]


class ClientMeters:
    """The meters of client addresses; the number of those that are remembered is bounded."""

    def __init__(
        self, requests_per_minute: int, tokens_per_minute: int, *, remembered: int = CLIENTS_REMEMBERED
    ) -> None:
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._remembered = remembered
        self._meters: OrderedDict[str, Meter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, address: str) -> Meter | None:
        """The meter of an address; None where clients have no limits."""
        if not self._requests_per_minute and not self._tokens_per_minute:
            return None
        if ":" in address:
            address = network_of(address)
        meter = self._meters.get(address)
        if meter is None:
            if len(self._meters) >= self._remembered:
                self._meters.popitem(last=False)
            meter = self._meters[address] = Meter(self._requests_per_minute, self._tokens_per_minute)
        else:
            self._meters.move_to_end(address)
        return meter

    def forget_idle(self, now: float) -> None:
        """Drop, from the one not seen for longest on, what is as good as new."""
        while self._meters:
            address, meter = next(iter(self._meters.items()))
            if not meter.is_idle(now):
                return
            del self._meters[address]


def network_of(address: str) -> str:
    """Whom an IPv6 address belongs to: its /64, of which one host may use every address (RFC 6177); an IPv4 address inside
    one is itself. Text that is no address stays as it is.
    """
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def model_meters(requests: Mapping[str, int], tokens: Mapping[str, int]) -> dict[str, Meter]:
    """The meters of the models that have limits, over all clients."""
    return {
        model: Meter(requests.get(model, 0), tokens.get(model, 0))
        for model in requests.keys() | tokens.keys()
    }
