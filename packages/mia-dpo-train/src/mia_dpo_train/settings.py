"""Settings of the trainer. Importing this needs no torch, so that a whole pipeline can be checked before a model loads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from mia_augment import Settings
from pydantic import Field, field_validator, model_validator

from mia_dpo_train.losses import NLL, PREFERENCE_LOSSES, takes

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


class LossTerm(Settings):
    """One of several losses."""

    name: str
    """A name of the table in mia_dpo_train/losses.py."""
    weight: float = Field(default=1.0, ge=0)
    """What its mean over pairs is multiplied by."""

    @field_validator("name")
    @classmethod
    def _in_the_table(cls, name: str) -> str:
        return known_loss(name)


def known_loss(name: str) -> str:
    """The name of a loss; raises ValueError where the table has none of this name."""
    if name not in PREFERENCE_LOSSES:
        raise ValueError(f"expected one of {', '.join(PREFERENCE_LOSSES)}, got {name!r}")
    return name


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

    loss: str | list[LossTerm] = "sigmoid"
    """sigmoid: DPO; ipo: (h - 1/(2 beta))^2; hinge: max(0, 1 - beta h), with h the difference of the log-ratios (ipo:
    of their means over tokens). Equations and others: the table in mia_dpo_train/losses.py. A list is the whole loss, in place
    of `dpo_alpha` and `gamma`: `[{name: sigmoid, weight: 0.8}, {name: bco_pair, weight: 0.2}, {name: sft, weight: 1.0}]`."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the tie to the reference model: the paper's 0.1 suits answers of a paragraph; with answers that differ in
    a word, try 1. The loss flattens where beta times the difference of the log-ratios is above 3 or so."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of pairs whose answers are swapped (sigmoid, robust)."""
    bco_shift: Literal["none", "running"] = "none"
    """What `bco_pair` compares rewards with. none: 0, as TRL 1.16 does; running: the mean reward of all answers in the steps
    before, over all processes (delta of arXiv 2404.04656)."""
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
    offload_activations: bool = False
    """Keep what the backward pass needs in the machine's memory, not the GPU's: for long pairs, where that is what fills it.
    Besides gradient_checkpointing it moves what enters each layer."""
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
    """Share of pairs (by a hash of what their target's picture holds) that are not trained on but measured during training."""
    evaluate_every: int = Field(default=100, ge=1)
    """Optimizer steps between measurements on the held-out pairs; they are measured at the end in any case."""
    trackers: Literal["auto"] | list[Literal["tensorboard", "wandb", "trackio"]] = "auto"
    """Where metrics go besides metrics.jsonl, under the names there (`train/loss`, `held_out/accuracy`, ..); auto: tensorboard
    when it is installed."""

    @field_validator("loss")
    @classmethod
    def _listed_once(cls, loss: str | list[LossTerm]) -> str | list[LossTerm]:
        if isinstance(loss, str):
            if loss == NLL:
                raise ValueError(f"{NLL} alone prefers nothing: write it as a list, [{{name: {NLL}}}]")
            return known_loss(loss)
        names = [term.name for term in loss]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"expected each loss once, got {repeated} {names.count(repeated)} times; add up its weights")
        if not any(term.weight for term in loss):
            raise ValueError("expected a loss with a weight above 0, got none: nothing would be learnt")
        return loss

    @property
    def preference_terms(self) -> dict[str, float]:
        """Weights of the preference losses among each other, by name."""
        if isinstance(self.loss, str):
            return {self.loss: 1.0}
        return {term.name: term.weight for term in self.loss if term.name != NLL}

    @property
    def preference_weight(self) -> float:
        """Weight of all preference losses together."""
        return self.dpo_alpha if isinstance(self.loss, str) else 1.0

    @property
    def nll_weight(self) -> float:
        """Weight of the negative log-likelihood of the chosen answers."""
        if isinstance(self.loss, str):
            return self.gamma
        return sum(term.weight for term in self.loss if term.name == NLL)

    @property
    def contrasts_pictures(self) -> bool:
        """Whether a loss asks for the chosen answer under other pictures."""
        return any(takes(PREFERENCE_LOSSES[name], "policy_other_logps") for name in self.preference_terms)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dpo_alpha == 0 and self.gamma == 0:
            raise ValueError("dpo_alpha and gamma are both 0: nothing would be learnt; set one of them above 0")
        if not isinstance(self.loss, str) and (self.dpo_alpha != 1.0 or self.gamma != 0.1):
            raise ValueError(
                f"dpo_alpha and gamma go with a single loss, got a list: give weights there ({NLL} for gamma), and remove them"
            )
        self._need("label_smoothing", "label_smoothing", self.label_smoothing > 0, "set it to 0")
        self._need("bco_shift", "reward_shift", self.bco_shift != "none", "set it to none")
        if self.route == "kv" and self.gradient_checkpointing:
            raise ValueError("route kv needs the prompt's cache, which gradient_checkpointing drops; set one of them otherwise")
        if self.route == "packed" and self.attn_implementation == "flash_attention_2":
            raise ValueError(
                "route packed needs a custom mask, which flash_attention_2 has not; use sdpa, or route kv or plain"
            )
        if self.tuning == "full" and self.lora != LoraSettings():
            raise ValueError("lora is set but tuning is full: remove lora or set tuning: lora")
        return self

    def _need(self, setting: str, parameter: str, given: bool, otherwise: str) -> None:
        """Raise ValueError where a setting is given of which none of the losses knows."""
        if given and not any(takes(PREFERENCE_LOSSES[name], parameter) for name in self.preference_terms):
            defined = ", ".join(name for name, loss in PREFERENCE_LOSSES.items() if takes(loss, parameter))
            named = ", ".join(self.preference_terms) or NLL
            raise ValueError(f"{setting} is defined for loss {defined} only, got loss {named}; {otherwise}")
