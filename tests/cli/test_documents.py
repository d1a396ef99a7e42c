"""What the documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("packages/*/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("docs/*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
MADE_BY_THE_SITE = ("packages/", "reference/", "measured.md", "embedded-model.md", "benchmarks.md")
"""Pages that `docs/generated_pages.py` adds; mkdocs checks links to them."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    targets = {(first or second).partition("#")[0] for first, second in LINK.findall(text)}
    local = {name for name in targets if name and not name.startswith("http")}
    if document.parent.name == "docs":
        local = {name for name in local if not name.startswith(MADE_BY_THE_SITE)}
    assert [name for name in sorted(local) if not (document.parent / name).exists()] == []
