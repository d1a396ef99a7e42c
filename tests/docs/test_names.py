"""Files and modules that the documents name are there."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"), *ROOT.glob("packages/*/README.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("docs/*.md"),
    *ROOT.glob("benchmarks/*.md"),
]  # fmt: skip
OF_OTHER_PROJECTS = {"docs/comparison.md", "docs/where-did-this-word-come-from.md", "examples/harnesses/README.md"}
"""Documents that name files of other projects: their files are not looked for."""
PROGRAMS = [path for folder in ("examples", "benchmarks", "docs", "research") for path in (ROOT / folder).rglob("*.py")]
"""Programs that no test runs as a whole, or only slow ones."""
FILE = re.compile(r"`([\w.-]+/[\w./-]*\w\.(?:py|sh|pyi))`")
MODULE = re.compile(r"`(mia_(?:augment|attention|select|dpo_train|cli)(?:\.\w+)+)`")
IMPORT = re.compile(r"^ *(?:from (mia_[\w.]+) import \(?([\w, ]+)|import (mia_[\w.]+))", re.MULTILINE)


def is_there(name: str, document: Path) -> bool:
    """Whether a file lies at the root, beside the document, in a package's source, or below one of its folders."""
    places = [ROOT, document.parent, *ROOT.glob("packages/*/src"), *ROOT.glob("packages/*/src/mia_*")]
    return any((place / name).is_file() for place in places)


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name and not dotted.startswith(error.name):
                raise
            continue
        for attribute in parts[cut:]:
            fields = getattr(found, "model_fields", {})
            if not hasattr(found, attribute) and attribute not in fields:
                return False
            found = getattr(found, attribute, None)
        return True
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_and_modules_are_there(document: Path) -> None:
    text = document.read_text("utf-8")
    ours = str(document.relative_to(ROOT)) not in OF_OTHER_PROJECTS
    wrong = [name for name in FILE.findall(text) if ours and not is_there(name, document)]
    names = MODULE.findall(text)
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for module, imported, alone in IMPORT.findall(code):
            names += (
                [alone]
                if alone
                else [f"{module}.{name.split(' as ')[0].strip()}" for name in imported.split(",") if name.strip()]
            )
    assert wrong + [name for name in dict.fromkeys(names) if not resolves(name)] == []


def used(program: Path) -> list[str]:
    """Dotted names that a program uses of the packages: imported, or attributes of modules that are imported by name."""
    tree = ast.parse(program.read_text("utf-8"))
    names, local = [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("mia_")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mia_"):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
            local |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and is_module(local.get(node.value.id, "")):
            names.append(f"{local[node.value.id]}.{node.attr}")
    return list(dict.fromkeys(names))


def is_module(dotted: str) -> bool:
    return dotted in sys.modules or any((ROOT / "packages").glob(f"*/src/{dotted.replace('.', '/')}.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_use_names_that_are_there(program: Path) -> None:
    assert [name for name in used(program) if not resolves(name)] == []


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("mia_select.rules.table", True),
        ("mia_select.wilson", True),
        ("mia_select.families", False),
        ("mia_augment.records.Nothing", False),
    ],
)
def test_the_check_itself(name: str, there: bool) -> None:
    assert resolves(name) == there
