"""The ways in which prompts are answered and attention is read: transformers alone, ours beside it, and given answers."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from clock import free, measure
from mia_attention import capture_attention
from mia_attention.answering.likelihood import in_one_pass
from mia_augment import is_out_of_memory
from shapes import Shape, prompts, words
from transformers import GenerationConfig

SCORING_WAYS = ["generate", "captured", "one_pass", "eager"]


def score_way(shape: Shape, model: Any, way: str, images: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Samples per second at the batch size that is best, and its peak memory.

    generate: greedy answers and nothing else. captured: with one layer's attention read beside it. one_pass: answers that a
    server gave, log-probs and attention from one pass. eager: `output_attentions=True`, one sample at a time.
    """
    best: dict[str, Any] = {}
    for batch in [1] if way == "eager" else arguments.batches:
        free(arguments.device)
        try:
            found = _at(shape, model, way, images, batch, arguments)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        best = max(best, found, key=lambda figure: figure.get("per_second", 0.0))
    return best or {"left_out": "out of memory with one sample"}


def _at(shape: Shape, model: Any, way: str, images: int, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    inputs = prompts(shape, model, images, batch)
    seconds, peaks = zip(
        *(
            measure(lambda: answer(way, model, inputs, arguments.tokens), arguments.device)
            for _ in range(arguments.repeats + 1)
        ),
        strict=True,
    )
    return {"per_second": batch / statistics.median(seconds[1:]), "peak_gib": peaks[-1], "batch": batch}  # the first warms up


def answer(way: str, model: Any, inputs: dict[str, torch.Tensor], tokens: int) -> torch.Tensor | None:
    """Answer; the mean attention of the answer's rows in the middle layer, (batch, prompt), where the way reads it."""
    layer, (batch, prompt) = model.config.get_text_config().num_hidden_layers // 2, inputs["input_ids"].shape
    eager = way == "eager"
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0, eos_token_id=2,
        output_attentions=eager, return_dict_in_generate=eager,
    )  # fmt: skip
    with torch.inference_mode():
        if way == "generate":
            model.generate(**inputs, generation_config=greedy)
            return None
        if way == "one_pass":
            generator = torch.Generator().manual_seed(0)
            with capture_attention(model, [layer], rows=(prompt - 4, None)) as captured:
                in_one_pass(model, inputs, [words(tokens, generator) for _ in range(batch)])
            return captured.attention(layer)[..., :prompt].mean(1)
        if way == "captured":
            with capture_attention(model, [layer]) as captured:
                model.generate(**inputs, generation_config=greedy)
            return captured.attention(layer)[..., :prompt].mean(1)
        model.set_attn_implementation("eager")
        try:
            steps = model.generate(**inputs, generation_config=greedy).attentions[1:]
        finally:
            model.set_attn_implementation("sdpa")
        return torch.stack([step[layer][..., :prompt].float().mean(1)[:, 0] for step in steps]).mean(0)
