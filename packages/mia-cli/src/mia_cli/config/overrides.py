"""`--set KEY=VALUE`: settings given on the command line, over those of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from mia_augment import ConfigError

from mia_cli.config.yaml_files import parse_yaml

_AS_SECTION = {"model": "name"}
"""Sections that a file may give as one value, and the key that it stands for."""


class Given(str):
    """Where a key stands that no file holds: ``--set train.beta``."""


def assignments(given: Iterable[str]) -> list[tuple[tuple[str, ...], Any, Any]]:
    """(keys, value, its YAML node) of each ``train.beta=0.5``; a value is written as in YAML.

    Raises:
        ConfigError: no KEY=VALUE, no key, or no YAML.
    """
    found = []
    for text in given:
        dotted, equals, value = text.partition("=")
        keys = tuple(dotted.strip().split("."))
        if not equals or not all(keys):
            raise ConfigError(f"--set {text}: expected KEY=VALUE, as score.batch_size=8")
        found.append((keys, *parse_yaml(value, f"--set {dotted.strip()}")))
    return found


def with_overrides(values: dict[str, Any], node: Any, given: Iterable[str]) -> tuple[dict[str, Any], Any]:
    """(values, node) of a file with what `--set` gives in its places; the node tells errors where a key stands."""
    for keys, value, found in assignments(given):
        values = replaced(values, keys, value)
        node = _with_node(node, keys, found, Given(f"--set {'.'.join(keys)}"))
    return values, node


def replaced(values: Any, keys: tuple[str, ...], value: Any) -> Any:
    """`values` with the value at these keys replaced; what else stands in the sections on the way stays."""
    first, *rest = keys
    if not isinstance(values, Mapping):
        values = {}
    inner = values.get(first)
    if rest and isinstance(inner, str) and first in _AS_SECTION:
        inner = {_AS_SECTION[first]: inner}
    return {**values, first: replaced(inner, tuple(rest), value) if rest else value}


def _with_node(node: Any, keys: tuple[str, ...], value: Any, given: Given) -> Any:
    first, *rest = keys
    pairs = list(node.value) if isinstance(node, yaml.MappingNode) else []
    old = next((pair for pair in pairs if pair[0].value == first), None)
    inner = _with_node(old[1] if old else None, tuple(rest), value, given) if rest else value
    if old is None or not rest:
        key = yaml.ScalarNode("tag:yaml.org,2002:str", first)
        key.given = given
    else:
        key = old[0]
    return yaml.MappingNode("tag:yaml.org,2002:map", [*(pair for pair in pairs if pair is not old), (key, inner)])
