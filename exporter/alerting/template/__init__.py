"""Go's text templates, as Prometheus' rule files use them in labels and annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class TemplateError(Exception):
    """A template that cannot be used, or that failed; `line` and `column` count from 1, 0 where they are not known."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"{line}:{column}: {message}" if line else message)
        self.line = line
        self.column = column


class QuerySample(NamedTuple):
    """One element of what a template's `query` gives."""

    labels: Mapping[str, str]
    value: float


class Template:
    """A parsed template; TemplateError for what Go or Prometheus refuses, or we lack."""

    def __init__(self, text: str) -> None:
        self.text = text

    def expand(
        self,
        *,
        labels: Mapping[str, str],
        external_labels: Mapping[str, str],
        external_url: str,
        value: float,
        query: Callable[[str], Sequence[QuerySample]],
        now: float = 0.0,
        name: str = "",
    ) -> str:
        """The text for one alert; TemplateError, see `expanded` for what Prometheus shows then."""
        if "{{" in self.text:
            raise TemplateError("not yet")
        return self.text
