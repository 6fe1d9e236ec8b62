"""Why an engine ended: the real outputs of vLLM 0.32, and texts of GPU machines read in its source."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from exporter.engine.output.diagnosis import Context, Failure, OutputScan, diagnose

CAPTURES = Path(__file__).parents[3] / "vllm" / "captures"
HELD = Context(port=8000, port_held_by="python (pid 3)")


def failure_of(text: bytes, code: int | None = 1, context: Context = HELD, *, chunk: int = 0) -> Failure:
    scan = OutputScan()
    if chunk:
        lines = text.splitlines(keepends=True)
        for start in range(0, len(lines), chunk):
            scan.feed(b"".join(lines[start : start + chunk]))
    else:
        scan.feed(text)
    return diagnose(code, scan, context)


@pytest.mark.parametrize("chunk", [0, 1, 7])
@pytest.mark.parametrize(
    ("capture", "code", "reason", "retryable", "says"),
    [
        ("unknown-flag", 2, "bad_arguments", False, "--no-such-flag"),
        ("invalid-value", 2, "bad_arguments", False, "invalid float value: 'lots'"),
        ("model-path-missing", 1, "model_not_found", False, "/models/absent"),
        ("model-not-cached", 1, "model_not_found", False, "local cache"),
        ("model-len-too-large", 1, "max_model_len_too_large", False, "999999"),
        ("tensor-parallel-indivisible", 1, "parallel_size_mismatch", False, "divides 2"),
        ("kv-cache-too-small", 1, "kv_cache_too_small", False, "--max-model-len to 1048448 or less"),
        ("port-taken", 1, "port_in_use", False, "port 8000 is taken by python (pid 3)"),
        ("no-device", 1, "no_device", False, "finds no GPU"),
        ("engine-core-killed-in-load", 1, "engine_died", True, "while loading"),
        ("engine-core-killed", 0, "engine_died", True, "engine process died"),
        ("api-server-killed", -9, "killed", True, "SIGKILL"),
    ],
)
def test_a_real_failure_is_named(
    capture: str, code: int, reason: str, retryable: bool, says: str, chunk: int
) -> None:
    failure = failure_of((CAPTURES / f"{capture}.log").read_bytes(), code, chunk=chunk)
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert says in failure.line
    assert "\n" not in failure.line
    assert "?" not in failure.line


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.log")), ids=lambda path: path.stem)
def test_an_engine_that_has_served_is_always_worth_another_try(capture: Path) -> None:
    scan = OutputScan()
    scan.ready()
    scan.feed(capture.read_bytes())
    for code in (0, 1, 2, -9, None, 126, 127):
        assert diagnose(code, scan, Context(was_ready=True)).retryable


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        ("ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 GiB).", "gpu_memory_taken", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB", "gpu_out_of_memory", False),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. Process 77 has 60.10 GiB memory in use.", "gpu_out_of_memory", True),
        ("RuntimeError: No CUDA GPUs are available", "no_device", False),
        ("RuntimeError: Found no NVIDIA driver on your system.", "no_device", False),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "driver_mismatch", False),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "driver_mismatch", False),
        ("ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", "driver_mismatch", False),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "kv_cache_too_small", False),
        ("ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (4096).", "kv_cache_too_small", False),
        ("OSError: org/none is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'", "model_not_found", False),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", "model_access_denied", False),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "model_not_found", False),
        ("huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on the Hub. Please check your connection and try again", "download_failed", True),
        ("ValueError: Model architectures ['NewForCausalLM'] are not supported for now.", "unsupported_model", False),
        ("ValueError: Loading org/m requires you to execute the configuration file in that repo; set the option trust_remote_code=True", "remote_code_refused", False),
        ("ValueError: World size (8) is larger than the number of available GPUs (4) in this node.", "too_few_gpus", False),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", "unsupported_precision", False),
        ("ModuleNotFoundError: No module named 'flash_attn'", "missing_dependency", False),
        ("/usr/bin/python3: No module named vllm", "missing_dependency", False),
        ("/usr/bin/python3: Error while finding module specification for 'vllm.x' (ModuleNotFoundError: No module named 'vllm')", "missing_dependency", False),
        ("OSError: [Errno 28] No space left on device", "disk_full", True),
        ("RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:1", "nccl_error", True),
        ("TimeoutError: RPC call to execute_model timed out.", "rpc_timeout", True),
        ("(EngineCore pid=1) ERROR 11-20 12:00:00 [x.py:1] Worker proc VllmWorker-1 died unexpectedly, shutting down executor.", "worker_died", True),
        ("  Value error, Something about the flags is wrong. [type=value_error, input_value=ArgsKwargs(()), input_type=ArgsKwargs]", "invalid_config", False),
    ],
)  # fmt: skip
def test_other_failures_are_named_by_their_texts(text: str, reason: str, retryable: bool) -> None:
    failure = failure_of(b"Traceback (most recent call last):\n" + text.encode() + b"\n")
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert failure.advice
    assert "?" not in failure.line


def test_the_cause_is_found_in_front_of_megabytes_of_its_consequences() -> None:
    cause = (
        b"ValueError: Total number of attention heads (2) must be divisible by tensor parallel size (3).\n"
    )
    noise = (
        b"RuntimeError: Engine core initialization failed. See root cause above.\nError: more noise\n"
        * 20_000
    )
    scan = OutputScan()
    scan.feed(cause)
    for start in range(0, len(noise), 1 << 16):
        scan.feed(noise[start : start + (1 << 16)])
    assert diagnose(1, scan).reason == "parallel_size_mismatch"


@pytest.mark.parametrize(
    "line",
    [
        "(APIServer pid=1) INFO 11-20 12:00:00 [logger.py:1] Received request: prompt: 'error: unrecognized arguments: --x'",
        "WARNING 11-20 12:00:00 [x.py:1] errors like `OSError: [Errno 28] No space left on device`",
        'INFO:     1.2.3.4:5 - "GET /?q=RuntimeError: No CUDA GPUs are available HTTP/1.1" 404 Not Found',
    ],
)
def test_what_users_can_make_the_engine_print_is_no_evidence(line: str) -> None:
    assert failure_of(line.encode() + b"\n").reason == "crashed"


def test_a_port_that_is_free_again_is_worth_another_try() -> None:
    failure = failure_of((CAPTURES / "port-taken.log").read_bytes(), 1, Context(port=8000))
    assert (failure.reason, failure.retryable) == ("port_in_use", True)


def test_a_port_that_the_daemon_chose_is_never_the_users_to_free() -> None:
    output = (CAPTURES / "port-taken.log").read_bytes()
    failure = failure_of(output, 1, Context(port=45678, port_held_by="process 3", port_is_ours=True))
    assert (failure.reason, failure.retryable) == ("port_in_use", True)
    assert failure.line.startswith("port 45678, which the daemon had chosen for it, was taken")


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (0, "exited", True),
        (1, "crashed", True),
        (3, "crashed", True),
        (126, "permission_denied", False),
        (127, "command_not_found", False),
        (-signal.SIGKILL, "killed", True),
        (137, "killed", True),
        (-signal.SIGSEGV, "killed", True),
        (-signal.SIGILL, "illegal_instruction", False),
        (-70, "killed", True),
        (None, "exited", True),
    ],
)
def test_an_exit_code_alone_says_something(code: int | None, reason: str, retryable: bool) -> None:
    failure = failure_of(b"last words\n", code)
    assert (failure.reason, failure.retryable) == (reason, retryable)


def test_a_kill_for_memory_is_told_apart() -> None:
    assert failure_of(b"", -9, Context(oom_killed=True)).reason == "host_out_of_memory"


FULL = Context(full_folder="/data")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"last words\n",
        b"OSError: [Errno 28] No space left on device\n",
        b"vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.\n",
    ],
)
def test_a_full_disk_is_named_with_its_folder_although_nothing_could_be_written(text: bytes) -> None:
    failure = failure_of(text, 1, FULL)
    assert (failure.reason, failure.retryable) == ("disk_full", True)
    assert "/data" in failure.message
    assert "free some space in /data" in failure.advice


def test_a_full_disk_does_not_hide_another_cause() -> None:
    assert failure_of(b"RuntimeError: No CUDA GPUs are available\n", 1, FULL).reason == "no_device"
    assert failure_of(b"", -signal.SIGKILL, FULL).reason == "killed"
    assert failure_of(b"", 127, FULL).reason == "command_not_found"


def test_the_file_that_found_no_space_is_named() -> None:
    line = failure_of(b"OSError: [Errno 28] No space left on device: '/cache/blob'\n").line
    assert line.startswith("no space is left for /cache/blob; free some space there")


def test_the_trampolines_own_words_are_used() -> None:
    text = b"vllm-exporter: cannot start the engine: vlm: no such command\n"
    assert failure_of(text, 127).line == (
        "cannot start the engine: vlm: no such command; correct the command, or install what it names"
    )
    text = b"vllm-exporter: cannot start the engine: ./x: Permission denied\n"
    assert failure_of(text, 126).reason == "permission_denied"
    assert (
        failure_of(b"bash: line 1: vlm: command not found\n", 127).message == "the shell knows no command vlm"
    )


def test_an_unknown_end_quotes_the_last_exception_or_the_last_line() -> None:
    text = (
        b"Traceback (most recent call last):\n  File x\nmy.own.OddError: it is odd\nresource_tracker: noise\n"
    )
    assert "OddError: it is odd" in failure_of(text).message
    assert "last words" in failure_of(b"first\nlast words\n\n").message


@pytest.mark.parametrize("chunk", [0, 1])
def test_requests_progress_and_plain_news_are_no_last_words_where_there_are_better(chunk: int) -> None:
    noise = (
        b'INFO:     127.0.0.1:36708 - "GET /health HTTP/1.1" 200 OK\n'
        b"(EngineCore pid=1) INFO 11-20 12:00:00 [loggers.py:1] Avg prompt throughput: 0.0 tokens/s\n"
        b"Capturing CUDA graphs:  50%|#####     | 1/2 [00:00<00:00,  1.00it/s]\n"
    )
    assert "the roof is on fire" in failure_of(b"the roof is on fire\n" + noise, chunk=chunk).message
    assert "Avg prompt throughput" in failure_of(noise, chunk=chunk).message
    only_requests = noise.splitlines(keepends=True)[0] * 100
    assert failure_of(only_requests, chunk=chunk).message == "the engine ended with exit code 1"


def test_warnings_of_the_start_are_not_the_last_words_of_an_engine_that_served() -> None:
    scan = OutputScan()
    scan.feed(b"WARNING 11-20 12:00:00 [x.py:1] a flag is deprecated\n")
    scan.ready()
    scan.feed(b"INFO 11-20 12:00:00 [x.py:1] goodbye\n")
    message = diagnose(1, scan, Context(was_ready=True)).message
    assert "goodbye" in message
    assert "deprecated" not in message


def test_secrets_are_masked_in_what_is_quoted() -> None:
    failure = failure_of(b"OddError: sesame is wrong\n", 1, Context(secrets=("sesame",)))
    assert "sesame" not in failure.line
    assert "***" in failure.line


def test_a_line_of_a_megabyte_makes_a_short_message() -> None:
    assert len(failure_of(b"OddError: " + b"x" * (1 << 20)).line) < 1100
