"""Why the engine ended: from the exit code and the whole of its output, with one line that says what to change.

The texts are vLLM's, PyTorch's, huggingface_hub's and argparse's own, observed on vLLM 0.32 or read in its source.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.engine.output.evidence import RULES, Rule
from exporter.engine.output.loglines import clean, parse_line
from exporter.engine.secrets import mask


@dataclass(frozen=True, slots=True)
class Failure:
    """A diagnosed end. `reason` is a word for labels, `message` what happened, `advice` what to change."""

    reason: str
    message: str
    advice: str
    retryable: bool

    @property
    def line(self) -> str:
        """The one line for the log."""
        return f"{self.message}; {self.advice}" if self.advice else self.message


@dataclass(frozen=True, slots=True)
class Context:
    """What the output cannot say."""

    was_ready: bool = False
    """The incarnation has served: its flags and its model cannot be wrong."""
    port: int | None = None
    port_held_by: str | None = None
    """Who holds the engine's port now that the engine is gone; None when it is free."""
    port_is_ours: bool = False
    """The daemon chose the port, and will choose another."""
    oom_killed: bool = False
    """The kernel killed something for memory while the engine ran."""
    full_folder: str | None = None
    """The folder of the engine's output, when its file system was full at the end."""
    secrets: tuple[str, ...] = ()


_HINTS = (
    b"rror", b"ERROR", b"xception", b"unexpectedly", b"vllm-exporter: ", b"Permission denied", b"o such file",
    b"not found", b"Segmentation fault", b"Illegal instruction", b"Killed", b"Fault", b"No module", b"can't open",
)  # fmt: skip
"""Every line that can be evidence holds one of these: looking for them alone makes the scan of ordinary output cheap."""
_LAST_LINES = 16
"""How many lines of a chunk, from its end, may be its last words."""
_OCCURRENCES = 8
"""How often a text is looked at in one chunk before the rest of that chunk is left alone for it."""
_EXCEPTION_LINE = re.compile(
    r"(?:\[rank\d+\]: ?)?(?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt))(?:: (?P<what>.*))?$"
)
_NOT_FOR_SPACE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGSEGV, -signal.SIGILL, 126, 127)
"""Ends that a full disk does not bring about: a write that fails is an exception, or a SIGBUS in shared memory."""
_VAGUE = ("Engine core initialization failed", "See root cause above", "See stack trace", "KeyboardInterrupt")


class OutputScan:
    """Collects evidence over the whole output of one incarnation, in constant memory; first evidence of a kind counts."""

    def __init__(self) -> None:
        self._found: dict[Rule, str] = {}
        self._ready = False
        self._exception: str | None = None
        self._telling: str | None = None
        self._plain: str | None = None

    def ready(self) -> None:
        """The engine serves: from now on only what can happen to a running engine is evidence."""
        self._ready = True
        self._telling = self._plain = None

    def feed(self, data: bytes) -> None:
        """Take in whole lines, as many at once as there are."""
        if not any(hint in data for hint in _HINTS):
            self._remember_last(data)
            return
        for rule in RULES:
            if rule not in self._found and (rule.running or not self._ready):
                for text in _lines_with(data, rule.needle):
                    if (evidence := _evidence(text)) and rule.matches(evidence):
                        self._found[rule] = evidence
                        break
        for text in _lines_with_last(data, b"Error"):
            evidence = _evidence(text)
            if evidence and _EXCEPTION_LINE.match(evidence.strip()):
                if not any(vague in evidence for vague in _VAGUE) or self._exception is None:
                    self._exception = evidence.strip()
                break
        self._remember_last(data)

    def _remember_last(self, data: bytes) -> None:
        """Keep the last words: requests and progress bars are none, and news of level info only for want of better."""
        end = len(data)
        plain: str | None = None
        for _ in range(_LAST_LINES):
            if end <= 0:
                break
            start = data.rfind(b"\n", 0, end) + 1
            raw = data[start:end].strip()
            end = start - 1
            line = parse_line(raw) if raw else None
            if line is None or line.kind in ("access", "progress") or not line.text:
                continue
            if line.kind != "log" or line.level in ("warning", "error"):
                self._telling = clean(raw)[:500]
                break
            plain = plain or clean(raw)[:500]
        self._plain = plain or self._plain

    def found(self) -> Iterator[tuple[Rule, str]]:
        """Evidence, most telling rule first."""
        for rule in RULES:
            if rule in self._found:
                yield rule, self._found[rule]

    @property
    def exception(self) -> str | None:
        """The last exception that the output names."""
        return self._exception

    @property
    def last_line(self) -> str | None:
        """The last line that may say something about an end."""
        return self._telling or self._plain


def _lines_with(data: bytes, needle: bytes) -> Iterator[bytes]:
    """The first lines of the chunk that hold the text; a cause stands before its consequences."""
    place = data.find(needle)
    for _ in range(_OCCURRENCES):
        if place < 0:
            return
        start = data.rfind(b"\n", 0, place) + 1
        end = data.find(b"\n", place)
        end = len(data) if end < 0 else end
        yield data[start:end]
        place = data.find(needle, end)


