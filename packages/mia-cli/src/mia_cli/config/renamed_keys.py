"""Keys of earlier versions: they go on working, with a warning that names the key of now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mia_augment import ConfigError

from mia_cli.config.yaml_errors import child

RENAMED: dict[str, str] = {}
"""Dotted key of an earlier version -> its name now, in the same section: ``"score.old": "new"``."""

logger = logging.getLogger(__name__)


def with_present_names(values: dict[str, Any], node: Any, section: Sequence[str], path: Path) -> dict[str, Any]:
    """Settings with every key of an earlier version renamed.

    Args:
        values: as they were read: all sections, or one section's settings.
        node: the mapping that `values` was read from; renamed too, so that errors still find the line.
        section: keys that lead to `values` in a whole file; empty for all sections.

    Raises:
        ConfigError: a key stands there under both names.
    """
    for dotted, name in RENAMED.items():
        *sections, old = dotted.split(".")
        if sections[: len(section)] == list(section):
            values = _renamed(values, node, sections[len(section) :], old, name, f"{path}: {dotted}")
    return values


def _renamed(values: Any, node: Any, sections: Sequence[str], old: str, name: str, where: str) -> Any:
    if not isinstance(values, dict):
        return values
    if sections:
        first, *rest = sections
        if first not in values:
            return values
        inner = child(node, first)
        return {**values, first: _renamed(values[first], inner and inner[1], rest, old, name, where)}
    if old not in values:
        return values
    if name in values:
        raise ConfigError(f"{where} is called {name!r} now, and both are there; delete {old!r}")
    logger.warning("%s is called %r now; rename it, the old name will be refused some day", where, name)
    if (found := child(node, old)) is not None:
        found[0].value = name
    return {name if key == old else key: value for key, value in values.items()}
