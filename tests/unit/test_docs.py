"""The README's tables say what the program has."""

from __future__ import annotations

import re
from pathlib import Path

from exporter.docs import all_families, with_tables

ROOT = Path(__file__).parents[2]


def test_the_tables_in_the_readme_are_those_that_make_docs_writes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_tables(text) == text, "run make docs"


def test_no_family_is_declared_twice_and_each_has_help():
    names = [family.name for family in all_families()]
    assert len(names) == len(set(names))
    assert all(family.help.endswith(".") for family in all_families())


def test_the_readme_names_every_path_of_the_http_face():
    from exporter.web.metrics import PATHS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## HTTP") : text.index("## As a service")]
    named = set(re.findall(r"`(?:[A-Z]+ )?([^`]+)`", section))
    missing = [
        path
        for path in PATHS
        if path not in named
        and path.rpartition("/")[2] not in named
        and path.removeprefix("/api/v1/") not in named
    ]
    assert not missing
