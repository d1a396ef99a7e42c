"""Every code block of the documentation: commands that parse, settings that are valid, Python that a test runs."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from mia_cli.config.recipe_files import RECIPES
from mia_cli.config.schema import load_config
from mia_cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
PYTHON = {
    "README.md": "shows names only: that they are there is held by test_names.py; each package's README has the same, run",
    "docs/attention-ratio.md": "tests/docs/test_pages.py",
    "docs/extend.md": "tests/docs/test_extend.py",
    "docs/did-it-use-image-2.md": "tests/docs/test_question_pages.py",
    "docs/multi-turn.md": "tests/docs/test_pages.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/where-did-this-word-come-from.md": "needs a downloaded model: what it calls is run by tests/attention/test_look.py",
    "docs/which-head-finds-the-named-image.md": "tests/docs/test_question_pages.py",
    "packages/mia-attention/README.md": "tests/attention/test_readme.py",
    "packages/mia-augment/README.md": "tests/augment/test_readme.py",
    "packages/mia-cli/README.md": "tests/examples/test_examples.py",
    "packages/mia-dpo-train/README.md": "tests/dpo_train/test_readme.py",
    "packages/mia-select/README.md": "tests/select/test_readme.py",
}
"""Page -> the test that runs its Python, or why none does."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each code block."""
    yield from BLOCK.findall(page.read_text("utf-8"))


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def mia_lines() -> list[tuple[str, str]]:
    """Every `mia ..` that a reader may type, continued lines joined, remarks left out."""
    found = []
    for page in PAGES:
        for language, text in blocks(page):
            if language in ("", "bash", "sh", "console"):
                for line in text.replace("\\\n", " ").splitlines():
                    command = re.search(r"(?:^|&& |-m )\s*(?:uv run )?(mia(?:_cli)? [a-z][^#&|]*)", line)
                    if command is not None and "sed" not in line.split(" ")[0]:
                        found.append((named(page), command[1].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), mia_lines())
def test_a_command_is_one_that_mia_knows(page: str, line: str) -> None:
    """Its name, options and number of arguments; paths and models are not looked for."""
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    context = click.Context(command, info_name=name)
    given, rest, _ = command.make_parser(context).parse_args(arguments)
    assert not rest
    missing = [p.name for p in command.params if p.required and isinstance(p, click.Argument) and not given.get(p.name)]
    assert not missing, f"{page}: {line}: no {missing}"


def settings() -> list[tuple[str, str]]:
    return [(named(page), text) for page in PAGES for language, text in blocks(page) if language == "yaml"]


@pytest.mark.parametrize(("page", "text"), settings())
def test_settings_are_valid(page: str, text: str, tmp_path: Path) -> None:
    """A pipeline.yaml, or a part of one, which then stands beside what every file needs."""
    value = yaml.safe_load(text)
    whole = {"data": {"source": "rows.json"}, "model": "embedded", **value}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(whole))
    config = load_config(file)
    for section in value:
        assert hasattr(config, section)


@pytest.mark.parametrize("page", [page for page in PAGES if any(lang == "python" for lang, _ in blocks(page))], ids=named)
def test_python_is_run_by_a_test_or_it_is_said_why_not(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            ast.parse(text)
    told = PYTHON[named(page)]
    if told.startswith("tests/"):
        test = ROOT / told
        assert test.is_file()
        assert page.name in test.read_text("utf-8") or test.name == "test_examples.py"


def test_no_page_is_named_that_has_no_python() -> None:
    assert set(PYTHON) == {named(page) for page in PAGES if any(language == "python" for language, _ in blocks(page))}


def test_rows_shown_are_json() -> None:
    shown = [text for page in PAGES for language, text in blocks(page) if language == "json"]
    assert len(shown) >= 2
    for text in shown:
        json.loads(text)


def test_every_recipe_has_a_section_with_its_file() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert set(re.findall(r"^## (\w+)\n\n<!-- recipe \1 -->$", page, re.MULTILINE)) == set(RECIPES)
    assert set(re.findall(r"^\| `(\w+)` \|", page.split("## Which one?")[1].split("```")[0], re.MULTILINE)) == set(RECIPES)


def test_every_page_stands_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    nav = set(re.findall(r": ([\w/-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= nav
