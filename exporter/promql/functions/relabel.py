"""label_replace and label_join: labels made of labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import re2

from exporter.promql.functions.arguments import string, vector
from exporter.promql.labels import get, mapped, merged
from exporter.promql.model import Argument, CallSite, QueryError, Vector
from exporter.storage.model import Labels

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<braced>\w+)\}|(?P<bare>\w+))")
"""What a replacement may refer to, as Go's regexp.Expand has it: `$1`, `$name`, `${1}`, `${name}`; `$$` is a dollar."""


LABEL_LENGTH = 1 << 16
"""Most characters of a label value that is made here: calls within calls would multiply its length."""
CHARACTERS_PER_SAMPLE = 8
"""So many characters of a made label cost the budget as much as one sample."""


def label_replace(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Where the whole source label matches, the target label becomes the replacement; an empty one is removed."""
    given = vector(arguments)
    target, replacement, source, pattern = (string(arguments, place) for place in range(1, 5))

    def make() -> tuple[Labels, ...]:
        options = re2.Options()
        options.dot_nl = True
        options.log_errors = False
        try:
            compiled = re2.compile(pattern, options)
        except re2.error as error:
            raise QueryError(
                "execution", f"invalid regular expression in label_replace(): {pattern}"
            ) from error
        _check(target, "destination", "label_replace")
        replace = expansion(compiled, replacement)

        def replaced(labels: Labels) -> Labels:
            match = compiled.fullmatch(get(labels, source))
            if match is None:
                return labels
            value = replace(match)
            call.budget.spend(len(value) // CHARACTERS_PER_SAMPLE)
            return merged(labels, [(target, value)])

        return mapped(given.labels, replaced)

    return Vector(call.memo.of("labels", (given.labels,), make), given.values, given.present)


def label_join(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The target label becomes the source labels' values with the separator between them."""
    given = vector(arguments)
    target, separator = string(arguments, 1), string(arguments, 2)
    sources = [string(arguments, place) for place in range(3, len(arguments))]

    def make() -> tuple[Labels, ...]:
        for source in sources:
            _check(source, "source", "label_join")
        _check(target, "destination", "label_join")

        def joined(labels: Labels) -> Labels:
            parts = [get(labels, source) for source in sources]
            length = sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1)
            _check_length(length)
            call.budget.spend(length // CHARACTERS_PER_SAMPLE)
            return merged(labels, [(target, separator.join(parts))])

        return mapped(given.labels, joined)

    return Vector(call.memo.of("labels", (given.labels,), make), given.values, given.present)


def expansion(compiled: Any, template: str) -> Callable[[Any], str]:
    """What turns a match into the template's text; a reference to a group that there is not is empty."""
    names = compiled.groupindex

    def group(match: Any, reference: re.Match[str]) -> str:
        name = reference["braced"] or reference["bare"]
        if name is None:
            return "$"
        if re.fullmatch(r"0|[1-9][0-9]{0,7}", name, re.ASCII):
            place = int(name)
            return (match.group(place) or "") if place <= compiled.groups else ""
        return (match.group(name) or "") if name in names else ""

    def replaced(match: Any) -> str:
        length = 0

        def referred(reference: re.Match[str]) -> str:
            nonlocal length
            text = group(match, reference)
            length += len(text)
            _check_length(length)
            return text

        value = _REFERENCE.sub(referred, template)
        _check_length(len(value))
        return value

    return replaced


def _check_length(length: int) -> None:
    if length > LABEL_LENGTH:
        raise QueryError("execution", f"a label value would be longer than {LABEL_LENGTH} characters")


def _check(name: str, which: str, function: str) -> None:
    """Prometheus 3 lets a label's name be any text but the empty one."""
    if not name:
        raise QueryError("execution", f"invalid {which} label name in {function}(): {name}")
