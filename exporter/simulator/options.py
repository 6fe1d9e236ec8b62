"""What the simulator was asked to be, read from its command line."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from exporter.simulator.faults import Plan, parse_flag
from exporter.simulator.scheduler import EngineShape
from exporter.simulator.timing import StepCost

PATTERNS = ("steady", "diurnal", "burst")
SIGTERM = ("exit", "hang", "ignore")
REFUSALS = (
    "unknown-flag", "invalid-value", "model-not-found", "model-not-cached", "max-model-len", "tensor-parallel",
    "port-taken", "kv-cache-too-small", "out-of-memory", "gpu-memory-in-use", "worker-died",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Everything that the command line says. Durations are seconds."""

    host: str
    port: int
    model: str
    served: tuple[str, ...]
    api_keys: tuple[str, ...]
    shape: EngineShape
    cost: StepCost
    ranks: int
    seed: int
    reply_tokens: float
    max_queued_requests: int | None
    max_queued_tokens: int | None
    shutdown_timeout: float
    quiet: bool
    load_seconds: float
    fail: str | None
    faults: tuple[Plan, ...]
    sigterm: str
    engine_processes: int
    traffic: float
    traffic_to: str | None
    traffic_pattern: str
    traffic_concurrency: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `simulate`: vLLM's own, where it has one for it, and those of the simulation."""
    shape, cost = EngineShape(), StepCost()
    vllm = parser.add_argument_group("vLLM", "as `vllm serve` has them")
    vllm.add_argument("model_tag", nargs="?", help="model to name (default sim-8b)")
    vllm.add_argument("--model", default=None, help="the same as the positional argument")
    vllm.add_argument(
        "--served-model-name", nargs="+", default=None, metavar="NAME", help="names that clients use"
    )
    vllm.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    vllm.add_argument(
        "--port", type=_port, default=8000, help="port; 0 takes a free one (default %(default)s)"
    )
    vllm.add_argument(
        "--api-key", nargs="+", default=None, metavar="KEY", help="accepted keys; also VLLM_API_KEY"
    )
    vllm.add_argument("--max-model-len", type=_positive, default=shape.max_model_len, metavar="TOKENS")
    vllm.add_argument("--max-num-seqs", type=_positive, default=shape.max_sequences, metavar="N")
    vllm.add_argument(
        "--max-num-batched-tokens", type=_positive, default=shape.max_batched_tokens, metavar="TOKENS"
    )
    vllm.add_argument("--max-num-queued-reqs", type=int, default=None, metavar="N", help="reject above (503)")
    vllm.add_argument(
        "--max-num-queued-tokens", type=int, default=None, metavar="TOKENS", help="reject above (503)"
    )
    vllm.add_argument("--block-size", type=_positive, default=shape.block_size, metavar="TOKENS")
    vllm.add_argument("--num-gpu-blocks-override", type=_positive, default=shape.blocks, metavar="BLOCKS", help="size of the KV cache (default %(default)s)")  # fmt: skip
    vllm.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    vllm.add_argument(
        "--data-parallel-size", type=_positive, default=1, metavar="N", help="engines behind the server"
    )
    vllm.add_argument("--seed", type=int, default=0)
    vllm.add_argument("--shutdown-timeout", type=_seconds, default=0.0, metavar="SECONDS", help="let running requests finish for so long after SIGTERM (default 0)")  # fmt: skip
    vllm.add_argument("--disable-uvicorn-access-log", action="store_true")

    sim = parser.add_argument_group("simulation")
    sim.add_argument("--step-seconds", type=_seconds, default=cost.base, metavar="SECONDS", help="time of an engine step with little in it: the gap between tokens (default %(default)s)")  # fmt: skip
    sim.add_argument("--prefill-tokens-per-second", type=_rate, default=1 / cost.per_prefill_token, metavar="N", help="(default %(default)g)")  # fmt: skip
    sim.add_argument("--reply-tokens", type=_rate, default=120.0, metavar="N", help="mean length of a reply that ends by itself (default %(default)g)")  # fmt: skip
    sim.add_argument("--load-seconds", type=_seconds, default=0.0, metavar="SECONDS", help="time from start to listening, with vLLM's load lines (default 0)")  # fmt: skip
    sim.add_argument("--fail", choices=REFUSALS, default=None, metavar="REASON", help=f"refuse to start, as vLLM would: {', '.join(REFUSALS)}")  # fmt: skip
    sim.add_argument("--fault", action="append", type=_fault, default=[], metavar="NAME[=VALUE][@SECONDS]", help="begin a fault so long after ready: wedge, slow=FACTOR, error-rate=SHARE, truncate-rate=SHARE, health=fail|silent, silent, metrics=garbage|slow|huge|endless|html|error|silent, metrics-delay=SECONDS, log-lines=LINES_PER_SECOND, crash=CODE|SIGNAL|engine-core. Also POST /sim/faults")  # fmt: skip
    sim.add_argument("--sigterm", choices=SIGTERM, default="exit", help="what SIGTERM and SIGINT do once loaded: exit, close the port and hang (seen in vLLM), or nothing")  # fmt: skip
    sim.add_argument("--engine-processes", type=_count, default=0, metavar="N", help="child processes in the place of engine core and workers: killing one kills the engine, stopping one wedges it (default 0)")  # fmt: skip
    sim.add_argument("--traffic", type=_seconds, default=0.0, metavar="RPS", help="synthetic requests a second through its own port (default 0)")  # fmt: skip
    sim.add_argument("--traffic-to", metavar="URL", help="be no server but only its clients: wait until the one at URL is up, and send the --traffic there")  # fmt: skip
    sim.add_argument("--traffic-pattern", choices=PATTERNS, default="steady")
    sim.add_argument("--traffic-concurrency", type=_positive, default=64, metavar="N", help="most synthetic requests at once (default %(default)s)")  # fmt: skip


