"""One failed request counts once, though vLLM may count it twice.

Read in vLLM 0.32's sources (`vllm/entrypoints/generate/base/serving.py`, `vllm/v1/engine/async_llm.py`,
`vllm/v1/engine/__init__.py`) and the pull requests that brought the counters (vllm-project/vllm 49445, 55812, 12579):

- A refused admission adds 1 to `vllm:admission_rejections_total` and answers 503 before any response has begun, so it is
  in `http_requests_total{status="5xx"}` too. Older versions have no such counter: there a 503 is an `engine_error`.
- A request that finishes with the reason `error` becomes a 500 (or 503) when it was not streamed: counted by both. When it
  was streamed, its status 200 is out already, and only the finished reason tells.
- A dead engine, and any other exception, is a 5xx without a finished reason. A stream that it cuts off is counted by
  neither: its 200 is out, and nobody finishes the request. Time with the engine down stands for it.
- 4xx are the client's (`client_error`); vLLM has no finished reason for a client that hangs up but `abort`.

So per scrape interval the failures are what the engine counted (rejected, finished with an error) and those 5xx which
exceed it. An engine's count stands a moment before the response is counted, and a scrape may fall between the two: what
had no partner in one interval may find it in the next, and not later. This is a lower bound: a streamed error and an
unrelated 5xx in the same two intervals count as one.
"""

from __future__ import annotations

from typing import Final

SUCCESS: Final = "success"
CLIENT_ERROR: Final = "client_error"
REJECTED: Final = "rejected"
ENGINE_ERROR: Final = "engine_error"
ABORTED: Final = "aborted"
OUTCOMES: Final = (SUCCESS, CLIENT_ERROR, REJECTED, ENGINE_ERROR, ABORTED)
"""What the engine's page can tell; the gateway adds its own (engine_unreachable, timeout, truncated)."""


class FailurePairing:
    """Pairs the engine's own count of failures with HTTP's, over two neighbouring intervals."""

    def __init__(self) -> None:
        self._own = 0.0
        self._http = 0.0

    def settle(self, own: float, http: float) -> tuple[float, float]:
        """How many of `own` (rejected and errored) and of `http` (5xx) to count, given what both gained since."""
        paired = min(own, http)
        rest_own, rest_http = own - paired, http - paired
        early = min(rest_own, self._http)
        late = min(rest_http, self._own)
        self._own, self._http = rest_own - early, rest_http - late
        return own - early, rest_http - late

    def forget(self) -> None:
        """The engine started again: nothing waits for its partner."""
        self._own = self._http = 0.0
