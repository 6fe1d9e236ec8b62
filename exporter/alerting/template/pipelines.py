"""Pipelines of a template evaluated: operands, fields, calls; what fails says so as Go does, with the place.

Source: https://github.com/golang/go/blob/master/src/text/template/exec.go
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.alerting.template import nodes
from exporter.alerting.template.errors import FunctionError, TemplateError
from exporter.alerting.template.functions import ANY, FUNCTIONS, SAMPLE, SAMPLES, TEXT, Surroundings
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.moments import METHODS
from exporter.alerting.template.values import (
    NO_SAMPLE,
    AnyMap,
    Duration,
    Object,
    Root,
    Sample,
    Samples,
    TextMap,
    Time,
    go_type,
    is_true,
)

STEP_LIMIT = 100_000
"""Most actions and commands in one expansion."""
WORK_LIMIT = 1 << 24
"""Most characters that all functions of one expansion may make."""
DEPTH_LIMIT = 80
"""Deepest nesting of statements and pipelines, through all templates that are called."""


class _Missing:
    """No value came down the pipeline."""


_MISSING = _Missing()


class Pipelines:
    """What one expansion of a template knows while its pipelines are evaluated.

    `prefix` is how many bytes Prometheus puts before the text, for the columns of errors.
    """

    def __init__(self, text: str, name: str, surroundings: Surroundings, prefix: int) -> None:
        self.text = text
        self.name = name
        self.executing = name
        self.variables: list[tuple[str, Object]] = []
        self.node: nodes.Node | None = None
        """Where the evaluation is, for errors."""
        self.depth = 0
        self._surroundings = surroundings
        self._prefix = prefix
        self._steps = STEP_LIMIT
        self._work = WORK_LIMIT

    def error(self, message: str) -> TemplateError:
        """A failure at the place where the evaluation is, in Go's words."""
        node = self.node
        if node is None:
            return TemplateError(f"template: {self.name}: {message}")
        start = self.text.rfind("\n", 0, node.at) + 1
        line = self.text.count("\n", 0, node.at) + 1
        column = len(self.text[start : node.at].encode("utf-8", "replace")) + (
            self._prefix if line == 1 else 0
        )
        return TemplateError(
            f"template: {self.name}:{line}:{column}: executing {quote_go(self.executing)}"
            f" at <{node}>: {message}"
        )

    def enter(self) -> None:
        """Count a level of nesting; whoever is done with it takes it from `depth` again."""
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise self.error("nested too deeply")

    def step(self) -> None:
        """Count a step."""
        self._steps -= 1
        if self._steps < 0:
            raise self.error(f"more than {STEP_LIMIT} steps")

    def assign(self, name: str, value: Object) -> None:
        """Overwrite the last variable of that name."""
        for number in range(len(self.variables) - 1, -1, -1):
            if self.variables[number][0] == name:
                self.variables[number] = (name, value)
                return
        raise self.error(f"undefined variable: {name}")

    def pipeline(self, dot: Object, pipe: nodes.Pipe) -> Object:
        """What a pipeline gives; its variables are declared or assigned."""
        self.step()
        self.enter()
        self.node = pipe
        value: Object = _MISSING
        for command in pipe.commands:
            value = self._command(dot, command, value)
        for variable in pipe.variables:
            if pipe.assigns:
                self.assign(variable.name, value)
            else:
                self.variables.append((variable.name, value))
        self.depth -= 1
        return value

    def _command(self, dot: Object, command: nodes.Command, final: Object) -> Object:
        self.step()
        first = command.words[0]
        arguments = command.words[1:]
        match first:
            case nodes.Function():
                return self._function(dot, first, command, arguments, final)
            case nodes.Field() | nodes.Variable() | nodes.Chain():
                return self._fields(dot, first, arguments, final)
        self.node = first
        if arguments or final is not _MISSING:
            raise self.error(f"can't give argument to non-function {first}")
        if isinstance(first, nodes.Nil):
            raise self.error("nil is not a command")
        return self._operand(dot, first)

    def _operand(self, dot: Object, node: nodes.Operand) -> Object:
        self.node = node
        match node:
            case nodes.Dot():
                return dot
            case nodes.Nil():
                return None
            case nodes.Bool() | nodes.Number() | nodes.String():
                return node.value
            case nodes.Pipe():
                return self.pipeline(dot, node)
            case nodes.Function():
                return self._function(dot, node, node, (), _MISSING)
        return self._fields(dot, node, (), _MISSING)

    def _fields(
        self,
        dot: Object,
        node: nodes.Field | nodes.Variable | nodes.Chain,
        arguments: Sequence[nodes.Operand],
        final: Object,
    ) -> Object:
        self.node = node
        match node:
            case nodes.Field():
                value = dot
            case nodes.Variable():
                value = self._variable(node.name)
                if not node.names and (arguments or final is not _MISSING):
                    raise self.error(f"can't give argument to non-function {node}")
            case nodes.Chain():
                if isinstance(node.of, nodes.Nil):
                    raise self.error(f"indirection through explicit nil in {node}")
                value = self._operand(dot, node.of)
        for name in node.names[:-1]:
            value = self._field(dot, value, name, node, (), _MISSING)
        if node.names:
            value = self._field(dot, value, node.names[-1], node, arguments, final)
        return value

    def _variable(self, name: str) -> Object:
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise self.error(f"undefined variable: {name}")

    def _field(
        self,
        dot: Object,
        value: Object,
        name: str,
        node: nodes.Node,
        arguments: Sequence[nodes.Operand],
        final: Object,
    ) -> Object:
        if isinstance(value, (Time, Duration)):
            return self._method(dot, value, name, node, arguments, final)
        has_arguments = bool(arguments) or final is not _MISSING
        if isinstance(value, (TextMap, AnyMap)):
            if has_arguments:
                raise self.error(f"{name} is not a method but has arguments")
            return value.get(name, "" if isinstance(value, TextMap) else None)
        parts: dict[str, Object] = {}
        if isinstance(value, Root):
            parts = value.fields
        elif isinstance(value, Sample):
            if value is NO_SAMPLE and name in ("Labels", "Value"):
                raise self.error(f"nil pointer evaluating {go_type(value)}.{name}")
            parts = {"Labels": TextMap(value.labels), "Value": value.value}
        elif value is None:
            return None
        if name not in parts:
            raise self.error(f"can't evaluate field {name} in type {go_type(value)}")
        if has_arguments:
            raise self.error(f"{name} has arguments but cannot be invoked as function")
        return parts[name]

    def _method(
        self,
        dot: Object,
        value: Time | Duration,
        name: str,
        node: nodes.Node,
        arguments: Sequence[nodes.Operand],
        final: Object,
    ) -> Object:
        method = METHODS[type(value)].get(name)
        if method is None:
            raise self.error(f"can't evaluate field {name} in type {go_type(value)}")
        takes = (TEXT,) if name == "Format" else ()
        given = self._arguments(dot, name, takes, None, arguments, final)
        self.node = node
        try:
            return self._spent(method(value, *given))
        except FunctionError as error:
            raise self.error(f"error calling {name}: {error}") from error

    # calls

    def _function(
        self,
        dot: Object,
        node: nodes.Function,
        command: nodes.Node,
        arguments: Sequence[nodes.Operand],
        final: Object,
    ) -> Object:
        self.node = node
        name = node.name
        signature = FUNCTIONS[name]
        if name in ("and", "or"):
            return self._stops_early(dot, name, arguments, final)
        given = self._arguments(dot, name, signature.takes, signature.rest, arguments, final)
        try:
            if signature.surroundings:
                return self._spent(signature.call(self._surroundings, *given))
            return self._spent(signature.call(*given))
        except FunctionError as error:
            self.node = command
            raise self.error(f"error calling {name}: {error}") from error

    def _stops_early(
        self, dot: Object, name: str, arguments: Sequence[nodes.Operand], final: Object
    ) -> Object:
        if not arguments and final is _MISSING:
            raise self.error(f"wrong number of args for {name}: want at least 1 got 0")
        value: Object = None
        for argument in arguments:
            value = self._argument(dot, argument, ANY)
            if is_true(value) == (name == "or"):
                return value
        return value if final is _MISSING else final

    def _spent(self, value: Object) -> Object:
        if isinstance(value, str):
            self._work -= len(value)
            if self._work < 0:
                raise FunctionError(f"more than {WORK_LIMIT} characters are made on the way")
        return value

    def _arguments(
        self,
        dot: Object,
        name: str,
        takes: Sequence[str],
        rest: str | None,
        arguments: Sequence[nodes.Operand],
        final: Object,
    ) -> list[Object]:
        count = len(arguments) + (final is not _MISSING)
        if rest is None and count != len(takes):
            raise self.error(f"wrong number of args for {name}: want {len(takes)} got {count}")
        if count < len(takes):
            raise self.error(
                f"wrong number of args for {name}: want at least {len(takes)} got {len(arguments)}"
            )

        def kind(number: int) -> str:
            return takes[number] if number < len(takes) else rest or ANY

        given = [self._argument(dot, argument, kind(number)) for number, argument in enumerate(arguments)]
        if final is not _MISSING:
            given.append(self._fits(final, kind(len(arguments))))
        return given

    def _argument(self, dot: Object, node: nodes.Operand, kind: str) -> Object:
        self.node = node
        if isinstance(node, nodes.Nil):
            if kind == TEXT:
                raise self.error("cannot assign nil to string")
            return self._fits(None, kind)
        if isinstance(node, (nodes.Bool, nodes.Number, nodes.String)) and kind != ANY:
            if kind != TEXT:
                raise self.error(f"can't handle {node} for arg of type {kind}")
            if not isinstance(node, nodes.String):
                raise self.error(f"expected string; found {node}")
        return self._fits(self._operand(dot, node), kind)

    def _fits(self, value: Object, kind: str) -> Object:
        """The value as a parameter of a Go type takes it."""
        if kind == ANY:
            return value
        if value is None:
            if kind == SAMPLE:
                return NO_SAMPLE
            if kind == SAMPLES:
                return Samples()
            raise self.error(f"invalid value; expected {kind}")
        if go_type(value) != kind:
            raise self.error(f"wrong type for value; expected {kind}; got {go_type(value)}")
        return value
