"""A whole pass over prompt and answer on eager attention, with autograd's own gradients: what readings are compared with."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mia_attention.models.inputs import Encoded, encode


class EagerPass(NamedTuple):
    """Of one prompt with its answer."""

    weights: tuple[torch.Tensor, ...]
    """Of each layer, (1, heads, length, length)."""
    gradients: tuple[torch.Tensor, ...]
    """Of the answer's log-prob with respect to these."""
    logps: torch.Tensor
    """Of the answer's tokens."""
    encoded: Encoded
    """The prompt."""


def eager_pass(build: Any, text: str, pictures: list[Any], answer: list[int]) -> EagerPass:
    """Run a rendered prompt with an answer behind it; the model is on its own attention afterwards."""
    model = build.model
    encoded = encode(model, build.processor, [text], [pictures])
    inputs = dict(encoded.inputs)
    for name, fill in (("attention_mask", 1), ("token_type_ids", 0), ("mm_token_type_ids", 0)):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.full((1, len(answer)), fill)], 1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([answer])], 1)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        output = model(**inputs, use_cache=False, output_attentions=True)
        logps = output.logits[0, encoded.prompt_length - 1 : -1].log_softmax(-1)[range(len(answer)), answer]
        gradients = torch.autograd.grad(logps.sum(), output.attentions)
    finally:
        model.set_attn_implementation(before)
    return EagerPass(output.attentions, gradients, logps.detach(), encoded)
