"""Pairs that contrast pictures: the chosen answer under its own and under other ones."""

from __future__ import annotations

import json

import pytest
import torch
from mia_augment import DataError, ModelError
from mia_dpo_train import TrainSettings, train
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import prepare_for_training, trainable
from mia_dpo_train.training import trainer

MDPO = [{"name": name, "weight": weight} for name, weight in (("sigmoid", 1.0), ("image", 0.5), ("anchor", 0.25))]
SETTINGS = TrainSettings.model_validate({
    "lora": {"r": 4, "alpha": 8}, "loss": MDPO, "beta": 0.5, "per_device_batch_size": 2, "accumulation": 2, "trackers": [],
    "gradient_checkpointing": False, "learning_rate": 1e-2,
})  # fmt: skip


@pytest.fixture
def contrasting(pairs):
    """Four pairs: with answers and other pictures, with pictures alone, with answers alone, with both again."""
    others = {"8.png", "9.png", "10.png"}
    changed = []
    for number, pair in enumerate(pairs[1:5]):
        other = sorted(others - {*pair.images})[0]
        changes = {} if number == 2 else {"rejected_images": [other, *pair.images[1:]]}
        if number == 1:
            changes |= {"rejected": pair.chosen}
        changed.append(pair.model_copy(update=changes))
    return changed


def alone(model, processor, open_picture, pair, images, answer):
    """Independent computation: one answer behind one prompt, full logits."""
    one = pair.model_copy(update={"images": images, "rejected_images": None, "chosen": answer, "rejected": "blue ?"})
    encoded = PairEncoder(processor, open_picture)(one)
    tokens = torch.cat([encoded.prompt, encoded.chosen])[None]
    keywords = dict(encoded.vision)
    for name, types in encoded.types.items():
        keywords[name] = torch.cat([types, torch.zeros_like(encoded.chosen)])[None]
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **keywords).logits[0]
    logps = torch.log_softmax(logits[len(encoded.prompt) - 1 : -1], -1)
    return logps.gather(1, encoded.chosen[:, None]).sum()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("route", ["packed", "kv", "plain"])
def test_the_sum_agrees_with_an_independent_computation(name, route, build, contrasting, open_picture):
    """mDPO's sum of answers, pictures and anchor: loss to 1e-5, and the LoRA gradients."""
    from mia_dpo_train.losses import training_loss

    model, processor = build(name)
    model = prepare_for_training(model, SETTINGS, "tiny").eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(model).values():
        parameter.data.normal_(0, 0.05, generator=generator)

    def logps(pair):
        return [
            alone(model, processor, open_picture, pair, pair.images, pair.chosen),
            alone(model, processor, open_picture, pair, pair.images, pair.rejected),
            alone(model, processor, open_picture, pair, pair.rejected_images or pair.images, pair.chosen),
        ]

    total = torch.zeros(())
    for number, pair in enumerate(contrasting):
        with torch.no_grad(), model.disable_adapter():
            before = logps(pair)
        chosen, rejected, other = (0.5 * (now - then) for now, then in zip(logps(pair), before, strict=True))
        total = total + 0.25 * torch.log(1 + torch.exp(-chosen))
        total = total + (0 if number == 1 else 1) * torch.log(1 + torch.exp(rejected - chosen))
        total = total + (0 if number == 2 else 0.5) * torch.log(1 + torch.exp(other - chosen))
    (total / 4).backward()
    expected = {key: parameter.grad.clone() for key, parameter in trainable(model).items()}
    model.zero_grad()

    compute = PairLogps(model, model_facts(model), route)
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in contrasting])
    with torch.no_grad(), model.disable_adapter():
        reference = compute(batch)
    found = training_loss(
        compute(batch), reference, batch.lengths, settings=SETTINGS, pairs=4, chosen_tokens=1, other_pictures=True
    )
    assert found.loss.item() == pytest.approx(total.item() / 4, abs=1e-5)
    found.loss.backward()
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for key, parameter in trainable(model).items():
        assert (parameter.grad - expected[key]).abs().max() < 1e-5, key


@pytest.fixture
def run(build, contrasting, open_picture, tmp_path):
    def run(pairs=contrasting, out="out", **changes):
        model, processor = build("llava")
        settings = TrainSettings.model_validate({**SETTINGS.model_dump(), **changes})
        return train(pairs, model, processor, settings, tmp_path / out, open_image=open_picture, model_id="tiny")

    return run


def test_reference_log_probs_of_both_conditions_are_stored(run, tmp_path):
    assert run().metrics == pytest.approx(run(out="online", reference="online").metrics, abs=1e-5)
    stored = json.loads((tmp_path / "out" / "reference.json").read_text())["logps"]
    assert sorted(len(values) for values in stored.values()) == [2, 2, 3, 3]


def test_the_digest_of_a_pair_tells_its_other_pictures(build, contrasting, open_picture):
    encode = PairEncoder(build("llava")[1], open_picture)
    pair = contrasting[0]
    different = pair.model_copy(update={"rejected_images": ["7.png", *pair.images[1:]]})
    without = pair.model_copy(update={"rejected_images": None})
    assert len({encode(each).digest for each in (pair, different, without)}) == 3
    assert torch.equal(encode(pair).chosen, encode(pair).other.chosen)


def test_a_bad_other_picture_costs_its_pair(build, contrasting, open_picture, tmp_path):
    def broken(name):
        if name == contrasting[0].rejected_images[0]:
            raise DataError(f"{name}: not a picture")
        return open_picture(name)

    model, processor = build("llava")
    name = contrasting[0].rejected_images[0]
    bad = [pair for pair in contrasting if name in [*pair.images, *(pair.rejected_images or [])]]
    assert name not in contrasting[0].images
    result = train(contrasting, model, processor, SETTINGS, tmp_path, open_image=broken, model_id="tiny")
    assert [skipped.id for skipped in result.skipped] == [pair.id for pair in bad]
    assert "not a picture" in result.skipped[0].reason


def test_without_a_loss_for_them_other_pictures_are_set_aside_and_said(run, contrasting, caplog):
    result = run(loss="sigmoid")
    assert [skipped.id for skipped in result.skipped] == [contrasting[1].id]
    assert result.skipped[0].reason.startswith("pictures alone: its answers are the same under other pictures")
    assert "2 of 4 pairs have rejected_images, which loss sigmoid does not look at" in caplog.text


def test_a_loss_on_pictures_asks_for_some(run, contrasting):
    with pytest.raises(DataError, match=r"expected pairs with rejected_images, none of 1 has them"):
        run(pairs=contrasting[2:3])


def test_pictures_alone_are_learnt_from(run, contrasting):
    result = run(pairs=contrasting[1:2], loss=[{"name": "image"}], max_steps=3, epochs=3)
    assert not result.skipped
    assert result.metrics["accuracy"] == 1.0
    assert result.metrics["rejected_logp"] < result.metrics["chosen_logp"]
    assert result.metrics["dpo"] < 0.69


def test_a_model_that_mixes_up_pairs_is_refused(run, monkeypatch):
    monkeypatch.setattr(trainer, "batch_problem", lambda *_: "log-probs differ")
    with pytest.raises(ModelError, match="a pair that contrasts pictures needs two prompts side by side"):
        run(per_device_batch_size=1)
