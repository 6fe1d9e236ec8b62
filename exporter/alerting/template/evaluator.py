"""A template's tree made into text.

Source: https://github.com/golang/go/blob/master/src/text/template/exec.go
"""

from __future__ import annotations

from collections.abc import Iterator

from exporter.alerting.template import nodes
from exporter.alerting.template.flags import TEXT_LIMIT
from exporter.alerting.template.functions import Surroundings
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.nodes import Body
from exporter.alerting.template.parser import Tree
from exporter.alerting.template.pipelines import Pipelines
from exporter.alerting.template.printing import text_of
from exporter.alerting.template.values import AnyMap, Object, Root, Samples, TextMap, is_true

CALL_DEPTH_LIMIT = 20
"""Deepest nesting of templates that call templates."""


class _Jump(Exception):  # noqa: N818  a way out of a loop, not an error
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Evaluation(Pipelines):
    """One expansion of one template."""

    def __init__(self, text: str, tree: Tree, name: str, surroundings: Surroundings, prefix: int) -> None:
        super().__init__(text, name, surroundings, prefix)
        self._tree = tree
        self._parts: list[str] = []
        self._length = 0
        self._calls = 0

    def expand(self, root: Root) -> str:
        """The text; TemplateError in Go's words."""
        self.variables = [
            ("$", root),
            ("$labels", root.labels),
            ("$externalLabels", root.external_labels),
            ("$externalURL", root.external_url),
            ("$value", root.value),
        ]
        try:
            self._walk(root, self._tree.body)
        except RecursionError as error:
            raise self.error("nested too deeply") from error
        return "".join(self._parts)

    def _walk(self, dot: Object, body: Body) -> None:
        self.enter()
        for statement in body:
            self.step()
            self.node = statement
            match statement:
                case nodes.Text():
                    self._write(statement.text)
                case nodes.Action():
                    value = self.pipeline(dot, statement.pipe)
                    if not statement.pipe.variables:
                        self.node = statement
                        self._write(text_of(value))
                case nodes.Branch(kind="range"):
                    self._range(dot, statement)
                case nodes.Branch():
                    self._choose(dot, statement)
                case nodes.Call():
                    self._call(dot, statement)
                case nodes.Jump():
                    raise _Jump(statement.kind)
        self.depth -= 1

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > TEXT_LIMIT:
            raise self.error(f"the text would be longer than {TEXT_LIMIT} characters")
        self._parts.append(text)

    def _choose(self, dot: Object, branch: nodes.Branch) -> None:
        mark = len(self.variables)
        value = self.pipeline(dot, branch.pipe)
        if is_true(value):
            self._walk(value if branch.kind == "with" else dot, branch.body)
        elif branch.otherwise is not None:
            self._walk(dot, branch.otherwise)
        del self.variables[mark:]

    def _range(self, dot: Object, branch: nodes.Branch) -> None:
        mark = len(self.variables)
        value = self.pipeline(dot, branch.pipe)
        depth = self.depth
        names = [variable.name for variable in branch.pipe.variables]
        inner = len(self.variables)
        empty = True
        for key, element in self._elements(value, len(names)):
            empty = False
            self.step()
            found = (element,) if len(names) == 1 else (key, element)
            for name, bound in zip(names, found, strict=False):
                self.assign(name, bound)
            try:
                self._walk(element, branch.body)
            except _Jump as jump:
                self.depth = depth
                if jump.kind == "break":
                    break
            finally:
                del self.variables[inner:]
        if empty and branch.otherwise is not None:
            self._walk(dot, branch.otherwise)
        del self.variables[mark:]

    def _elements(self, value: Object, names: int) -> Iterator[tuple[Object, Object]]:
        if value is None:
            return iter(())
        if isinstance(value, (TextMap, AnyMap)):
            return iter(sorted(value.items()))
        if isinstance(value, Samples):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            if names > 1:
                raise self.error(f"can't use {value} to iterate over more than one variable")
            return ((number, number) for number in range(value))
        raise self.error(f"range can't iterate over {text_of(value)}")

    def _call(self, dot: Object, call: nodes.Call) -> None:
        body = self._tree.defined.get(call.name)
        if body is None:
            raise self.error(f"template {quote_go(call.name)} not defined")
        if self._calls >= CALL_DEPTH_LIMIT:
            raise self.error(f"exceeded maximum template depth ({CALL_DEPTH_LIMIT})")
        data = self.pipeline(dot, call.pipe) if call.pipe is not None else None
        kept = self.variables, self.executing
        self.variables, self.executing = [("$", data)], call.name
        self._calls += 1
        self._walk(data, body)
        self._calls -= 1
        self.variables, self.executing = kept
