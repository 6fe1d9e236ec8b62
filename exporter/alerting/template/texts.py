"""The functions of a template that turn texts into texts: cases, escapes, host names, regular expressions, links."""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from typing import Any
from urllib.parse import quote_plus

from exporter.alerting.template.errors import FunctionError
from exporter.alerting.template.flags import TEXT_LIMIT, too_long
from exporter.alerting.template.literals import quote_go

_MID_WORD = frozenset("'.:\u00b7\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a")
_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_JS = {
    "\\": r"\\",
    "'": r"\'",
    '"': r"\"",
    "<": r"\u003C",
    ">": r"\u003E",
    "&": r"\u0026",
    "=": r"\u003D",
}
_GO_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected )": "unexpected )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "trailing \\": "trailing backslash at end of expression",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
}
"""What Go's regular expressions say where RE2 says the same in other words."""
_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def title(text: str) -> str:
    """The first letter of each word as a capital, the others as they are.

    Words end as in https://pkg.go.dev/golang.org/x/text/cases#Title: not at an underscore, and not at an apostrophe, a full
    stop or a colon within them.
    """
    shown: list[str] = []
    within = False
    after_mid = False
    for character in text:
        mid = character in _MID_WORD
        if after_mid and mid:
            within = False
        after_mid = mid
        cased = character.lower() != character.upper()
        shown.append(character.title() if cased and not within else character)
        if cased:
            within = True
        elif not (
            mid or character == "_" or character.isalnum() or unicodedata.category(character)[0] == "M"
        ):
            within = False
    return "".join(shown)


def escape_html(text: str) -> str:
    """For HTML, as Go's templates escape it."""
    return text.translate(_HTML)


def escape_js(text: str) -> str:
    """For a JavaScript string, as Go's templates escape it."""
    return "".join(_escaped_js(character) for character in text)


def _escaped_js(character: str) -> str:
    if character in _JS:
        return _JS[character]
    if character < " " or (character >= "\x7f" and not character.isprintable()):
        return f"\\u{ord(character):04X}"
    return character


def escape_query(text: str) -> str:
    """For the query of a URL, as Go's `url.QueryEscape`."""
    return quote_plus(text, safe="", errors="replace")


def graph_link(expression: str) -> str:
    """The path of Prometheus' page with the graph of an expression."""
    return f"/graph?g0.expr={escape_query(expression)}&g0.tab=0"


def table_link(expression: str) -> str:
    """The path of Prometheus' page with the table of an expression."""
    return f"/graph?g0.expr={escape_query(expression)}&g0.tab=1"


def split_host_port(address: str) -> tuple[str, str] | None:
    """Host and port as Go's `net.SplitHostPort`; None where it sees none."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return None
    if address.startswith("["):
        end = address.find("]")
        if end < 0 or end != len(host) - 1:
            return None
        host = address[1:end]
        if "[" in host or "]" in port or "[" in port:
            return None
        return host, port
    if any(mark in host for mark in ":[]") or "[" in port or "]" in port:
        return None
    return host, port


def strip_port(address: str) -> str:
    """The host of `HOST:PORT`; what is no such address stays as it is."""
    parts = split_host_port(address)
    return address if parts is None else parts[0]


def strip_domain(address: str) -> str:
    """The first name of a host, with its port; an IP address stays as it is."""
    host, port = split_host_port(address) or (address, "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        host = host.split(".", 1)[0]
    else:
        return address
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host or "%" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, ValueError) as error:
        detail = error.args[0] if error.args else error
        shown = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        what, _, where = shown.partition(": ")
        raise FunctionError(
            f"error parsing regexp: {_GO_WORDS.get(what, what)}: `{where or pattern}`"
        ) from error


def matches(pattern: str, text: str) -> bool:
    """Whether a regular expression is found anywhere in the text."""
    return _compiled(pattern).search(text) is not None


def replace_all(pattern: str, replacement: str, text: str) -> str:
    """Every match replaced; `$1`, `${1}` and `${name}` in the replacement are groups, as in Go's `ReplaceAllString`."""
    parts: list[str] = []
    length = 0
    end = 0
    try:
        compiled = _compiled(pattern)
    except FunctionError as error:
        quoted = f"`{pattern}`" if "`" not in pattern else quote_go(pattern)
        raise FunctionError(f"regexp: Compile({quoted}): {error}") from error
    for match in compiled.finditer(text):
        before = text[end : match.start()]
        shown = ""
        if match.end() > end or match.start() == 0:  # not for nothing right after another match
            shown = _expanded(replacement, match)
        length += len(before) + len(shown)
        if length > TEXT_LIMIT:
            raise too_long()
        parts += (before, shown)
        end = match.end()
    return "".join(parts) + text[end:]


def _expanded(replacement: str, match: Any) -> str:
    def group(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        if name is None:
            return "$"
        if name.isascii() and name.isdigit():
            number = int(name[:9])
            return (match.group(number) or "") if number <= match.re.groups else ""
        return (match.group(name) or "") if name in match.re.groupindex else ""

    return _REFERENCE.sub(group, replacement)
