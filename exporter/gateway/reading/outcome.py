"""How a request ended, from the facts that the relay saw."""

from __future__ import annotations

from exporter.gateway.model import Exchange, Outcome


def judge(
    exchange: Exchange,
    *,
    status: int | None,
    whole: bool = False,
    finished: bool | None = None,
    failed: str | None = None,
    client_left: bool = False,
    connected: bool = True,
    broken: bool = False,
    timed_out: bool = False,
) -> Outcome:
    """Decide the outcome and write it and its reason into the exchange; a refusal of the gateway's brings its own.

    `status`: the engine's, None if no head of an answer came. `whole`: its body came to the end that HTTP announced.
    `finished`: its stream of events came to its proper end, None for an answer that is none. `failed`: what it said of a
    failure in mid-stream. `client_left`: before all had gone to it. `connected`: to an engine, at least once. `broken`:
    what came was not HTTP. `timed_out`: the engine was silent for too long. Where several hold, the first cause counts:
    a client that leaves after the last event has its answer, one that leaves over an error left because of it.
    """
    outcome, reason = _judge(
        exchange, status, whole, finished, failed, client_left, connected, broken, timed_out
    )
    exchange.outcome = outcome
    exchange.reason = reason
    return outcome


def counts_for_ttft(exchange: Exchange, patience: float) -> float | None:
    """Seconds to observe as time to first token, from the request's first byte; None where nothing is to be said.

    One who left a stream without a token after `patience` seconds or more waited at least that long, and counts with the
    wait; without it, the slowest requests would be missing from the very figure that they ought to raise.
    """
    if not exchange.stream:
        return None
    if exchange.first_token is not None:
        return exchange.first_token - exchange.began
    if exchange.outcome is Outcome.ABORTED and exchange.ended is not None:
        waited = exchange.ended - exchange.began
        return waited if waited >= patience else None
    return None


def _judge(
    exchange: Exchange,
    status: int | None,
    whole: bool,
    finished: bool | None,
    failed: str | None,
    client_left: bool,
    connected: bool,
    broken: bool,
    timed_out: bool,
) -> tuple[Outcome, str]:
    if status is not None and status >= 400:
        return _of_status(status)
    if failed is not None:
        return Outcome.ENGINE_ERROR, failed
    if finished:
        return Outcome.SUCCESS, ""
    if client_left:
        return Outcome.ABORTED, "before_token" if exchange.first_token is None else "after_token"
    if timed_out:
        return Outcome.TIMEOUT, "silent"
    if broken:
        return Outcome.ENGINE_ERROR, "protocol"
    if status is None:
        return Outcome.ENGINE_UNREACHABLE, "reset" if connected else "connect"
    if not whole:
        return Outcome.TRUNCATED, "reset"
    if finished is not None:
        return Outcome.TRUNCATED, "no_end"
    return Outcome.SUCCESS, ""


def _of_status(status: int) -> tuple[Outcome, str]:
    if status == 503:
        return Outcome.REJECTED, "status_503"
    if status >= 500:
        return Outcome.ENGINE_ERROR, f"status_{status}"
    return Outcome.CLIENT_ERROR, f"status_{status}"
