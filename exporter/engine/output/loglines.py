"""What a line of vLLM's output says: its level, its text, and how far loading has come.

vLLM writes `(APIServer pid=12) INFO 11-20 12:00:00 [core.py:1] text`; uvicorn `INFO:     text`; PyTorch
`W1120 12:00:00.000 12 torch/x.py:1] text`; tqdm redraws a bar after `\\r`; tracebacks come bare. vLLM 0.6 to 0.32.
"""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

TEXT_LIMIT = 4096
"""Characters of a line that are kept; vLLM prints its whole configuration in one line of about 3,000."""

_LEVEL_OF: dict[str, Level] = {
    "DEBUG": "debug", "D": "debug", "TRACE": "debug", "INFO": "info", "I": "info", "NOTICE": "info",
    "WARNING": "warning", "WARN": "warning", "W": "warning",
    "ERROR": "error", "E": "error", "CRITICAL": "error", "FATAL": "error", "F": "error",
}  # fmt: skip

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PREFIX = re.compile(r"\((?P<process>[^()]{1,64}?) pid=(?P<pid>\d{1,10})\) ?")
_VLLM = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) (?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)? "
    r"\[(?P<source>[^\]]{1,120})\] ?(?P<text>.*)",
    re.DOTALL,
)
_UVICORN = re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):\s+(?P<text>.*)", re.DOTALL)
_GLOG = re.compile(
    r"\[?(?P<level>[DIWEF])\d{4} \d\d:\d\d:\d\d\.\d+(?: +\d+)? (?P<source>[^\]\s]{1,160}:\d+)\] ?(?P<text>.*)",
    re.DOTALL,
)
_SOMEWHERE = re.compile(r"(?:^|[\s\[|\]])(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL)(?=[\s\]|:]|$)")
_EXCEPTION = re.compile(
    r"(?:\[rank\d+\]: ?)?[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Failure|Fault|Exit)(?:: |$)"
)
_WARNED = re.compile(r"\b[A-Z]\w*Warning: |\bWarning: ")
_PROGRESS = re.compile(
    r"(?P<what>[^:%|]{0,200}?):?\s+(?P<percent>\d{1,3})% ?(?:Completed ?)?\|.*?(?P<done>\d+)/(?P<total>\d+) \["
)
_LOOPBACK = re.compile(r"127\.|\[?::1\b|localhost:")
_ACCESS = re.compile(r'(?P<client>\S+) - "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3})\b')
_PROBED = re.compile(r"/(?:health|metrics/?|ping|version|load|v1/models)(?:\?.*)?$")


class LogLine(NamedTuple):
    """One line. `level` None: the line does not say; it goes with the line before (a traceback's middle)."""

    level: Level | None
    text: str
    process: str | None = None
    source: str | None = None
    kind: Literal["log", "access", "progress", "bare"] = "bare"


def clean(raw: bytes) -> str:
    """Text without colours and control characters, at most TEXT_LIMIT long; bad UTF-8 becomes U+FFFD."""
    text = raw[: TEXT_LIMIT * 4].decode("utf-8", errors="replace")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    text = _CONTROL.sub("", text).rstrip()
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"


def parse_line(raw: bytes) -> LogLine:
    """Read one line, without its line end."""
    text = clean(raw)
    process = None
    if text.startswith("(") and (match := _PREFIX.match(text)):
        process = match["process"]
        text = text[match.end() :]
    if match := _VLLM.match(text) or _GLOG.match(text):
        return LogLine(_LEVEL_OF[match["level"]], match["text"], process, match["source"], "log")
    if match := _UVICORN.match(text):
        access = _ACCESS.match(match["text"])
        if access is None:
            return LogLine(_LEVEL_OF[match["level"]], match["text"], process, None, "log")
        level: Level = "debug" if _is_probe(access) else "warning" if access["status"] >= "500" else "info"
        return LogLine(level, match["text"], process, None, "access")
    if text.startswith("{") and (line := _from_json(text, process)):
        return line
    if "%" in text and _PROGRESS.match(text):
        return LogLine("info", text, process, None, "progress")
    return LogLine(_bare_level(text), text, process)


def _is_probe(access: re.Match[str]) -> bool:
    """A question that monitors ask all the time; a refused one only from this machine, where this daemon asks."""
    good = access["status"] < ("500" if _LOOPBACK.match(access["client"]) else "400")
    return access["method"] == "GET" and good and _PROBED.match(access["path"]) is not None


