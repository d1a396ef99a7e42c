"""The model under training: adapters or all of the language model, wrapped by Accelerate; and how it is written."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mia_augment import ModelError
from torch import Tensor, nn

from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.models.adapter_targets import target_pattern
from mia_dpo_train.models.facts import base_model, language_model, model_facts, projector_names, vision_tower
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.setup import decay_groups, set_attention


def prepare_for_training(model: Any, settings: TrainSettings, model_id: str) -> nn.Module:
    """Freeze what stays, add adapters, switch checkpointing on. Seeded: the same settings give the same initial adapters.

    Returns the model itself (full fine-tuning) or a PeftModel around it.
    """
    if hasattr(model, "peft_config"):
        raise ModelError("the model already carries an adapter: merge it first (export_merged), then train on the merged model")
    if getattr(model, "is_loaded_in_4bit", False) != (settings.tuning == "qlora"):
        raise ModelError(
            f"tuning {settings.tuning}: tuning qlora goes with a model in 4 bits, and no other does; load it with "
            "quantization_config=four_bit_config(..) (pip install 'mia-dpo-train[qlora]'), or change tuning"
        )
    model.requires_grad_(False)
    if settings.gradient_checkpointing:
        # Without re-entrance neither frozen inputs nor the frozen vision tower need special care.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.tuning == "full":
        _unfreeze(model, settings)
        _to_fp32(model)
        return model  # type: ignore[no-any-return]
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if settings.tuning == "qlora":
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=settings.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    config = LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=target_pattern(model, settings),
        modules_to_save=projector_names(model) if settings.train_projector else None,
    )
    torch.manual_seed(settings.seed)
    adapted = get_peft_model(model, config)
    _to_fp32(adapted)
    adapted.peft_config["default"].base_model_name_or_path = model_id  # peft puts the name the configuration was saved with
    return adapted


def _unfreeze(model: Any, settings: TrainSettings) -> None:
    _, decoder = language_model(model)
    decoder.requires_grad_(True)
    head = model.get_output_embeddings()
    if head is not None:
        head.requires_grad_(True)
    tower = vision_tower(model)
    if settings.train_vision_tower and tower:
        tower[1].requires_grad_(True)
    if settings.train_projector or settings.train_vision_tower:  # in Qwen-VL it lies in the tower
        for name in projector_names(model):
            model.get_submodule(name).requires_grad_(settings.train_projector)


def _to_fp32(model: nn.Module) -> None:
    """Trained weights in 16 bits would swallow small updates; autocast computes with them in 16 bits all the same."""
    for parameter in trainable(model).values():
        parameter.data = parameter.data.float()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def write_trained(model: Any, processor: Any, folder: Path, dtype: torch.dtype, state: dict[str, Tensor] | None) -> None:
    """Write the adapter, or for full fine-tuning the model and its processor, as safetensors.

    Args:
        dtype: what the model was loaded in, and a full model is written in.
        state: the full state dict, where the model's own parameters are spread over processes.
    """
    if not hasattr(model, "peft_config"):
        state = model.state_dict() if state is None else state
        narrowed = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
        model.save_pretrained(str(folder), state_dict=narrowed)
        processor.save_pretrained(str(folder))
        return
    # Embeddings are never trained here; left to itself, peft would ask a hub about the vocabulary.
    model.save_pretrained(str(folder), state_dict=state, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template for a model card, all of it empty
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weights_digest(model: nn.Module, values: int = 64) -> str:
    """Hash of every parameter's name, shape, type and some evenly spread values: tells models apart without reading all."""
    digest = hashlib.sha256()
    for name, parameter in base_model(model).named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // values)][:values]
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Trained:
    """A model under training, and what it is wrapped in."""

    model: Any
    """The PeftModel, or the model itself."""
    logps: PairLogps
    """The model as a function from pairs to log-probs."""
    wrapped: Any
    """`logps` as Accelerate prepared it: distributed, with autocast."""
    optimizer: Any
    accelerator: Any
    attention: str
    """Attention implementation of the language model."""
    weights: str
    """`weights_digest` of the model before training."""
    dtype: torch.dtype
    """What the model was loaded in."""
    frozen_copy: PairLogps | None
    """The reference model of full fine-tuning with `reference: online`."""

    @property
    def sharded(self) -> bool:
        """Whether every process holds only a part of the parameters."""
        return self.accelerator.distributed_type in ("FSDP", "DEEPSPEED")

    def full_state(self) -> dict[str, Tensor] | None:
        """All parameters by the model's own names, gathered from all processes; None: the model holds them itself.

        To be called by every process, and used by the main one only: others may get nothing.
        """
        if not self.sharded:
            return None
        gathered = self.accelerator.get_state_dict(self.wrapped) or {}
        return {name.removeprefix("model."): tensor for name, tensor in gathered.items()}


def prepare_trained(model: Any, settings: TrainSettings, accelerator: Any, model_id: str, *, longest: int) -> Trained:
    """From a loaded model to one that is ready for its first step.

    Args:
        longest: tokens of the longest pair, by which attention is chosen.

    Raises:
        ModelError: DeepSpeed has the model in parts already.
    """
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise ModelError(
            "the model was loaded in parts by DeepSpeed, and its weights cannot be told from others; load it before the first "
            "training of the process, and leave zero3_init_flag at false"
        )
    facts = model_facts(model)
    mixed = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    attention = set_attention(model, settings, longest, bf16=torch.bfloat16 in (model.dtype, mixed))
    before, dtype = weights_digest(model), model.dtype
    frozen_copy = None
    if settings.tuning == "full" and settings.reference == "online":
        frozen_copy = PairLogps(copy.deepcopy(model).requires_grad_(False), facts, "plain").to(accelerator.device).eval()
    model = prepare_for_training(model, settings, model_id)
    logps = PairLogps(model, facts, "plain")
    if accelerator.distributed_type not in ("FSDP", "DEEPSPEED") and settings.tuning != "qlora":  # 4 bits stay where loaded
        logps.to(accelerator.device)
    groups = decay_groups(trainable(model), settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.adam_betas)
    wrapped, optimizer = accelerator.prepare(logps, optimizer)
    return Trained(model, logps, wrapped, optimizer, accelerator, attention, before, dtype, frozen_copy)
