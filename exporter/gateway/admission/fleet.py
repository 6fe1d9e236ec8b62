"""The engines that requests can go to, which models each serves, and which of them are open at this moment."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from pydantic import SecretStr

SHUN_SECONDS = 5.0
"""How long a backend that refused a connection is left aside while there are others; its supervisor knows better by then."""


class Standing(StrEnum):
    """What a backend is good for."""

    READY = "ready"
    SHAKY = "shaky"
    """It has stopped answering or making progress: picked only when nothing else is there."""
    LOADING = "loading"
    DRAINING = "draining"
    """It finishes what it has and is then stopped, because somebody asked for that; or was."""
    DOWN = "down"
    """Not there; it is being started again, or may come back by itself."""
    FAILED = "failed"
    """Not there, and it will not come back by itself."""


OPEN = frozenset({Standing.READY, Standing.SHAKY})
COMING = frozenset({Standing.LOADING, Standing.DOWN})
"""Standings from which a backend may become ready: worth waiting for."""


class Backend:
    """One engine as the gateway sees it. Only `Fleet` and `Gate` change it, but for `pool`."""

    __slots__ = (
        "api_key",
        "host",
        "last_load_seconds",
        "load_ratio",
        "load_stage",
        "loading_since",
        "models",
        "name",
        "outstanding",
        "passing",
        "picked",
        "pool",
        "port",
        "shunned_until",
        "standing",
        "tls",
    )

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        api_key: SecretStr | None = None,
        models: Iterable[str] = (),
        standing: Standing = Standing.DOWN,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.tls = tls
        self.api_key = api_key
        self.models = frozenset(models)
        """As it listed them last; empty until then."""
        self.standing = standing
        self.load_stage: str | None = None
        self.load_ratio: float | None = None
        """Share of the weights that are loaded, 0 to 1."""
        self.loading_since: float | None = None
        self.last_load_seconds: float | None = None
        """How long it took to become ready the last time that we saw it."""
        self.outstanding = 0
        """Requests of users that are at it."""
        self.passing = 0
        """Requests at it that are not users' (`Endpoint.counted`), which pass the bound by."""
        self.picked = 0
        """When it was picked last, as a serial number: of equals the one that waited longest is next."""
        self.shunned_until = float("-inf")
        self.pool: object = None
        """The relay's connections to it."""

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.host}:{self.port} {self.standing} outstanding={self.outstanding}>"

    def remaining_load_seconds(self, now: float) -> float | None:
        """How long it will still load, as long as last time, or as fast as its weights come in; None where nobody knows."""
        if self.standing is not Standing.LOADING or self.loading_since is None:
            return None
        return remaining(now - self.loading_since, self.load_ratio, self.last_load_seconds)


def remaining(elapsed: float, ratio: float | None, last: float | None) -> float | None:
    """Seconds of loading that are left after `elapsed`, by the last load, or by the share of the weights; or None."""
    if last is not None and elapsed < last:
        return last - elapsed
    if ratio is None or not 0.02 <= ratio < 1.0 or elapsed <= 0:
        return None
    return elapsed * (1.0 - ratio) / ratio


class Route:
    """The replicas of a model. The same object for as long as some backend lists the model."""

    __slots__ = ("backends", "only", "open")

    def __init__(self) -> None:
        self.backends: tuple[Backend, ...] = ()
        self.open: tuple[Backend, ...] = ()
        """Those that may be given a request now, if they have room; sound ones only, as long as there are any."""
        self.only: Backend | None = None
        """The open one where there is just one."""

    def refresh(self, backends: Iterable[Backend], now: float) -> None:
        """Look again at who is open."""
        self.backends = tuple(backends)
        self.open = pickable(self.backends, now)
        self.only = self.open[0] if len(self.open) == 1 else None

    @property
    def coming(self) -> bool:
        """Whether some replica may become ready yet."""
        return any(backend.standing in COMING for backend in self.backends)


def pickable(backends: Sequence[Backend], now: float) -> tuple[Backend, ...]:
    """The soundest that there are: ready and not shunned, else shaky and not shunned, else whatever is open."""
    for standing in (Standing.READY, Standing.SHAKY):
        found = tuple(b for b in backends if b.standing is standing and b.shunned_until <= now)
        if found:
            return found
    return tuple(b for b in backends if b.standing in OPEN)


