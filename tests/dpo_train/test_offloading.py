"""Activations that wait in the machine's memory give the same gradients, and weights stay where they are."""

from __future__ import annotations

import pytest
import torch
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps import offloading as module
from mia_dpo_train.logps.offloading import kept_on_the_host
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import prepare_for_training, trainable
from mia_dpo_train.settings import LoraSettings, TrainSettings


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_same_to_the_last_bit(checkpointing, build, pairs, open_picture, monkeypatch):
    monkeypatch.setattr(module, "SMALL_BYTES", 256)
    model, processor = build("qwen2_5_vl")
    settings = TrainSettings(lora=LoraSettings(r=4, alpha=8), gradient_checkpointing=checkpointing)
    model = prepare_for_training(model, settings, "tiny").train()
    logps = PairLogps(model, model_facts(model), "packed")
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]])
    copied, original = [], torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda own, *rest, **k: copied.append(own) or original(own, *rest, **k))

    def gradients(wanted):
        copied.clear()
        model.zero_grad()
        with kept_on_the_host(model) if wanted else torch.enable_grad():
            found = logps(batch)
        found.sum().backward()
        return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}

    expected, shapes = gradients(False), {tuple(parameter.shape) for parameter in model.parameters()}
    found = gradients(True)
    assert len(copied) >= 4  # at least what enters each layer
    assert not {tuple(tensor.shape) for tensor in copied} & shapes
    assert all(torch.equal(gradient, found[name]) for name, gradient in expected.items())
