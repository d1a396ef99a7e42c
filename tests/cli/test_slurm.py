"""`mia slurm`: the script that a pipeline.yaml gets."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mia_cli.main import main


def script(folder: Path, *options: str, **settings) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"data": {"source": "rows.json"}, **settings}))
    result = CliRunner().invoke(main, ["slurm", str(folder / "pipeline.yaml"), *options])
    assert result.exit_code == 0, result.stderr
    return (folder / "pipeline.sbatch").read_text()


def directives(text: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_nodes_and_gpus_are_those_of_the_pipeline(tmp_path):
    found = directives(script(tmp_path, launch={"nodes": 2, "processes": 4}))
    assert (found["nodes"], found["gpus-per-node"], found["ntasks-per-node"]) == ("2", "4", "1")
    assert {"requeue", "open-mode", "time", "output"} <= found.keys()
    assert not found.keys() & {"partition", "account", "cpus-per-task"}


def test_what_is_given_is_asked_for(tmp_path):
    options = ["--gpus-per-node", "2", "--cpus-per-node", "16", "--time", "2-00:00:00", "--partition", "a100", "--account", "x"]
    found = directives(script(tmp_path, *options))
    assert [found[name] for name in ("nodes", "gpus-per-node", "cpus-per-task", "time", "partition", "account")] == [
        "1", "2", "16", "2-00:00:00", "a100", "x"]  # fmt: skip


def test_a_model_on_the_cpu_asks_for_no_gpus(tmp_path):
    assert "gpus-per-node" not in directives(script(tmp_path, model={"device": "cpu"}))


@pytest.mark.parametrize("name", ["plain", "with a space", "it's", "$HOME; touch x", "`touch x`"])
def test_the_shell_takes_it_and_comes_to_the_pipeline(tmp_path, name):
    folder = tmp_path / name
    text = script(folder)
    assert subprocess.run(["bash", "-n", folder / "pipeline.sbatch"], check=False).returncode == 0
    assert text.startswith("#!/bin/bash\n")
    *_, last = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert shlex.split(last) == ["exec", sys.executable, "-m", "mia_cli", "run", "pipeline.yaml"]
    shown = text.replace(last, 'echo "at $PWD with $SRUN_CPUS_PER_TASK"')
    done = subprocess.run(["bash"], input=shown, text=True, capture_output=True, cwd=tmp_path, check=False)
    assert done.stdout == f"at {folder} with 1\n"
    assert not (tmp_path / "x").exists()


def test_after_the_first_command_no_directive_stands(tmp_path):
    """Slurm stops reading them there."""
    lines = script(tmp_path, launch={"nodes": 3}).splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in lines[first:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--time", "a day"], "--time: expected minutes"),
        (["--partition", "a b"], "--partition: expected a name"),
        (["--account", "x\n#SBATCH --nodes=9"], "--account: expected a name"),
        (["--gpus-per-node", "2"], "launch.processes: 4 on each machine, but --gpus-per-node is 2"),
    ],
)
def test_what_slurm_does_not_take_is_refused(tmp_path, options, said):
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"data": {"source": "rows.json"}, "launch": {"processes": 4}}))
    result = CliRunner().invoke(main, ["slurm", str(tmp_path / "pipeline.yaml"), *options])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "pipeline.sbatch").exists()
