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
    "learning_rate": 1e-3,
    "gradient_checkpointing": False,
    "group_by_length": False,
    "checkpoint_every": 2,
    "held_out": 0.0,
    "trackers": [],
}

RUNNER = """
import importlib.util, json, shutil, sys, torch
from pathlib import Path
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("fixtures", sys.argv[1])
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
from mia_dpo_train import TrainSettings, train_pairs
if sys.argv[5] == "fsdp2":
    # Accelerate shards on accelerators only; here its plugin is put in place by hand, to run the same code on a CPU.
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from mia_dpo_train import trainer
    make = trainer.make_accelerator
    def sharding(*arguments):
        accelerator = make(*arguments)
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False,
            state_dict_type="SHARDED_STATE_DICT",
        )
        for state in (accelerator.state, PartialState()):
            state.distributed_type = DistributedType.FSDP
        return accelerator
    trainer.make_accelerator = sharding
model, processor = fixtures.build("llava")
settings = TrainSettings.model_validate(json.loads(sys.argv[4]))
out = Path(sys.argv[3])
train_pairs(Path(sys.argv[2]), model, processor, out, settings, model_id="tiny")

# As if the run had been killed between its last two checkpoints.
from accelerate.state import PartialState
if PartialState().is_main_process:
    (out / "adapter").rename(out / "before")
    (out / "manifest.json").unlink()
    shutil.rmtree(out / "checkpoints" / "step-00000006")
PartialState().wait_for_everyone()
model, processor = fixtures.build("llava")
train_pairs(Path(sys.argv[2]), model, processor, out, settings, model_id="tiny")
"""


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def launch(pairs_folder, out, settings, kind):
    """Two processes; raises with their output when one fails."""
    port, fixtures = free_port(), Path(__file__).with_name("conftest.py")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(fixtures), str(pairs_folder), str(out), json.dumps(settings), kind],
            env={
                **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
                "ACCELERATE_USE_FSDP": str(kind == "fsdp2").lower(),
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [0, 0], f"exit codes {codes}\n" + "\n".join(outputs)


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["loss"], row["grad_norm"]) for row in rows if row["part"] == "train"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_train_as_one_and_go_on_when_interrupted(kind, build, pairs_folder, tmp_path):
    """9 pairs in steps of 4: the last step of an epoch has one pair, so one process has none."""
    model, processor = build("llava")
    one = TrainSettings.model_validate({**SETTINGS, "per_device_batch_size": 1, "accumulation": 4})
    train_pairs(pairs_folder, model, processor, tmp_path / "one", one, model_id="tiny")
    two, out = {**SETTINGS, "per_device_batch_size": 1, "accumulation": 2}, tmp_path / "two"
    launch(pairs_folder, out, two, kind)
    for first, second in zip(losses(tmp_path / "one"), losses(out), strict=True):
        assert first == pytest.approx(second, abs=1e-6, rel=1e-6)
    first, second = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (tmp_path / "one", out))
    assert first.keys() == second.keys()
    for name, weights in first.items():
        assert (weights - second[name]).abs().max() < 1e-6, name
    assert (out / "checkpoints" / "step-00000004" / "accelerate").exists() == (kind == "fsdp2")
    before, after = (path / "adapter_model.safetensors" for path in (out / "before", out / "adapter"))
    assert before.read_bytes() == after.read_bytes()
