"""What an engine said at its end, in a few lines that fit into a message: the errors first, then what stands around them.

The last lines of a crashed engine mostly tell how well it was shut down; what brought it down stands further up, in the
middle of stack traces of several processes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence

from exporter.engine.output.loglines import LogLine, parse_line
from exporter.engine.secrets import mask

LINES, CHARACTERS = 10, 1000
"""Of the engine's output, in a message."""
LINE_CHARACTERS = 300
"""Of one line: vLLM prints its whole configuration in one."""
LOOKED_AT = 500
"""Lines, from the end: messages are put together in the event loop."""
APART = 20
"""Most other lines between two errors of one end, and after the last: a request that failed long before is none of it."""
LEADING = 3
"""Lines before the first error: what went on, and where it was raised; and of an exception's text after its first line."""

_ROUTINE = re.compile(
    r"\[shutdown\] (?!.*unexpectedly)|Shutting down$|Waiting for application shutdown|Application shutdown complete"
    r"|Finished server process|Parent process exited|.*\bresource_tracker\b|\s+warnings\.warn\(|Available routes are"
    r"|Route: /|Dumping (?:input data|scheduler)"
)
"""What engines say at every end and of every start, and what fills pages."""
_TRACE = re.compile(
    r"Traceback \(most recent call last\)|The above exception was the direct cause|During handling of the above exception"
)
_FRAME = re.compile(r'\s+File "')


def last_lines(output: bytes, secrets: Sequence[str] = ()) -> str:
    """The lines of the end of an engine's output that tell the most, in their order.

    Requests and progress bars tell nothing. The errors of the end come first, the first of them before the others, as a
    cause stands before its consequences; then what stands around them. Without errors it is the last lines.
    """
    lines = [line for line in map(parse_line, output.splitlines()[-LOOKED_AT:]) if _speaks(line)]
    chosen: dict[int, str] = {}
    room = CHARACTERS
    for place in _by_weight(lines):
        text = mask(lines[place].text, secrets)
        text = text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"
        needed = len(text) + bool(chosen)
        if needed > room or text in chosen.values():
            continue
        chosen[place] = text
        room -= needed
        if len(chosen) == LINES:
            break
    return "\n".join(chosen[place] for place in sorted(chosen))


def _speaks(line: LogLine) -> bool:
    return line.kind not in ("access", "progress") and bool(line.text.strip(" ~^"))


def _by_weight(lines: Sequence[LogLine]) -> list[int]:
    """The places of the lines to show, those first that tell the most."""
    frames = _frames(lines)
    plain = [
        place for place, line in enumerate(lines) if place not in frames and not _ROUTINE.match(line.text)
    ]
    errors = _end_of([lines[place].level == "error" for place in plain])
    if not errors:
        return list(dict.fromkeys([*reversed(plain), *range(len(lines) - 1, -1, -1)]))
    first = errors[0]
    weighed = [at for place in errors for at in (plain[place], *_continued(lines, plain[place], frames))]
    weighed += reversed(plain[max(first - LEADING, 0) : first])
    weighed += [at for at in range(plain[first] - 1, plain[first] - 1 - LEADING, -1) if at in frames]
    weighed += plain[first:]
    return list(dict.fromkeys(weighed))


def _frames(lines: Sequence[LogLine]) -> set[int]:
    """The lines of stack traces, but for the exceptions that they end with."""
    frames: set[int] = set()
    tracing: set[str | None] = set()
    for place, line in enumerate(lines):
        if _TRACE.match(line.text) or _FRAME.match(line.text):
            tracing.add(line.process)
            frames.add(place)
        elif line.process in tracing and line.text[0].isspace():
            frames.add(place)
        else:
            tracing.discard(line.process)
    return frames


def _end_of(erring: Sequence[bool]) -> list[int]:
    """The places of the last errors, as far as they are near to the end and to each other."""
    end: list[int] = []
    for place in range(len(erring) - 1, -1, -1):
        if (end[-1] if end else len(erring) - 1) - place > APART:
            break
        if erring[place]:
            end.append(place)
    return end[::-1]


def _continued(lines: Sequence[LogLine], place: int, frames: Container[int]) -> Iterator[int]:
    """The indented lines after an exception, which belong to its text."""
    for after in range(place + 1, min(place + 1 + LEADING, len(lines))):
        if after in frames or not lines[after].text[0].isspace():
            break
        yield after
