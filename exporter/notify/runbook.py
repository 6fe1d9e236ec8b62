"""What to do, by alert: the "Do" paragraphs of the runbook that ships with the rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from exporter.alerting.files import shipped_folder

_HEADING = re.compile(r"^## (\S+)$", re.MULTILINE)
_DO = re.compile(r"^\*\*Do\.\*\* (.+)$", re.MULTILINE)
_REFERENCE = re.compile(r"\[([^\]]*)\]\(#([^)]*)\)")
_ONLY_A_REFERENCE = re.compile(r"As for \[[^\]]*\]\(#([^)]*)\)\.?")


@cache
def shipped_actions() -> Mapping[str, str]:
    """Of the shipped runbook; empty where it is not installed."""
    folder = shipped_folder()
    try:
        return actions((folder / "RUNBOOK.md").read_text(encoding="utf-8")) if folder is not None else {}
    except OSError:
        return {}


def actions(runbook: str) -> dict[str, str]:
    """What to do as plain text, by the anchor of the alert's section; "as for" another alert says what is said there."""
    said: dict[str, str] = {}
    parts = _HEADING.split(runbook)
    for name, section in zip(parts[1::2], parts[2::2], strict=True):
        if found := _DO.search(section):
            said[name.lower()] = found[1]
    return {anchor: _plain(_follow(anchor, said)) for anchor in said}


def _follow(anchor: str, said: Mapping[str, str]) -> str:
    seen = {anchor}
    while (reference := _ONLY_A_REFERENCE.fullmatch(said[anchor])) and reference[1] in said.keys() - seen:
        anchor = reference[1]
        seen.add(anchor)
    return said[anchor]


def _plain(text: str) -> str:
    return _REFERENCE.sub(r"\1", text).replace("`", "")
