from __future__ import annotations

import re
from pathlib import Path

from exporter.alerting.files import shipped_folder
from exporter.web.runbook import runbook_page, to_html


def test_headings_can_be_linked_to_and_nothing_of_the_text_is_markup():
    html = to_html("# A & B\n\n## VLLMHighTTFT\n\n`<b>` & 中文\n")
    assert '<h1 id="a--b">A &amp; B</h1>' in html
    assert '<h2 id="vllmhighttft">VLLMHighTTFT</h2>' in html
    assert "<code>&lt;b&gt;</code> &amp; 中文" in html


def test_every_shipped_alert_leads_to_a_section_of_the_page():
    folder = shipped_folder()
    assert folder is not None
    page = runbook_page(folder)
    assert page is not None
    anchors = set(re.findall(r'id="([^"]+)"', page))
    linked = {
        anchor
        for file in folder.glob("*.rules.yml")
        for anchor in re.findall(r"RUNBOOK\.md#([\w-]+)", file.read_text(encoding="utf-8"))
    }
    assert len(linked) > 20
    assert linked <= anchors


def test_without_a_runbook_there_is_no_page(tmp_path: Path):
    assert runbook_page(tmp_path) is None
    assert runbook_page(None) is None
