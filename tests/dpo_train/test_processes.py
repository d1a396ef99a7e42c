"""Several processes (gloo, CPU), started as `accelerate launch` starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mia_dpo_train import TrainSettings, train_pairs
from safetensors.torch import load_file

SETTINGS = {
    "lora": {"r": 4, "alpha": 8},
    "epochs": 2,
    "learning_rate": 1e-2,
    "gradient_checkpointing": False,
    "group_by_length": False,
    "checkpoint_every": 2,
    "held_out": 0.0,
    "trackers": [],
}

RUNNER = """
import importlib.util, json, sys, torch
from pathlib import Path
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("fixtures", sys.argv[1])
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
from mia_dpo_train import TrainSettings, train_pairs
model, processor = fixtures.build("llava")
settings = TrainSettings.model_validate(json.loads(sys.argv[4]))
train_pairs(Path(sys.argv[2]), model, processor, Path(sys.argv[3]), settings, model_id="tiny")
"""


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def launch(pairs_folder, out, settings, environment):
    """Two processes; raises with their output when one fails."""
    port, fixtures = free_port(), Path(__file__).with_name("conftest.py")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(fixtures), str(pairs_folder), str(out), json.dumps(settings)],
            env={
                **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", **environment,
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["loss"], row["grad_norm"]) for row in rows if row["part"] == "train"]


@pytest.mark.parametrize("environment", [{}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one(environment, build, pairs_folder, tmp_path):
    """9 pairs in steps of 4: the last step of an epoch has one pair, so one process has none."""
    model, processor = build("llava")
    one = TrainSettings.model_validate({**SETTINGS, "per_device_batch_size": 1, "accumulation": 4})
    train_pairs(pairs_folder, model, processor, tmp_path / "one", one, model_id="tiny")
    two = {**SETTINGS, "per_device_batch_size": 1, "accumulation": 2}
    launch(pairs_folder, tmp_path / "two", two, environment)
    for first, second in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert first == pytest.approx(second, rel=1e-5)
    first, second = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, weights in first.items():
        assert (weights - second[name]).abs().max() < 1e-5, name
