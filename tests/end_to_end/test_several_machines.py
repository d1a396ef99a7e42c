"""Several machines: what `mia slurm` writes, with a stand-in for `srun`; and what is said where a machine lacks something."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mia_augment import ConfigError, ModelError
from mia_cli.config.schema import PipelineConfig
from mia_cli.launch import _what_stopped
from mia_cli.machines import check_device, launcher_command, processes_of
from mia_cli.main import main
from small_pipeline import write_pipeline

SRUN = """\
#!/bin/bash
# Starts its command once for each node, on this machine; when one fails, the others are ended.
for word in "$@"; do [[ $word == --nodes=* ]] && nodes=${word#*=}; done
while [[ $1 == --* ]]; do shift; done
echo "$nodes" >> "$(dirname "$0")/calls"
for ((node = 0; node < nodes; node++)); do SLURM_NODEID=$node "$@" & started+=($!); done
for _ in "${started[@]}"; do wait -n || { status=$?; kill "${started[@]}" 2>/dev/null; wait; exit $status; }; done
"""


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return folder


@pytest.mark.slow
def test_the_script_runs_a_pipeline_on_two_machines(tmp_path: Path, random_model: Path, srun: Path) -> None:
    """The samples, scores and pairs are those of one machine; every shared stage is started on both."""
    small = {"evaluate": {"per_bucket": 0}, "report": {"attention": 0}, "score": {"batch_size": 4, "max_new_tokens": 4}}
    small["train"] = {"max_steps": 1, "accumulation": 1, "gradient_checkpointing": False}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = write_pipeline(tmp_path / "one", random_model, **small)
    assert CliRunner().invoke(main, ["run", str(one)], catch_exceptions=False).exit_code == 0
    two = write_pipeline(tmp_path / "two", random_model, **small, launch={"nodes": 2, "processes": 1})
    assert CliRunner().invoke(main, ["slurm", str(two)], catch_exceptions=False).exit_code == 0
    done = subprocess.run(["bash", two.with_suffix(".sbatch")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (srun / "calls").read_text().split() == ["2", "2"]  # score and train
    for name in ("augment/samples.jsonl", "score/scored.jsonl", "select/pairs.jsonl"):
        assert (two.parent / "run" / name).read_bytes() == (one.parent / "run" / name).read_bytes()


def config(**launch) -> PipelineConfig:
    return PipelineConfig.model_validate({"model": {"device": "cpu"}, "launch": launch})


def test_on_several_machines_srun_starts_one_launcher_on_each(srun: Path) -> None:
    words = launcher_command(config(nodes=2, port=23456), 4, ["-m", "code"])
    assert words[:5] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    assert {"--nproc-per-node=4", "--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=7"} <= set(words)
    assert f"--rdzv-endpoint={socket.gethostname()}:23456" in words
    assert words[-2:] == ["-m", "code"]


def test_with_a_file_of_accelerate_each_machine_has_its_number(srun: Path, tmp_path: Path) -> None:
    file = tmp_path / "fsdp 2.yaml"
    words = launcher_command(config(nodes=3, config=str(file)), 8, ["-m", "code"])
    assert words[5:7] == ["bash", "-c"]
    shown = subprocess.run(["bash", "-c", words[7].replace("exec ", "printf '%s\\n' ", 1)], env={"SLURM_NODEID": "2"},
                           capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
    pairs = dict(itertools.pairwise(shown))
    assert pairs["--config_file"] == str(file)
    assert (pairs["--num_machines"], pairs["--num_processes"], pairs["--machine_rank"]) == ("3", "24", "2")
    assert shown[-2:] == ["-m", "code"]


def test_outside_a_job_of_slurm_it_is_said_how_to_get_into_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match=r"launch\.nodes: 2: .*`mia slurm` writes a script"):
        launcher_command(config(nodes=2), 1, [])


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"launch\.port: {port} cannot be used on .*: Address already in use; choose another"
        ):
            launcher_command(config(port=port), 2, [])


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (
            "The server socket has failed to listen on any local network address. EADDRINUSE",
            "a port is taken by another program",
        ),
        ("  exitcode  : -9 (pid: 3)", "it was killed from outside, mostly because memory ran out"),
    ],
)
def test_what_the_log_says_of_ports_and_memory_is_put_into_words(tmp_path: Path, sign: str, said: str) -> None:
    (tmp_path / "score.log").write_text(f"noise\n{sign}\n")
    assert said in _what_stopped(tmp_path, tmp_path / "score.log", "score", 2)


def test_a_machine_that_does_not_see_the_run_directory_says_so(tmp_path: Path) -> None:
    """Into the log, since it cannot write where the first machine looks."""
    for there in (tmp_path / "nowhere", tmp_path):
        (tmp_path / ".launched").mkdir(exist_ok=True)
        (tmp_path / ".launched/token").write_text("of another call")
        command = [sys.executable, "-m", "mia_cli", "share", there, "score"]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env={**os.environ, "MIA_LAUNCH_TOKEN": "mine", "RANK": "1"})  # fmt: skip
        assert done.returncode == 2
        (tmp_path / "score.log").write_text(f"noise\n{done.stderr}")
        said = _what_stopped(tmp_path / "empty", tmp_path / "score.log", "score", 2)
        assert said.startswith("a process of 2 stopped in score: process 1 on ")
        assert "all machines need run_dir under the same path on a file system that they share" in said


def test_a_process_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_device()
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ModelError, match=r"it has no GPU: it is number 3 on .*, where 2 are seen \(CUDA_VISIBLE_DEVICES=0,1\)"):
        check_device()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    check_device()


def test_more_processes_than_gpus_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    eight = PipelineConfig.model_validate({"launch": {"processes": 8}})
    with pytest.raises(ConfigError, match=r"launch\.processes: 8 on each machine, but 2 GPUs are seen here"):
        processes_of(eight)
    assert processes_of(PipelineConfig.model_validate({"launch": {"processes": 2}})) == 2
    assert processes_of(PipelineConfig()) == 2
