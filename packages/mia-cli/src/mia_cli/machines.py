"""Which processes a stage gets on which machines, how they are started, and whether each has what it needs."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from mia_augment import ConfigError, ModelError
from mia_augment.storage import process_rank

from mia_cli.config.schema import PipelineConfig

TOKEN, TOKEN_VARIABLE = "token", "MIA_LAUNCH_TOKEN"
"""File of the run directory, and variable: where both tell the same, a process sees the folder of the one that launched it."""
SAID_IN_LOG = "mia cannot share this stage: "
"""Begins a line of the log with what a process has to say that cannot write into the run directory."""


def processes_of(config: PipelineConfig) -> int:
    """How many processes share a stage on each machine: as set, or one for each GPU that the model may use.

    Raises:
        ConfigError: more than there are GPUs.
    """
    wanted = config.launch.processes
    if config.model.device not in ("auto", "cuda"):
        return wanted if isinstance(wanted, int) else 1
    import torch

    here = torch.cuda.device_count()
    if not isinstance(wanted, int):
        return max(1, here)
    if 0 < here < wanted:
        raise ConfigError(
            f"launch.processes: {wanted} on each machine, but {here} GPUs are seen here{_visible()}; set at most {here}, auto, "
            "or model.device: cpu"
        )
    return wanted


def on_cpu(config: PipelineConfig) -> bool:
    """Whether the processes compute on the CPU."""
    import torch

    return config.model.device == "cpu" or not torch.accelerator.is_available()


def launcher_command(config: PipelineConfig, processes: int, code: list[str]) -> list[str]:
    """What starts the processes: Accelerate's launcher, or torchrun on CPUs, of which Accelerate starts several only through
    MPI, and on several machines, where `srun` starts one launcher on each.

    Args:
        processes: on each machine.
        code: what each of them runs, as the arguments of Python.

    Raises:
        ConfigError: the port is taken, or there are to be several machines and this is no Slurm job.
    """
    settings, several = config.launch, config.launch.nodes > 1
    if settings.config is None and (several or on_cpu(config)):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        if several or settings.port is not None:
            meeting = f"{socket.gethostname() if several else 'localhost'}:{_port(settings.port)}"
            job = os.environ.get("SLURM_JOB_ID", "mia")
            command += [f"--nnodes={settings.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job}", f"--rdzv-endpoint={meeting}"]
        else:
            command += ["--standalone"]
        return [*(_srun(settings.nodes) if several else []), *command, *code]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if settings.config is not None:
        command += ["--config_file", str(settings.config)]
    if settings.config is None or isinstance(settings.processes, int) or several:
        port = _port(settings.port) if several or settings.port is not None else 0
        command += ["--num_processes", str(processes * settings.nodes), "--main_process_port", str(port)]
    if not several:
        return [*command, *(["--multi_gpu"] if settings.config is None else []), *code]
    command += ["--num_machines", str(settings.nodes), "--main_process_ip", socket.gethostname()]
    numbered = f'exec {shlex.join(command)} --machine_rank "$SLURM_NODEID" {shlex.join(code)}'
    return [*_srun(settings.nodes), "bash", "-c", numbered]


def _srun(nodes: int) -> list[str]:
    """Starts one launcher on each machine of the job; when one fails, the others are ended."""
    if shutil.which("srun") is None or "SLURM_JOB_ID" not in os.environ:
        raise ConfigError(
            f"launch.nodes: {nodes}: several machines are those of a Slurm job, and this is none: `mia slurm` writes a script "
            "for `sbatch`. Elsewhere start single stages with `accelerate launch` on each machine (docs/scale.md)"
        )
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]


def _port(wanted: int | None) -> int:
    """The port, or a free one.

    Raises:
        ConfigError: it is taken.
    """
    with socket.socket() as probe:
        try:
            probe.bind(("", wanted or 0))
        except OSError as error:
            raise ConfigError(
                f"launch.port: {wanted} cannot be used on {socket.gethostname()}: {error.strerror}; choose another one, or "
                "leave it out for one that is free"
            ) from error
        return int(probe.getsockname()[1])


def check_shared(folder: Path) -> None:
    """Raise ConfigError, and say it in the log, unless this process sees the folder that the one which launched it writes."""
    expected, file = os.environ.get(TOKEN_VARIABLE), folder / TOKEN
    if expected is None or (file.is_file() and file.read_text(encoding="utf-8") == expected):
        return
    found = "something else lies there" if file.is_file() else "it is not there"
    said = (
        f"process {process_rank()} on {socket.gethostname()} does not see the run directory of the first machine ({file}: "
        f"{found}); all machines need run_dir under the same path on a file system that they share (NFS, Lustre, ..)"
    )
    print(SAID_IN_LOG + said, file=sys.stderr, flush=True)
    raise ConfigError(said)


def check_device() -> None:
    """Raise ModelError where this process is to have a GPU of its own and there is none."""
    if os.environ.get("ACCELERATE_USE_CPU") == "true" or "LOCAL_RANK" not in os.environ:
        return
    import torch

    local, here = int(os.environ["LOCAL_RANK"]), torch.accelerator.device_count()
    if local >= here:
        raise ModelError(
            f"it has no GPU: it is number {local + 1} on {socket.gethostname()}, where {here} are seen{_visible()}; set "
            "launch.processes to what every machine has, or model.device: cpu"
        )


def _visible() -> str:
    """What hides GPUs, where something does."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if value is None else f" (CUDA_VISIBLE_DEVICES={value})"
