"""The keys of `pipeline.yaml` with defaults and meaning, taken from the settings classes."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mia_select import SelectSettings
from mia_select.rules import rules_reading
from pydantic import BaseModel

from mia_cli.config.recipe_files import KEY
from mia_cli.config.schema import PipelineConfig

LINE_WIDTH = 110
HEADER = """\
# Settings of `mia run`. Every key may be left out: what is commented out shows its default.
# A relative path is relative to this file.
"""


def documentation(kind: type[BaseModel]) -> dict[str, str]:
    """Field name -> what it means, on one line: the string below the field, and the selection rules that it decides."""
    texts = {name: " ".join(field.description.split()) for name, field in kind.model_fields.items() if field.description}
    if kind is SelectSettings:
        return {name: f"{text} {rules_reading(name)}".strip() for name, text in texts.items()}
    return texts


def commented_yaml(values: dict[str, Any]) -> str:
    """A `pipeline.yaml`: `values` set, every other key commented out with its default; a recipe among the values decides these.

    Args:
        values: as they stand in the file, nested, e.g. ``{"data": {"source": "rows.json"}}``.
    """
    texts = documentation(PipelineConfig)
    defaults = PipelineConfig.model_validate({KEY: values.get(KEY)})
    lines = [HEADER]
    for name, field in PipelineConfig.model_fields.items():
        default = field.get_default() if name == KEY else getattr(defaults, name)
        if isinstance(default, BaseModel):
            lines.append(f"\n# {(inspect.getdoc(type(default)) or '').splitlines()[0]}\n{name}:\n")
            lines += _section(default, values.get(name, {}), 1)
        else:
            lines += _entry(name, texts.get(name, ""), _plain(default), values.get(name, _ABSENT), 0)
    return "".join(lines)


_ABSENT = object()


def _section(settings: BaseModel, values: dict[str, Any], depth: int) -> Iterator[str]:
    texts = documentation(type(settings))
    for name in type(settings).model_fields:
        default = getattr(settings, name)
        text = texts.get(name) or (_nested(default) if isinstance(default, BaseModel) else "")
        yield from _entry(name, text, _plain(default), values.get(name, _ABSENT), depth)


def _entry(name: str, text: str, default: Any, value: Any, depth: int) -> Iterator[str]:
    """A comment that says what the key means, then the key: set, or commented out with its default."""
    indent = "  " * depth
    for line in textwrap.wrap(text, LINE_WIDTH - len(indent)):
        yield f"{indent}# {line}\n"
    if value is _ABSENT:
        yield f"{indent}#{name}: {_flow(default)}\n"
    else:
        yield f"{indent}{name}: {_flow(value)}\n"


def _flow(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    """As YAML writes it: no tuples, paths or settings objects; integer keys stay integers."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.as_posix() if isinstance(value, Path) else value


def _nested(settings: BaseModel) -> str:
    """What settings within a section mean, on one line."""
    about = (inspect.getdoc(type(settings)) or "").split("\n\n")[0].replace("\n", " ")
    texts = documentation(type(settings))
    return " ".join([about, *(f"{name}: {texts[name]}" for name in type(settings).model_fields if name in texts)])


def entries(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """(key, type, default, meaning) of every setting, nested ones with their dotted name."""
    texts = documentation(kind)
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from entries(type(default), f"{prefix}{name}.")
        else:
            shown = getattr(field.annotation, "__name__", None) if isinstance(field.annotation, type) else None
            yield f"{prefix}{name}", shown or str(field.annotation).replace("typing.", ""), _plain(default), texts.get(name, "")
