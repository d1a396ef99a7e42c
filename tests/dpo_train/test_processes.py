"""Several processes (gloo, CPU), started as `accelerate launch` starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_models
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
    "loss": [{"name": "sigmoid", "weight": 0.8}, {"name": "bco_pair", "weight": 0.2}, {"name": "sft", "weight": 0.1}],
    "bco_shift": "running",
    "trackers": [],
}

EXAMPLES = Path(__file__).parents[2] / "examples" / "accelerate"

RUNNER = """
import json, os, shutil, sys
from pathlib import Path
import tiny_models, torch
from accelerate.state import PartialState
from mia_dpo_train import TrainSettings, train_pairs
torch.set_num_threads(1)
folder, out, settings, kind = Path(sys.argv[1]), Path(sys.argv[2]), TrainSettings.model_validate_json(sys.argv[3]), sys.argv[4]
if kind == "fsdp2":
    # Accelerate shards on accelerators only; here its plugin is put in place by hand, to run the same code on a CPU.
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from mia_dpo_train.training import trainer
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
if kind.startswith("deepspeed"):
    # Accelerate counts one process where there is no accelerator, unless it is told how they talk to each other.
    from importlib import import_module
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # minutes of compiling
    PartialState(backend="gloo")

# Before DeepSpeed is there, which would build them in parts.
models = [tiny_models.build("llava", strong=True) for _ in range(2)]

def run():
    made = models.pop()
    train_pairs(folder, made.model, made.processor, out, settings, model_id="tiny")

run()
# As if the run had been killed between its last two checkpoints.
if PartialState().is_main_process:
    (out / "adapter").rename(out / "before")
    (out / "manifest.json").unlink()
    shutil.rmtree(out / "checkpoints" / "step-00000006")
PartialState().wait_for_everyone()
run()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": tiny_models.FOLDER}


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def start(arguments, changes):
    environment = {**ENVIRONMENT, **changes}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def launch(pairs_folder, out, settings, kind):
    """Two processes; raises with their output when one fails."""
    port, arguments = free_port(), [str(pairs_folder), str(out), json.dumps(settings), kind]
    if kind.startswith("deepspeed"):
        (out.parent / "runner.py").write_text(RUNNER)
        options = ["--config_file", str(EXAMPLES / f"{kind}.yaml"), "--num_processes", "2", "--main_process_port", port]
        options += ["--mixed_precision", "no", str(out.parent / "runner.py")]
        processes = [start(["-m", "accelerate.commands.launch", *options, *arguments], {"DS_ACCELERATOR": "cpu"})]
    else:
        shared = {
            "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
            "ACCELERATE_USE_FSDP": str(kind == "fsdp2").lower(),
        }  # fmt: skip
        ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
        processes = [start(["-c", RUNNER, *arguments], rank) for rank in ranks]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert not any(codes), f"exit codes {codes}\n" + "\n".join(outputs)


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["loss"], row["grad_norm"]) for row in rows if row["part"] == "train"]


NEEDS_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is an optional dependency")
KINDS = ["ddp", "fsdp2", *(pytest.param(f"deepspeed_zero{stage}", marks=NEEDS_DEEPSPEED) for stage in (2, 3))]


@pytest.mark.parametrize("kind", KINDS)
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
    differences = {name: (weights - second[name]).abs() for name, weights in first.items()}
    # AdamW divides every gradient by its own size: of the few smallest ones the rounding of the sums over processes shows.
    assert max(float(difference.max()) for difference in differences.values()) < 5e-6
    beyond = sum(int((difference >= 1e-6).sum()) for difference in differences.values())
    assert beyond <= 1e-4 * sum(difference.numel() for difference in differences.values())
    assert (out / "checkpoints" / "step-00000004" / "accelerate").exists() == (kind != "ddp")
    before, after = (path / "adapter_model.safetensors" for path in (out / "before", out / "adapter"))
    assert before.read_bytes() == after.read_bytes()
