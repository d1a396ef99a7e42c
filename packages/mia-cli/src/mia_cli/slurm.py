"""A Slurm script for a pipeline.yaml: one job on one machine or several, which goes on where it stopped."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from mia_augment import ConfigError
from mia_augment.storage import atomic_write

from mia_cli.config.schema import PipelineConfig, load_config

GPUS = 8
"""Of each machine, where nothing is said."""
_TIME = re.compile(r"(\d+-)?\d{1,3}(:\d{2}){0,2}")
_WORD = re.compile(r"[\w.,-]+")

SCRIPT = """\
#!/bin/bash
# Runs {name} on {machines}. Submit it with `sbatch {script}`; the same again continues what was stopped.
# The run directory and the pictures lie on a file system that all machines share.
{directives}

set -euo pipefail

# srun gives its tasks no cores unless it is told so.
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"

cd {folder}

# This part runs on the first machine alone. Stages that several processes share are started from there: on one machine through
# Accelerate's launcher, on several through `srun`, one torchrun on each (launch.nodes in {name}).
exec {python} -m mia_cli run {name}
"""


def write_script(
    file: Path,
    out: Path,
    *,
    gpus_per_node: int | None = None,
    cpus_per_node: int | None = None,
    hours: str = "24:00:00",
    partition: str | None = None,
    account: str | None = None,
) -> Path:
    """Write the script that runs `file`; returns its path.

    Args:
        gpus_per_node: by default what `launch.processes` says, or `GPUS`; none where the model is on the CPU.
        cpus_per_node: by default what Slurm gives.

    Raises:
        ConfigError: the pipeline.yaml is wrong, or an option is nothing that Slurm takes.
    """
    config = load_config(file)
    for name, value in (("partition", partition), ("account", account)):
        if value is not None and not _WORD.fullmatch(value):
            raise ConfigError(f"--{name}: expected a name of letters, digits, '.', ',', '-' and '_', got {value!r}")
    if not _TIME.fullmatch(hours):
        raise ConfigError(f"--time: expected minutes, hours:minutes:seconds or days-hours, such as 24:00:00, got {hours!r}")
    folder = file.resolve().parent
    asked = {
        "job-name": f"mia-{file.stem}" if _WORD.fullmatch(file.stem) else "mia",
        "nodes": config.launch.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": _gpus(config, gpus_per_node) or None,
        "cpus-per-task": cpus_per_node,
        "time": hours,
        "partition": partition,
        "account": account,
        "output": _quoted(folder / f"{file.stem}-%j.log"),
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in asked.items() if value is not None]
    text = SCRIPT.format(
        name=shlex.quote(file.name),
        script=shlex.quote(str(out)),
        machines="one machine" if config.launch.nodes == 1 else f"{config.launch.nodes} machines",
        directives="\n".join([*lines, "#SBATCH --open-mode=append", "#SBATCH --requeue"]),
        folder=shlex.quote(str(folder)),
        python=shlex.quote(sys.executable),
    )
    with atomic_write(out) as stream:
        stream.write(text)
    return out


def _gpus(config: PipelineConfig, asked: int | None) -> int:
    """GPUs of each machine; at least as many as processes."""
    processes = config.launch.processes
    gpus = asked if asked is not None else processes if isinstance(processes, int) else GPUS
    if config.model.device == "cpu":
        return 0
    if isinstance(processes, int) and 0 < gpus < processes:
        raise ConfigError(f"launch.processes: {processes} on each machine, but --gpus-per-node is {gpus}")
    return gpus


def _quoted(path: Path) -> str:
    """A path as a line of directives takes it: Slurm takes quotes, but no line breaks.

    Raises:
        ConfigError: it cannot be written there.
    """
    text = str(path)
    if "\n" in text or '"' in text:
        raise ConfigError(f"{text!r}: Slurm cannot write a log there; move the file to a folder without quotes and line breaks")
    return f'"{text}"' if re.search(r"[^\w./%-]", text) else text