def least_outstanding(backends: Iterable[Backend], bound: float) -> Backend | None:
    """The one with the least work below `bound`, of equals the one picked longest ago; None where none has room."""
    best = None
    least: float = bound
    for backend in backends:
        outstanding = backend.outstanding
        if outstanding < least or (
            outstanding == least and best is not None and backend.picked < best.picked
        ):
            least = outstanding
            best = backend
    return best


class Fleet:
    """All backends. `follow` tells it what their supervisors know; whoever subscribes is called after each change."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self.backends = tuple(backends)
        self.routes: dict[str, Route] = {}
        """By model, as the backends list them."""
        self.everyone = Route()
        """For requests that name no model, and for every model where all backends serve the same."""
        self.unlisted = Route()
        """Backends that have not said yet what they serve: any model may be one of theirs."""
        self._by_name = {backend.name: backend for backend in self.backends}
        if not self.backends:
            raise ValueError("a fleet of no backends")
        if len(self._by_name) != len(self.backends):
            raise ValueError("two backends of one name")
        self._alike = True
        self._only_model = ""
        self._shunned: list[Backend] = []
        self._subscribers: list[Callable[[float], None]] = []
        self._rebuild(float("-inf"))

    def __getitem__(self, name: str) -> Backend:
        return self._by_name[name]

    def subscribe(self, changed: Callable[[float], None]) -> None:
        """Call back, with the time, after each change of who is open."""
        self._subscribers.append(changed)

    def follow(
        self,
        name: str,
        *,
        standing: Standing,
        models: Iterable[str] = (),
        load_stage: str | None = None,
        load_ratio: float | None = None,
        address: tuple[str, int] | None = None,
        now: float,
    ) -> None:
        """Take over what is known of a backend. `models` that are empty leave the last ones standing: an engine that is down
        still is where its model is served. `address`: host and port, where they have changed.
        """
        backend = self._by_name[name]
        if standing is Standing.LOADING:
            if backend.loading_since is None:
                backend.loading_since = now
        else:
            if standing is Standing.READY and backend.loading_since is not None:
                backend.last_load_seconds = now - backend.loading_since
            backend.loading_since = None
        if standing is Standing.READY and backend.standing is not Standing.READY:
            backend.shunned_until = float("-inf")
        backend.standing = standing
        backend.models = frozenset(models) or backend.models
        backend.load_stage = load_stage
        backend.load_ratio = load_ratio
        if address is not None:
            backend.host, backend.port = address
        self._changed(now)

    def known(self, model: str | None) -> str:
        """The model as a backend lists it; the only one for a request that names none; empty where it is not known."""
        if model in self.routes:
            return model
        return "" if model else self._only_model

    def route(self, model: str, *, named: bool) -> Route:
        """Where requests for a model go, which may be nowhere. `named`: its requests name models; others go to any."""
        found = self.routes.get(model)
        if found is not None:
            return found
        return self.everyone if self._alike or not named else self.unlisted

    def shun(self, backend: Backend, now: float) -> None:
        """It refused a connection: others first, for a moment."""
        if len(self.backends) > 1:
            backend.shunned_until = now + SHUN_SECONDS
            if backend not in self._shunned:
                self._shunned.append(backend)
            self._changed(now)

    def tick(self, now: float) -> None:
        """Take back who has been shunned long enough."""
        if any(backend.shunned_until <= now for backend in self._shunned):
            self._shunned = [backend for backend in self._shunned if backend.shunned_until > now]
            self._changed(now)

    def _changed(self, now: float) -> None:
        self._rebuild(now)
        for changed in self._subscribers:
            changed(now)

    def _rebuild(self, now: float) -> None:
        listed = {model for backend in self.backends for model in backend.models}
        for model in [model for model in self.routes if model not in listed]:
            self.routes.pop(model).refresh((), now)  # whoever waits for it is told that it is gone
        for model in listed:
            route = self.routes.get(model)
            if route is None:
                route = self.routes[model] = Route()
            route.refresh((b for b in self.backends if model in b.models), now)
        self.everyone.refresh(self.backends, now)
        self.unlisted.refresh((b for b in self.backends if not b.models), now)
        self._alike = len({backend.models for backend in self.backends}) <= 1
        self._only_model = next(iter(listed)) if len(listed) == 1 else ""
