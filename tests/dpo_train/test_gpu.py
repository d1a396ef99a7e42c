"""The same promises on a GPU; left out where there is none."""

from __future__ import annotations

import json

import pytest
import torch
from mia_dpo_train import LoraSettings, TrainSettings, train
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import kv_logps, packed_logps, plain_logps
from mia_dpo_train.models.facts import model_facts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DEVICE = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """Patches are embedded by convolutions, which cuDNN else computes in TF32, by batch size or not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_routes_agree(name, build, pairs, open_picture):
    model, processor = build(name)
    model.to(DEVICE)
    facts = model_facts(model)
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]]).to(DEVICE)
    with torch.no_grad():
        expected = plain_logps(model, facts, batch)
        for route in (packed_logps, kv_logps):
            assert (route(model, facts, batch) - expected).abs().max() < 1e-4, route.__name__


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_training_in_bf16(gradient_checkpointing, build, pairs, open_picture, tmp_path):
    model, processor = build("llava")
    settings = TrainSettings(
        lora=LoraSettings(r=4, alpha=8), epochs=4, per_device_batch_size=3, accumulation=1, learning_rate=1e-2, trackers=[],
        gradient_checkpointing=gradient_checkpointing, precision="bf16",
    )  # fmt: skip
    shared = {"open_image": open_picture, "model_id": "tiny"}
    result = train(pairs, model.to(DEVICE), processor, settings, tmp_path, **shared)
    assert result.route == "packed"
    assert result.metrics["margin"] > 0.5
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[-1]["memory_mb"] < 1024  # of the GPU: the process itself holds more
