"""The tables "Formula -> file" of the packages' READMEs are true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<formula>[^|`]+) \| `(?P<file>[\w/]+\.py)` \| `(?P<function>[\w.]+)` \|$")
WANTED = {
    "mia-augment": ["grid geometry", "noise", "delong", "hanley", "wilson"],
    "mia-attention": ["ratio", "masses", "perplexity", "rollout", "gradient"],
    "mia-select": ["thresholds", "length ratio", "edit distance"],
    "mia-dpo-train": ["dpo", "ipo", "nll"],
}
"""What a reader looks for, by package; a formula that moves to another package takes its row along."""


def rows(package: str) -> list[dict[str, str]]:
    """The rows of a package's table; every line of it has to be one."""
    text = (ROOT / "packages" / package / "README.md").read_text("utf-8")
    section = re.split(r"^## ", text.split("\n## Formula -> file\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    found = [ROW.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return [match.groupdict() for match in found if match]


def defined(path: Path) -> set[str]:
    """Functions and classes at the top of a module, and `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("package", WANTED)
def test_every_named_file_has_the_named_function(package: str) -> None:
    source = ROOT / "packages" / package / "src" / package.replace("-", "_")
    wrong = []
    for row in rows(package):
        path = source / row["file"]
        if not path.is_file() or row["function"] not in defined(path):
            wrong.append(f"{row['formula']}: {row['file']} {row['function']}")
    assert wrong == []


def test_every_formula_has_a_row() -> None:
    told = {package: " ".join(row["formula"] for row in rows(package)).lower() for package in WANTED}
    assert [(package, word) for package, words in WANTED.items() for word in words if word not in told[package]] == []
