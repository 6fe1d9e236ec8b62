"""A label's or annotation's template: parsed once, expanded for each alert."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from exporter.alerting.template.errors import TemplateError
from exporter.alerting.template.evaluator import Evaluation
from exporter.alerting.template.functions import FUNCTIONS, Surroundings
from exporter.alerting.template.parser import parse
from exporter.alerting.template.values import Root, TextMap

_PREFIX = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
"""What Prometheus puts before each template (rules/alerting.go); it moves the columns of its error messages."""
_VARIABLES = ("$labels", "$externalLabels", "$externalURL", "$value")
QUERY_LIMIT = 200
"""Most queries in one expansion."""


class QuerySample(NamedTuple):
    """One element of what a template's `query` gives; `__name__` may be among the labels."""

    labels: Mapping[str, str]
    value: float


class Template:
    """A parsed template; TemplateError for what Go or Prometheus refuses when a rule file is loaded, or we lack."""

    __slots__ = ("_tree", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._tree = parse(text, functions=FUNCTIONS, variables=_VARIABLES) if "{{" in text else None

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
        """The text for one alert; where it fails, what Prometheus shows instead, and nothing is raised.

        `name` is the template's, in messages; `now` is the evaluation's time in unix seconds. `query` may raise anything:
        it becomes the error.
        """
        try:
            return self.execute(
                labels=labels,
                external_labels=external_labels,
                external_url=external_url,
                value=value,
                query=query,
                now=now,
                name=name,
            )
        except TemplateError as error:
            return f"<error expanding template: {error}>"

    def execute(
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
        """As `expand`, but a template that fails raises TemplateError, in Prometheus' words."""
        if self._tree is None:
            return self.text
        surroundings = Surroundings(query, now, external_url, QUERY_LIMIT)
        root = Root(TextMap(labels), TextMap(external_labels), external_url, float(value))
        try:
            return Evaluation(self.text, self._tree, name, surroundings, len(_PREFIX)).expand(root)
        except TemplateError as error:
            raise TemplateError(f"error executing template {name}: {error}") from error
