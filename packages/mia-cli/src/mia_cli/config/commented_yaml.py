"""The keys of `pipeline.yaml` with defaults and meaning, taken from the settings classes."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from mia_select import SelectSettings
from mia_select.rules import rules_reading
from pydantic import BaseModel

from mia_cli.config.recipe_files import KEY
from mia_cli.config.schema import PipelineConfig

LINE_WIDTH = 110
BRIEF = 220
"""Characters of a meaning in the short file."""
HEADER = """\
# Settings of `mia run`. Every key may be left out: what is commented out shows its default.
# A relative path is relative to this file.
"""
SHORT_HEADER = "# Here stands what people change. Every other setting, with its default and meaning: `mia init --all`.\n"
CHANGED_MOST = frozenset({
    "run_dir", "recipe", "data.source", "data.image_root", "data.limit", "model.name", "augment.formats", "score.layer",
    "score.batch_size", "score.max_new_tokens", "select.calibrate", "select.min_perplexity", "select.max_pairs",
    "train.beta", "train.epochs", "train.learning_rate", "train.per_device_batch_size", "train.accumulation",
    "evaluate.source", "evaluate.holdout", "evaluate.per_bucket", "launch.processes",
})  # fmt: skip
"""Keys of the short file."""


def documentation(kind: type[BaseModel]) -> dict[str, str]:
    """Field name -> what it means, on one line: the string below the field, and the selection rules that it decides."""
    texts = {name: " ".join(field.description.split()) for name, field in kind.model_fields.items() if field.description}
    if kind is SelectSettings:
        return {name: f"{text} {rules_reading(name)}".strip() for name, text in texts.items()}
    return texts


def commented_yaml(values: dict[str, Any], only: Collection[str] | None = None, about: str = "") -> str:
    """A `pipeline.yaml`: `values` set, every other key commented out with its default; a recipe among the values decides these.

    Args:
        values: as they stand in the file, nested, e.g. ``{"data": {"source": "rows.json"}}``.
        only: dotted keys that are shown besides those set; None: all.
        about: what the values are about, told at the top.
    """
    texts = documentation(PipelineConfig)
    defaults = PipelineConfig.model_validate({KEY: values.get(KEY)})
    told = "".join(f"# {line}\n" for line in textwrap.wrap(about, LINE_WIDTH))
    lines = [HEADER, SHORT_HEADER if only is not None else "", told]
    for name, field in PipelineConfig.model_fields.items():
        default = field.get_default() if name == KEY else getattr(defaults, name)
        if isinstance(default, BaseModel):
            inner = list(_section(default, values.get(name, {}), _within(only, name)))
            head = f"\n# {(inspect.getdoc(type(default)) or '').splitlines()[0]}\n{name}:\n"
            lines += [head, *inner] if inner else []
        elif only is None or name in only or name in values:
            lines += _entry(name, _brief(texts.get(name, ""), only), _plain(default), values.get(name, _ABSENT), 0)
    return "".join(lines)


_ABSENT = object()


def _brief(text: str, only: Collection[str] | None) -> str:
    """The first sentence where the file is short; of a long one the beginning."""
    if only is None:
        return text
    first = re.split(r"(?<=[^.]\.) (?=[A-Z`])", text)[0]
    return first if len(first) <= BRIEF else f"{first[: first.rindex(';', 0, BRIEF)]}; .."


def _within(only: Collection[str] | None, section: str) -> Collection[str] | None:
    return None if only is None else {name.removeprefix(f"{section}.") for name in only if name.startswith(f"{section}.")}


def _section(settings: BaseModel, values: dict[str, Any], only: Collection[str] | None) -> Iterator[str]:
    texts = documentation(type(settings))
    for name in type(settings).model_fields:
        if only is not None and name not in only and name not in values:
            continue
        default = getattr(settings, name)
        text = texts.get(name) or (_nested(default) if isinstance(default, BaseModel) else "")
        yield from _entry(name, _brief(text, only), _plain(default), values.get(name, _ABSENT), 1)


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
