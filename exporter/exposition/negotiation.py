"""Content negotiation for `/metrics`: which format, compressed or not (RFC 9110, sections 12.5.1 and 12.5.3)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Format(NamedTuple):
    """How a page is sent."""

    openmetrics: bool
    gzip: bool
    content_type: str


@lru_cache(maxsize=256)
def negotiate(accept: str | None, accept_encoding: str | None) -> Format:
    """The answer to a request's Accept and Accept-Encoding headers; text 0.0.4 when nothing asks for OpenMetrics more.

    A client that accepts neither gets text 0.0.4 all the same: a scrape is worth more than a 406.
    """
    openmetrics, text = 0.0, 0.0
    for kind, parameters, quality in _items(accept or ""):
        if kind == "application/openmetrics-text":
            if parameters.get("version", "1.0.0") in ("1.0.0", "0.0.1"):
                openmetrics = max(openmetrics, quality)
        elif kind == "text/plain" and parameters.get("version", "0.0.4") == "0.0.4":
            text = max(text, quality)
    chosen = openmetrics > 0 and openmetrics >= text
    return Format(chosen, _accepts_gzip(accept_encoding or ""), OPENMETRICS_TYPE if chosen else TEXT_TYPE)


def _accepts_gzip(header: str) -> bool:
    qualities = {kind: quality for kind, _, quality in _items(header)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def _items(header: str) -> list[tuple[str, dict[str, str], float]]:
    """Each item of a header list with its parameters and its weight; an unreadable weight counts as 0."""
    items = []
    for item in header.lower().split(","):
        kind, *rest = (part.strip() for part in item.split(";"))
        if not kind:
            continue
        parameters = {}
        for part in rest:
            key, _, value = part.partition("=")
            parameters[key.strip()] = value.strip().strip('"')
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        items.append((kind, parameters, quality if 0 <= quality <= 1 else 0.0))
    return items
