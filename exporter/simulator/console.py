"""What a vLLM process prints: its log format, the lines of a load, and the outputs of starts that fail."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

VERSION = "0.32.0"


def log(message: str, where: str, *, level: str = "INFO", process: str = "APIServer") -> None:
    """One record in vLLM's format on standard output; each line of the message gets the prefix."""
    prefix = f"({process} pid={os.getpid()}) {level} {time.strftime('%m-%d %H:%M:%S')} [{where}] "
    _print("".join(f"{prefix}{line}\n" for line in message.split("\n")))


def uvicorn(message: str) -> None:
    """One of uvicorn's own lines."""
    _print(f"INFO:     {message}\n")


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        sys.stdout = sys.__stderr__  # the reader is gone; a server goes on


def error_output(text: str) -> None:
    """Raw text on standard error, where tracebacks and progress bars go."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (BrokenPipeError, ValueError):
        sys.stderr = sys.__stdout__


@dataclass(frozen=True)
class Model:
    """What the lines of a load mention."""

    name: str
    served: tuple[str, ...]
    host: str
    port: int
    max_model_len: int
    max_batched_tokens: int
    kv_tokens: int
    shards: int = 4


class Line(NamedTuple):
    """A line of the load; `at` is its time as a share of the whole load, `stage` what the engine is doing."""

    at: float
    stage: str
    text: str
    where: str
    process: str = "APIServer"
    progress: bool = False
    """A progress bar on standard error instead of a log record."""


ENGINE_CORE_AT = 0.12
"""Share of the load after which the engine core exists; from then on vLLM swallows a SIGTERM until it serves."""


def load_lines(model: Model, seconds: float) -> Iterator[Line]:
    """The lines of a load that takes `seconds`, in order."""
    core, worker = "EngineCore", "Worker"
    yield Line(0.0, "start", f"vLLM server version {VERSION}, serving model {model.name}", "api_utils.py:347")
    arguments = {"model_tag": model.name, "host": model.host, "port": model.port, "model": model.name, "max_model_len": model.max_model_len, "served_model_name": list(model.served)}  # fmt: skip
    yield Line(0.0, "start", f"non-default args: {arguments}", "api_utils.py:286")
    yield Line(0.05, "configure", "Resolved architecture: Qwen2ForCausalLM", "model.py:733")
    yield Line(0.05, "configure", f"Using max model len {model.max_model_len}", "model.py:2152")
    yield Line(0.06, "configure", f"Chunked prefill is enabled with max_num_batched_tokens={model.max_batched_tokens}.", "scheduler.py:241")  # fmt: skip
    yield Line(ENGINE_CORE_AT, "engine", f"Initializing a V1 LLM engine (v{VERSION}) with config: model='{model.name}', speculative_config=None, tokenizer='{model.name}', dtype=torch.bfloat16, max_seq_len={model.max_model_len}, tensor_parallel_size=1", "core.py:133", core)  # fmt: skip
    yield Line(0.14, "engine", "world_size=1 rank=0 local_rank=0 distributed_init_method=tcp://127.0.0.1:0 backend=nccl", "parallel_state.py:1906", worker)  # fmt: skip
    yield Line(0.15, "weights", f"Starting to load model {model.name}...", "gpu_model_runner.py:68", worker)
    for done in range(model.shards + 1):
        at = 0.15 + 0.35 * done / model.shards
        elapsed = 0.35 * seconds * done / model.shards
        bar = f"Loading safetensors checkpoint shards: {100 * done // model.shards:3d}% Completed | {done}/{model.shards} "
        pace = f"{elapsed / done:.2f}s/it" if done else "?it/s"
        left = f"{_clock(elapsed / done * (model.shards - done))}" if done else "?"
        yield Line(at, "weights", f"{bar}[{_clock(elapsed)}<{left}, {pace}]\n", "", worker, progress=True)
    yield Line(0.5, "weights", "\n", "", worker, progress=True)
    yield Line(
        0.5, "weights", f"Loading weights took {0.35 * seconds:.2f} seconds", "default_loader.py:501", worker
    )
    yield Line(0.52, "weights", f"Model loading took 14.99 GiB memory and {0.37 * seconds:.6f} seconds", "gpu_model_runner.py:1012", worker)  # fmt: skip
    yield Line(0.55, "compile", "Using cache directory: /home/vllm/.cache/vllm/torch_compile_cache/5f1e/rank_0_0/backbone for vLLM's torch.compile", "backends.py:1024", worker)  # fmt: skip
    yield Line(
        0.75, "compile", f"torch.compile takes {0.2 * seconds:.2f} s in total", "monitor.py:48", worker
    )
    yield Line(0.8, "kv_cache", "Available KV cache memory: 48.21 GiB", "gpu_worker.py:440", worker)
    yield Line(0.8, "kv_cache", f"GPU KV cache size: {model.kv_tokens:,} tokens, Maximum concurrency for {model.max_model_len:,} tokens per request: {model.kv_tokens / model.max_model_len:.2f}x", "kv_cache_utils.py:2327", core)  # fmt: skip
    for done in range(0, 36, 7):
        elapsed = 0.12 * seconds * done / 35
        yield Line(0.82 + 0.12 * done / 35, "graphs", f"Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): {100 * done // 35:3d}%|{'█' * (done * 10 // 35):<10}| {done}/35 [{_clock(elapsed)}<?, ?it/s]", "", worker, progress=True)  # fmt: skip
    yield Line(0.94, "graphs", "\n", "", worker, progress=True)
    yield Line(0.95, "graphs", f"Graph capturing finished in {max(1, round(0.12 * seconds))} secs, took 0.62 GiB", "gpu_model_runner.py:2304", worker)  # fmt: skip
    yield Line(0.97, "graphs", f"init engine (profile, create kv cache, warmup model) took {0.45 * seconds:.2f} s", "core.py:402", core)  # fmt: skip
    yield Line(1.0, "serve", "Supported tasks: ['generate']", "entry.py:136")
    yield Line(1.0, "serve", f"Starting vLLM server on http://{model.host}:{model.port}", "entry.py:140")


def show(line: Line) -> None:
    if line.progress:
        error_output("\n" if line.text == "\n" else f"\r{line.text}")
    else:
        log(line.text, line.where, process=line.process)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


class Refusal(NamedTuple):
    """A start that fails: its exit code, the share of the load at which it gives up, and what it prints last."""

    exit_code: int
    at: float
    output: str
    in_core: bool = False
    """It happens in the engine core: its error comes as log records, then the server's own complaint follows."""


