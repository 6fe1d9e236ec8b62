"""Pipelines of a template parsed: from words to operands, commands and declarations.

Source: https://github.com/golang/go/blob/master/src/text/template/parse/parse.go
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from exporter.alerting.template import nodes
from exporter.alerting.template.errors import TemplateError
from exporter.alerting.template.lexer import Token, place, tokens
from exporter.alerting.template.literals import parse_number, quote_go, unquote

DEPTH_LIMIT = 50
"""Deepest nesting of actions and parentheses."""

_NO_COMMANDS = (nodes.Bool, nodes.Dot, nodes.Nil, nodes.Number, nodes.String)


class Operands:
    """The words of a template with look-ahead, and what pipelines are made of."""

    def __init__(self, text: str, functions: Collection[str], variables: Collection[str]) -> None:
        self.variables = ["$", *variables]
        """The names of variables that are known at this place."""
        self._text = text
        self._functions = functions
        self._tokens = tokens(text)
        self._ahead: list[Token] = []
        self._last = 0
        self._depth = 0

    def peek(self, further: int = 0) -> Token:
        """A word that is not taken yet: the next, or one further on."""
        while len(self._ahead) <= further:
            token = next(self._tokens)
            if token.kind == "error":
                raise self.error(token.at, token.text)
            self._ahead.append(token)
        return self._ahead[further]

    def next(self) -> Token:
        """Take the next word."""
        token = self.peek()
        self._last = token.at
        return self._ahead.pop(0)

    def skip_space(self) -> Token:
        """Take all space, and look at the word after it."""
        while self.peek().kind == "space":
            self.next()
        return self.peek()

    def next_word(self) -> Token:
        """Take the next word that is no space."""
        self.skip_space()
        return self.next()

    def error(self, at: int, message: str) -> TemplateError:
        """A mistake at a character of the template."""
        return TemplateError(message, *place(self._text, at))

    def unexpected(self, token: Token, where: str) -> TemplateError:
        """The mistake that a word is."""
        return self.error(token.at, f"unexpected {token} in {where}")

    def expect(self, kind: str, where: str) -> Token:
        """Take the next word, which must be of this kind."""
        token = self.next_word()
        if token.kind != kind:
            raise self.unexpected(token, where)
        return token

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level of nesting."""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise self.error(self._last, f"nested deeper than {DEPTH_LIMIT} levels")
        yield
        self._depth -= 1

    def unquoted(self, token: Token) -> str:
        """The text of a string or character."""
        try:
            return unquote(token.text)
        except ValueError as error:
            raise self.error(token.at, str(error)) from error

    def pipeline(self, where: str, end: str) -> nodes.Pipe:
        """A pipeline with its declarations, up to the word that ends it, which is taken too."""
        pipe = nodes.Pipe(self.skip_space().at)
        self._declarations(pipe, where)
        while True:
            token = self.skip_space()
            if token.kind == end:
                self.next()
                self._check(pipe, where)
                return pipe
            if token.kind not in ("bool", ".", "field", "word", "number", "string", "variable", "(") and (
                token.text != "nil"
            ):
                raise self.unexpected(token, where)
            pipe.commands.append(self._command())

    def _declarations(self, pipe: nodes.Pipe, where: str) -> None:
        while self.skip_space().kind == "variable":
            variable = self.peek()
            further = 1
            while self.peek(further).kind == "space":
                further += 1
            sign = self.peek(further)
            if sign.kind not in (":=", "=", ","):
                return
            for _ in range(further + 1):
                self.next()
            pipe.variables.append(nodes.Variable(variable.at, variable.text, []))
            self.variables.append(variable.text)
            if sign.kind != ",":
                pipe.assigns = sign.kind == "="
                return
            if where != "range" or len(pipe.variables) > 1:
                raise self.error(sign.at, f"too many declarations in {where}")
            if self.skip_space().kind not in ("variable", "right"):
                raise self.error(sign.at, "range can only initialize variables")

    def _check(self, pipe: nodes.Pipe, where: str) -> None:
        if not pipe.commands:
            raise self.error(self._last, f"missing value for {where}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.words[0], _NO_COMMANDS):
                raise self.error(command.at, f"non executable command in pipeline stage {stage}")

    def _command(self) -> nodes.Command:
        command = nodes.Command(self.skip_space().at)
        while True:
            self.skip_space()
            operand = self._operand()
            if operand is not None:
                command.words.append(operand)
            token = self.peek()
            if token.kind == "space":
                continue
            if token.kind == "|":
                self.next()
            elif token.kind not in ("right", ")"):
                raise self.unexpected(token, "operand")
            break
        if not command.words:
            raise self.error(command.at, "empty command")
        return command

    def _operand(self) -> nodes.Operand | None:
        node = self._term()
        token = self.peek()
        if node is None or token.kind != "field":
            return node
        names: list[str] = []
        while self.peek().kind == "field":
            names.append(self.next().text[1:])
        if isinstance(node, nodes.Field):
            return nodes.Field(token.at, [*node.names, *names])
        if isinstance(node, nodes.Variable):
            return nodes.Variable(token.at, node.name, names)
        if isinstance(node, _NO_COMMANDS):
            raise self.error(token.at, f"unexpected . after term {quote_go(str(node))}")
        return nodes.Chain(token.at, node, names)

    def _term(self) -> nodes.Operand | None:
        token = self.skip_space()
        match token.kind:
            case "word":
                self.next()
                if token.text not in self._functions:
                    raise self.error(token.at, f"function {quote_go(token.text)} not defined")
                return nodes.Function(token.at, token.text)
            case ".":
                self.next()
                return nodes.Dot(token.at)
            case "keyword" if token.text == "nil":
                self.next()
                return nodes.Nil(token.at)
            case "variable":
                self.next()
                if token.text not in self.variables:
                    raise self.error(token.at, f"undefined variable {quote_go(token.text)}")
                return nodes.Variable(token.at, token.text, [])
            case "field":
                self.next()
                return nodes.Field(token.at, [token.text[1:]])
            case "bool":
                self.next()
                return nodes.Bool(token.at, token.text == "true")
            case "number":
                self.next()
                try:
                    return nodes.Number(token.at, token.text, parse_number(token.text))
                except ValueError as error:
                    raise self.error(token.at, str(error)) from error
            case "string":
                self.next()
                return nodes.String(token.at, token.text, self.unquoted(token))
            case "(":
                self.next()
                with self.deeper():
                    return self.pipeline("parenthesized pipeline", ")")
        return None
