"""Which layers get adapters, by their full names: last names (`q_proj`, `0`) occur in other parts of a model, too."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection

from mia_augment import ConfigError, ModelError
from torch import nn

from mia_dpo_train.models.facts import base_model, language_model, linear_names, projector_names, vision_tower
from mia_dpo_train.settings import TrainSettings

_NUMBER = re.compile(r"(?<=\\\.)\d+(?=\\\.|$)")
"""A number between dots, in an escaped name."""


def target_pattern(model: nn.Module, settings: TrainSettings) -> str:
    """Regular expression that matches exactly the layers to be adapted, by their full names.

    Raises:
        ConfigError: a named target is in no layer of the language model, or there is no vision tower to train.
    """
    every = [name for name, _ in base_model(model).named_modules()]
    return exact_pattern(target_names(model, settings), every)


def target_names(model: nn.Module, settings: TrainSettings) -> list[str]:
    """Full names of the linear layers to be adapted: of the language model, and of the vision tower if it is trained.

    What maps image features into the language model is no target: it is trained as a whole or not at all.
    """
    prefix, decoder = language_model(model)
    names = linear_names(decoder)
    leaves = sorted({_leaf(name) for name in names})
    if settings.lora.targets != "auto":
        unknown = sorted(set(settings.lora.targets) - set(leaves))
        if unknown:
            raise ConfigError(
                f"lora.targets: {', '.join(unknown)} not in the language model; its linear layers are {', '.join(leaves)}"
            )
        names = [name for name in names if _leaf(name) in settings.lora.targets]
    wanted = [f"{prefix}.{name}" for name in names]
    return wanted + (_of_the_tower(model) if settings.train_vision_tower else [])


def _of_the_tower(model: nn.Module) -> list[str]:
    tower = vision_tower(model)
    projectors = tuple(f"{name}." for name in _projectors(model))
    found = [f"{tower[0]}.{name}" for name in linear_names(tower[1])] if tower else []
    found = [name for name in found if not f"{name}.".startswith(projectors)]
    if not found:
        what = f"{tower[0]} has no linear layers" if tower else "no vision tower was found"
        raise ConfigError(
            f"train_vision_tower: expected linear layers for adapters, but in {type(base_model(model)).__name__} {what}; "
            "set it to false"
        )
    return found


def _projectors(model: nn.Module) -> list[str]:
    try:
        return projector_names(model)
    except ModelError:
        return []


def exact_pattern(wanted: Collection[str], every: Collection[str]) -> str:
    """Regular expression that fully matches the wanted ones of all names and no other; short where names differ in numbers.

    >>> exact_pattern(["a.0.q", "a.1.q"], ["a", "a.0", "a.0.q", "a.1", "a.1.q"])
    'a\\\\.\\\\d+\\\\.q'
    """
    targets = set(wanted)
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(targets):
        alike[_NUMBER.sub(lambda _: r"\d+", re.escape(name))].append(name)
    parts: list[str] = []
    for pattern, names in alike.items():
        matches = re.compile(pattern).fullmatch
        only_wanted = all(name in targets for name in every if matches(name))
        parts += [pattern] if only_wanted else [re.escape(name) for name in names]
    return "|".join(parts)


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]
