"""Makes a stage with several processes: a launcher starts them, this one shows how far they are and what stopped them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mia_augment import ModelError
from mia_augment.storage import Progress, process_rank, read_json, run_stage, write_json

from mia_cli.config.schema import PipelineConfig
from mia_cli.layout import LAUNCHED

LOOK_EVERY = 0.2
"""Seconds between two looks at how far they are."""
LAST_LINES = 12
"""Of the log, shown where a process died without a word."""


def processes_of(config: PipelineConfig) -> int:
    """How many processes share a stage: as set, or one for each GPU that the model may use."""
    wanted = config.launch.processes
    if isinstance(wanted, int):
        return wanted
    if config.model.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def launcher_command(config: PipelineConfig, processes: int) -> list[str]:
    """What starts the processes: Accelerate's launcher, or on CPUs, of which it starts several only through MPI, torchrun."""
    settings = config.launch
    if settings.config is None and _on_cpu(config):
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if settings.config is not None:
        command += ["--config_file", str(settings.config)]
    if settings.config is None or isinstance(settings.processes, int):
        command += ["--num_processes", str(processes), "--main_process_port", "0"]
    return [*command, *(["--multi_gpu"] if settings.config is None else [])]


def _on_cpu(config: PipelineConfig) -> bool:
    import torch

    return config.model.device == "cpu" or not torch.accelerator.is_available()


def launch_stage(config: PipelineConfig, name: str, processes: int, progress: Progress, *, trust_remote_code: bool) -> None:
    """Make a stage of a run directory with several processes; returns when all have ended well.

    Raises:
        MiaError: one of them stopped; the launcher has ended the others.
    """
    folder = config.run_dir / LAUNCHED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = ["-m", "mia_cli", "share", str(config.run_dir), name, *(["--trust-remote-code"] if trust_remote_code else [])]
    log = folder / f"{name}.log"
    environment = {**os.environ, **({"ACCELERATE_USE_CPU": "true"} if _on_cpu(config) else {})}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with log.open("wb") as out:
        command = [*launcher_command(config, processes), *code]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
        try:
            while process.poll() is None:
                _show(folder, progress)
                time.sleep(LOOK_EVERY)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise ModelError(_what_stopped(folder, log, name, processes))
    shutil.rmtree(folder, ignore_errors=True)


def share_stage(config: PipelineConfig, name: str, *, trust_remote_code: bool) -> None:
    """One process's part of a stage.

    Raises:
        Exception: from the stage; it is noted for the process that launched this one.
    """
    from mia_cli.loading.load import SharedModel
    from mia_cli.pipeline import stages

    folder, rank = config.run_dir / LAUNCHED, process_rank()
    shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
    try:
        stage = next(stage for stage in stages(config, shared) if stage.name == name)
        run_stage(stage, _told(folder) if rank == 0 else None, rank=rank)
    except Exception as error:  # of whatever kind: the process that launched this one tells it
        write_json(folder / f"error-{rank}.json", {"time": time.time(), "text": f"{error}" or type(error).__name__})
        raise


def _told(folder: Path) -> Progress:
    """Notes how far the stage is, at most five times a second."""
    last = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= LOOK_EVERY or done == total:
            last = time.monotonic()
            write_json(folder / "progress.json", [done, total])

    return report


def _show(folder: Path, progress: Progress) -> None:
    path = folder / "progress.json"
    if path.is_file():
        done, total = json.loads(path.read_bytes())
        progress(done, total)


def _what_stopped(folder: Path, log: Path, name: str, processes: int) -> str:
    """The first process's own words, or else the end of the log."""
    told = [(read_json(path, "run again"), path.stem.removeprefix("error-")) for path in folder.glob("error-*.json")]
    if told:
        first, rank = min(told, key=lambda one: one[0]["time"])
        return f"process {rank} of {processes} stopped in {name}: {first['text']}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    end = "\n".join(lines[-LAST_LINES:])
    return f"a process of {processes} died in {name}; the end of {log}:\n{end}\nthe same command goes on where it stopped"
