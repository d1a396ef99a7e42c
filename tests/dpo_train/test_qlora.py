"""Adapters on a model in 4 bits; bitsandbytes computes on a CPU too."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from mia_augment.errors import ModelError
from mia_dpo_train import LoraSettings, TrainSettings, four_bit_config, train
from safetensors.torch import load_file

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is an optional dependency (extra qlora)")

LAYERS = tiny_models.TEXT["num_hidden_layers"]
SETTINGS = TrainSettings(
    tuning="qlora", lora=LoraSettings(r=4, alpha=8), epochs=3, per_device_batch_size=3, accumulation=1, learning_rate=1e-2,
    trackers=[],
)  # fmt: skip


@pytest.fixture
def quantized(build, tmp_path):
    """Loads the tiny model anew in 4 bits; with its processor."""
    from transformers import AutoModelForImageTextToText

    model, processor = build("llava")
    model.save_pretrained(tmp_path / "base")

    def load():
        options = {"quantization_config": four_bit_config(model.config, torch.float32), "device_map": {"": "cpu"}}
        return AutoModelForImageTextToText.from_pretrained(tmp_path / "base", dtype=torch.float32, **options), processor

    return load


def test_only_the_language_model_is_quantized(quantized):
    model, _ = quantized()
    names = {name for name, part in model.named_modules() if isinstance(part, bitsandbytes.nn.Linear4bit)}
    assert len(names) == LAYERS * 7
    assert all(name.startswith("model.language_model.layers.") for name in names)


def test_adapters_learn_and_load_onto_the_quantized_model(quantized, pairs, open_picture, tmp_path):
    from peft import PeftModel

    model, processor = quantized()
    before = model.model.language_model.layers[0].mlp.up_proj.weight.clone()
    shared = {"open_image": open_picture, "model_id": str(tmp_path / "base")}
    result = train(pairs, model, processor, SETTINGS, tmp_path / "out", **shared)
    assert result.metrics["margin"] > 0.5
    assert torch.equal(before, model.model.language_model.layers[0].mlp.up_proj.base_layer.weight)
    adapted = PeftModel.from_pretrained(quantized()[0], str(result.folder))
    written = load_file(result.folder / "adapter_model.safetensors")
    assert len([name for name in adapted.state_dict() if ".lora_" in name]) == len(written) == 2 * LAYERS * 7


def test_four_bits_and_qlora_go_together(build, quantized, pairs, open_picture, tmp_path):
    shared = {"open_image": open_picture, "model_id": "tiny"}
    with pytest.raises(ModelError, match=r"tuning lora: .* in 4 bits"):
        train(pairs, *quantized(), SETTINGS.model_copy(update={"tuning": "lora"}), tmp_path, **shared)
    with pytest.raises(ModelError, match=r"four_bit_config.*mia-dpo-train\[qlora\]"):
        train(pairs, *build("llava"), SETTINGS, tmp_path, **shared)
