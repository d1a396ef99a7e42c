"""Makes a stage with several processes: a launcher starts them, this one shows how far they are and what stopped them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

from mia_augment import ModelError
from mia_augment.storage import Progress, process_rank, read_json, run_stage, write_json

from mia_cli.config.schema import PipelineConfig
from mia_cli.layout import LAUNCHED
from mia_cli.machines import SAID_IN_LOG, TOKEN, TOKEN_VARIABLE, check_device, launcher_command, on_cpu

LOOK_EVERY = 0.2
"""Seconds between two looks at how far they are."""
LAST_LINES = 12
"""Of the log, shown where a process died without a word."""
_PORT = "a port is taken by another program: leave out launch.port, and main_process_port in launch.config"
SIGNS = {
    "EADDRINUSE": _PORT,
    "Address already in use": _PORT,
    "another process is utilizing it": _PORT,
    "exitcode  : -9": "it was killed from outside, mostly because memory ran out: fewer processes or smaller batches need less",
}
"""What stands in the log -> what it means."""


def launch_stage(config: PipelineConfig, name: str, processes: int, progress: Progress, *, trust_remote_code: bool) -> None:
    """Make a stage of a run directory with several processes, so many on each machine; returns when all have ended well.

    Raises:
        ConfigError: a port is taken, or there are no other machines.
        MiaError: one of them stopped; the launcher has ended the others.
    """
    folder = config.run_dir / LAUNCHED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = ["-m", "mia_cli", "share", str(config.run_dir), name, *(["--trust-remote-code"] if trust_remote_code else [])]
    log, token = folder / f"{name}.log", uuid.uuid4().hex
    (folder / TOKEN).write_text(token, encoding="utf-8")
    environment = {**os.environ, TOKEN_VARIABLE: token, **({"ACCELERATE_USE_CPU": "true"} if on_cpu(config) else {})}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with log.open("wb") as out:
        command = launcher_command(config, processes, code)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
        try:
            while process.poll() is None:
                _show(folder, progress)
                time.sleep(LOOK_EVERY)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise ModelError(_what_stopped(folder, log, name, processes * config.launch.nodes))
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
        check_device()
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
    said = next((line.split(SAID_IN_LOG, 1)[1] for line in lines if SAID_IN_LOG in line), None)
    if said is not None:
        return f"a process of {processes} stopped in {name}: {said}"
    hint = next((f"{what}\n" for sign, what in SIGNS.items() if any(sign in line for line in lines)), "")
    end = "\n".join(lines[-LAST_LINES:])
    return f"a process of {processes} died in {name}; {hint}the end of {log}:\n{end}\nthe same command goes on where it stopped"
