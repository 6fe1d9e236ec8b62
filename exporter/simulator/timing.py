"""How long an engine step takes: a straight line in what the batch holds.

A decode step reads all weights once whatever the batch (`base`), then some more for each sequence and for the KV
cache that it reads; prefill is bound by arithmetic, so it grows with the tokens. The defaults resemble an 8B model
on one large GPU: about 12 ms between tokens when idle, 20,000 prefill tokens a second.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepCost:
    """Seconds: for any step, for each prefill token, each sequence in the batch, and each token of their contexts."""

    base: float = 0.012
    per_prefill_token: float = 50e-6
    per_sequence: float = 60e-6
    per_context_token: float = 20e-9
    jitter: float = 0.04

    def seconds(
        self, *, prefill_tokens: int, sequences: int, context_tokens: int, noise: float = 0.0
    ) -> float:
        """Duration of a step; `noise` is a standard normal deviate, clipped so that time never runs backwards."""
        steady = (
            self.base
            + self.per_prefill_token * prefill_tokens
            + self.per_sequence * sequences
            + self.per_context_token * context_tokens
        )
        return steady * (1.0 + self.jitter * max(-3.0, min(3.0, noise)))

    def scaled(self, factor: float) -> StepCost:
        """The same engine, `factor` times slower."""
        return StepCost(
            self.base * factor,
            self.per_prefill_token * factor,
            self.per_sequence * factor,
            self.per_context_token * factor,
            self.jitter,
        )
