"""What must never be shown: which flags and variables carry secrets, and text with them masked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MASK = "***"

_SECRET_WORDS = frozenset(
    {"apikey", "credential", "credentials", "key", "passwd", "password", "pat", "secret", "secrets", "token"}
)
"""Words of a flag's or variable's name. `tokens` and `tokenizer` are not among them, nor `keyfile`, which is a path."""
_NOT_SECRET = frozenset(
    {"cache", "id", "ids", "file", "path", "limit", "count", "budget", "type", "size", "len"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_EDGE = r"(?:^|[^A-Za-z0-9])"
_NAME = (
    _EDGE + r"(?:[A-Za-z0-9]{1,32}[_-]){0,6}(?:api[_-]?key|token|secret|password|passwd|credentials?"
    r"|(?:access|private|secret|encryption)[_-]key)"
)

_SLASH = r"\\?/"
"""JSON may escape it."""
_REST = r"[^\s'\"<>,()\[\]{}&?/\\]"
_HOOKS = "|".join(
    path.replace("/", _SLASH)
    for path in (
        r"hooks\.slack(?:-gov)?\.com/[a-z]{1,20}/",  # Slack
        r"/services/(?=T[A-Z0-9]{4,20}/B[A-Z0-9]{4,20}/)",
        r"/api/(?:v\d{1,3}/)?webhooks/(?=\d{5,25}/)",  # Discord
        r"/open-apis/bot/(?:v\d{1,3}/)?hook/",  # Feishu, Lark
        r"webhook\.office\.com/webhookb?\d?/|/webhookb2/|outlook\.office(?:365)?\.com/webhook/",  # Teams
    )
)
"""What stands before the secret path of a webhook; also where a library's error names the path without its host."""

_PATTERNS = (
    # user:password@ in a URL
    (re.compile(r"(?P<keep>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s/:@'\"]{0,256}:)[^\s/@'\"]{1,512}(?=@)"), True),
    # the tokens of Hugging Face, OpenAI look-alikes, GitHub, AWS key ids
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bAKIA[A-Z0-9]{16}\b"), False),
    (re.compile(r"(?P<keep>\b[Bb]earer\s+)[A-Za-z0-9._~+/=-]{4,}"), True),
    # webhooks that are known by their URL alone; Telegram's bots; the keys of WeCom and DingTalk, signatures of Azure
    (re.compile(rf"(?P<keep>{_HOOKS})(?:{_REST}|{_SLASH}){{1,512}}", re.IGNORECASE), True),
    (re.compile(r"(?P<keep>/bot)\d{3,20}(?::|%3A)[A-Za-z0-9_-]{10,256}", re.IGNORECASE), True),
    (re.compile(rf"(?P<keep>(?:[?&]|&amp;|\\u0026)(?:key|sig|sign|access_token)=)(?:{_REST}|/){{1,512}}", re.IGNORECASE), True),
    # NAME=value, 'name': 'value', "name": ["value"…; a number is a count of tokens, not one
    (
        re.compile(
            rf"(?P<keep>{_NAME}['\"]?\s?[=:]\s?\[?['\"]?)(?!None\b|null\b|True\b|False\b|[\d.,]+(?:\s|$))[^\s'\",\]}}\)]{{3,}}",
            re.IGNORECASE,
        ),
        True,
    ),
    (re.compile(rf"(?P<keep>--{_NAME.removeprefix(_EDGE)}['\"]?\s+['\"]?)[^\s'\",\]}}\)-][^\s'\",\]}}\)]*", re.IGNORECASE), True),
)  # fmt: skip


def is_secret_name(name: str) -> bool:
    """Whether a flag or an environment variable of this name carries a secret: `--hf-token`, `AWS_SECRET_ACCESS_KEY`."""
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(_SECRET_WORDS.intersection(words)) and (not words or words[-1] not in _NOT_SECRET)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without these secrets, and without what looks like one (tokens, webhooks, passwords in URLs, `api_key=…`)."""
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    for pattern, keeps in _PATTERNS:
        text = pattern.sub(r"\g<keep>" + MASK if keeps else MASK, text)
    return text


_HINTS = (
    "://", "hf_", "sk-", "gh", "akia", "bearer", "key", "token", "secret", "passw", "credential", "hook", "services",
    "/bot", "sig",
)  # fmt: skip


def mask_argv(argv: Sequence[str], secrets: Iterable[str] = ()) -> tuple[str, ...]:
    """A command line that may be shown: values of secret flags and variables masked wherever they stand."""
    known = tuple(secrets)
    shown: list[str] = []
    hiding = False
    for argument in argv:
        if argument.startswith("-"):
            flag, equals, value = argument.partition("=")
            hiding = flag.startswith("--") and is_secret_name(flag)
            if hiding and equals:
                shown.append(f"{flag}={MASK if value else ''}")
                hiding = False
            elif not hiding and equals:
                shown.append(f"{flag}={mask(value, known)}")
            else:
                shown.append(mask(argument, known) if not hiding else flag)
        elif hiding:
            shown.append(MASK)
        else:
            name, equals, value = argument.partition("=")
            if equals and value and name.isidentifier() and is_secret_name(name):
                shown.append(f"{name}={MASK}")
            else:
                shown.append(mask(argument, known))
    return tuple(shown)
