"""Continuous batching over a paged KV cache: which requests share each engine step, and what it brings forth.

The rules are those of vLLM's V1 scheduler: running requests first, each as many of its outstanding tokens as the
budget allows (chunked prefill); when blocks run out, the youngest running request gives its blocks up and is
recomputed later from the front of the queue; then waiting requests in order of arrival, unless somebody was just
preempted. A request whose tokens are all computed yields one token per step.

`Scheduler.step(now)` ends the batch in flight and starts the next one. The caller owns the clock: it calls again at
`StepResult.ends_at`. No clock, no I/O; equal seeds and calls give equal results.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from exporter.simulator.kv_cache import BlockPool, chain_hashes
from exporter.simulator.timing import StepCost


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"
    REPETITION = "repetition"


@dataclass(frozen=True)
class EngineShape:
    """The limits of one engine. Sizes are tokens, but for `blocks` (KV blocks) and `max_sequences` (requests)."""

    blocks: int = 2048
    block_size: int = 16
    max_sequences: int = 64
    max_batched_tokens: int = 2048
    max_model_len: int = 8192
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        if min(self.max_sequences, self.max_batched_tokens, self.max_model_len) < 1:
            raise ValueError("max_sequences, max_batched_tokens and max_model_len must be at least 1")
        if self.blocks * self.block_size < self.max_model_len:
            raise ValueError(
                f"the KV cache holds {self.blocks * self.block_size} tokens, less than one sequence of "
                f"max_model_len {self.max_model_len}: raise the number of blocks or lower max_model_len"
            )


@dataclass(eq=False)
class Request:
    """What one client asked for, and how far it has come. Times are the caller's seconds."""

    id: str
    prompt: Sequence[int]
    max_tokens: int
    sample: Callable[[int], int]
    """Token number `index` of the reply."""
    stop_after: int | None = None
    """Length at which the model would end its reply by itself; None: only `max_tokens` ends it."""

    arrived_at: float = 0.0
    scheduled_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    finished_at: float | None = None
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache when first scheduled."""
    preemptions: int = 0

    tokens: list[int] = field(default_factory=list, repr=False)
    """Prompt and reply so far."""
    computed: int = 0
    blocks: list[int] = field(default_factory=list, repr=False)
    hashes: list[int] = field(default_factory=list, repr=False)
    published: int = 0
    """How many of `blocks` the prefix cache knows."""

    def __post_init__(self) -> None:
        if not self.prompt or self.max_tokens < 1:
            raise ValueError("a request needs a prompt and room for at least one token")
        self.tokens = list(self.prompt)

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def output_tokens(self) -> int:
        return len(self.tokens) - len(self.prompt)


class Output(NamedTuple):
    """One new token of one request; `finish_reason` with its last one."""

    request: Request
    token: int
    first: bool
    gap: float
    """Seconds since the request's previous token; for the first, since its arrival."""
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class StepResult:
    """What the batch that ended at `now` brought, and the batch that began."""

    now: float
    outputs: Sequence[Output] = ()
    prefilled: Sequence[Request] = ()
    """Requests whose prompt was computed in full for the first time."""
    computed_prompt_tokens: int = 0
    """Prompt tokens of `prefilled`, less those from the prefix cache."""
    preempted: Sequence[Request] = ()
    """Requests that lost their blocks when the new batch was formed."""
    prefix_queries: int = 0
    prefix_hits: int = 0
    scheduled_tokens: int = 0
    """Tokens in the new batch; 0 when there is nothing to do."""
    ends_at: float | None = None
    """When the new batch ends and `step` is due again; None: idle until the next `add`."""

    @property
    def finished(self) -> Iterator[Request]:
        return (output.request for output in self.outputs if output.finish_reason is not None)


class _Batch(NamedTuple):
    tokens_of: dict[Request, int]
    ends_at: float


