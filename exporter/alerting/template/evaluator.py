"""A template's tree made into text; what fails says so as Go does, with the place.

Source: https://github.com/golang/go/blob/master/src/text/template/exec.go
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.alerting.template import nodes
from exporter.alerting.template.errors import FunctionError, TemplateError
from exporter.alerting.template.functions import ANY, FUNCTIONS, SAMPLE, SAMPLES, TEXT, Surroundings
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.moments import METHODS
from exporter.alerting.template.nodes import Body
from exporter.alerting.template.parser import Tree
from exporter.alerting.template.printing import TEXT_LIMIT, text_of
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
CALL_DEPTH_LIMIT = 20
"""Deepest nesting of templates that call templates."""
DEPTH_LIMIT = 60


class _Missing:
    """No value came down the pipeline."""


_MISSING = _Missing()


class _Jump(Exception):  # noqa: N818  a way out of a loop, not an error
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Evaluation:
    """One expansion of one template. `prefix` is how many bytes Prometheus puts before the text, for the columns."""

    def __init__(self, text: str, tree: Tree, name: str, surroundings: Surroundings, prefix: int) -> None:
        self._text = text
        self._tree = tree
        self._name = name
        self._executing = name
        self._surroundings = surroundings
        self._prefix = prefix
        self._node: nodes.Node | None = None
        self._variables: list[tuple[str, Object]] = []
        self._parts: list[str] = []
        self._length = 0
        self._steps = STEP_LIMIT
        self._work = WORK_LIMIT
        self._calls = 0
        self._depth = 0

    def expand(self, root: Root) -> str:
        """The text; TemplateError in Go's words."""
        self._variables = [
            ("$", root),
            ("$labels", root.labels),
            ("$externalLabels", root.external_labels),
            ("$externalURL", root.external_url),
            ("$value", root.value),
        ]
        try:
            self._walk(root, self._tree.body)
        except RecursionError as error:
            raise self._error("nested too deeply") from error
        return "".join(self._parts)

    # failing

    def _error(self, message: str) -> TemplateError:
        node = self._node
        if node is None:
            return TemplateError(f"template: {self._name}: {message}")
        start = self._text.rfind("\n", 0, node.at) + 1
        line = self._text.count("\n", 0, node.at) + 1
        column = len(self._text[start : node.at].encode("utf-8", "replace")) + (
            self._prefix if line == 1 else 0
        )
        return TemplateError(
            f"template: {self._name}:{line}:{column}: executing {quote_go(self._executing)}"
            f" at <{node}>: {message}"
        )

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise self._error(f"more than {STEP_LIMIT} steps")

    # statements

    def _walk(self, dot: Object, body: Body) -> None:
        self._depth += 1
        if self._depth > DEPTH_LIMIT + CALL_DEPTH_LIMIT:
            raise self._error("nested too deeply")
        for statement in body:
            self._step()
            self._node = statement
            match statement:
                case nodes.Text():
                    self._write(statement.text)
                case nodes.Action():
                    value = self._pipeline(dot, statement.pipe)
                    if not statement.pipe.variables:
                        self._node = statement
                        self._write(text_of(value))
                case nodes.Branch(kind="range"):
                    self._range(dot, statement)
                case nodes.Branch():
                    self._choose(dot, statement)
                case nodes.Call():
                    self._call(dot, statement)
                case nodes.Jump():
                    raise _Jump(statement.kind)
        self._depth -= 1

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > TEXT_LIMIT:
            raise self._error(f"the text would be longer than {TEXT_LIMIT} characters")
        self._parts.append(text)

    def _choose(self, dot: Object, branch: nodes.Branch) -> None:
        mark = len(self._variables)
        value = self._pipeline(dot, branch.pipe)
        if is_true(value):
            self._walk(value if branch.kind == "with" else dot, branch.body)
        elif branch.otherwise is not None:
            self._walk(dot, branch.otherwise)
        del self._variables[mark:]

    def _range(self, dot: Object, branch: nodes.Branch) -> None:
        mark = len(self._variables)
        value = self._pipeline(dot, branch.pipe)
        depth = self._depth
        names = [variable.name for variable in branch.pipe.variables]
        inner = len(self._variables)
        empty = True
        for key, element in self._elements(value, len(names)):
            empty = False
            self._step()
            found = (element,) if len(names) == 1 else (key, element)
            for name, bound in zip(names, found, strict=False):
                self._set(name, bound)
            try:
                self._walk(element, branch.body)
            except _Jump as jump:
                self._depth = depth
                if jump.kind == "break":
                    break
            finally:
                del self._variables[inner:]
        if empty and branch.otherwise is not None:
            self._walk(dot, branch.otherwise)
        del self._variables[mark:]

    def _elements(self, value: Object, names: int) -> Iterator[tuple[Object, Object]]:
        if value is None:
            return iter(())
        if isinstance(value, (TextMap, AnyMap)):
            return iter(sorted(value.items()))
        if isinstance(value, Samples):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            if names > 1:
                raise self._error(f"can't use {value} to iterate over more than one variable")
            return ((number, number) for number in range(value))
        raise self._error(f"range can't iterate over {text_of(value)}")

    def _call(self, dot: Object, call: nodes.Call) -> None:
        body = self._tree.defined.get(call.name)
        if body is None:
            raise self._error(f"template {quote_go(call.name)} not defined")
        if self._calls >= CALL_DEPTH_LIMIT:
            raise self._error(f"exceeded maximum template depth ({CALL_DEPTH_LIMIT})")
        data = self._pipeline(dot, call.pipe) if call.pipe is not None else None
        kept = self._variables, self._executing
        self._variables, self._executing = [("$", data)], call.name
        self._calls += 1
        self._walk(data, body)
        self._calls -= 1
        self._variables, self._executing = kept

    # values

    def _set(self, name: str, value: Object) -> None:
        """Overwrite the last variable of that name."""
        for number in range(len(self._variables) - 1, -1, -1):
            if self._variables[number][0] == name:
                self._variables[number] = (name, value)
                return
        raise self._error(f"undefined variable: {name}")

    def _pipeline(self, dot: Object, pipe: nodes.Pipe) -> Object:
        self._step()
        self._depth += 1
        if self._depth > DEPTH_LIMIT + CALL_DEPTH_LIMIT:
            raise self._error("nested too deeply")
        self._node = pipe
        value: Object = _MISSING
        for command in pipe.commands:
            value = self._command(dot, command, value)
        for variable in pipe.variables:
            if pipe.assigns:
                self._set(variable.name, value)
            else:
                self._variables.append((variable.name, value))
        self._depth -= 1
        return value

    def _command(self, dot: Object, command: nodes.Command, final: Object) -> Object:
        self._step()
        first = command.words[0]
        arguments = command.words[1:]
        match first:
            case nodes.Function():
                return self._function(dot, first, command, arguments, final)
            case nodes.Field() | nodes.Variable() | nodes.Chain():
                return self._fields(dot, first, arguments, final)
        self._node = first
        if arguments or final is not _MISSING:
            raise self._error(f"can't give argument to non-function {first}")
        if isinstance(first, nodes.Nil):
            raise self._error("nil is not a command")
        return self._operand(dot, first)

    def _operand(self, dot: Object, node: nodes.Operand) -> Object:
        self._node = node
        match node:
            case nodes.Dot():
                return dot
            case nodes.Nil():
                return None
            case nodes.Bool() | nodes.Number() | nodes.String():
                return node.value
            case nodes.Pipe():
                return self._pipeline(dot, node)
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
        self._node = node
        match node:
            case nodes.Field():
                value = dot
            case nodes.Variable():
                value = self._variable(node.name)
                if not node.names and (arguments or final is not _MISSING):
                    raise self._error(f"can't give argument to non-function {node}")
            case nodes.Chain():
                if isinstance(node.of, nodes.Nil):
                    raise self._error(f"indirection through explicit nil in {node}")
                value = self._operand(dot, node.of)
        for name in node.names[:-1]:
            value = self._field(dot, value, name, node, (), _MISSING)
        if node.names:
            value = self._field(dot, value, node.names[-1], node, arguments, final)
        return value

    def _variable(self, name: str) -> Object:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise self._error(f"undefined variable: {name}")

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
                raise self._error(f"{name} is not a method but has arguments")
            return value.get(name, "" if isinstance(value, TextMap) else None)
        parts: dict[str, Object] = {}
        if isinstance(value, Root):
            parts = value.fields
        elif isinstance(value, Sample):
            if value is NO_SAMPLE and name in ("Labels", "Value"):
                raise self._error(f"nil pointer evaluating {go_type(value)}.{name}")
            parts = {"Labels": TextMap(value.labels), "Value": value.value}
        elif value is None:
            return None
        if name not in parts:
            raise self._error(f"can't evaluate field {name} in type {go_type(value)}")
        if has_arguments:
            raise self._error(f"{name} has arguments but cannot be invoked as function")
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
            raise self._error(f"can't evaluate field {name} in type {go_type(value)}")
        takes = (TEXT,) if name == "Format" else ()
        given = self._arguments(dot, name, takes, None, arguments, final)
        self._node = node
        try:
            return self._spent(method(value, *given))
        except FunctionError as error:
            raise self._error(f"error calling {name}: {error}") from error

    # calls

    def _function(
        self,
        dot: Object,
        node: nodes.Function,
        command: nodes.Node,
        arguments: Sequence[nodes.Operand],
        final: Object,
    ) -> Object:
        self._node = node
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
            self._node = command
            raise self._error(f"error calling {name}: {error}") from error

    def _stops_early(
        self, dot: Object, name: str, arguments: Sequence[nodes.Operand], final: Object
    ) -> Object:
        if not arguments and final is _MISSING:
            raise self._error(f"wrong number of args for {name}: want at least 1 got 0")
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
            raise self._error(f"wrong number of args for {name}: want {len(takes)} got {count}")
        if count < len(takes):
            raise self._error(
                f"wrong number of args for {name}: want at least {len(takes)} got {len(arguments)}"
            )

        def kind(number: int) -> str:
            return takes[number] if number < len(takes) else rest or ANY

        given = [self._argument(dot, argument, kind(number)) for number, argument in enumerate(arguments)]
        if final is not _MISSING:
            given.append(self._fits(final, kind(len(arguments))))
        return given

    def _argument(self, dot: Object, node: nodes.Operand, kind: str) -> Object:
        self._node = node
        if isinstance(node, nodes.Nil):
            if kind == TEXT:
                raise self._error("cannot assign nil to string")
            return self._fits(None, kind)
        if isinstance(node, (nodes.Bool, nodes.Number, nodes.String)) and kind != ANY:
            if kind != TEXT:
                raise self._error(f"can't handle {node} for arg of type {kind}")
            if not isinstance(node, nodes.String):
                raise self._error(f"expected string; found {node}")
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
            raise self._error(f"invalid value; expected {kind}")
        if go_type(value) != kind:
            raise self._error(f"wrong type for value; expected {kind}; got {go_type(value)}")
        return value
