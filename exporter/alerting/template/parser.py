"""From a template's text to its tree; what Go refuses when a template is parsed is refused here.

Source: https://github.com/golang/go/blob/master/src/text/template/parse/parse.go
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from exporter.alerting.template import nodes
from exporter.alerting.template.errors import TemplateError
from exporter.alerting.template.lexer import Token, place, tokens
from exporter.alerting.template.literals import parse_number, quote_go, unquote
from exporter.alerting.template.nodes import Body

SIZE_LIMIT = 1 << 18
"""Longest template, in characters."""
DEPTH_LIMIT = 50
"""Deepest nesting of actions and parentheses."""

_NO_COMMANDS = (nodes.Bool, nodes.Dot, nodes.Nil, nodes.Number, nodes.String)


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


class _Parser:
    def __init__(self, text: str, functions: Collection[str], variables: Collection[str]) -> None:
        self._text = text
        self._functions = functions
        self._tokens = tokens(text)
        self._ahead: list[Token] = []
        self._last = 0
        self._variables = ["$", *variables]
        self._depth = 0
        self._ranges = 0
        self._defined: dict[str, Body] = {}

    # words

    def _peek(self, further: int = 0) -> Token:
        while len(self._ahead) <= further:
            token = next(self._tokens)
            if token.kind == "error":
                raise self._error(token.at, token.text)
            self._ahead.append(token)
        return self._ahead[further]

    def _next(self) -> Token:
        token = self._peek()
        self._last = token.at
        return self._ahead.pop(0)

    def _skip_space(self) -> Token:
        while self._peek().kind == "space":
            self._next()
        return self._peek()

    def _next_word(self) -> Token:
        self._skip_space()
        return self._next()

    def _error(self, at: int, message: str) -> TemplateError:
        return TemplateError(message, *place(self._text, at))

    def _unexpected(self, token: Token, where: str) -> TemplateError:
        return self._error(token.at, f"unexpected {token} in {where}")

    def _expect(self, kind: str, where: str) -> Token:
        token = self._next_word()
        if token.kind != kind:
            raise self._unexpected(token, where)
        return token

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise self._error(self._last, f"nested deeper than {DEPTH_LIMIT} levels")
        yield
        self._depth -= 1

    # statements

    def parse(self) -> Tree:
        body: Body = []
        while self._peek().kind != "eof":
            if self._peek().kind == "left" and self._opens_definition():
                self._definition()
                continue
            statement = self._statement()
            if isinstance(statement, nodes.End):
                raise self._error(statement.at, f"unexpected {statement}")
            body.append(statement)
        return Tree(body, self._defined)

    def _opens_definition(self) -> bool:
        further = 1
        while self._peek(further).kind == "space":
            further += 1
        token = self._peek(further)
        return token.kind == "keyword" and token.text == "define"

    def _definition(self) -> None:
        where = "define clause"
        self._next()
        self._next_word()
        name = self._template_name(self._next_word(), where)
        self._expect("right", where)
        self._define(name, where)

    def _define(self, name: str, where: str) -> None:
        """The body of a template of its own, which sees no variables from outside."""
        outside, self._variables = self._variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        body, end = self._body()
        if end.kind != "end":
            raise self._error(end.at, f"unexpected {end} in {where}")
        self._variables, self._ranges = outside, ranges
        if not _is_empty(body) and not _is_empty(self._defined.get(name, [])):
            raise self._error(end.at, f"multiple definition of template {quote_go(name)}")
        if name not in self._defined or not _is_empty(body):
            self._defined[name] = body

    def _body(self) -> tuple[Body, nodes.End]:
        body: Body = []
        while self._skip_space().kind != "eof":
            statement = self._statement()
            if isinstance(statement, nodes.End):
                return body, statement
            body.append(statement)
        raise self._error(self._peek().at, "unexpected EOF")

    def _statement(self) -> nodes.Statement | nodes.End:
        token = self._next_word()
        if token.kind == "text":
            return nodes.Text(token.at, token.text)
        if token.kind != "left":
            raise self._unexpected(token, "input")
        with self._deeper():
            return self._action()

    def _action(self) -> nodes.Statement | nodes.End:
        token = self._skip_space()
        if token.kind == "keyword":
            match token.text:
                case "if" | "with" | "range":
                    self._next()
                    return self._branch(token.text)
                case "end":
                    self._next()
                    return nodes.End(self._expect("right", "end").at, "end")
                case "else":
                    return self._else()
                case "break" | "continue":
                    return self._jump()
                case "template" | "block":
                    self._next()
                    return self._call(token.text)
        return nodes.Action(token.at, self._pipeline("command", "right"))

    def _else(self) -> nodes.End:
        token = self._next()
        following = self._skip_space()
        if following.kind == "keyword" and following.text in ("if", "with"):
            return nodes.End(following.at, "else")
        self._expect("right", "else")
        return nodes.End(token.at, "else")

    def _jump(self) -> nodes.Jump:
        token = self._next()
        if self._skip_space().kind != "right":
            raise self._unexpected(self._peek(), f"{{{{{token.text}}}}}")
        self._next()
        if not self._ranges:
            raise self._error(token.at, f"{{{{{token.text}}}}} outside {{{{range}}}}")
        return nodes.Jump(token.at, token.text)

    def _branch(self, kind: str) -> nodes.Branch:
        seen = len(self._variables)
        pipe = self._pipeline(kind, "right")
        self._ranges += kind == "range"
        body, end = self._body()
        self._ranges -= kind == "range"
        otherwise: Body | None = None
        if end.kind == "else":
            following = self._peek()
            if following.kind == "keyword" and following.text == kind and kind != "range":
                self._next()
                with self._deeper():
                    otherwise = [self._branch(kind)]  # it takes the one {{end}} that there is
            elif following.kind == "keyword":
                raise self._unexpected(following, "else")
            else:
                otherwise, end = self._body()
                if end.kind != "end":
                    raise self._error(end.at, f"expected end; found {end}")
        del self._variables[seen:]
        return nodes.Branch(pipe.at, kind, pipe, body, otherwise)

    def _call(self, kind: str) -> nodes.Call:
        where = f"{kind} clause"
        token = self._next_word()
        name = self._template_name(token, where)
        pipe: nodes.Pipe | None = None
        if kind == "block" or self._skip_space().kind != "right":
            pipe = self._pipeline(where, "right")
        else:
            self._next()
        if kind == "block":
            self._define(name, where)
        return nodes.Call(token.at, name, pipe)

    def _template_name(self, token: Token, where: str) -> str:
        if token.kind != "string":
            raise self._unexpected(token, where)
        return self._unquoted(token)

    def _unquoted(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as error:
            raise self._error(token.at, str(error)) from error

    # pipelines

    def _pipeline(self, where: str, end: str) -> nodes.Pipe:
        pipe = nodes.Pipe(self._skip_space().at)
        self._declarations(pipe, where)
        while True:
            token = self._skip_space()
            if token.kind == end:
                self._next()
                self._check(pipe, where)
                return pipe
            if token.kind not in ("bool", ".", "field", "word", "number", "string", "variable", "(") and (
                token.text != "nil"
            ):
                raise self._unexpected(token, where)
            pipe.commands.append(self._command())

    def _declarations(self, pipe: nodes.Pipe, where: str) -> None:
        while self._skip_space().kind == "variable":
            variable = self._peek()
            further = 1
            while self._peek(further).kind == "space":
                further += 1
            sign = self._peek(further)
            if sign.kind not in (":=", "=", ","):
                return
            for _ in range(further + 1):
                self._next()
            pipe.variables.append(nodes.Variable(variable.at, variable.text, []))
            self._variables.append(variable.text)
            if sign.kind != ",":
                pipe.assigns = sign.kind == "="
                return
            if where != "range" or len(pipe.variables) > 1:
                raise self._error(sign.at, f"too many declarations in {where}")
            if self._skip_space().kind not in ("variable", "right"):
                raise self._error(sign.at, "range can only initialize variables")

    def _check(self, pipe: nodes.Pipe, where: str) -> None:
        if not pipe.commands:
            raise self._error(self._last, f"missing value for {where}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.words[0], _NO_COMMANDS):
                raise self._error(command.at, f"non executable command in pipeline stage {stage}")

    def _command(self) -> nodes.Command:
        command = nodes.Command(self._skip_space().at)
        while True:
            self._skip_space()
            operand = self._operand()
            if operand is not None:
                command.words.append(operand)
            token = self._peek()
            if token.kind == "space":
                continue
            if token.kind == "|":
                self._next()
            elif token.kind not in ("right", ")"):
                raise self._unexpected(token, "operand")
            break
        if not command.words:
            raise self._error(command.at, "empty command")
        return command

    def _operand(self) -> nodes.Operand | None:
        node = self._term()
        token = self._peek()
        if node is None or token.kind != "field":
            return node
        names: list[str] = []
        while self._peek().kind == "field":
            names.append(self._next().text[1:])
        if isinstance(node, nodes.Field):
            return nodes.Field(token.at, [*node.names, *names])
        if isinstance(node, nodes.Variable):
            return nodes.Variable(token.at, node.name, names)
        if isinstance(node, _NO_COMMANDS):
            raise self._error(token.at, f"unexpected . after term {quote_go(str(node))}")
        return nodes.Chain(token.at, node, names)

    def _term(self) -> nodes.Operand | None:
        token = self._skip_space()
        match token.kind:
            case "word":
                self._next()
                if token.text not in self._functions:
                    raise self._error(token.at, f"function {quote_go(token.text)} not defined")
                return nodes.Function(token.at, token.text)
            case ".":
                self._next()
                return nodes.Dot(token.at)
            case "keyword" if token.text == "nil":
                self._next()
                return nodes.Nil(token.at)
            case "variable":
                self._next()
                if token.text not in self._variables:
                    raise self._error(token.at, f"undefined variable {quote_go(token.text)}")
                return nodes.Variable(token.at, token.text, [])
            case "field":
                self._next()
                return nodes.Field(token.at, [token.text[1:]])
            case "bool":
                self._next()
                return nodes.Bool(token.at, token.text == "true")
            case "number":
                self._next()
                try:
                    return nodes.Number(token.at, token.text, parse_number(token.text))
                except ValueError as error:
                    raise self._error(token.at, str(error)) from error
            case "string":
                self._next()
                return nodes.String(token.at, token.text, self._unquoted(token))
            case "(":
                self._next()
                with self._deeper():
                    return self._pipeline("parenthesized pipeline", ")")
        return None


def _is_empty(body: Body) -> bool:
    return all(isinstance(statement, nodes.Text) and not statement.text.strip() for statement in body)
