"""Takes secrets out of what an endpoint answered: some servers repeat the address or the token that they were sent."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

MASK = "<secret>"
ANSWER_CHARACTERS = 500
"""How much of an answer is kept."""
_LEAST = 4
"""Shorter parts of a URL are no secrets, and would turn every answer into a row of masks."""
_ESCAPED = re.compile("%[0-9A-F]{2}")
_WORD = re.compile("[a-z]*")


class Masker:
    """Knows the secrets of one endpoint, in the forms in which a server may repeat them."""

    def __init__(self, secrets: Iterable[str] = (), urls: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        parts = (part for url in urls for part in _parts(url) if len(part) >= _LEAST)
        for secret in filter(None, (*secrets, *parts)):
            forms |= _forms(secret)
        self._forms = sorted(forms, key=len, reverse=True)

    def answer(self, body: bytes, *, whole: bool = True) -> str:
        """The first characters of an answer on one line; `whole` false: the body was cut off somewhere."""
        text = self(body.decode("utf-8", "replace"), whole=whole)
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:ANSWER_CHARACTERS]

    def __call__(self, text: str, *, whole: bool = True) -> str:
        """The text without secrets."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text if whole else self._without_begun(text)

    def _without_begun(self, text: str) -> str:
        """Take a secret's beginning away where the text was cut off within it."""
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), _LEAST - 1, -1):
                if text.endswith(form[:length]):
                    return text[:-length] + MASK
        return text


def basic(username: str, password: str) -> str:
    """The credentials as they stand in a header."""
    return b64encode(f"{username}:{password}".encode()).decode()


def _forms(secret: str) -> set[str]:
    """As it is, in URLs and forms, in JSON (which PHP writes with `\\/`), and each of that in HTML."""
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    forms = {secret, unquote(secret), *quoted, *in_json}
    forms |= {_ESCAPED.sub(lambda found: found[0].lower(), form) for form in quoted}
    forms |= {form.replace("/", "\\/") for form in in_json}
    return forms | {html.escape(form) for form in forms} | {html.escape(form, quote=False) for form in forms}


def _parts(url: str) -> list[str]:
    """What of a URL can be secret: all but scheme, host and port, and short words of its path.

    A word is of small letters alone: `hook` stays, `T024` goes.
    """
    split = urlsplit(url)
    path = split.path if len(split.path) > 1 else ""
    return [
        url,
        f"{path}?{split.query}" if split.query else path,
        split.query,
        *(segment for segment in path.split("/") if len(segment) >= 8 or not _WORD.fullmatch(segment)),
        *(value for _, value in parse_qsl(split.query)),
        split.username or "",
        split.password or "",
        f"{split.username or ''}:{split.password or ''}@" if split.password else "",
    ]
