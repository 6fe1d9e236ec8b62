"""Alertmanager's matchers: read from its UTF-8 and its classic notation, asked, and printed as it prints them.

Sources: `matcher/parse/`, `matcher/compat/` and `pkg/labels/` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

from exporter.alerting.template.literals import quote_go, unquote
from exporter.storage.model import Labels, Matcher

Op = Literal["=", "!=", "=~", "!~"]

_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's `unicode.IsSpace` takes for space."""
_RESERVED = frozenset(_SPACE + "{}!=~,\\\"'`")
_RESERVED_CLASS = f"[{re.escape(''.join(sorted(_RESERVED)))}]"
_TOKEN = re.compile(
    rf"(?P<brace>[{{}}])|(?P<comma>,)|(?P<op>=~|!=|!~|=)"
    rf'|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>(?!{_RESERVED_CLASS}).(?:(?!{_RESERVED_CLASS}).)*)',
    re.DOTALL,
)
_CLASSIC = re.compile(
    r"[\t\n\f\r ]*(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)[\t\n\f\r ]*(?P<op>=~|=|!=|!~)[\t\n\f\r ]*(?P<value>.*?)[\t\n\f\r ]*",
    re.DOTALL,
)
_REMEMBERED = 4096
"""Values whose verdict each regular expression remembers."""

_ORDER: dict[str, int] = {"=": 0, "!=": 1, "=~": 2, "!~": 3}


class MatcherError(ValueError):
    """A text is no list of matchers, or a regular expression in it is bad; the message says where."""


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """The matchers of `{a="b", c=~"d"}`, braces or not, in their order; MatcherError.

    As Alertmanager does it by default: the UTF-8 notation, the classic one where the text is none of that, and also
    where the two understand it differently.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise MatcherError("the text is not valid UTF-8")
    modern = _attempt(_parse_modern, text)
    classic = _attempt(_parse_classic, text)
    if not isinstance(classic, MatcherError):
        return classic
    if isinstance(modern, MatcherError):
        raise modern
    return modern


def parse_matcher(text: str) -> Matcher:
    """The one matcher of a text without braces, as the API's filters have it; MatcherError."""
    if text.startswith("{") or text.endswith("}"):
        raise MatcherError(f"unexpected open or close brace: {_shortened(text)}")
    found = parse_matchers(text)
    if len(found) != 1:
        raise MatcherError(f"expected one matcher, found {len(found)}: {_shortened(text)}")
    return found[0]


def matches(matchers: Sequence[Matcher], labels: Labels) -> bool:
    """Whether a label set fits all of the matchers; a label that it lacks counts as empty."""
    return fits(matchers, dict(labels))


def fits(matchers: Sequence[Matcher], values: Mapping[str, str]) -> bool:
    """As `matches`, of labels by name: for whoever asks many about one label set."""
    get = values.get
    for name, accepts in _conditions(tuple(matchers)):  # noqa: SIM110 - all() costs twice as much
        if not accepts(get(name, "")):
            return False
    return True


def check(matcher: Matcher) -> Matcher:
    """The matcher itself; MatcherError where its regular expression is bad."""
    _condition(matcher)
    return matcher


def ordered(matchers: Sequence[Matcher]) -> tuple[Matcher, ...]:
    """In Alertmanager's order, in which it makes keys of them: by name, value and operator."""
    return tuple(sorted(matchers, key=lambda one: (one.name, one.value, _ORDER[one.op])))


def show(matcher: Matcher) -> str:
    """One matcher as Alertmanager prints it: `name="value"`, with the name in quotes where it needs them."""
    name, op, value = matcher
    if not _RESERVED.isdisjoint(name):
        return f"{quote_go(name)}{op}{quote_go(value)}"
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}{op}"{escaped}"'


def show_all(matchers: Sequence[Matcher]) -> str:
    """Matchers in braces; route keys and so group keys are made of it."""
    return "{" + ",".join(map(show, matchers)) + "}"


@lru_cache(4096)
def _conditions(matchers: tuple[Matcher, ...]) -> tuple[tuple[str, Callable[[str], bool]], ...]:
    return tuple((matcher.name, _condition(matcher)) for matcher in matchers)


@lru_cache(4096)
def _condition(matcher: Matcher) -> Callable[[str], bool]:
    value = matcher.value
    if matcher.op == "=":
        return value.__eq__
    if matcher.op == "!=":
        return value.__ne__
    return _remembering(_compiled(value), matcher.op == "!~")


def _compiled(pattern: str) -> Any:
    """Go anchors it thus, and its dot leaves the line feed out (Prometheus' does not)."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)  # a better message than with what is put around it
        return re2.compile(f"^(?:{pattern})$", options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0]
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise MatcherError(f"bad regular expression {_shortened(pattern)}: {reason}") from error


def _remembering(pattern: Any, negative: bool) -> Callable[[str], bool]:
    """Whether a value fits; the same few values are asked for again and again."""
    search = pattern.search
    known: dict[str, bool] = {}

    def accepts(value: str) -> bool:
        verdict = known.get(value)
        if verdict is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            verdict = known[value] = (search(value) is not None) != negative
        return verdict

    return accepts


def _attempt(parse: Callable[[str], tuple[Matcher, ...]], text: str) -> tuple[Matcher, ...] | MatcherError:
    try:
        return parse(text)
    except MatcherError as error:
        return error


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
            raise MatcherError(f"column {token.column}: expected {wanted}, found {_shortened(found)}")
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


def _parse_modern(text: str) -> tuple[Matcher, ...]:
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
    return check(Matcher(_unquoted(name), cast("Op", op.text), _unquoted(value)))


def _unquoted(token: _Token) -> str:
    if token.kind != "quoted":
        return token.text
    try:
        text = unquote(token.text)
    except ValueError as error:
        raise MatcherError(f"column {token.column}: a bad escape in {_shortened(token.text)}") from error
    if "\ufffd" in text and "\ufffd" not in token.text and "fffd" not in token.text.lower():
        raise MatcherError(f"column {token.column}: {_shortened(token.text)} is not valid UTF-8")
    return text


def _parse_classic(text: str) -> tuple[Matcher, ...]:
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
    return tuple(_classic(part) for part in parts)


def _classic(text: str) -> Matcher:
    match = _CLASSIC.fullmatch(text)
    if match is None:
        raise MatcherError(f"no matcher: {_shortened(text)}")
    raw = match["value"]
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
                raise MatcherError(f"a double quote within a value needs a backslash: {_shortened(text)}")
            closed = True
        else:
            value += character
    if quoted and not closed:
        raise MatcherError(f"a quote that is not closed: {_shortened(text)}")
    return check(Matcher(match["name"], cast("Op", match["op"]), value))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
