"""The readout `consistency`: how many of several sampled answers say what the greedy one says. Needs no ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mia_augment import Attention, Sample, same_answer, seed_from
from torch import Tensor
from transformers import LogitsProcessor

from mia_attention.answering.batches import run_in_order
from mia_attention.answering.model_view import encode_prompts, open_view
from mia_attention.answering.responses import answer, responses_of
from mia_attention.models.inputs import Encoded
from mia_attention.readouts import AnsweredBatch


class GumbelNoise(LogitsProcessor):
    """Makes greedy decoding draw from softmax(scores / temperature): the largest of scores / temperature + Gumbel noise.

    The Gumbel-max trick (Gumbel, 1954; Maddison et al., 2014). Each row has a generator of its own, so that what is drawn
    depends neither on the batch nor on its order.
    """

    def __init__(self, seeds: Sequence[int], temperature: float = 1.0) -> None:
        """`seeds`: one for each row."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[1], generator=each) for each in self._generators])
        noise = -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()
        return scores.float() / self._temperature + noise.to(scores.device)


def consistencies(batch: AnsweredBatch) -> list[Attention]:
    """Of each answer, the share of `settings.draws` sampled ones that say the same after normalising.

    What is drawn depends on the settings' seed and the sample's id alone. Samples whose pictures cannot be opened fail, as in
    scoring: they were opened when they were answered.
    """
    settings = batch.settings
    words = [_text(ids, batch.processor) for ids in batch.answers]
    agreeing = [0] * len(batch.samples)
    for draw in range(settings.draws):
        for index, text in enumerate(_drawn(batch, draw)):
            agreeing[index] += same_answer(text, words[index])
    return [_attention(count / settings.draws if said else None) for count, said in zip(agreeing, words, strict=True)]


def _attention(share: float | None) -> Attention:
    reason = None if share is not None else "nothing was said"
    return Attention(layer="consistency", rows="generated", region_mass=[], image_mass=[], ratio=share, reason=reason)


def _text(ids: Sequence[int], processor: Any) -> str:
    text: str = processor.tokenizer.decode(list(ids), skip_special_tokens=True)
    return text.strip()


def _drawn(batch: AnsweredBatch, draw: int) -> list[str]:
    """One sampled answer to each sample."""
    settings, model, processor = batch.settings, batch.model, batch.processor

    def prepare(samples: Sequence[Sample]) -> tuple[Encoded, list[Sample]]:
        views = [open_view(sample, batch.open_image, settings) for sample in samples]
        return encode_prompts(model, processor, [sample.prompt for sample in samples], views), list(samples)

    def run(prepared: tuple[Encoded, list[Sample]]) -> list[str]:
        encoded, samples = prepared
        seeds = [seed_from("consistency", settings.seed, sample.id, draw) for sample in samples]
        noise = GumbelNoise([seed % 2**63 for seed in seeds], settings.temperature)
        answers = answer(model, processor, encoded, [sample.id for sample in samples], settings.max_new_tokens, noise)
        return [response.text for response in responses_of(answers, processor)]

    return list(run_in_order(batch.samples, settings.batch_size, prepare, run, lambda sample: sample))
