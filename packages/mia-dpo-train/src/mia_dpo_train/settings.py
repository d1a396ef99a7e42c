"""Settings of the trainer. Importing this needs no torch, so that a whole pipeline can be checked before a model loads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from mia_augment import Settings
from pydantic import Field, field_validator, model_validator

from mia_dpo_train.losses import PREFERENCE_LOSSES, takes

Route = Literal["packed", "kv", "plain"]


class LoraSettings(Settings):
    """Low-rank adapters on the language model."""

    r: int = Field(default=128, ge=1)
    """Rank."""
    alpha: int = Field(default=256, ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapters."""
    targets: Literal["auto"] | list[str] = "auto"
    """`auto`: every linear layer of the language model but the output head; or names of layers (`q_proj`) within it."""


class TrainSettings(Settings):
    """How a model is trained on preference pairs. The defaults are the paper's (arXiv 2410.17637) on 8 devices."""

    tuning: Literal["lora", "qlora", "full"] = "lora"
    """What is trained: adapters, adapters on a model quantized to 4 bits (needs bitsandbytes), or all of the language model."""
    lora: LoraSettings = LoraSettings()
    """Used unless `tuning` is full."""
    train_projector: bool = False
    """Whether what maps image features into the language model is trained too (as a whole, also beside LoRA)."""
    train_vision_tower: bool = False
    """Whether the vision tower is trained too (with adapters where `tuning` says so)."""

    loss: str = "sigmoid"
    """sigmoid: DPO; ipo: (h - 1/(2 beta))^2; hinge: max(0, 1 - beta h), with h the difference of the log-ratios (ipo:
    of their means over tokens). Equations and others: the table in mia_dpo_train/losses.py."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the tie to the reference model. The loss flattens where beta times the difference of the log-ratios is
    above 3 or so: the paper's 0.1 suits answers of a paragraph; with answers that differ in a word, try 1."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of pairs whose answers are swapped (sigmoid only)."""
    dpo_alpha: float = Field(default=1.0, ge=0)
    """Weight of the preference loss."""
    gamma: float = Field(default=0.1, ge=0)
    """Weight of the negative log-likelihood of the chosen answer."""
    nll: Literal["pair_mean", "token_mean"] = "pair_mean"
    """Mean over a pair's tokens and then over pairs; or over all chosen tokens of an optimizer step."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the pairs."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps; null: after the last epoch."""
    per_device_batch_size: int = Field(default=1, ge=1)
    """Pairs in one forward pass of one process."""
    accumulation: int = Field(default=8, ge=1)
    """Forward passes per process in one optimizer step."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Highest learning rate (AdamW)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to 0 after the warm-up."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    seed: int = Field(default=0, ge=0)
    """Order of pairs, initial adapters, dropout."""

    route: Literal["auto", "packed", "kv", "plain"] = "auto"
    """How the log-probs of a pair are computed; auto: the cheapest one that the start-up check finds exact for this model."""
    reference: Literal["stored", "online"] = "stored"
    """Reference log-probs computed once and kept beside the checkpoints, or again in every step."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest pair (tokens of prompt with images, and of its longer answer); null: what the model was built for."""
    too_long: Literal["refuse", "skip"] = "refuse"
    """What happens to a longer pair. Nothing is ever cut off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: what the accelerate configuration says, else bf16 on a GPU that has it, else fp32. On a CPU with AMX or AVX-512
    bf16 halves the time. Weights under training, log-probs and losses are fp32 in any case."""
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention of the language model; auto: eager for short pairs in bf16 on a CPU (faster there), else as loaded."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a third more time."""
    group_by_length: bool = True
    """Put pairs of similar length into one batch."""
    workers: int = Field(default=0, ge=0)
    """Processes that open pictures beside the training; 0: none."""
    image_cache_mb: int = Field(default=512, ge=0)
    """Processed pictures kept in memory from epoch to epoch, up to this size (only with `workers: 0`)."""

    checkpoint_every: int = Field(default=100, ge=1)
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Older ones are removed."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of pairs (by a hash of their pictures) that are not trained on but measured during training."""
    evaluate_every: int = Field(default=100, ge=1)
    """Optimizer steps between measurements on the held-out pairs; they are measured at the end in any case."""
    trackers: Literal["auto"] | list[Literal["tensorboard", "wandb"]] = "auto"
    """Where metrics go besides metrics.jsonl; auto: tensorboard when it is installed."""

    @field_validator("loss")
    @classmethod
    def _in_the_table(cls, loss: str) -> str:
        if loss not in PREFERENCE_LOSSES:
            raise ValueError(f"expected one of {', '.join(PREFERENCE_LOSSES)}, got {loss!r}")
        return loss

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dpo_alpha == 0 and self.gamma == 0:
            raise ValueError("dpo_alpha and gamma are both 0: nothing would be learnt; set one of them above 0")
        if self.label_smoothing > 0 and not takes(PREFERENCE_LOSSES[self.loss], "label_smoothing"):
            defined = ", ".join(name for name, loss in PREFERENCE_LOSSES.items() if takes(loss, "label_smoothing"))
            raise ValueError(f"label_smoothing is defined for loss {defined} only, got loss {self.loss}; set it to 0")
        if self.route == "kv" and self.gradient_checkpointing:
            raise ValueError("route kv needs the prompt's cache, which gradient_checkpointing drops; set one of them otherwise")
        if self.route == "packed" and self.attn_implementation == "flash_attention_2":
            raise ValueError(
                "route packed needs a custom mask, which flash_attention_2 has not; use sdpa, or route kv or plain"
            )
        if self.tuning == "full" and self.lora != LoraSettings():
            raise ValueError("lora is set but tuning is full: remove lora or set tuning: lora")
        return self
