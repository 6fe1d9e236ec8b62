"""The daemon's own requests, told from the users' by what an interval gained: vLLM's page counts them all alike.

An engine that nobody else asked gained exactly one finished request and its tokens. Then the whole gain is the probe's,
and none of it goes into the users' indicators. Where anything else happened in the same interval, the two cannot be told
apart, and all of it counts as the users'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.sli import vocabulary as v

PAGES = 3
"""How many pages a request may be late: it is answered before its counters are written, and server processes take turns."""
_FOREIGN = (
    v.ERRORED,
    v.REJECTIONS,
    v.ABORTED,
    v.PREEMPTIONS,
    v.HTTP_CLIENT_ERROR,
    v.HTTP_SERVER_ERROR,
)
"""What a request that was answered adds nothing to."""


@dataclass(frozen=True, slots=True)
class OwnWork:
    """A request of ours that was answered, with its tokens as the answer told them."""

    input_tokens: int
    output_tokens: int
    pages: int = PAGES
    """Pages that may yet show it."""


def explains(own: OwnWork, gains: Mapping[str, float]) -> bool | None:
    """Whether `own` is all that happened: `gains` by name of the total, over all models. None: nothing happened yet."""
    gain = {name: amount for name, amount in gains.items() if amount}
    if not any(gain.get(name) for name in (v.FINISHED, v.INPUT_TOKENS, v.OUTPUT_TOKENS, *_FOREIGN)):
        return None
    return (
        gain.get(v.FINISHED, 0.0) == 1.0
        and gain.get(v.INPUT_TOKENS, 0.0) == own.input_tokens
        and gain.get(v.OUTPUT_TOKENS, 0.0) == own.output_tokens
        and gain.get(v.CACHE_QUERIES, 0.0) in (0.0, own.input_tokens)
        and gain.get(v.HTTP_SUCCESS, 0.0) <= 1.0
        and not any(gain.get(name) for name in _FOREIGN)
    )
