"""Pairs side by side give what each gives alone, in every family; where they do not, they are not put side by side."""

from __future__ import annotations

import json
import logging

import pytest
import tiny_models
import torch
from mia_augment.errors import ModelError
from mia_dpo_train import LoraSettings, TrainSettings, train
from mia_dpo_train.data.encode import PairEncoder
from mia_dpo_train.data.pair_set import Measured, PairSet
from mia_dpo_train.joining import different_pairs, joining_problem
from mia_dpo_train.logps.route_check import as_in_training, batch_problem
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.training import trainer

SETTINGS = TrainSettings(
    lora=LoraSettings(r=4, alpha=8, dropout=0.2),
    per_device_batch_size=2,
    accumulation=2,
    gradient_checkpointing=False,
    max_steps=2,
    held_out=0,
    trackers=[],
)


@pytest.fixture
def pair_set(build, open_picture):
    def pair_set(family, pairs):
        _, processor = build(family)
        made = PairSet(pairs, PairEncoder(processor, open_picture), 10**9)
        encoded = [made[index] for index in range(len(pairs))]
        made.measured = [Measured(each.length, len(each.chosen), each.digest) for each in encoded]
        return made

    return pair_set


@pytest.fixture
def reference(build, pairs, open_picture, tmp_path):
    """Trains two steps; gives the reference log-probs in order, and what came out."""

    def reference(name, family="molmo2", **changes):
        settings = TrainSettings.model_validate({**SETTINGS.model_dump(), **changes})
        out = tmp_path / name
        result = train(pairs, *build(family), settings, out, open_image=open_picture, model_id="tiny", held_out=pairs[:3])
        stored = [json.loads((out / f"{part}.json").read_text())["logps"] for part in ("reference", "reference_held_out")]
        return torch.tensor([values for part in stored for values in part.values()]), result

    return reference


@pytest.mark.parametrize("family", [*tiny_models.BUILDERS, *tiny_models.OTHERS])
def test_what_a_processor_counts_over_the_batch_is_found(pair_set, pairs, family):
    assert joining_problem(pair_set(family, pairs)) == ("image_token_pooling" if family == "molmo2" else None)


def test_pairs_of_the_same_pictures_tell_nothing(pair_set, make_pair):
    same = pair_set("molmo2", [make_pair(0, 2), make_pair(0, 2, chosen="blue .")])
    assert different_pairs(same, 4) == [0]
    assert joining_problem(same) is None


@pytest.mark.parametrize("family", ["molmo2", "qwen2_5_vl", "llava_next", "idefics3"])
def test_a_batch_is_as_its_pairs_alone(pair_set, pairs, build, family):
    made = pair_set(family, pairs)
    made.together = joining_problem(made) is not None
    model, _ = build(family)
    logps = PairLogps(model, model_facts(model), "plain")
    alone = [made.batch([index], 0) for index in (2, 4, 7)]
    assert batch_problem(logps, made.batch([2, 4, 7], 0), alone, logps.compute) is None
    if made.together:
        made.together = False
        problem = batch_problem(logps, made.batch([2, 4, 7], 0), alone, logps.compute)
        assert problem.startswith("log-probs of pairs side by side differ from those of each alone by")


def test_training_pools_every_pairs_own_pictures(reference, caplog):
    alone, _ = reference("alone", per_device_batch_size=1, accumulation=4, reference="stored")
    with caplog.at_level(logging.WARNING):
        side_by_side, result = reference("side by side")
    torch.testing.assert_close(side_by_side, alone, rtol=0, atol=1e-3)
    assert "the processor counts over a batch (image_token_pooling)" in caplog.text
    with_workers, again = reference("workers", workers=1)
    assert torch.equal(with_workers, side_by_side)
    assert again.metrics["loss"] == result.metrics["loss"]


def test_pairs_that_a_batch_mixes_up_are_not_put_side_by_side(reference, monkeypatch):
    """As if the joining were not known of: what the model makes of it is noticed."""
    right, _ = reference("right")
    monkeypatch.setattr(trainer, "joining_problem", lambda pairs: None)
    with pytest.raises(ModelError, match=r"side by side differ .* set per_device_batch_size: 1 with accumulation: 4"):
        reference("mixed up")
    alone, _ = reference("alone", per_device_batch_size=1, accumulation=4)
    torch.testing.assert_close(alone, right, rtol=0, atol=1e-3)


def test_the_checks_see_the_model_as_training_does(build, pair_set, pairs):
    model, _ = build("llava")
    model.model.language_model.layers[0].add_module("extra", torch.nn.Dropout(0.5))
    logps = PairLogps(model, model_facts(model), "packed")
    batch = pair_set("llava", pairs).batch([0], 0)
    logps.eval()
    with as_in_training(logps, batch, logps.compute):
        assert logps.training
        assert not model.model.language_model.layers[0].extra.training
        assert logps.route == "packed"
    assert not any(module.training for module in logps.modules())
    model.config.text_config.attention_dropout = 0.5  # a dropout that is no module
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    with as_in_training(logps, batch, logps.compute):
        assert not logps.training
