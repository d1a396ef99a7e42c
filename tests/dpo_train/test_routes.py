"""Packed and cached computation against two plain sequences, for every family."""

from __future__ import annotations

import pytest
import torch
from mia_dpo_train.encode import PairEncoder, collate
from mia_dpo_train.families import model_facts
from mia_dpo_train.routes import kv_logps, packed_logps, plain_logps

FAMILIES = [
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "smolvlm", "gemma3",
    "mistral3",
]  # fmt: skip


def one_sequence_logp(model, encoded, response):
    """Independent computation: one answer, no padding, no batch, full logits."""
    tokens = torch.cat([encoded.prompt, response])[None]
    keywords = dict(encoded.vision)
    if encoded.types is not None:
        name = "mm_token_type_ids" if hasattr(model.model, "get_rope_index") else "token_type_ids"
        keywords[name] = torch.cat([encoded.types, torch.zeros_like(response)])[None]
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **keywords).logits[0]
    start = len(encoded.prompt)
    logps = torch.log_softmax(logits[start - 1 : -1].double(), -1)
    return logps.gather(1, response[:, None]).sum()


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probs_agree_with_each_answer_alone(name, build, pairs, open_picture):
    model, processor = build(name)
    encoded = [PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]]
    facts = model_facts(model)
    batch = collate(encoded)
    with torch.no_grad():
        expected = torch.stack(
            [
                torch.stack([one_sequence_logp(model, e, r) for e in encoded for r in [getattr(e, side)]])
                for side in ("chosen", "rejected")
            ]
        ).float()
        for route in (plain_logps, packed_logps, kv_logps):
            difference = (route(model, facts, batch) - expected).abs().max()
            assert difference < 2e-5, f"{route.__name__}: {difference}"
