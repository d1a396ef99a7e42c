"""Recipes: ways to build pairs and to learn from them, each a file of settings in the folder `recipes`.

A recipe is a fragment of a `pipeline.yaml`. `recipe: NAME` lays it under the file's own keys: what the file says wins.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mia_augment import ConfigError
from pydantic import BaseModel

from mia_cli.config.yaml_files import read_yaml

KEY = "recipe"
"""The key of a `pipeline.yaml` that names one."""
_FIRST = ("paper", "own")

RECIPES: dict[str, Path] = {
    path.stem: path
    for path in sorted(
        (Path(__file__).parent.parent / "recipes").glob("*.yaml"), key=lambda path: (path.stem not in _FIRST, path.stem)
    )
}
"""Name -> file."""


def check_recipe(name: Any, where: str = "") -> str:
    """The name, if there is such a recipe.

    Args:
        name: what somebody wrote.
        where: with what the message begins.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"{where}recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return name


@functools.cache
def _read(path: Path) -> tuple[dict[str, Any], str]:
    lines = path.read_text("utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return read_yaml(path)[0], " ".join(line.lstrip("# ") for line in comment)


def recipe_settings(name: str) -> dict[str, Any]:
    """What a recipe sets, nested as in a `pipeline.yaml`."""
    return _read(RECIPES[check_recipe(name)])[0]


def set_by(name: str | None) -> set[str]:
    """Keys that a recipe sets, as ``select.chosen``; none without a recipe."""
    settings = {} if name is None else recipe_settings(name)
    return {f"{section}.{key}" for section, values in settings.items() if isinstance(values, dict) for key in values}


def recipe_meaning(name: str) -> str:
    """What a recipe does and from which paper it is: the first comment of its file, on one line."""
    return _read(RECIPES[check_recipe(name)])[1]


def laid_under(values: Mapping[str, Any], under: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """`values`, with what `under` says wherever they say nothing.

    Sections are looked into, and settings within settings; any other value, a table or a list too, is taken whole from one
    side.
    A section whose lines are all commented out, which reads as None, says nothing.

    Args:
        values: of a file, nested.
        under: of a recipe.
        kind: the settings that both are of.
    """
    merged = {**under, **values}
    for name in under.keys() & values.keys():
        section = _section_kind(kind, name)
        if section is not None and values[name] is None:
            merged[name] = under[name]
        elif section is not None and isinstance(values[name], Mapping) and isinstance(under[name], Mapping):
            merged[name] = laid_under(values[name], under[name], section)
    return merged


def without(values: Mapping[str, Any], settled: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """`values` but for the keys that `settled` has, so that a recipe decides about these; arguments as `laid_under`."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        section = _section_kind(kind, name)
        if name not in settled:
            kept[name] = value
        elif section is not None and isinstance(value, Mapping) and isinstance(settled[name], Mapping):
            kept[name] = without(value, settled[name], section)
    return kept


def _section_kind(kind: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The settings within settings that a key stands for; None: it is a value."""
    field = kind.model_fields.get(name)
    default = None if field is None else field.get_default(call_default_factory=True)
    return type(default) if isinstance(default, BaseModel) else None
