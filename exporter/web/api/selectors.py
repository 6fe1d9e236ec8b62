"""`match[]`: series selectors without anything around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from exporter.promql.model import QueryError
from exporter.storage.model import Matcher
from exporter.web.api.model import ApiError

SELECTOR_LIMIT = 100
"""Most selectors of one request."""

_STRING = r'"(?:[^"\\\n]|\\.)*+"|' + r"'(?:[^'\\\n]|\\.)*+'|`[^`]*+`"
_SELECTOR = re.compile(
    rf"\s*+[a-zA-Z_:][\w:]*+\s*+(?:\{{(?:{_STRING}|[^\"'`{{}}#])*+\}})?\s*+|\s*+\{{(?:{_STRING}|[^\"'`{{}}#])*+\}}\s*+"
)
_NO_CONDITION = "match[] must contain at least one non-empty matcher"


def read_selectors(texts: Iterable[str]) -> list[tuple[Matcher, ...]]:
    """The matchers of each selector; ApiError (`bad_data`) for what is none, or would select everything."""
    texts = list(texts)
    if len(texts) > SELECTOR_LIMIT:
        raise ApiError(
            "bad_data", f"{len(texts)} selectors, more than the {SELECTOR_LIMIT} that one request may have"
        )
    return [_read(text) for text in texts]


def _read(text: str) -> tuple[Matcher, ...]:
    from exporter.promql import compile as compile_expression

    if not _SELECTOR.fullmatch(text):
        raise ApiError("bad_data", f"1:1: parse error: {text[:200]!r} is no series selector")
    if re.fullmatch(r"\s*\{[\s,]*\}\s*", text):
        raise ApiError("bad_data", _NO_CONDITION)
    try:
        reads = compile_expression(text).reads
    except QueryError as error:
        if "non-empty matcher" in str(error):
            raise ApiError("bad_data", _NO_CONDITION) from error
        raise ApiError("bad_data", str(error)) from error
    return tuple(reads[0].matchers)


def matches(labels: Mapping[str, str], matchers: Iterable[Matcher]) -> bool:
    """Whether one label set fits every matcher."""
    from exporter.storage.matching import condition_of

    return all(condition_of(matcher).matches(labels.get(matcher.name, "")) for matcher in matchers)
