"""Why the gateway turns a request away, in words for whoever sent it; `code` is fixed, the message tells more."""

from __future__ import annotations

import math

from exporter.gateway.admission.fleet import Backend, Route, Standing
from exporter.gateway.model import Outcome, Refusal

RETRY_AFTER = 5.0
"""Seconds, where nothing better is known."""
_LONGEST = 600.0
_SHOWN = 200
"""Characters of a client's model name that an answer repeats at most."""


def _unavailable(code: str, message: str, outcome: Outcome, retry_after: float = RETRY_AFTER) -> Refusal:
    return Refusal(503, "service_unavailable", code, message, outcome, retry_after=retry_after)


def _clamped(seconds: float | None) -> float:
    return RETRY_AFTER if seconds is None else min(max(seconds, 1.0), _LONGEST)


GATEWAY_DRAINING = _unavailable(
    "gateway_draining",
    "The server is shutting down: running requests are finished, new ones are not taken.",
    Outcome.REJECTED,
)

NO_MODEL = Refusal(
    400,
    "invalid_request_error",
    "model_missing",
    "You must provide a model parameter: several are served here.",
    Outcome.CLIENT_ERROR,
)

UNREADABLE_MODEL = Refusal(
    403,
    "permission_error",
    "model_not_readable",
    "Your API key is limited to certain models, and which one this request is for cannot be told.",
    Outcome.CLIENT_ERROR,
)


def no_such_model(model: str) -> Refusal:
    """There is none of that name, or not for this key; which of both is not told. OpenAI's words."""
    return Refusal(
        404,
        "invalid_request_error",
        "model_not_found",
        f"The model `{model[:_SHOWN]}` does not exist or you do not have access to it.",
        Outcome.CLIENT_ERROR,
    )


def missing_model(asked: str | None) -> Refusal:
    """No engine serves the model that was asked for, or none was named where it matters."""
    return no_such_model(asked) if asked else NO_MODEL


def not_allowed(model: str, *, named: bool) -> Refusal:
    """A key that is limited to certain models asks for another one, or for none. `named`: whether such requests name one."""
    if model:
        return no_such_model(model)
    return NO_MODEL if named else UNREADABLE_MODEL


def over_limit(code: str, whose: str, what: str, per_minute: int, wait: float) -> Refusal:
    """A bucket is empty. `whose`: `your API key`, …; `what`: `requests per min (RPM)`; `wait`: seconds until it is not."""
    return Refusal(
        429,
        "rate_limit_error",
        code,
        f"Rate limit reached for {whose} on {what}: Limit {per_minute}. Please try again in {_seconds(wait)}.",
        Outcome.CLIENT_ERROR,
        retry_after=wait,
    )


def queue_full(waiting: int, pace: float | None) -> Refusal:
    """No more may wait. `pace`: seconds in which those who wait now will be let in, if that is known."""
    retry_after = _clamped(pace)
    return Refusal(
        429,
        "rate_limit_error",
        "queue_full",
        f"The server is at its limit of running requests, and {waiting} wait already. "
        f"Please try again in {_seconds(retry_after)}.",
        Outcome.REJECTED,
        retry_after=retry_after,
    )


def queue_timeout(waited: float, pace: float | None) -> Refusal:
    """It waited for room as long as it may."""
    return _unavailable(
        "queue_timeout",
        f"The server is at its limit of running requests; none ended in time for this one, which waited {_seconds(waited)}.",
        Outcome.REJECTED,
        _clamped(pace),
    )


def no_other(backend: Backend) -> Refusal:
    """A connection failed before the client had a byte, and there is no other replica to try."""
    return Refusal(
        502,
        "service_unavailable",
        "engine_unreachable",
        f"The engine {backend.name} cannot be reached, and no other is there to take its place.",
        Outcome.ENGINE_UNREACHABLE,
        retry_after=RETRY_AFTER,
    )


def not_open(route: Route, now: float) -> Refusal:
    """No replica may be given a request: the most hopeful of them says why."""
    for standing in (Standing.LOADING, Standing.DOWN, Standing.DRAINING, Standing.FAILED):
        found = [backend for backend in route.backends if backend.standing is standing]
        if not found:
            continue
        if standing is Standing.LOADING:
            return _loading(
                min(found, key=lambda backend: _clamped(backend.remaining_load_seconds(now))), now
            )
        if standing is Standing.DOWN:
            return _unavailable("engine_down", "The engine is not running.", Outcome.ENGINE_UNREACHABLE)
        if standing is Standing.DRAINING:
            return _unavailable(
                "engine_draining",
                "The engine is being stopped: running requests are finished, new ones are not taken.",
                Outcome.REJECTED,
            )
        return _unavailable(
            "engine_failed",
            "The engine has failed, and starting it again would not help.",
            Outcome.ENGINE_UNREACHABLE,
            60.0,  # until somebody has mended it
        )
    return _unavailable("engine_down", "No engine serves this.", Outcome.ENGINE_UNREACHABLE)


def _loading(backend: Backend, now: float) -> Refusal:
    retry_after = _clamped(backend.remaining_load_seconds(now))
    how_far = f"stage {backend.load_stage}" if backend.load_stage else ""
    if backend.load_ratio is not None:
        how_far += f"{', ' if how_far else ''}{backend.load_ratio:.0%} of the weights"
    return _unavailable(
        "engine_loading",
        f"The engine is loading its model{f' ({how_far})' if how_far else ''}. Please try again in {_seconds(retry_after)}.",
        Outcome.REJECTED,
        retry_after,
    )


def _seconds(value: float) -> str:
    return f"{max(1, math.ceil(value))}s"
