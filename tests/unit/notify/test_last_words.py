"""What is shown of an engine's end: of real outputs of vLLM 0.32, and of made-up ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.engine.output.diagnosis import Context, OutputScan, diagnose
from exporter.notify.engine_facts import TAIL_BYTES
from exporter.notify.last_words import APART, LOOKED_AT, last_lines

CAPTURES = Path(__file__).parents[2] / "vllm" / "captures"
ROUTINE = """INFO:     Shutting down
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
INFO:     Finished server process [11]
"""
LOG = "(EngineCore pid=9) {} 11-21 02:31:17 [core.py:9] {}"


def shown(*lines: str) -> list[str]:
    return last_lines("\n".join(lines).encode()).splitlines()


def informs(number: int) -> list[str]:
    return [LOG.format("INFO", f"news {n}") for n in range(number)]


@pytest.mark.parametrize(
    ("capture", "says"),
    [
        ("engine-core-killed", ["engine core exited unexpectedly", "EngineDeadError"]),
        ("engine-core-killed-in-load", ["Engine core initialization failed", "BrokenPipeError"]),
        ("worker-killed", ["Worker proc VllmWorker-1 died unexpectedly (exit code: -9)", "EngineDeadError"]),
        ("worker-frozen", ["TimeoutError: RPC call to execute_model timed out.", "EngineDeadError"]),
        ("kv-cache-too-small", ["ValueError: To serve at least one request", "Engine core initialization"]),
        (
            "model-len-too-large",
            ["1 validation error for ModelConfig", "User-specified max_model_len (999999)"],
        ),
        ("port-taken", ["sock.bind(addr)", "OSError: [Errno 98] Address already in use"]),
        ("unknown-flag", ["error: unrecognized arguments: --no-such-flag"]),
        ("api-server-killed", ["Application startup complete."]),
    ],
)
def test_of_a_real_end_the_lines_with_the_cause_are_shown(capture: str, says: list[str]) -> None:
    lines = last_lines((CAPTURES / f"{capture}.log").read_bytes()[-TAIL_BYTES:]).splitlines()
    assert len(lines) <= 10
    for text in says:
        assert any(text in line for line in lines), text
    for noise in ("Shutting down", "Finished server", "resource_tracker", "Route:", "Traceback", "^^^"):
        assert not any(noise in line for line in lines), noise


def test_the_first_error_comes_first_and_pages_of_shutdown_push_nothing_out() -> None:
    lines = shown(
        *informs(30),
        LOG.format("ERROR", "EngineCore encountered a fatal error."),
        LOG.format("ERROR", "Traceback (most recent call last):"),
        *[LOG.format("ERROR", f'  File "core.py", line {n}, in step') for n in range(40)],
        LOG.format("ERROR", "torch.OutOfMemoryError: CUDA out of memory"),
        *[LOG.format("INFO", f"[shutdown] step {n}") for n in range(100)],
        *ROUTINE.splitlines(),
    )
    assert lines == [
        *[f"news {n}" for n in (27, 28, 29)],
        "EngineCore encountered a fatal error.",
        "torch.OutOfMemoryError: CUDA out of memory",
    ]


def test_where_an_exception_was_raised_is_shown_and_what_its_text_goes_on_with() -> None:
    lines = shown(
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in outer',
        "    inner()",
        "    ~~~~~^^",
        '  File "b.py", line 2, in inner',
        "    raise Wrong(1)",
        "b.WrongError: 2 things",
        "  one thing",
        "  another",
    )
    assert lines[-5:] == [
        '  File "b.py", line 2, in inner',
        "    raise Wrong(1)",
        "b.WrongError: 2 things",
        "  one thing",
        "  another",
    ]


def test_an_error_of_long_before_the_end_has_nothing_to_do_with_it() -> None:
    refused = LOG.format("ERROR", "a request was refused")
    assert "a request was refused" in shown(refused, *informs(APART))
    assert shown(refused, *informs(APART + 1)) == [f"news {n}" for n in range(APART - 9, APART + 1)]
    last = LOG.format("ERROR", "the last")
    assert "a request was refused" not in shown(refused, *informs(APART + 1), last)


def test_what_several_processes_say_in_one_voice_is_shown_once() -> None:
    lines = [f"(Worker_TP{n} pid={n}) ERROR 11-21 02:31:17 [w.py:9] NCCL error" for n in range(8)]
    assert shown(*lines) == ["NCCL error"]


def test_an_end_without_errors_is_its_last_lines_and_where_there_is_nothing_else_the_routine() -> None:
    assert shown(*informs(30), *ROUTINE.splitlines()) == [f"news {n}" for n in range(20, 30)]
    assert shown(*ROUTINE.splitlines())[0] == "Shutting down"


def test_a_diagnosis_reads_well_where_no_output_stands_above_it() -> None:
    for capture, code in (("engine-core-killed", 0), ("engine-core-killed-in-load", 1), ("worker-frozen", 0)):
        scan = OutputScan()
        scan.feed((CAPTURES / f"{capture}.log").read_bytes())
        line = diagnose(code, scan, Context()).line
        assert "above" not in line
        assert "see " not in line


def test_at_most_ten_lines_and_a_thousand_characters_are_shown() -> None:
    short = "\n".join(f"line {number}" for number in range(100)).encode()
    assert last_lines(short).splitlines() == [f"line {number}" for number in range(90, 100)]
    long = "\n".join(f"{number}" + "é" * 900 for number in range(10)).encode()
    cut = last_lines(long)
    assert len(cut) <= 1000
    assert [len(line) for line in cut.splitlines()] == [300, 300, 300]
    assert last_lines(b"") == ""


def test_a_line_is_masked_before_it_is_cut() -> None:
    secret = "s" * 40
    line = ("x" * 280 + secret).encode()
    assert "sss" not in last_lines(line, [secret])


def test_colours_and_broken_text_do_no_harm() -> None:
    assert last_lines(b"\x1b[31mred\x1b[0m \xff\n") == "red \N{REPLACEMENT CHARACTER}"


def test_of_a_flood_only_the_end_is_looked_at() -> None:
    assert shown("ValueError: x", *["INFO:     Shutting down"] * LOOKED_AT) == ["Shutting down"]