class Scheduler:
    """One engine's queues and KV cache. Not thread-safe."""

    def __init__(self, shape: EngineShape, cost: StepCost | None = None, *, seed: int = 0) -> None:
        self.shape = shape
        self.cost = cost or StepCost()
        self.pool = BlockPool(shape.blocks, shape.block_size, prefix_caching=shape.prefix_caching)
        self._requests: dict[str, Request] = {}
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._batch: _Batch | None = None
        self._random = random.Random(seed)  # noqa: S311 - a simulation

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        return len(self._requests)

    @property
    def queued_prompt_tokens(self) -> int:
        """Prompt tokens of the requests that have no token yet."""
        return sum(r.prompt_tokens for r in self._requests.values() if r.first_token_at is None)

    @property
    def kv_cache_usage(self) -> float:
        return self.pool.usage

    def add(self, request: Request, now: float) -> None:
        """Queue a request. ValueError: its id is in use, or it could never fit `max_model_len`."""
        if request.id in self._requests:
            raise ValueError(f"request {request.id} is already queued")
        if request.prompt_tokens + request.max_tokens > self.shape.max_model_len:
            raise ValueError(
                f"request {request.id} wants {request.prompt_tokens} + {request.max_tokens} tokens, "
                f"more than max_model_len {self.shape.max_model_len}"
            )
        request.arrived_at = now
        request.hashes = list(chain_hashes(request.tokens, self.shape.block_size))
        self._requests[request.id] = request
        self._waiting.append(request)

    def abort(self, request_id: str, now: float, reason: FinishReason = FinishReason.ABORT) -> Request | None:
        """End a request wherever it stands; its blocks are free at once. None: it is not (or no longer) here."""
        request = self._requests.get(request_id)
        if request is None:
            return None
        if request in self._running:
            self._running.remove(request)
        else:
            self._waiting.remove(request)
        if self._batch is not None:
            self._batch.tokens_of.pop(request, None)
        self._finish(request, reason, now)
        return request

    def step(self, now: float, *, slowdown: float = 1.0) -> StepResult:
        """End the batch in flight, if any, at `now`, and begin the next, `slowdown` times as long as it would be."""
        outputs, prefilled = self._complete(now)
        tokens_of, preempted, queries, hits = self._form_batch(now)
        ends_at = None
        if tokens_of:
            ends_at = now + slowdown * self._duration(tokens_of)
            self._batch = _Batch(tokens_of, ends_at)
        return StepResult(
            now=now,
            outputs=outputs,
            prefilled=prefilled,
            computed_prompt_tokens=sum(r.prompt_tokens - r.cached_tokens for r in prefilled),
            preempted=preempted,
            prefix_queries=queries,
            prefix_hits=hits,
            scheduled_tokens=sum(tokens_of.values()),
            ends_at=ends_at,
        )

    def _complete(self, now: float) -> tuple[list[Output], list[Request]]:
        outputs: list[Output] = []
        prefilled: list[Request] = []
        batch, self._batch = self._batch, None
        if batch is None:
            return outputs, prefilled
        for request, count in batch.tokens_of.items():
            request.computed += count
            self._publish_full_blocks(request)
            if request.computed < len(request.tokens):
                continue  # a chunk of a long prefill
            first = request.first_token_at is None
            if first:
                request.first_token_at = now
                prefilled.append(request)
            token = request.sample(request.output_tokens)
            request.tokens.append(token)
            previous = request.arrived_at if request.last_token_at is None else request.last_token_at
            request.last_token_at = now
            outputs.append(Output(request, token, first, now - previous, self._reason_to_finish(request)))
        for output in outputs:
            if output.finish_reason is not None:
                self._running.remove(output.request)
                self._finish(output.request, output.finish_reason, now)
        return outputs, prefilled

    def _form_batch(self, now: float) -> tuple[dict[Request, int], list[Request], int, int]:
        budget = self.shape.max_batched_tokens
        tokens_of: dict[Request, int] = {}
        preempted: list[Request] = []
        index = 0
        while index < len(self._running) and budget:
            request = self._running[index]
            count = min(len(request.tokens) - request.computed, budget)
            while not self._grow(request, request.computed + count):
                victim = self._running.pop()
                # The youngest goes first, so whoever is scheduled already in this step is never the victim.
                self._preempt(victim)
                preempted.append(victim)
                if victim is request:
                    break
            else:
                tokens_of[request] = count
                budget -= count
                index += 1
        queries = hits = 0
        while self._waiting and budget and not preempted and len(self._running) < self.shape.max_sequences:
            request = self._waiting[0]
            # At least the last token is computed again: its logits are needed for the next one.
            reusable = (len(request.tokens) - 1) // self.shape.block_size
            cached = self.pool.find_prefix(request.hashes[:reusable])
            computed = len(cached) * self.shape.block_size
            count = min(len(request.tokens) - computed, budget)
            fresh = self.pool.blocks_for(computed + count) - len(cached)
            blocks = self.pool.acquire(cached, fresh)
            if blocks is None:
                break
            self._waiting.popleft()
            self._running.append(request)
            request.blocks, request.computed, request.published = blocks, computed, len(cached)
            if request.scheduled_at is None:
                request.scheduled_at = now
                request.cached_tokens = computed
                if self.shape.prefix_caching:
                    queries += request.prompt_tokens
                    hits += computed
            tokens_of[request] = count
            budget -= count
        return tokens_of, preempted, queries, hits

    def _grow(self, request: Request, tokens: int) -> bool:
        missing = self.pool.blocks_for(tokens) - len(request.blocks)
        if missing <= 0:
            return True
        blocks = self.pool.acquire((), missing)
        if blocks is None:
            return False
        request.blocks += blocks
        return True

    def _preempt(self, request: Request) -> None:
        """Recompute: everything computed is given up (the prefix cache may still hold some of it later)."""
        self.pool.release(request.blocks)
        request.blocks = []
        request.computed = 0
        request.preemptions += 1
        self._waiting.appendleft(request)

    def _finish(self, request: Request, reason: FinishReason, now: float) -> None:
        self.pool.release(request.blocks)
        request.blocks = []
        request.finish_reason = reason
        request.finished_at = now
        del self._requests[request.id]

    def _publish_full_blocks(self, request: Request) -> None:
        size = self.shape.block_size
        full = request.computed // size
        while len(request.hashes) < full:
            start = len(request.hashes) * size
            previous = request.hashes[-1] if request.hashes else 0
            request.hashes.extend(chain_hashes(request.tokens[start : start + size], size, previous))
        for number in range(request.published, full):
            self.pool.publish(request.blocks[number], request.hashes[number])
        request.published = full

    def _reason_to_finish(self, request: Request) -> FinishReason | None:
        if request.stop_after is not None and request.output_tokens >= request.stop_after:
            return FinishReason.STOP
        if request.output_tokens >= request.max_tokens:
            return FinishReason.LENGTH
        return None

    def _duration(self, tokens_of: dict[Request, int]) -> float:
        decoding = sum(1 for count in tokens_of.values() if count == 1)
        return self.cost.seconds(
            prefill_tokens=sum(tokens_of.values()) - decoding,
            sequences=len(tokens_of),
            context_tokens=sum(request.computed for request in tokens_of),
            noise=self._random.gauss(0.0, 1.0),
        )
