"""Adapters lie on the layers that were asked for, in every family, and on no other."""

from __future__ import annotations

import re

import pytest
import tiny_models
import torch
from mia_augment.errors import ConfigError
from mia_dpo_train.models.adapter_targets import exact_pattern, target_names
from mia_dpo_train.models.facts import projector_names
from mia_dpo_train.models.trainable import prepare_for_training, trainable
from mia_dpo_train.settings import TrainSettings
from torch import nn

TOWERS = ("vision_tower.", "visual.", "vision_model.")
DECODERS = ("language_model.", "text_model.")


def settings(**changes):
    return TrainSettings.model_validate({"lora": {"r": 2, "alpha": 2}, "gradient_checkpointing": False, **changes})


def part(name):
    """Which part of a model a trained parameter belongs to."""
    name = name.removeprefix("base_model.model.").removeprefix("model.")
    if "modules_to_save" in name:
        return "projector"
    kinds = [kind for kind, starts in (("decoder", DECODERS), ("tower", TOWERS)) if name.startswith(starts)]
    assert len(kinds) == 1, name
    assert "lora_" in name, name
    return kinds[0]


@pytest.mark.parametrize("projector", [False, True])
@pytest.mark.parametrize("tower", [False, True])
@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_every_family_takes_adapters_where_they_are_asked_for(family, tower, projector):
    model = tiny_models.build(family).model
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inside = tuple(f"{name}." for name in projector_names(model))
    adapted = prepare_for_training(model, settings(train_vision_tower=tower, train_projector=projector), "tiny")
    names = list(trainable(adapted))
    wanted = {"decoder", *(["tower"] if tower else []), *(["projector"] if projector else [])}
    assert {part(name) for name in names} == wanted
    got = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in names if ".lora_" in name}
    starts = DECODERS + (TOWERS if tower else ())
    expected = {name for name in linear if name.removeprefix("model.").startswith(starts) and not f"{name}.".startswith(inside)}
    assert got == expected
    if projector:
        saved = {
            name.removeprefix("base_model.model.").split(".modules_to_save")[0] for name in names if "modules_to_save" in name
        }
        assert saved == {name.removesuffix(".") for name in inside}


class Shell(nn.Module):
    """A language model beside a tower, as far as the choice of layers looks at them."""

    def __init__(self, decoder, tower):
        super().__init__()
        self.model = nn.Module()
        self.model.language_model = decoder
        if tower is not None:
            self.model.vision_tower = tower

    def get_decoder(self):
        return self.model.language_model


def gemma3n():
    """Its language model has linear layers in a list, `altup_projections.0`, beside `layers.0`."""
    from transformers import Gemma3nTextConfig, Gemma3nTextModel

    small = dict(tiny_models.TEXT, head_dim=16, num_hidden_layers=3, num_kv_shared_layers=1)
    sizes = {
        "vocab_size_per_layer_input": 256,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "intermediate_size": [96] * 3,
    }
    config = Gemma3nTextConfig(
        **(small | sizes),
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        activation_sparsity_pattern=[0.0] * 3,
    )
    torch.manual_seed(0)
    return Shell(Gemma3nTextModel(config), nn.ModuleDict({"0": nn.Linear(2, 2), "blocks": nn.ModuleList([nn.Conv2d(1, 1, 1)])}))


def test_layers_in_lists_do_not_stand_for_the_blocks_beside_them():
    model = gemma3n()
    linear = {name for name, module in model.model.language_model.named_modules() if isinstance(module, nn.Linear)}
    assert "altup_projections.0" in linear
    adapted = prepare_for_training(model, settings(), "tiny")
    got = {name.split(".language_model.")[1].split(".lora_")[0] for name in trainable(adapted)}
    assert got == linear


def test_named_targets_are_found_by_their_last_names_in_the_language_model_alone():
    model = tiny_models.build("gemma3").model
    names = target_names(model, settings(lora={"r": 2, "alpha": 2, "targets": ["q_proj"]}))
    assert names == [f"model.language_model.layers.{number}.self_attn.q_proj" for number in range(4)]


@pytest.mark.parametrize(
    ("tower", "message"), [(None, "no vision tower was found"), (nn.Conv2d(1, 1, 1), "vision_tower has no linear layers")]
)
def test_a_tower_that_cannot_take_adapters_is_refused(tower, message):
    shell = Shell(nn.Sequential(nn.Linear(2, 2)), tower)
    with pytest.raises(ConfigError, match=rf"train_vision_tower: .*{message}; set it to false"):
        target_names(shell, settings(train_vision_tower=True))


@pytest.mark.parametrize(
    ("wanted", "every"),
    [
        (["a.0.q", "a.1.q"], ["a", "a.0", "a.0.q", "a.1", "a.1.q", "b.a.0.q"]),
        (["a.0.q"], ["a.0.q", "a.1.q"]),  # numbers that cannot stand for each other
        (["m.0", "m.2", "b.0.fc1"], ["m", "m.0", "m.1", "m.2", "b.0", "b.0.fc1", "b.1.fc10"]),
        (["x.10.q"], ["x.10.q", "xy10.q", "x.1.q"]),
        (["0", "1.w"], ["0", "1", "1.w", "2"]),
    ],
)
def test_a_pattern_matches_what_was_wanted_and_no_more(wanted, every):
    pattern = exact_pattern(wanted, every)
    assert [name for name in every if re.fullmatch(pattern, name)] == wanted


def test_many_layers_make_a_short_pattern():
    names = [f"m.layers.{n}.{k}_proj" for n in range(80) for k in "qkvo"]
    assert len(exact_pattern(names, names)) < 120
