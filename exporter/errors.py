"""The exceptions that cross package borders; each message says what was tried, on what, and what to do next."""

from __future__ import annotations


class ExporterError(Exception):
    """Base of every error that this program raises on purpose."""


class ConfigError(ExporterError):
    """The configuration or a command line is wrong; the command line prints it and exits with 2.

    `problems` holds one line per mistake, each with its place and a hint.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ExpositionError(ExporterError):
    """A metrics page is not valid text 0.0.4 or OpenMetrics; `line` counts from 1.

    `reason` is a short word for `vllm_exporter_scrape_errors_total{reason}`, for example `parse` or `sample_limit`.
    """

    def __init__(self, message: str, *, line: int | None = None, reason: str = "parse") -> None:
        super().__init__(f"line {line}: {message}" if line is not None else message)
        self.line = line
        self.reason = reason


class ScrapeError(ExporterError):
    """A scrape brought no usable page; `reason` as in `vllm_exporter_scrape_errors_total{reason}`."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