def read(args: argparse.Namespace) -> Options:
    """The options of a parsed command line. ValueError: they contradict each other."""
    if args.traffic_to is not None and not args.traffic_to.startswith(("http://", "https://")):
        raise ValueError(f"--traffic-to {args.traffic_to}: expected a URL such as http://localhost:8000")
    model = args.model_tag or args.model or "sim-8b"
    environment = os.environ.get("VLLM_API_KEY")
    return Options(
        host=args.host,
        port=args.port,
        model=model,
        served=tuple(args.served_model_name or [model]),
        api_keys=tuple(args.api_key or ([environment] if environment else [])),
        shape=EngineShape(
            blocks=args.num_gpu_blocks_override,
            block_size=args.block_size,
            max_sequences=args.max_num_seqs,
            max_batched_tokens=args.max_num_batched_tokens,
            max_model_len=args.max_model_len,
            prefix_caching=args.enable_prefix_caching,
        ),
        cost=StepCost(base=args.step_seconds, per_prefill_token=1 / args.prefill_tokens_per_second),
        ranks=args.data_parallel_size,
        seed=args.seed,
        reply_tokens=args.reply_tokens,
        max_queued_requests=args.max_num_queued_reqs,
        max_queued_tokens=args.max_num_queued_tokens,
        shutdown_timeout=args.shutdown_timeout,
        quiet=args.disable_uvicorn_access_log,
        load_seconds=args.load_seconds,
        fail=args.fail,
        faults=tuple(args.fault),
        sigterm=args.sigterm,
        engine_processes=args.engine_processes,
        traffic=args.traffic,
        traffic_to=args.traffic_to,
        traffic_pattern=args.traffic_pattern,
        traffic_concurrency=args.traffic_concurrency,
    )


def _positive(value: str) -> int:
    if (number := int(value)) < 1:
        raise ValueError(value)
    return number


def _port(value: str) -> int:
    if not 0 <= (number := int(value)) <= 65535:
        raise ValueError(value)
    return number


def _count(value: str) -> int:
    if not 0 <= (number := int(value)) <= 64:
        raise ValueError(value)
    return number


def _seconds(value: str) -> float:
    if not 0 <= (number := float(value)) < float("inf"):
        raise ValueError(value)
    return number


def _rate(value: str) -> float:
    if not 0 < (number := float(value)) < float("inf"):
        raise ValueError(value)
    return number


def _fault(value: str) -> Plan:
    try:
        return parse_flag(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


for _type, _name in (
    (_positive, "positive int"),
    (_port, "port"),
    (_count, "number up to 64"),
    (_seconds, "number"),
    (_rate, "positive number"),
):
    _type.__name__ = _name  # argparse shows it: "invalid positive int value"
