"""The two notations of Alertmanager's matchers, UTF-8 and classic: text to matchers whose expressions are not checked yet.

Sources: `matcher/parse/` and `pkg/labels/parse.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, cast

from exporter.alerting.template.literals import unquote
from exporter.storage.model import Matcher

Op = Literal["=", "!=", "=~", "!~"]

_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's `unicode.IsSpace` takes for space."""
RESERVED = frozenset(_SPACE + "{}!=~,\\\"'`")
_RESERVED_CLASS = re.escape("".join(sorted(RESERVED)))
_TOKEN = re.compile(
    rf"(?P<brace>[{{}}])|(?P<comma>,)|(?P<op>=~|!=|!~|=)"
    rf'|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[^{_RESERVED_CLASS}]+)',
    re.DOTALL,
)
_BLANK = "\t\n\f\r "
_CLASSIC = re.compile(rf"[{_BLANK}]*(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)[{_BLANK}]*(?P<op>=~|=|!=|!~)")
"""What stands before a value. The value itself is taken by hand: `.*?` before blanks is quadratic."""


class MatcherError(ValueError):
    """A text is no list of matchers, or a regular expression in it is bad; the message says where."""


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


_END = "end of input"


class _Tokens:
    """The words of the UTF-8 notation, one after another."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def next(self, *kinds: str, wanted: str) -> _Token:
        """The next word, of one of some kinds; MatcherError says what was wanted instead."""
        token = self._scan()
        if token.kind not in kinds:
            found = "the end" if token.kind == _END else token.text
            raise MatcherError(f"column {token.column}: expected {wanted}, found {shortened(found)}")
        return token

    def _scan(self) -> _Token:
        text = self._text
        while self._at < len(text) and text[self._at] in _SPACE:
            self._at += 1
        column = self._at + 1
        if self._at == len(text):
            return _Token(_END, "", column)
        match = _TOKEN.match(text, self._at)
        if match is None:
            if text[self._at] == '"':
                raise MatcherError(f"column {column}: a quote that is not closed")
            raise MatcherError(
                f"column {column}: {text[self._at]} is not allowed here; it needs double quotes"
            )
        self._at = match.end()
        kind = cast("str", match.lastgroup)
        return _Token(match[0] if kind == "brace" else kind, match[0], column)


def parse_modern(text: str) -> tuple[Matcher, ...]:
    """The UTF-8 notation; MatcherError."""
    tokens = _Tokens(text)
    found: list[Matcher] = []
    token = tokens.next("{", "word", "quoted", _END, wanted="a label name or {")
    if token.kind == _END:
        return ()
    braced = token.kind == "{"
    closing = ("}",) if braced else (_END,)
    if braced:
        token = tokens.next("word", "quoted", "}", wanted="a label name or }")
    while token.kind not in closing:
        found.append(_matcher(token, tokens))
        end = tokens.next("comma", *closing, wanted="a comma" + (" or }" if braced else ""))
        if end.kind != "comma":
            break
        token = tokens.next("word", "quoted", *closing, wanted="a label name")
    if braced:
        tokens.next(_END, wanted="the end")
    return tuple(found)


def _matcher(name: _Token, tokens: _Tokens) -> Matcher:
    op = tokens.next("op", wanted="one of = != =~ !~")
    value = tokens.next("word", "quoted", wanted="a value (an empty one needs double quotes)")
    return Matcher(_unquoted(name), cast("Op", op.text), _unquoted(value))


def _unquoted(token: _Token) -> str:
    if token.kind != "quoted":
        return token.text
    try:
        text = unquote(token.text)
    except ValueError as error:
        raise MatcherError(f"column {token.column}: a bad escape in {shortened(token.text)}") from error
    if "\ufffd" in text and "\ufffd" not in token.text and "fffd" not in token.text.lower():
        raise MatcherError(f"column {token.column}: {shortened(token.text)} is not valid UTF-8")
    return text


def parse_classic(text: str) -> tuple[Matcher, ...]:
    """The classic notation, which is more forgiving; MatcherError."""
    parts: list[str] = []
    part = ""
    inside = escaped = False
    for character in text.removeprefix("{").removesuffix("}"):
        if character == "," and not inside:
            parts.append(part)
            part = ""
            continue
        if character == '"' and not escaped:
            inside = not inside
        escaped = character == "\\" and not escaped
        part += character
    if last := part.strip(_SPACE):
        parts.append(last)
    return tuple(parse_classic_one(part) for part in parts)


def parse_classic_one(text: str) -> Matcher:
    """One matcher in the classic notation, in which a comma is a character like others; MatcherError."""
    match = _CLASSIC.match(text)
    if match is None:
        raise MatcherError(f"no matcher: {shortened(text)}")
    raw = text[match.end() :].strip(_BLANK)
    quoted = raw.startswith('"')
    raw = raw.removeprefix('"')
    value = ""
    escaped = closed = False
    for at, character in enumerate(raw):
        if escaped:
            escaped = False
            value += {"n": "\n", '"': '"', "\\": "\\"}.get(character, "\\" + character)
        elif character == "\\" and at < len(raw) - 1:
            escaped = True
        elif character == '"':
            if not quoted or at < len(raw) - 1:
                raise MatcherError(f"a double quote within a value needs a backslash: {shortened(text)}")
            closed = True
        else:
            value += character
    if quoted and not closed:
        raise MatcherError(f"a quote that is not closed: {shortened(text)}")
    return Matcher(match["name"], cast("Op", match["op"]), value)


def shortened(text: str) -> str:
    """As much of a text as a message can do with."""
    return text if len(text) <= 60 else text[:60] + "…"
