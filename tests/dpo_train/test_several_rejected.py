"""Several rejected answers to one prompt, against as many plain pairs."""

from __future__ import annotations

import json

import pytest
import torch
from mia_augment import RejectedAnswer
from mia_dpo_train import LoraSettings, TrainSettings, train
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import kv_logps, packed_logps, plain_logps
from mia_dpo_train.losses import training_loss
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import prepare_for_training, trainable

FAMILIES = ["llava", "qwen2_5_vl", "gemma3", "idefics3", "internvl", "mistral3"]
ANSWERS = ["a dog on the left is blue .", "two .", "one blue cat on the right in the image ?"]


@pytest.fixture
def several(pairs):
    """Three pairs with three, one and two rejected answers."""
    counts = [3, 1, 2]
    return [
        pair.model_copy(
            update={"rejected": ANSWERS[0], "more_rejected": [RejectedAnswer(text=text) for text in ANSWERS[1:count]]}
        )
        for pair, count in zip(pairs[1:4], counts, strict=True)
    ]


def as_plain_pairs(pair):
    return [
        pair.model_copy(update={"id": f"{pair.id}/{k}", "rejected": answer.text, "more_rejected": []})
        for k, answer in enumerate(pair.rejected_answers)
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_route_agrees_with_plain_pairs(name, build, several, open_picture):
    """Log-probs (of up to 70 nats, where fp32 has steps of 8e-6), loss and LoRA gradients away from the start."""
    model, processor = build(name)
    settings = TrainSettings(lora=LoraSettings(r=4, alpha=8), gradient_checkpointing=False)
    model = prepare_for_training(model, settings, "tiny").eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.normal_(0, 0.02, generator=generator)
    facts, encode = model_facts(model), PairEncoder(processor, open_picture)

    def step(route, pairs, weights):
        model.zero_grad()
        batch = collate([encode(pair) for pair in pairs])
        logps = route(model, facts, batch)
        found = training_loss(logps, torch.zeros_like(logps), batch.lengths, settings=settings, pairs=3, chosen_tokens=1)
        ((settings.dpo_alpha * found.preference + settings.gamma * found.nll) * weights).sum().backward()
        return logps.detach(), found.preference.detach(), {key: each.grad.clone() for key, each in trainable(model).items()}

    plain = [as_plain_pairs(pair) for pair in several]
    shares = torch.tensor([1 / len(each) for each in plain for _ in each])
    logps, losses, gradients = step(plain_logps, [pair for each in plain for pair in each], shares)
    chosen, rejected = ([column.tolist() for column in row.split([3, 1, 2])] for row in logps)
    for route in (packed_logps, kv_logps, plain_logps):
        found, mean, grown = step(route, several, torch.ones(3))
        assert found[0].tolist() == pytest.approx([each[0] for each in chosen], abs=2e-5)
        for column, expected in enumerate(rejected):
            assert found[1:, column].tolist() == pytest.approx([*expected, *[0.0] * (3 - len(expected))], abs=2e-5)
        assert mean.tolist() == pytest.approx([each.mean().item() for each in losses.split([3, 1, 2])], abs=1e-5)
        for key, gradient in grown.items():
            assert (gradient - gradients[key]).abs().max() < 3e-6, (route.__name__, key)


def test_the_prompt_is_packed_once(build, several, open_picture):
    _, processor = build("llava")
    encoded = [PairEncoder(processor, open_picture)(pair) for pair in several]
    batch = collate(encoded)
    assert batch.prompt.shape[0] == 3
    assert batch.vision["pixel_values"].shape[0] == sum(len(pair.images) for pair in several)
    assert batch.lengths.gt(0).sum(0).tolist() == [4, 2, 3]
    assert batch.tokens == sum(len(each.prompt) + sum(map(len, each.answers)) for each in encoded)


def test_training_stores_the_reference_of_each_answer(build, several, pairs, open_picture, tmp_path):
    """Beside plain pairs, in batches of both."""
    made, settings = {}, TrainSettings(
        lora=LoraSettings(r=4, alpha=8), per_device_batch_size=2, accumulation=2, gradient_checkpointing=False,
        learning_rate=1e-2, trackers=[],
    )  # fmt: skip
    for reference in ("stored", "online"):
        model, processor = build("llava")
        changed = settings.model_copy(update={"reference": reference})
        made[reference] = train(
            [*several, *pairs[4:7]], model, processor, changed, tmp_path / reference, open_image=open_picture, model_id="tiny"
        )
    assert made["stored"].metrics == pytest.approx(made["online"].metrics, abs=1e-5)
    stored = json.loads((tmp_path / "stored" / "reference.json").read_text())["logps"]
    assert sorted(len(values) for values in stored.values()) == [2, 2, 2, 2, 3, 4]


def test_pairs_with_equal_answers_among_several_are_left_out(build, several, open_picture, tmp_path):
    model, processor = build("llava")
    wrong = several[0].model_copy(update={"id": "same", "more_rejected": [RejectedAnswer(text=several[0].chosen + " ")]})
    empty = several[0].model_copy(update={"id": "none", "more_rejected": [RejectedAnswer(text=" ")]})
    settings = TrainSettings(lora=LoraSettings(r=4, alpha=8), gradient_checkpointing=False, trackers=[])
    result = train([*several, wrong, empty], model, processor, settings, tmp_path, open_image=open_picture, model_id="tiny")
    assert [skipped.id for skipped in result.skipped] == ["same", "none"]
    assert result.skipped[0].reason.startswith("same answers")
    assert result.skipped[1].reason.startswith("empty answer: expected text as the rejected answer")