def _lines_with_last(data: bytes, needle: bytes) -> Iterator[bytes]:
    """The last lines of the chunk that hold the text, from the end."""
    place = data.rfind(needle)
    for _ in range(_OCCURRENCES):
        if place < 0:
            return
        start = data.rfind(b"\n", 0, place) + 1
        end = data.find(b"\n", place)
        yield data[start : len(data) if end < 0 else end]
        place = data.rfind(needle, 0, start)


def _evidence(raw: bytes) -> str | None:
    """The line's text when the engine says it as an error; a log line of a lower level may quote a user's prompt."""
    line = parse_line(raw)
    if line.kind in ("access", "progress") or (line.kind == "log" and line.level != "error"):
        return None
    return line.text


def diagnose(exit_code: int | None, scan: OutputScan, context: Context = Context()) -> Failure:
    """Say why an engine ended that nobody asked to end. `exit_code`: negative for a signal, None when unknown.

    An engine that was ready had good flags and a good model, so its end is always worth another try.
    """
    failure = _diagnose(exit_code, scan, context)
    return Failure(
        reason=failure.reason,
        message=mask(failure.message, context.secrets)[:600],
        advice=mask(failure.advice, context.secrets)[:400],
        retryable=failure.retryable or context.was_ready,
    )


def _diagnose(exit_code: int | None, scan: OutputScan, context: Context) -> Failure:
    for rule, text in scan.found():
        if context.was_ready and not rule.running:
            continue
        if rule.reason == "port_in_use":
            if failure := _port_in_use(context, exit_code):
                return failure
            continue
        if rule.consequence and context.full_folder is not None:
            continue
        if rule.exit_codes and exit_code is not None and exit_code not in rule.exit_codes:
            continue
        if rule.consequence and exit_code is not None and exit_code < 0:
            continue  # the signal tells more than what its victims wrote
        if rule.reason == "disk_full" and context.full_folder is not None:
            return _disk_full(context.full_folder)
        return Failure(rule.reason, rule.message(text), rule.advice(text), rule.retryable)
    if context.full_folder is not None and exit_code not in _NOT_FOR_SPACE:
        return _disk_full(context.full_folder)
    return _by_exit_code(exit_code, scan, context)


def _port_in_use(context: Context, exit_code: int | None) -> Failure | None:
    port = f"port {context.port}" if context.port else "its port"
    if context.port_is_ours:
        message = f"{port}, which the daemon had chosen for it, was taken when the engine wanted it"
        return Failure("port_in_use", message, "the next start gets another one", True)
    if context.port_held_by is None:
        return Failure("port_in_use", f"{port} was taken when the engine wanted it", "it is free now", True)
    if exit_code == 0:
        return None
    return Failure(
        "port_in_use",
        f"{port} is taken by {context.port_held_by}",
        "stop that process, or give the engine another --port",
        False,
    )


def _disk_full(folder: str) -> Failure:
    return Failure(
        "disk_full",
        f"no space is left in {folder}, where the engine's output goes",
        f"free some space in {folder}, or move data_dir to a larger file system",
        True,
    )


def _by_exit_code(exit_code: int | None, scan: OutputScan, context: Context) -> Failure:
    said = scan.exception or scan.last_line
    tail = f": {said}" if said else ""
    if exit_code is None:
        return Failure("exited", f"the engine is gone; its exit code cannot be known{tail}", "", True)
    if exit_code < 0:
        return _by_signal(-exit_code, context, f": {scan.exception}" if scan.exception else "")
    if exit_code == 127:
        return Failure(
            "command_not_found", f"no such command{tail}", "correct the command, or install it", False
        )
    if exit_code == 126:
        return Failure("permission_denied", f"the command may not be run{tail}", "make it executable", False)
    if exit_code in (128 + signal.SIGKILL, 128 + signal.SIGSEGV, 128 + signal.SIGABRT, 128 + signal.SIGTERM):
        return _by_signal(exit_code - 128, context, tail)
    if exit_code == 0:
        return Failure("exited", f"the engine ended by itself with exit code 0{tail}", "", True)
    return Failure(
        "crashed",
        f"the engine ended with exit code {exit_code}{tail}",
        "the end of its output may say more",
        True,
    )


def _by_signal(signum: int, context: Context, tail: str) -> Failure:
    try:
        name = signal.Signals(signum).name
    except ValueError:
        name = f"signal {signum}"
    if signum == signal.SIGKILL and context.oom_killed:
        return Failure(
            "host_out_of_memory",
            "the kernel killed the engine because the host or its memory limit ran out",
            "give it more memory, or lower --swap-space, --cpu-offload-gb or the number of parallel loads",
            True,
        )
    if signum == signal.SIGILL:
        return Failure(
            "illegal_instruction",
            f"the engine met an instruction that this CPU does not have (SIGILL){tail}",
            "install a vLLM build for this machine's CPU",
            False,
        )
    advice = "look for the out-of-memory killer in the kernel's log" if signum == signal.SIGKILL else ""
    return Failure("killed", f"the engine was ended by {name}{tail}", advice, True)
