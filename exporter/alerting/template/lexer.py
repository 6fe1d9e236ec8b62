"""The words of a template: text, and what stands between `{{` and `}}`.

Source: https://pkg.go.dev/text/template and https://github.com/golang/go/blob/master/src/text/template/parse/lex.go
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from exporter.alerting.template.literals import quote_go

KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "range", "nil", "template", "with")
)
_SPACES = " \t\r\n"
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?|0[bBoO][0-7_]*"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_ENDS_WORD = frozenset(" \t\r\n.,|:()")


class Token(NamedTuple):
    """One word; `at` counts characters from the start of the text."""

    kind: str
    """`text`, `left`, `right`, `space`, `word`, `keyword`, `bool`, `.`, `field`, `variable`, `string`, `number`, `error`,
    `eof`, or the character itself."""
    at: int
    text: str

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind in ("keyword", "."):
            return f"<{self.text}>"
        return f"{quote_go(self.text[:10])}..." if len(self.text) > 10 else quote_go(self.text)


def place(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1, of a character."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def tokens(text: str) -> Iterator[Token]:
    """The words of a template, `eof` or `error` last."""
    at = 0
    trim = False
    while True:
        left = text.find("{{", at)
        end = len(text) if left < 0 else left
        start = at
        if trim:
            while start < end and text[start] in _SPACES:
                start += 1
        opened_with_trim = (
            left >= 0 and text[left + 2 : left + 3] == "-" and _is_space(text[left + 3 : left + 4])
        )
        shown = text[start:end].rstrip(_SPACES) if opened_with_trim else text[start:end]
        if shown:
            yield Token("text", start, shown)
        if left < 0:
            yield Token("eof", len(text), "")
            return
        inside = left + (4 if opened_with_trim else 2)
        if text.startswith("/*", inside):
            closed = _comment(text, left, inside)
            if isinstance(closed, Token):
                yield closed
                return
            at, trim = closed
            continue
        yield Token("left", left, "{{")
        depth = 0
        at = inside
        while True:
            token, at, trim = _next(text, at, depth)
            yield token
            if token.kind == "error":
                return
            if token.kind == "right":
                break
            depth += {"(": 1, ")": -1}.get(token.kind, 0)


def _comment(text: str, left: int, inside: int) -> tuple[int, bool] | Token:
    end = text.find("*/", inside + 2)
    if end < 0:
        return Token("error", left, "unclosed comment")
    end += 2
    trim = _is_space(text[end : end + 1]) and text[end + 1 : end + 2] == "-"
    if trim:
        end += 2
    if not text.startswith("}}", end):
        return Token("error", left, "comment ends before closing delimiter")
    return end + 2, trim


def _next(text: str, at: int, depth: int) -> tuple[Token, int, bool]:
    """The word at a place inside an action, where it ends, and whether the text after it loses its leading space."""

    def found(kind: str, end: int) -> tuple[Token, int, bool]:
        return Token(kind, at, text[at:end]), end, False

    def wrong(message: str) -> tuple[Token, int, bool]:
        return Token("error", at, message), at, False

    trim = _is_space(text[at : at + 1]) and text.startswith("-}}", at + 1)
    if trim or text.startswith("}}", at):
        if depth:
            return wrong("unclosed left paren")
        end = at + (4 if trim else 2)
        return Token("right", at, "}}"), end, trim
    if at >= len(text):
        return wrong("unclosed action")
    character = text[at]
    following = text[at + 1 : at + 2]
    if character in _SPACES:
        end = at
        while end < len(text) and text[end] in _SPACES:
            end += 1
        if text.startswith("-}}", end):
            end -= 1  # the last space belongs to the trim marker
        return found("space", end)
    if character == ":":
        return found(":=", at + 2) if following == "=" else wrong("expected :=")
    if character in "\"'`":
        end = _string_end(text, at, character)
        if end < 0:
            kinds = {'"': "quoted string", "'": "character constant", "`": "raw quoted string"}
            return wrong(f"unterminated {kinds[character]}")
        return found("number" if character == "'" else "string", end)
    if (character == "." and not following.isdecimal()) or character == "$":
        word = _WORD.match(text, at + 1)
        end = word.end() if word else at + 1
        if not _ends_word(text, end):
            return wrong(f"bad character {_unicode(text[end])}")
        return found("variable" if character == "$" else "field" if word else ".", end)
    if character in "+-." or character.isdecimal():
        match = _NUMBER.match(text, at)
        end = match.end() if match else at + 1
        if _WORD.match(text, end) or text[at:end] in ("+", "-"):
            return wrong(f"bad number syntax: {quote_go(text[at : end + 1])}")
        if text[end : end + 1] in ("+", "-") and text[end : end + 1]:
            return wrong(f"bad number syntax: {quote_go(text[at : end + 1])}")
        return found("number", end)
    if word := _WORD.match(text, at):
        if not _ends_word(text, word.end()):
            return wrong(f"bad character {_unicode(text[word.end()])}")
        name = word.group()
        return found(
            "keyword" if name in KEYWORDS else "bool" if name in ("true", "false") else "word", word.end()
        )
    if character == ")" and depth == 0:
        return wrong("unexpected right paren")
    if character.isascii() and character.isprintable():
        return found(character, at + 1)
    return wrong(f"unrecognized character in action: {_unicode(character)}")


def _string_end(text: str, at: int, quote: str) -> int:
    end = at + 1
    while end < len(text):
        character = text[end]
        if character == quote:
            return end + 1
        if quote != "`":
            if character == "\n":
                return -1
            if character == "\\":
                end += 1
                if text[end : end + 1] == "\n":
                    return -1
        end += 1
    return -1


def _is_space(character: str) -> bool:
    return character != "" and character in _SPACES


def _ends_word(text: str, at: int) -> bool:
    return at >= len(text) or text[at] in _ENDS_WORD or text.startswith("}}", at)


def _unicode(character: str) -> str:
    shown = f" '{character}'" if character.isprintable() else ""
    return f"U+{ord(character):04X}{shown}"
