"""Whatever an engine prints and whatever a command line holds: an answer or a ConfigError, and no secret in it."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.engine.command import read_command
from exporter.engine.output.diagnosis import Context, OutputScan, diagnose
from exporter.engine.output.evidence import RULES
from exporter.engine.output.loglines import LoadProgress, level_of, may_be_progress, parse_line
from exporter.engine.secrets import mask, mask_argv
from exporter.errors import ConfigError

WORDS = st.sampled_from(
    ["vllm", "serve", "M", "--port", "--port=1", "9000", "bash", "-c", "-lc", "env", "A=b", "--api-key", "--config", "c",
     "$X", "${X:-1}", "&&", ";", "'", '"', "--", "-m", "vllm.entrypoints.openai.api_server", "simulate", "--host", "::",
     "bash -c 'vllm serve'", "\n", "\\", "--uds", "=", "--=", "--port="]
)  # fmt: skip
NEEDLES = st.sampled_from(
    [rule.needle for rule in RULES] + [b"Traceback (most recent call last):", b"shards: 5% |", b"["]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS | st.text(max_size=8), max_size=12), st.sampled_from([None, "http://h:1"]))
def test_any_command_line_is_read_or_refused(argv: list[str], url: str | None) -> None:
    with contextlib.suppress(ConfigError):
        command = read_command(
            argv, {"VLLM_API_KEY": "sesame-open"}, url=url, read_file=lambda path: "port: 1"
        )
        assert command.argv == tuple(argv)
        assert len(command.masked_argv) == len(argv)
        assert "sesame-open" not in repr(command)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.binary(max_size=60) | NEEDLES, max_size=8), st.integers(-64, 255) | st.none(), st.booleans()
)
def test_any_output_is_diagnosed(pieces: list[bytes], code: int | None, was_ready: bool) -> None:
    data = b" ".join(pieces)
    scan = OutputScan()
    scan.feed(data)
    progress = LoadProgress()
    for raw in data.split(b"\n"):
        level_of(raw)
        may_be_progress(raw)
        progress.feed(parse_line(raw))
    failure = diagnose(code, scan, Context(was_ready=was_ready))
    assert failure.reason.replace("_", "").isalnum()
    assert failure.retryable or not was_ready
    assert "\n" not in failure.line
    assert "\x1b" not in failure.line


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.text(min_size=4, max_size=12), st.text(max_size=40))
def test_a_known_secret_never_survives_the_mask(before: str, secret: str, after: str) -> None:
    if "*" in secret:
        return
    assert secret not in mask(before + secret + after, [secret])
    assert secret not in " ".join(mask_argv([before, secret, after], [secret])).replace(" ", "\0")
