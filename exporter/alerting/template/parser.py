"""From a template's text to its tree; what Go refuses when a template is parsed is refused here.

Source: https://github.com/golang/go/blob/master/src/text/template/parse/parse.go
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from exporter.alerting.template import nodes
from exporter.alerting.template.errors import TemplateError
from exporter.alerting.template.lexer import Token
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.nodes import Body
from exporter.alerting.template.operands import Operands

SIZE_LIMIT = 1 << 18
"""Longest template, in characters."""


@dataclass(slots=True)
class Tree:
    """A parsed template with the templates that are defined within it."""

    body: Body
    defined: dict[str, Body] = field(default_factory=dict)


def parse(text: str, *, functions: Collection[str], variables: Collection[str]) -> Tree:
    """The tree of a template; TemplateError for what is wrong in it. `variables` are there from the start."""
    if len(text) > SIZE_LIMIT:
        raise TemplateError(f"the template has {len(text)} characters, more than {SIZE_LIMIT}")
    parser = _Parser(text, functions, variables)
    try:
        return parser.parse()
    except RecursionError as error:
        raise TemplateError("nested too deeply") from error


class _Parser(Operands):
    def __init__(self, text: str, functions: Collection[str], variables: Collection[str]) -> None:
        super().__init__(text, functions, variables)
        self._ranges = 0
        self._defined: dict[str, Body] = {}

    def parse(self) -> Tree:
        body: Body = []
        while self.peek().kind != "eof":
            if self.peek().kind == "left" and self._opens_definition():
                self._definition()
                continue
            statement = self._statement()
            if isinstance(statement, nodes.End):
                raise self.error(statement.at, f"unexpected {statement}")
            body.append(statement)
        return Tree(body, self._defined)

    def _opens_definition(self) -> bool:
        further = 1
        while self.peek(further).kind == "space":
            further += 1
        token = self.peek(further)
        return token.kind == "keyword" and token.text == "define"

    def _definition(self) -> None:
        where = "define clause"
        self.next()
        self.next_word()
        name = self._template_name(self.next_word(), where)
        self.expect("right", where)
        self._define(name, where)

    def _define(self, name: str, where: str) -> None:
        """The body of a template of its own, which sees no variables from outside."""
        outside, self.variables = self.variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        body, end = self._body()
        if end.kind != "end":
            raise self.error(end.at, f"unexpected {end} in {where}")
        self.variables, self._ranges = outside, ranges
        if not _is_empty(body) and not _is_empty(self._defined.get(name, [])):
            raise self.error(end.at, f"multiple definition of template {quote_go(name)}")
        if name not in self._defined or not _is_empty(body):
            self._defined[name] = body

    def _body(self) -> tuple[Body, nodes.End]:
        body: Body = []
        while self.skip_space().kind != "eof":
            statement = self._statement()
            if isinstance(statement, nodes.End):
                return body, statement
            body.append(statement)
        raise self.error(self.peek().at, "unexpected EOF")

    def _statement(self) -> nodes.Statement | nodes.End:
        token = self.next_word()
        if token.kind == "text":
            return nodes.Text(token.at, token.text)
        if token.kind != "left":
            raise self.unexpected(token, "input")
        with self.deeper():
            return self._action()

    def _action(self) -> nodes.Statement | nodes.End:
        token = self.skip_space()
        if token.kind == "keyword":
            match token.text:
                case "if" | "with" | "range":
                    self.next()
                    return self._branch(token.text)
                case "end":
                    self.next()
                    return nodes.End(self.expect("right", "end").at, "end")
                case "else":
                    return self._else()
                case "break" | "continue":
                    return self._jump()
                case "template" | "block":
                    self.next()
                    return self._call(token.text)
        return nodes.Action(token.at, self.pipeline("command", "right"))

    def _else(self) -> nodes.End:
        token = self.next()
        following = self.skip_space()
        if following.kind == "keyword" and following.text in ("if", "with"):
            return nodes.End(following.at, "else")
        self.expect("right", "else")
        return nodes.End(token.at, "else")

    def _jump(self) -> nodes.Jump:
        token = self.next()
        if self.skip_space().kind != "right":
            raise self.unexpected(self.peek(), f"{{{{{token.text}}}}}")
        self.next()
        if not self._ranges:
            raise self.error(token.at, f"{{{{{token.text}}}}} outside {{{{range}}}}")
        return nodes.Jump(token.at, token.text)

    def _branch(self, kind: str) -> nodes.Branch:
        seen = len(self.variables)
        pipe = self.pipeline(kind, "right")
        self._ranges += kind == "range"
        body, end = self._body()
        self._ranges -= kind == "range"
        otherwise: Body | None = None
        if end.kind == "else":
            following = self.peek()
            if following.kind == "keyword" and following.text == kind and kind != "range":
                self.next()
                with self.deeper():
                    otherwise = [self._branch(kind)]  # it takes the one {{end}} that there is
            elif following.kind == "keyword":
                raise self.unexpected(following, "else")
            else:
                otherwise, end = self._body()
                if end.kind != "end":
                    raise self.error(end.at, f"expected end; found {end}")
        del self.variables[seen:]
        return nodes.Branch(pipe.at, kind, pipe, body, otherwise)

    def _call(self, kind: str) -> nodes.Call:
        where = f"{kind} clause"
        token = self.next_word()
        name = self._template_name(token, where)
        pipe: nodes.Pipe | None = None
        if kind == "block" or self.skip_space().kind != "right":
            pipe = self.pipeline(where, "right")
        else:
            self.next()
        if kind == "block":
            self._define(name, where)
        return nodes.Call(token.at, name, pipe)

    def _template_name(self, token: Token, where: str) -> str:
        if token.kind != "string":
            raise self.unexpected(token, where)
        return self.unquoted(token)


def _is_empty(body: Body) -> bool:
    return all(isinstance(statement, nodes.Text) and not statement.text.strip() for statement in body)
