"""Every heading of the page of errors that a message points at is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
POINTED = re.compile(r"docs/(errors\.md)#([\w-]+)")


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")


def test_messages_point_at_headings_that_are_there() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    anchors = {anchor(heading) for heading in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    pointed = {
        found for path in (ROOT / "packages").glob("*/src/**/*.py") for _, found in POINTED.findall(path.read_text("utf-8"))
    }
    assert len(pointed) >= 6
    assert pointed <= anchors
