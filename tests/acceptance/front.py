"""The gateway before the simulator, and what its clients have seen of it."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from daemon import Daemon, free_port, simulator
from wire import NOTHING, Answer

MODEL = "sim-8b"
QUICK: Mapping[str, object] = MappingProxyType(
    {
        "gpu.source": "off",
        "scrape.interval": 0.5,
        "engine.drain_timeout": 20,
        "engine.restart_delay": 0.05,
        "engine.restart_delay_max": 0.1,
        "engine.crash_limit": 1000,
        "gateway.probe_interval": 0,
    }
)


def text(tokens: int, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """The body of a request for a completion of so many tokens."""
    return {
        "model": MODEL,
        "prompt": "hello",
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
    } | more


class Front:
    """A daemon over the simulator; clients come at `port`. `settings`: by their dotted names; `simulated`: the simulator's flags."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        simulated: Iterable[str] = (),
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.seen: Counter[str] = Counter()
        chosen = {**QUICK, **(settings or {})}
        config = folder / "config.toml"
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in chosen.items()))
        own = ("--config", str(config), *flags)
        self.daemon = Daemon(folder, "run", *own, *simulator(self.port, *simulated))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.daemon.__exit__(kind, error, trace)

    def count(self, answers: Iterable[Answer]) -> None:
        """Take in what clients saw."""
        self.seen.update(answer.cause for answer in answers)
        assert not self.seen[NOTHING], "a client was left without any answer"

    def told(self) -> Counter[str]:
        """Requests by outcome, as the gateway's totals say."""
        found: Counter[str] = Counter()
        for sample in self.daemon.families()["vllm_slo_requests"].samples:
            if sample.name.endswith("_total") and sample.labels["source"] == "gateway" and sample.value:
                found[sample.labels["outcome"]] += int(sample.value)
        return found

    def logged(self) -> dict[str, dict[str, Any]]:
        """The access log's lines by request id; each request has one."""
        lines = [event for event in self.daemon.events() if event["event"] == "request"]
        found = {line["request_id"]: line for line in lines}
        assert len(found) == len(lines), "a request was written down twice"
        return found

    @property
    def engine_pid(self) -> int:
        """The engine that was started last."""
        starts = [event for event in self.daemon.events() if event["event"] == "engine_started"]
        return int(starts[-1]["pid"])

    @property
    def engine_port(self) -> int:
        """Where the engine itself listens."""
        words = Path(f"/proc/{self.engine_pid}/cmdline").read_bytes().decode().split("\0")
        return int(words[len(words) - words[::-1].index("--port")])

    def fault(self, **faults: Any) -> None:
        """Break the engine in some way; without any, mend it."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.engine_port}/sim/faults",
            data=json.dumps(faults).encode() if faults else None,
            method="POST" if faults else "DELETE",
        )
        urllib.request.urlopen(request, timeout=10).close()
