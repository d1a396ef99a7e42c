"""Loss and gradients against TRL's DPOTrainer on the same batch, with TRL's own collator and loss."""

from __future__ import annotations

import pytest
import torch
from mia_augment.prompting.chat import render_prompt
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import kv_logps, packed_logps, plain_logps
from mia_dpo_train.losses import training_loss
from mia_dpo_train.models.adapter_targets import target_pattern
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import trainable
from mia_dpo_train.settings import TrainSettings

trl = pytest.importorskip("trl", reason="TRL is a development dependency; this environment has none")

FAMILIES = ["llava", "qwen2_5_vl"]


MIXED = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
"""The losses of MPO (arXiv 2411.10442)."""
LOSSES = [{name: 1.0, "sft": 0.1} for name in ("sigmoid", "ipo", "hinge", "bco_pair", "apo_zero", "robust")]
CASES = [
    *(pytest.param(name, losses, id=f"{name}-{next(iter(losses))}") for losses in LOSSES[:3] for name in FAMILIES),
    *(pytest.param("llava", losses, id=f"llava-{next(iter(losses))}") for losses in LOSSES[3:]),
    pytest.param("llava", MIXED, id="llava-mixed"),
]


def trl_trainer(model, processor, examples, losses, tmp_path):
    from datasets import Dataset
    from peft import LoraConfig

    settings = TrainSettings()
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), loss_type=list(losses), loss_weights=list(losses.values()), beta=0.1, max_length=None,
        label_smoothing=0.2 if "robust" in losses else 0.0, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, per_device_train_batch_size=len(examples), learning_rate=0.0,
    )  # fmt: skip
    return trl.DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([{**example, "images": example["images"]} for example in examples]),
        processing_class=processor,
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules=target_pattern(model, settings)),
    )


def settings_for(losses):
    """The same losses in our settings: one of them by its name, several as a list."""
    common = {"nll": "token_mean", "label_smoothing": 0.2 if "robust" in losses else 0.0}
    if losses is MIXED:
        terms = [{"name": name, "weight": weight} for name, weight in losses.items()]
        return TrainSettings.model_validate({**common, "loss": terms})
    return TrainSettings.model_validate({**common, "loss": next(iter(losses)), "gamma": losses["sft"]})


@pytest.mark.parametrize(("name", "losses"), CASES)
def test_loss_and_gradients_agree_with_trl(name, losses, build, pairs, open_picture, tmp_path):
    model, processor = build(name)
    used = pairs[1:4]
    eos = processor.tokenizer.eos_token  # TRL adds none by itself
    examples = [
        {
            "images": [open_picture(image) for image in pair.images],
            "prompt": render_prompt(processor, pair.prompt),
            "chosen": f"{pair.chosen} {eos}",
            "rejected": f"{pair.rejected} {eos}",
        }
        for pair in used
    ]
    trainer = trl_trainer(model, processor, examples, losses, tmp_path)
    adapted = trainer.model
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(adapted).values():  # away from the start, where policy and reference are equal
        parameter.data.normal_(0, 0.05, generator=generator)
    adapted.eval()
    theirs = trainer.compute_loss(adapted, trainer.data_collator(examples))
    theirs.backward()
    gradients = {key: parameter.grad.clone() for key, parameter in trainable(adapted).items()}

    facts = model_facts(adapted)
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in used])
    settings = settings_for(losses)
    for route in (packed_logps, kv_logps, plain_logps):
        adapted.zero_grad()
        with torch.no_grad(), adapted.disable_adapter():
            reference = route(adapted, facts, batch)
        tokens = int(batch.chosen_mask.sum())
        policy = route(adapted, facts, batch)
        ours = training_loss(policy, reference, batch.lengths, settings=settings, pairs=len(used), chosen_tokens=tokens).loss
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
        ours.backward()
        for key, parameter in trainable(adapted).items():
            assert (parameter.grad - gradients[key]).abs().max() < 1e-5 * max(1, gradients[key].abs().max()), key
