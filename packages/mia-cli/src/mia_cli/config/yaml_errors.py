"""What is wrong with a settings file, where, and what was probably meant."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mia_augment.storage import Problem, dotted, problems
from pydantic import BaseModel, ValidationError
from rapidfuzz import fuzz, process

SIMILAR = 50
"""Least similarity (0..100) at which a known key is suggested."""

KeyPath = tuple[Any, ...]
"""Keys that lead to a value, from the outermost."""


def explain(error: ValidationError, kind: type[BaseModel], prefix: KeyPath, node: Any, path: Path) -> str:
    """One line for each problem: file, line, key, what was expected and what was found.

    Args:
        error: what validating `kind` raised.
        prefix: keys that lead to the settings within the file.
        node: the file as `yaml.compose` reads it, for the line numbers.
    """
    lines = []
    for problem in problems(error, lambda place, what: _in_file(node, (*prefix, *place), what)):
        lines.append(f"{_where(node, problem.place, path)}: {told(problem, kind, len(prefix))}")
    return "\n".join(dict.fromkeys(lines))


def told(problem: Problem, kind: type[BaseModel], above: int = 0) -> str:
    """A problem with its key, and with the nearest key that is known where this one is not.

    Args:
        problem: found in settings of this kind.
        kind: the settings.
        above: so many of the first keys lead to the settings, not into them.
    """
    place = problem.place
    if problem.unknown:
        return _unknown_key(kind, place, place[above:])
    return f"{dotted(place)}: {problem.text}" if place else problem.text


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """All settings classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def _unknown_key(kind: type[BaseModel], place: KeyPath, inner: KeyPath) -> str:
    known = sorted(_keys_at(kind, inner[:-1]))
    nearest = process.extractOne(str(place[-1]), known, scorer=fuzz.ratio)
    hint = f"; did you mean {nearest[0]!r}?" if nearest and nearest[1] >= SIMILAR else ""
    return f"unknown key {dotted(place)!r}{hint} (known here: {', '.join(known)})"


def _keys_at(kind: type[BaseModel], place: KeyPath) -> set[str]:
    """Keys that settings of this kind know at a place inside them."""
    kinds = {kind}
    for name in place:
        found = {
            inner for k in kinds if str(name) in k.model_fields for inner in models_in(k.model_fields[str(name)].annotation)
        }
        kinds = found or kinds
    return {field for k in kinds for field in k.model_fields}


def _in_file(node: Any, place: KeyPath, problem: str) -> KeyPath:
    """The place without the names of alternatives that the validator adds on the way."""
    found = []
    for index, key in enumerate(place):
        inner = child(node, key)
        missing = problem == "missing" and index == len(place) - 1
        if inner is not None or missing:
            found.append(key)
            node = inner[1] if inner else None
    return tuple(found)


def _where(node: Any, place: KeyPath, path: Path) -> str:
    """File and line of a key, or of the last key on the way where the path leads nowhere; or `--set` with what it gives."""
    key = None
    for name in place:
        inner = child(node, name)
        if inner is None:
            break
        key, node = inner
    if key is None:
        return str(path)
    return getattr(key, "given", None) or f"{path}, line {key.start_mark.line + 1}"


def child(node: Any, key: Any) -> tuple[Any, Any] | None:
    """(key node, value node) of a mapping's key, or a list's entry."""
    if isinstance(node, yaml.MappingNode):
        return next(((k, v) for k, v in node.value if k.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None