def refusals(model: Model) -> dict[str, Refusal]:
    """Ways not to start, by name; each ends in the words that a real one has been seen to end in."""
    usage = "usage: vllm serve [model_tag] [options]\nvllm serve: error: "
    return {
        "unknown-flag": Refusal(2, 0.0, usage + "unrecognized arguments: --no-such-flag\n"),
        "invalid-value": Refusal(2, 0.0, usage + "argument --gpu-memory-utilization: invalid float value: 'lots'\n"),
        "model-not-found": Refusal(1, 0.04, _traceback("repo_utils.py", "get_model_path", f"huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/models/{model.name}'. Use `repo_type` argument if needed.")),
        "model-not-cached": Refusal(1, 0.04, _traceback("repo_utils.py", "get_model_path", "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and outgoing traffic has been disabled.")),
        "max-model-len": Refusal(1, 0.06, _traceback("arg_utils.py", "create_model_config", "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len (max_position_embeddings=40960 or model_max_length=None in model's config.json).")),
        "tensor-parallel": Refusal(1, 0.06, _traceback("arg_utils.py", "create_engine_config", "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n  Value error, Total number of attention heads (14) must be divisible by tensor parallel size (4).")),
        "port-taken": Refusal(1, 0.05, _traceback("launcher.py", "create_server_socket", "OSError: [Errno 98] Address already in use")),
        "kv-cache-too-small": Refusal(1, 0.8, kv_cache_too_small(model.max_model_len, 0.4), in_core=True),
        "out-of-memory": Refusal(1, 0.3, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total capacity of 79.11 GiB of which 312.00 MiB is free.", in_core=True),
        "gpu-memory-in-use": Refusal(1, 0.14, "ValueError: Free memory on device cuda:0 (11.20/79.11 GiB) on startup is less than desired GPU memory utilization (0.92, 72.78 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.", in_core=True),
        "worker-died": Refusal(1, 0.4, "RuntimeError: Worker proc VllmWorker-0 died unexpectedly", in_core=True),
    }  # fmt: skip


def kv_cache_too_small(max_model_len: int, share: float) -> str:
    """The complaint of an engine whose KV cache holds only `share` of one full sequence."""
    needed = max_model_len * 131072 / 2**30
    return (
        f"ValueError: To serve at least one request with the model's max seq len ({max_model_len}), "
        f"({needed:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({needed * share:.2f} GiB). Based on the available memory, the estimated maximum model length is "
        f"{int(max_model_len * share)}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` "
        "when initializing the engine."
    )


def refuse(refusal: Refusal) -> int:
    """Print why the start fails; the exit code."""
    if refusal.in_core:
        for text in ("EngineCore failed to start.", *refusal.output.split("\n")):
            log(text, "core.py:1510", level="ERROR", process="EngineCore")
        ending = (
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
        )
        error_output(
            f"Process EngineCore:\n{refusal.output}\n{_traceback('utils.py', 'wait_for_engine_startup', ending)}"
        )
        error_output(
            "/usr/lib/python3/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to "
            "be 2 leaked shared_memory objects to clean up at shutdown\n"
        )
    else:
        error_output(refusal.output)
    return refusal.exit_code


def _traceback(file: str, function: str, error: str) -> str:
    return (
        f'Traceback (most recent call last):\n  File "/opt/vllm/{file}", line 301, in {function}\n{error}\n'
    )
