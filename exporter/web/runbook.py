"""The runbook at `/rules/RUNBOOK.md`: where the alerts' `runbook_url` leads, each to its section."""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path

PATH = "/rules/RUNBOOK.md"

_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runbook</title>
<style>body{{font:1rem/1.6 system-ui,sans-serif;max-width:48rem;margin:3rem auto;padding:0 1rem;white-space:pre-wrap;
overflow-wrap:break-word}}h1,h2,h3{{margin:0;white-space:normal}}code{{font-family:ui-monospace,monospace}}:target{{background:#fff3b0}}</style>
</head>
<body>{text}</body>
</html>
"""


def runbook_page(folder: Path | None) -> str | None:
    """The page made of a folder's RUNBOOK.md; None where there is none."""
    if folder is None or not (file := folder / "RUNBOOK.md").is_file():
        return None
    return _PAGE.format(text=to_html(file.read_text(encoding="utf-8")))


def to_html(markdown: str) -> str:
    """Markdown as it is written, with headings that links can lead to, named as GitHub names them, and code set as code."""
    text = escape(markdown, quote=False)
    text = _HEADING.sub(_heading, text)
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text)


def _heading(match: re.Match[str]) -> str:
    level = min(len(match[1]), 3)
    anchor = re.sub(r"[^\w\- ]", "", unescape(match[2]).lower()).replace(" ", "-")
    return f'<h{level} id="{anchor}">{match[2]}</h{level}>'
