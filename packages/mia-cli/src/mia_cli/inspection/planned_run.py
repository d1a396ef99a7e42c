"""What `mia run` would use on this machine for a pipeline.yaml: devices, processes, precision, attention, memory, answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mia_attention import AnswerSource
from mia_augment import MiaError
from mia_dpo_train import check_environment

from mia_cli.config.schema import PipelineConfig
from mia_cli.inspection.doctor import Check
from mia_cli.loading.load import model_folder
from mia_cli.machines import launcher_command, on_cpu, processes_of

_GB = 2**30


def planned_run(config: PipelineConfig) -> list[Check]:
    """One check a question; "missing" where the run would stop, with what it would say. Loads no model."""
    return [
        _asked("processes", lambda: _processes(config)),
        _asked("device", lambda: _device(config)),
        _asked("precision", lambda: _precision(config)),
        _asked("attention", lambda: _attention(config)),
        _asked("memory", lambda: _memory(config)),
        *(Check(what=f"run: {name}", state="ok", text=_answers(source)) for name, source in _sources(config).items()),
    ]


def _asked(name: str, answer: Callable[[], tuple[str, str]]) -> Check:
    try:
        state, text = answer()
    except MiaError as error:
        state, text = "missing", str(error)
    return Check.model_validate({"what": f"run: {name}", "state": state, "text": text})


def _processes(config: PipelineConfig) -> tuple[str, str]:
    here, nodes = processes_of(config), config.launch.nodes
    composing = f"; {config.data.workers} to compose pictures"
    if here * nodes == 1:
        return "ok", f"1{composing}"
    launcher = "torchrun" if "torch.distributed.run" in launcher_command(config, here, []) else "Accelerate's launcher"
    shared = f"{here * nodes} for score, attention, train and evaluate, started by {launcher}"
    on = f", {here} on each of {nodes} machines" if nodes > 1 else ""
    file = f" with {config.launch.config}" if config.launch.config else ""
    return "ok", f"{shared}{file}{on}{composing}"


def _device(config: PipelineConfig) -> tuple[str, str]:
    import torch

    wanted = config.model.device
    if on_cpu(config):
        cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
        threads = max(1, cores // processes_of(config)) if processes_of(config) > 1 else torch.get_num_threads()
        return "ok", f"cpu, {threads} thread{'s' * (threads > 1)} for each process"
    accelerator = torch.accelerator.current_accelerator()
    kind = accelerator.type if accelerator is not None and wanted == "auto" else wanted
    if kind != "cuda":
        return "ok", kind
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    return "ok", f"cuda, {torch.cuda.device_count()} seen here: {', '.join(sorted(names))}"


def _precision(config: PipelineConfig) -> tuple[str, str]:
    exact = on_cpu(config) or config.model.name == "embedded"
    loaded: str = config.model.dtype if config.model.dtype != "auto" else "float32" if exact else "bfloat16"
    if config.model.quantization == "4bit":
        loaded = f"4 bits, computing in {loaded}"
    wanted = {"fp32": "fp32", "bf16": "bf16 autocast"}.get(config.train.precision)
    if wanted is None:
        import torch

        able = not on_cpu(config) and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        by_file = "what the file of accelerate says, else " if config.launch.config else ""
        wanted = f"{by_file}{'bf16 autocast' if able else 'fp32'}"
    return "ok", f"model in {loaded}; training in {wanted}"


def _attention(config: PipelineConfig) -> tuple[str, str]:
    check_environment(config.train)
    wanted = config.train.attn_implementation
    own = "as the model loads (SDPA mostly)"
    short = f"eager for short pairs in bf16 on a CPU, else {own}" if on_cpu(config) else own
    return "ok", f"score {own}; train {short if wanted == 'auto' else wanted}, route {config.train.route}"


def _memory(config: PipelineConfig) -> tuple[str, str]:
    """Weights of a model on this machine against what is free where it goes."""
    import torch

    folder = model_folder(config.model.name)
    if on_cpu(config):
        free, place = _free_memory(), "of memory"
        copies = processes_of(config)
    elif torch.cuda.is_available():
        free, place = min(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())), "on each GPU"
        copies = 1
    else:
        return "ok", "not known for this device"
    if folder is None:
        return "ok", f"{free / _GB:.1f} GB free {place}; the model's size is not known before it is fetched"
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    times = f" x {copies} processes" if copies > 1 else ""
    enough = stored * copies < free
    text = f"weights {stored / _GB:.2f} GB as stored{times}, {free / _GB:.1f} GB free {place}"
    return ("ok", text) if enough else ("note", f"{text}: too little; a smaller model, 4bit, or FSDP (launch.config)")


def _free_memory() -> int:
    """Bytes that are free on this machine, 0 where that is not told."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0


def _sources(config: PipelineConfig) -> dict[str, AnswerSource | None]:
    found = {"answers": config.score.answers}
    if config.evaluate.per_bucket:
        found |= {"answers before training": config.evaluate.answers, "answers after it": config.evaluate.trained_answers}
    return found


def _answers(source: AnswerSource | None) -> str:
    if source is None:
        return "generated here, with attention read meanwhile"
    if source.file is not None:
        return f"from {source.file}, read by the model here in one pass"
    named = f" ({source.model})" if source.model else ""
    key = f", key from {source.key_variable}" if os.environ.get(source.key_variable) else ""
    return f"from {source.url}{named}, at most {source.concurrency} requests open{key}; read by the model here in one pass"
