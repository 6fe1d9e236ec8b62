"""What goes wrong in a template."""

from __future__ import annotations


class TemplateError(Exception):
    """A template that cannot be parsed, or that failed; `line` and `column` count from 1, 0 where they are not known."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"{line}:{column}: {message}" if line else message)
        self.message = message
        self.line = line
        self.column = column


class FunctionError(Exception):
    """A function of a template was given something that it cannot work on."""
