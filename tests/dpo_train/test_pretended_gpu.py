"""Whole trainings on a device of their own: nothing meets a tensor of the CPU, and the numbers are the CPU's."""

from __future__ import annotations

import json

import pretend_device
import pytest
import torch
from accelerate import Accelerator
from mia_dpo_train import LoraSettings, TrainSettings, train
from mia_dpo_train.logps import offloading
from mia_dpo_train.training import setup
from safetensors.torch import load_file

LORA = LoraSettings(r=4, alpha=8)
GIVEN = {"lora": LORA, "per_device_batch_size": 2, "accumulation": 2, "learning_rate": 1e-3, "trackers": []}


@pytest.fixture
def trained(build, pairs, open_picture, monkeypatch):
    """A training's lines of metrics and its adapter, on the CPU or elsewhere."""

    def trained(family, out, *, elsewhere, **settings):
        model, processor = build(family)
        given = {"open_image": open_picture, "model_id": "tiny", "held_out": pairs[:2]}
        settings = TrainSettings(**GIVEN, **settings)
        with monkeypatch.context() as patch:
            if elsewhere:
                patch.setattr(Accelerator, "device", property(lambda self: pretend_device.DEVICE))
                with pretend_device.pretended():
                    result = train(pairs[2:], pretend_device.moved(model), processor, settings, out, **given)
            else:
                result = train(pairs[2:], model, processor, settings, out, **given)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return rows, load_file(result.folder / "adapter_model.safetensors"), result.route

    return trained


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llava", {"gradient_checkpointing": True, "offload_activations": True}),
        ("qwen2_5_vl", {"gradient_checkpointing": False, "reference": "online"}),
        ("gemma3", {"gradient_checkpointing": False, "loss": [{"name": "bco_pair"}, {"name": "sft"}], "bco_shift": "running"}),
    ],
)
def test_a_training_never_mixes_devices(family, settings, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(offloading, "SMALL_BYTES", 256)
    here, adapter, route = trained(family, tmp_path / "here", elsewhere=False, **settings)
    there, other, same_route = trained(family, tmp_path / "there", elsewhere=True, **settings)
    assert route == same_route
    for ours, theirs in zip(here, there, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    assert all((tensor - other[name]).abs().max() < 1e-4 for name, tensor in adapter.items())


def test_it_goes_on_from_a_checkpoint(trained, tmp_path):
    whole, adapter, _ = trained("llava", tmp_path / "whole", elsewhere=True)
    trained("llava", tmp_path / "parts", elsewhere=True, max_steps=1, checkpoint_every=1)
    for folder in (tmp_path / "parts" / "checkpoints").glob("step-*"):
        text = (folder / "state.json").read_text()
        assert json.loads(text)["progressed"]["steps"] == 1
    again, other, _ = trained("llava", tmp_path / "whole", elsewhere=True)  # all of it is there
    assert (again, other.keys()) == (whole, adapter.keys())


def test_a_tensor_left_on_the_cpu_is_seen():
    with pretend_device.pretended():
        there = torch.ones(2, device=pretend_device.DEVICE)
        with pytest.raises(pretend_device.TwoDevices, match="lie on the CPU"):
            there + torch.ones(2)
        assert (there + torch.tensor(1.0)).tolist() == [2.0, 2.0]  # a single number may meet it, as on a GPU


@pytest.mark.parametrize(("index", "chosen"), [(1, [torch.device("cuda:1")]), (None, [])])
def test_training_stays_on_the_gpu_that_the_model_lies_on(index, chosen, monkeypatch, tmp_path):
    """Accelerate takes the current one."""
    seen = []
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(setup, "model_device", lambda model: torch.device("cuda", index))
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    setup.make_accelerator(TrainSettings(trackers=[], precision="fp32"), torch.nn.Linear(1, 1), tmp_path)
    assert seen == chosen


@pytest.mark.parametrize(("native", "kind"), [(True, "bf16"), (False, "no")])
def test_bf16_that_a_gpu_only_pretends_is_not_taken(native, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert setup._mixed_precision(TrainSettings(), False) == kind
