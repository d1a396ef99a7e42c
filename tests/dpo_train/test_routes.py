"""Packed and cached computation against two plain sequences, for every family."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import kv_logps, packed_logps, plain_logps
from mia_dpo_train.logps.target_logps import summed_logps
from mia_dpo_train.losses import training_loss
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import prepare_for_training, trainable
from mia_dpo_train.settings import LoraSettings, TrainSettings
from mia_dpo_train.training.setup import set_attention

FAMILIES = [
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "smolvlm", "gemma3",
    "mistral3",
]  # fmt: skip


def one_sequence_logp(model, encoded, response):
    """Independent computation: one answer, no padding, no batch, full logits."""
    tokens = torch.cat([encoded.prompt, response])[None]
    keywords = dict(encoded.vision)
    for name, types in encoded.types.items():
        keywords[name] = torch.cat([types, torch.zeros_like(response)])[None]
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **keywords).logits[0]
    start = len(encoded.prompt)
    logps = torch.log_softmax(logits[start - 1 : -1].double(), -1)
    return logps.gather(1, response[:, None]).sum()


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probs_agree_with_each_answer_alone(name, build, pairs, open_picture):
    model, processor = build(name)
    encoded = [PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]]
    facts = model_facts(model)
    batch = collate(encoded)
    with torch.no_grad():
        expected = torch.stack(
            [
                torch.stack([one_sequence_logp(model, e, r) for e in encoded for r in [getattr(e, side)]])
                for side in ("chosen", "rejected")
            ]
        ).float()
        for route in (plain_logps, packed_logps, kv_logps):
            difference = (route(model, facts, batch) - expected).abs().max()
            assert difference < 2e-5, f"{route.__name__}: {difference}"


@pytest.mark.parametrize("name", FAMILIES)
def test_adapter_gradients_agree(name, build, pairs, open_picture):
    """Gradients of the whole loss with respect to LoRA weights, away from their start."""
    model, processor = build(name)
    model = prepare_for_training(model, TrainSettings(lora=LoraSettings(r=4, alpha=8), gradient_checkpointing=False), "tiny")
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.normal_(0, 0.02, generator=generator)
    facts = model_facts(model)
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]])

    def gradients(route):
        model.zero_grad()
        logps = route(model.eval(), facts, batch)
        reference = torch.zeros_like(logps)
        training_loss(logps, reference, batch.lengths, settings=TrainSettings(), pairs=3, chosen_tokens=1).loss.backward()
        return {key: parameter.grad.clone() for key, parameter in trainable(model).items()}

    expected = gradients(plain_logps)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for route in (packed_logps, kv_logps):
        for key, gradient in gradients(route).items():
            assert (gradient - expected[key]).abs().max() < 2e-6, (route.__name__, key)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_neither_answer_sees_the_other(attention, build, pairs, open_picture):
    model, processor = build("llava")
    set_attention(model, TrainSettings(attn_implementation=attention), 100, bf16=False)
    encode = PairEncoder(processor, open_picture)
    first = collate([encode(pair) for pair in pairs[:3]])
    other = dataclasses.replace(first, chosen=first.chosen.roll(1, dims=0))
    facts = model_facts(model)
    with torch.no_grad():
        before, after = packed_logps(model, facts, first), packed_logps(model, facts, other)
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


def test_padding_of_a_batch_changes_nothing(build, pairs, open_picture):
    model, processor = build("qwen2_5_vl")
    encoded = [PairEncoder(processor, open_picture)(pair) for pair in pairs[:3]]
    facts = model_facts(model)
    with torch.no_grad():
        together = packed_logps(model, facts, collate(encoded))
        alone = torch.cat([packed_logps(model, facts, collate([pair])) for pair in encoded], dim=1)
    assert (together - alone).abs().max() < 2e-5


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "idefics3"])
def test_eager_attention_agrees_too(name, build, pairs, open_picture):
    model, processor = build(name)
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]])
    facts = model_facts(model)
    with torch.no_grad():
        expected = plain_logps(model, facts, batch)
        assert set_attention(model, TrainSettings(attn_implementation="eager"), 100, bf16=False) == "eager"
        assert (packed_logps(model, facts, batch) - expected).abs().max() < 2e-5


def test_log_probs_of_16_bit_logits_are_summed_in_fp32():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 300, 50, generator=generator).bfloat16()
    targets = torch.randint(50, (2, 300), generator=generator)
    mask = torch.arange(300) < torch.tensor([[300], [170]])
    exact = torch.log_softmax(logits.double(), -1).gather(2, targets[..., None])[..., 0]
    assert ((exact * mask).sum(1) - summed_logps(logits, targets, mask)).abs().max() < 1e-3
