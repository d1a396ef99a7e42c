"""Reading YAML that may be anything: within bounds, no key twice, and with an error that names file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mia_augment import ConfigError, DataError
from mia_augment.storage import read_text

MAX_CHARACTERS = 1 << 20
"""Longest settings file."""
MAX_DEPTH = 32
"""Most values within values; settings need five."""
MAX_YAML_VALUES = 20_000
"""Most values, those counted that `*alias` repeats."""

_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_yaml(path: Path) -> tuple[Any, Any]:
    """(value, node) of a YAML file; the node has the line numbers.

    Raises:
        ConfigError: no file, not UTF-8, not YAML, larger or deeper than settings can be, or a key stands twice in one place.
    """
    try:
        text = read_text(path)
    except DataError as error:
        raise ConfigError(f"not valid YAML: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path | str) -> tuple[Any, Any]:
    """(value, node) of YAML text, of which errors say that it stands in `path`; raises as `read_yaml`."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{path}: expected settings of at most {MAX_CHARACTERS} characters, got {len(text)}")
    try:
        _check_size(text, path)
        node = yaml.compose(text, yaml.SafeLoader)
        for inner in _nodes(node):
            _check_node(inner, path)
        return yaml.safe_load(text), node
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # PyYAML converts `!!int x`, 2026-99-99 unchecked
        raise ConfigError(f"{path}: not valid YAML: a value cannot be read: {error}") from error


def _check_size(text: str, path: Path | str) -> None:
    """Count values and their depth from events, of which there are never more than characters, before anything is built."""
    sizes: dict[str, int] = {}
    around: list[tuple[str | None, int]] = []  # anchor of each value that is open, and how many values came before it
    count = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in around]:
                raise ConfigError(f"{path}, line {line}: *{event.anchor} stands within &{event.anchor} itself")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, _OPENS):
            around.append((event.anchor, count))
            count += 1
        elif isinstance(event, _CLOSES):
            anchor, before = around.pop()
            sizes[anchor or ""] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes[event.anchor or ""] = 1
        if len(around) > MAX_DEPTH:
            raise ConfigError(f"{path}, line {line}: expected at most {MAX_DEPTH} values within values")
        if count > MAX_YAML_VALUES:
            raise ConfigError(f"{path}, line {line}: expected at most {MAX_YAML_VALUES} values, aliases written out")


def _nodes(root: Any) -> Iterator[Any]:
    """Every node once."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _check_node(node: Any, path: Path | str) -> None:
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value or not _is_text(node.value):
            raise ConfigError(f"{path}, line {node.start_mark.line + 1}: a text with characters that no file can hold")
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines:
                raise ConfigError(f"{path}, line {line}: key {key.value!r} stands here and in line {lines[name]}; delete one")
            lines[name] = line


def _is_text(value: str) -> bool:
    """Whether UTF-8 can hold it: no half of a character that takes two."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