def _from_json(text: str, process: str | None) -> LogLine | None:
    """A line of vLLM's JSON logging."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    level = _LEVEL_OF.get(str(fields.get("levelname") or fields.get("level")).upper())
    message = fields.get("message") or fields.get("msg") or fields.get("event")
    if level is None or not isinstance(message, str):
        return None
    return LogLine(level, _CONTROL.sub(" ", message.replace("\n", " ")), process, fields.get("name"), "log")


def _bare_level(text: str) -> Level | None:
    if not text or text[0].isspace():
        return None
    if text.startswith("Traceback (most") or _EXCEPTION.match(text) or ": error: " in text[:200]:
        return "error"
    if match := _SOMEWHERE.search(text[:100]):
        return _LEVEL_OF[match["level"]]
    if _WARNED.search(text[:400]):
        return "warning"
    return "info"


_FAST = re.compile(
    rb"(?:\([^()]{1,64} pid=\d+\) ?)?(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL)[ :]|\[?([DIWEF])\d{4} \d\d:)"
)


def level_of(raw: bytes) -> Level | None:
    """The level alone, in about a microsecond: lines that are counted but not shown need no more."""
    if match := _FAST.match(raw):
        return _LEVEL_OF[(match[1] or match[2]).decode()]
    if raw[:1] in b" \t":
        return None
    return _bare_level(raw[:400].decode("utf-8", errors="replace"))


STAGES = (
    "starting",
    "configuring",
    "initializing",
    "loading_weights",
    "compiling",
    "allocating_kv_cache",
    "capturing_graphs",
    "starting_server",
)
"""The stages of loading in the order that vLLM goes through them; a stage may be skipped, none comes back."""

_MARKS: tuple[tuple[str, str], ...] = (
    ("non-default args", "configuring"),
    ("Resolved architecture", "configuring"),
    ("Initializing a V1 LLM engine", "initializing"),
    ("Initializing an LLM engine", "initializing"),
    ("Initializing a V0 LLM engine", "initializing"),
    ("Starting to load model", "loading_weights"),
    ("Loading model weights", "loading_weights"),
    ("checkpoint shards", "loading_weights"),
    ("for vLLM's torch.compile", "compiling"),
    ("Start compiling", "compiling"),
    ("Dynamo bytecode transform", "compiling"),
    ("Compiling a graph", "compiling"),
    ("Warming up model for the compilation", "compiling"),
    ("Available KV cache memory", "allocating_kv_cache"),
    ("KV cache size:", "allocating_kv_cache"),
    ("for KV cache on node", "allocating_kv_cache"),
    ("# GPU blocks:", "allocating_kv_cache"),
    ("Capturing CUDA graph", "capturing_graphs"),
    ("Capturing the model for CUDA graph", "capturing_graphs"),
    ("Graph capturing finished", "capturing_graphs"),
    ("Starting vLLM API server", "starting_server"),
    ("Starting vLLM server", "starting_server"),
    ("Application startup complete", "starting_server"),
)
_WEIGHTS_STAGE = STAGES.index("loading_weights")
_WEIGHTS_DONE = ("Loading weights took", "Model loading took", "model weights took")
_MARK_BYTES = tuple(mark.encode() for mark in (*(mark for mark, _ in _MARKS), *_WEIGHTS_DONE))


def may_be_progress(data: bytes) -> bool:
    """Whether some line in here could move `LoadProgress`; cheap, for output that is not looked at closely."""
    return any(mark in data for mark in _MARK_BYTES)


class LoadProgress:
    """How far loading has come, from the lines of one incarnation. It never goes back."""

    def __init__(self) -> None:
        self._reached = 0
        self.ratio: float | None = None
        """Share of the checkpoint's shards that are loaded, 0 to 1; None until the output says."""

    @property
    def stage(self) -> str:
        return STAGES[self._reached]

    @property
    def loading(self) -> bool:
        """Whether the output has named a stage at all."""
        return self._reached > 0

    def feed(self, line: LogLine) -> bool:
        """Take a line in; whether stage or ratio moved."""
        before = (self._reached, self.ratio)
        if line.kind == "access" or line.level == "error":
            return False
        for mark, stage in _MARKS:
            if mark in line.text:
                self._reached = max(self._reached, STAGES.index(stage))
                break
        if self._reached > _WEIGHTS_STAGE >= before[0]:
            self._raise_ratio(
                1.0
            )  # weights made up on the spot, as with --load-format dummy, are not reported
        if line.kind == "progress":
            self._take_bar(line.text)
        elif any(mark in line.text for mark in _WEIGHTS_DONE):
            self._raise_ratio(1.0)
        return before != (self._reached, self.ratio)

    def _take_bar(self, text: str) -> None:
        match = _PROGRESS.match(text)
        if match and "checkpoint shards" in match["what"] and int(match["total"]) > 0:
            self._raise_ratio(min(1.0, int(match["done"]) / int(match["total"])))

    def _raise_ratio(self, ratio: float) -> None:
        self.ratio = max(ratio, self.ratio or 0.0)
