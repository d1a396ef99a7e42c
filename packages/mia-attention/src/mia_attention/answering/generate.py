"""Greedy answers with the log-probs of their tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment import ModelError
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from mia_attention.models.inputs import Encoded


@dataclass(frozen=True)
class Answers:
    """What a batch was answered.

    Attributes:
        tokens: (batch, steps) ids, filled up after each answer's end.
        lengths: (batch,) emitted tokens of each answer, the end-of-sequence token included.
        logps: (batch, steps) float32 log-prob of each token in nats; 0 after an answer's end.
        ends: tokens that end an answer.
    """

    tokens: Tensor
    lengths: Tensor
    logps: Tensor
    ends: tuple[int, ...]

    @property
    def mean_logps(self) -> Tensor:
        """(batch,) mean log-prob of the emitted tokens."""
        return self.logps.sum(1) / self.lengths


class _GreedyLogps(LogitsProcessor):
    """Bars some tokens and notes the log-prob of the token that greedy decoding will take."""

    def __init__(self, barred: Sequence[int], noise: LogitsProcessor | None = None) -> None:
        self._barred = torch.tensor(list(barred), dtype=torch.long)
        self._noise = noise
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        norm = torch.logsumexp(scores.float(), dim=-1)
        if self._barred.device != scores.device:  # once: a GPU would wait for a list at every step
            self._barred = self._barred.to(scores.device)
        scores = scores.index_fill(1, self._barred, -torch.inf)
        self.logps.append(scores.max(dim=-1).values.float() - norm)
        return scores if self._noise is None else self._noise(input_ids, scores)


def generate(
    model: Any,
    encoded: Encoded,
    *,
    max_new_tokens: int,
    barred: Sequence[int],
    ends: Sequence[int],
    pad_token_id: int | None,
    noise: LogitsProcessor | None = None,
) -> Answers:
    """Answer a batch greedily: the likeliest token at every step, whatever the model's own generation settings are.

    Of those settings only token ids are used. All others (sampling, penalties, barred, forced or favoured tokens, lengths,
    limits of time, watermarks, ..) stay out, also those that are not known yet: see `_own_settings_put_away`.

    Args:
        model: a transformers model that can generate.
        encoded: the prompts.
        max_new_tokens: longest answer.
        barred: tokens that an answer must not hold (a visual token would be read as a picture).
        ends: tokens that end an answer, see `mia_augment.prompting.end_tokens`.
        pad_token_id: to fill up shorter answers; the first of `ends` if None.
        noise: changes the scores last, so that answers are drawn; the log-probs are then those of greedy tokens.
    """
    own, recorder = model.generation_config, _GreedyLogps(barred, noise)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        eos_token_id=list(ends) or None,
        pad_token_id=pad_token_id if pad_token_id is not None else next(iter(ends), 0),
        use_cache=True,
        return_dict_in_generate=False,
    )
    with torch.inference_mode(), _own_settings_put_away(model), _heard(model, recorder):
        out = model.generate(**encoded.inputs, generation_config=config, logits_processor=[recorder])
    tokens = out[:, _given(model, encoded) :]
    lengths = answer_lengths(tokens, ends)
    logps = torch.stack(recorder.logps, dim=1)[:, : tokens.shape[1]]
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return Answers(tokens, lengths, torch.where(inside, logps, 0.0), tuple(ends))


def _given(model: Any, encoded: Encoded) -> int:
    """How many tokens come before the new ones in what `generate` returns."""
    if getattr(model.config, "is_encoder_decoder", False):
        return 1  # the one that the decoder begins with
    return encoded.prompt_length if "input_ids" in encoded.inputs else 0


@contextlib.contextmanager
def _heard(model: Any, recorder: LogitsProcessor) -> Iterator[None]:
    """Models whose own `generate` leaves out the logits processors that it is given (Janus) use this one all the same."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = getattr(inner, "_get_logits_processor", None)
    if own is None:
        yield
        return

    def complete(*args: Any, **kwargs: Any) -> Any:
        processors = own(*args, **kwargs)
        if recorder not in processors:
            processors.append(recorder)
        return processors

    inner._get_logits_processor = complete
    try:
        yield
    finally:
        del inner._get_logits_processor


@contextlib.contextmanager
def _own_settings_put_away(model: Any) -> Iterator[None]:
    """Blank generation settings in a model and all of its parts, for as long as the block runs.

    `generate` fills whatever its `generation_config` leaves open from the model's own one, unknown entries included, so naming
    the settings that are not wanted is never enough. Wrappers (PEFT) hand theirs on to the model within, hence all parts.
    """
    holders = [part for part in model.modules() if "generation_config" in vars(part)]
    kept = [(part, part.generation_config) for part in holders]
    try:
        for part in holders:
            part.generation_config = GenerationConfig()
        yield
    finally:
        for part, config in kept:
            part.generation_config = config


def answer_lengths(tokens: Tensor, ends: Sequence[int]) -> Tensor:
    """(batch,) tokens up to and with the first end-of-sequence token of each row of (batch, steps); all of them without one."""
    if not ends:
        return torch.full((tokens.shape[0],), tokens.shape[1], device=tokens.device)
    is_end = torch.isin(tokens, torch.tensor(list(ends), device=tokens.device))
    before = (is_end.cumsum(1) == 0).sum(1)
    return (before + 1).clamp_max(tokens.shape[1])


def check_finite(answers: Answers, ids: Sequence[str]) -> None:
    """Raise ModelError naming the first sample whose log-probs are no numbers."""
    bad = (~torch.isfinite(answers.logps)).any(1).nonzero()[:, 0].tolist()
    if bad:
        raise ModelError(
            f"sample {ids[bad[0]]}: the model's outputs are NaN or infinite; expected finite numbers. "
            "Load the model in bfloat16 or float32, or check its weights; see docs/errors.md#outputs-that-are-no-numbers"
        )
