"""Lines of vLLM's output, from 0.6 to 0.32, and the stages of loading that they tell of."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.engine.output.loglines import STAGES, TEXT_LIMIT, LoadProgress, LogLine, level_of, parse_line

CAPTURES = sorted((Path(__file__).parents[3] / "vllm" / "captures").glob("*.log"))


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            b"(EngineCore_DP0 pid=12) INFO 11-20 12:00:00 [core.py:133] text here",
            LogLine("info", "text here", "EngineCore_DP0", "core.py:133", "log"),
        ),
        (
            b"WARNING 03-01 09:00:00 [api_server.py:5] old style",
            LogLine("warning", "old style", None, "api_server.py:5", "log"),
        ),
        (
            b"ERROR 2026-11-20 12:00:00,123 [x.py:1] dated",
            LogLine("error", "dated", None, "x.py:1", "log"),
        ),
        (b"CRITICAL 11-20 12:00:00 [x.py:1] ", LogLine("error", "", None, "x.py:1", "log")),
        (b"INFO:     Application startup complete.", LogLine("info", "Application startup complete.", None, None, "log")),
        (b"(APIServer pid=1) INFO:     Started", LogLine("info", "Started", "APIServer", None, "log")),
        (
            b'INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK',
            LogLine("debug", '127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK', None, None, "access"),
        ),
        (
            b'INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 503 Service Unavailable',
            LogLine("warning", '127.0.0.1:5 - "GET /health HTTP/1.1" 503 Service Unavailable', None, None, "access"),
        ),
        (
            b'INFO:     127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK',
            LogLine("info", '127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK', None, None, "access"),
        ),
        (
            b"W1121 02:31:42.846000 11922 torch/_library/triton.py:53] Triton not available",
            LogLine("warning", "Triton not available", None, "torch/_library/triton.py:53", "log"),
        ),
        (
            b"[W1121 02:32:02.309793718 utils.cpp:68] Warning: NUMA",
            LogLine("warning", "Warning: NUMA", None, "utils.cpp:68", "log"),
        ),
        (b"Traceback (most recent call last):", LogLine("error", "Traceback (most recent call last):")),
        (b'  File "x.py", line 1, in f', LogLine(None, '  File "x.py", line 1, in f')),
        (b"a.b.EngineDeadError: it died", LogLine("error", "a.b.EngineDeadError: it died")),
        (b"vllm: error: unrecognized arguments: --x", LogLine("error", "vllm: error: unrecognized arguments: --x")),
        (b"/a.py:1: FutureWarning: old", LogLine("warning", "/a.py:1: FutureWarning: old")),
        (b"2026-11-20 12:00:00,123 - ERROR - other", LogLine("error", "2026-11-20 12:00:00,123 - ERROR - other")),
        (b"plain text", LogLine("info", "plain text")),
        (
            b'{"asctime": "x", "levelname": "ERROR", "name": "vllm.core", "message": "in JSON"}',
            LogLine("error", "in JSON", None, "vllm.core", "log"),
        ),
        (b"{not json", LogLine("info", "{not json")),
        (b"\x1b[31mERROR\x1b[0m 11-20 12:00:00 [x.py:1] red", LogLine("error", "red", None, "x.py:1", "log")),
        (b"bad \xff byte\x00 and \x07bell", LogLine("info", "bad � byte and bell")),
        (b"", LogLine(None, "")),
    ],
)  # fmt: skip
def test_a_line_is_read(raw: bytes, line: LogLine) -> None:
    assert parse_line(raw) == line


@pytest.mark.parametrize(
    "raw",
    [
        b"Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.9it/s]",
        b"Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  10%|#         | 7/67 [00:00<00:05]",
    ],
)
def test_a_progress_bar_is_one(raw: bytes) -> None:
    assert parse_line(raw).kind == "progress"


def test_a_line_of_a_megabyte_is_cut() -> None:
    assert len(parse_line(b"x" * (1 << 20)).text) == TEXT_LIMIT + 1


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_the_quick_look_at_a_level_agrees_with_the_full_one(path: Path) -> None:
    for raw in path.read_bytes().splitlines():
        line = parse_line(raw)
        if line.kind not in ("access", "progress"):
            assert level_of(raw) == line.level, raw


def test_hostile_lines_take_no_time() -> None:
    for raw in (
        b"(" * 60_000,
        b"a%|" * 20_000,
        b"x.y" * 20_000,
        b" " * 60_000,
        b"[W" * 30_000,
        b'{"a":' * 10_000,
    ):
        parse_line(raw)
        level_of(raw)


def fed(text: bytes) -> tuple[LoadProgress, list[tuple[str, float | None]]]:
    progress = LoadProgress()
    moves = []
    for raw in text.replace(b"\r", b"\n").split(b"\n"):
        if progress.feed(parse_line(raw)):
            moves.append((progress.stage, progress.ratio))
    return progress, moves


def test_the_stages_of_a_real_start_come_in_order() -> None:
    path = next(p for p in CAPTURES if p.stem == "ready")
    progress, moves = fed(path.read_bytes())
    stages = [stage for stage, _ in moves]
    assert stages == sorted(stages, key=STAGES.index)
    assert {"configuring", "initializing", "loading_weights", "compiling", "starting_server"} <= set(stages)
    assert progress.stage == "starting_server"
    assert progress.ratio == 1.0


def test_shards_are_counted_and_never_uncounted() -> None:
    bar = b"\rLoading safetensors checkpoint shards: %3d%% Completed | %d/4 [00:01<00:01,  1.9it/s]"
    _, moves = fed(b"".join(bar % (n * 25, n) for n in (0, 1, 2, 1, 4)))
    assert moves == [("loading_weights", n / 4) for n in (0, 1, 2, 4)]


def test_a_gpu_start_is_understood() -> None:
    _, moves = fed(
        b"INFO 11-20 12:00:00 [core.py:1] Initializing a V1 LLM engine (v0.11.0) with config: compilation_config\n"
        b"INFO 11-20 12:00:01 [gpu_model_runner.py:1] Starting to load model M...\n"
        b"Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]\n"
        b"INFO 11-20 12:00:02 [default_loader.py:1] Loading weights took 2.00 seconds\n"
        b"INFO 11-20 12:00:03 [backends.py:1] Dynamo bytecode transform time: 4.10 s\n"
        b"INFO 11-20 12:00:04 [gpu_worker.py:1] Available KV cache memory: 20.0 GiB\n"
        b"Capturing CUDA graphs (decode, FULL):  10%|#         | 3/35 [00:00<00:05]\n"
        b"INFO 11-20 12:00:05 [api_server.py:1] Starting vLLM API server 0 on http://0.0.0.0:8000\n"
    )
    assert moves == [
        ("initializing", None),
        ("loading_weights", None),
        ("loading_weights", 0.5),
        ("loading_weights", 1.0),
        ("compiling", 1.0),
        ("allocating_kv_cache", 1.0),
        ("capturing_graphs", 1.0),
        ("starting_server", 1.0),
    ]


def test_weights_that_nobody_reported_are_there_once_the_next_stage_begins() -> None:
    _, moves = fed(
        b"INFO 11-20 12:00:01 [gpu_model_runner.py:1] Starting to load model M...\n"
        b"INFO 11-20 12:00:03 [cpu_model_runner.py:1] Warming up model for the compilation...\n"
    )
    assert moves == [("loading_weights", None), ("compiling", 1.0)]


def test_nothing_read_means_starting_and_no_ratio() -> None:
    progress = LoadProgress()
    assert (progress.stage, progress.ratio, progress.loading) == ("starting", None, False)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK', "debug"),
        ('INFO:     127.0.0.1:5 - "GET /v1/models HTTP/1.1" 401 Unauthorized', "debug"),
        ('INFO:     ::1:5 - "GET /v1/models HTTP/1.1" 401 Unauthorized', "debug"),
        ('INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 503 Service Unavailable', "warning"),
        ('INFO:     10.0.0.7:5 - "GET /metrics HTTP/1.1" 200 OK', "debug"),
        ('INFO:     10.0.0.7:5 - "GET /v1/models HTTP/1.1" 401 Unauthorized', "info"),
        ('INFO:     10.0.0.7:5 - "POST /v1/completions HTTP/1.1" 200 OK', "info"),
        ('INFO:     127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 401 Unauthorized', "info"),
    ],
)
def test_the_daemons_own_questions_are_whispered_and_users_requests_are_told(line: str, level: str) -> None:
    parsed = parse_line(line.encode())
    assert (parsed.kind, parsed.level) == ("access", level)
