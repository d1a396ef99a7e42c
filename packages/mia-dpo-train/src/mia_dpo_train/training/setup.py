"""Where and in which precision training runs, settled before anything is computed."""

from __future__ import annotations

import atexit
import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from mia_augment import ConfigError, text_config
from torch import nn

from mia_dpo_train.environment import has_bf16
from mia_dpo_train.models.facts import language_model, model_device
from mia_dpo_train.settings import TrainSettings

WAITING = timedelta(hours=1)
"""How long processes wait for each other: the first one writes a model, to a slow disk at worst. NCCL would give up after ten
minutes; of one that died the launcher tells at once."""
EAGER_LENGTH = 384
"""Up to this many tokens eager attention trains faster than SDPA on a CPU in bf16 (in fp32 it never did)."""


def tracker_names(settings: TrainSettings) -> list[str]:
    if settings.trackers != "auto":
        return list(settings.trackers)
    return ["tensorboard"] if importlib.util.find_spec("tensorboard") else []


def make_accelerator(settings: TrainSettings, model: nn.Module, out: Path) -> Any:
    """An Accelerator for these settings and the environment that `accelerate launch` may have set up.

    A single process follows the model: one that was loaded on the CPU is trained there.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

    launched = "WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
    on_cpu = not launched and model_device(model).type == "cpu"
    if not launched:
        AcceleratorState._reset_state(True)  # what an earlier run in this process chose must not bind this one
    device = model_device(model)
    if not launched and device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Accelerate takes the current one, wherever the model lies
    accelerator = Accelerator(
        # As a plugin, since `accelerate launch` would override the plain number by its own.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=settings.accumulation, sync_with_dataloader=False),
        mixed_precision=_mixed_precision(settings, on_cpu),
        cpu=on_cpu,
        log_with=tracker_names(settings) or None,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=WAITING)],
        project_dir=str(out),
    )
    if (started := int(os.environ.get("WORLD_SIZE", "1"))) != accelerator.num_processes:
        raise ConfigError(
            f"expected {started} processes that train together, Accelerate sees {accelerator.num_processes}; start them with "
            "`accelerate launch`, and on CPUs with ACCELERATE_USE_CPU=true in the environment"
        )
    if accelerator.distributed_type == "DEEPSPEED":
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": settings.per_device_batch_size,
            "gradient_accumulation_steps": settings.accumulation,
            "gradient_clipping": settings.max_grad_norm,
        }
    return accelerator


def leave_tidily() -> None:
    """Have the process group closed before the interpreter shuts down; for processes that have come to the end of their work.

    Gloo's threads let go of tensors after a collective is over, which needs the interpreter: one that does so during its
    shutdown aborts the process (pytorch pull request 179291).
    """
    atexit.unregister(_close_process_group)
    atexit.register(_close_process_group)


def _close_process_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _mixed_precision(settings: TrainSettings, on_cpu: bool) -> str | None:
    """None: what the accelerate configuration says."""
    if settings.precision != "auto":
        return "no" if settings.precision == "fp32" else "bf16"
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return None
    return "bf16" if not on_cpu and has_bf16() else "no"


def set_attention(model: nn.Module, settings: TrainSettings, longest: int, *, bf16: bool) -> str:
    """Choose the language model's attention implementation; returns which one runs."""
    wanted = settings.attn_implementation
    current = str(text_config(model)._attn_implementation)
    if wanted == "auto":
        eager = bf16 and model_device(model).type == "cpu" and current == "sdpa" and longest <= EAGER_LENGTH
        wanted = "eager" if eager else current  # type: ignore[assignment]
    if wanted != current:
        _, decoder = language_model(model)
        cast(Any, decoder).set_attn_implementation(wanted)
        # Some models build the decoder's mask from their own view of the text configuration.
        text_config(model)._attn_implementation_internal = wanted
    return wanted


def pad_token(processor: Any) -> int:
    tokenizer = processor.tokenizer
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def decay_groups(parameters: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases and norms."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def longest_allowed(settings: TrainSettings, model: nn.Module) -> int | None:
    """Longest pair: the user's limit, else the length that the language model was built for."""
    if settings.max_length is not None:
        return settings.max_length
    return getattr(text_config(model), "max_position_embeddings", None)
