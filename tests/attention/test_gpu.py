"""On a GPU in bf16: rows captured beside fused attention against eager attention, and outputs untouched."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
import transformers as hf
from mia_attention import (
    PromptPlaces,
    capture_attention,
    capture_rollout,
    heads_scaled,
    images_hidden,
    images_rebalanced,
    read_answers,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

IMAGE, NEW, LAYER = 9, 6, 2
GREEDY: dict[str, Any] = {
    "max_new_tokens": NEW,
    "min_new_tokens": NEW,
    "do_sample": False,
    "pad_token_id": 0,
    "suppress_tokens": [IMAGE],
}
FUSED = [
    "sdpa",
    pytest.param(
        "flash_attention_2",
        marks=pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed"),
    ),
]
ROW, MEAN = 1e-2, 3e-3
"""bf16 keeps 8 bits: largest weights of 0.2 may differ by a few 256ths of that, means over rows by less; a row of another layer
or position differs by 0.1 and more."""
LOGP = 0.1
"""Nats by which log-probs in bf16 may part between two ways to compute the same attention."""


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=112, patch_size=14
        ),
        text_config=hf.LlamaConfig(
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=500,
        ),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    made = hf.LlavaForConditionalGeneration(config)
    for name, weight in made.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            torch.nn.init.normal_(weight, std=0.1)  # attention that is far from even
    return made.to("cuda", torch.bfloat16).eval()


@pytest.fixture(scope="module")
def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Two prompts of two pictures of 64 tokens; the first is padded on the left."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 500, (2, 150), generator=generator)
    ids[:, 10:138] = IMAGE
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    pixels = torch.rand(4, 3, 112, 112, generator=generator)
    return {"input_ids": ids.cuda(), "attention_mask": mask.cuda(), "pixel_values": pixels.to("cuda", torch.bfloat16)}


def eager_rows(model: Any, inputs: dict[str, Any], tokens: torch.Tensor) -> list[torch.Tensor]:
    """Head-mean attention of each layer over prompt and answer, (2, length, length)."""
    answers = torch.ones(2, NEW, dtype=torch.long, device="cuda")
    mask = torch.cat([inputs["attention_mask"], answers], 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    kept = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        whole = {**inputs, "input_ids": tokens, "attention_mask": mask, "position_ids": positions}
        with torch.inference_mode():
            return [layer.float().mean(1) for layer in model(**whole, output_attentions=True).attentions]
    finally:
        model.set_attn_implementation(kept)


@pytest.mark.parametrize("implementation", FUSED)
def test_captured_rows_on_a_gpu_equal_eager_attention(model: Any, inputs: dict[str, Any], implementation: str) -> None:
    model.set_attn_implementation(implementation)
    plain = model.generate(**inputs, **GREEDY)
    with capture_attention(model, [LAYER]) as captured:
        out = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    with capture_rollout(model) as traced:
        again = model.generate(**inputs, **GREEDY)
    assert torch.equal(again, plain)
    assert torch.equal(out.sequences, plain)
    prompt = inputs["input_ids"].shape[1]
    attentions = eager_rows(model, inputs, out.sequences)
    rows = captured.attention(LAYER)
    torch.testing.assert_close(rows, attentions[LAYER][:, prompt:-1, :-1], atol=ROW, rtol=0)
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), atol=1e-3, rtol=0)
    start = torch.zeros(2, traced.length, device="cuda")
    start[:, prompt:] = 1 / (traced.length - prompt)
    expected = start
    for attention in attentions[::-1]:
        expected = 0.5 * expected + 0.5 * (expected[:, None] @ attention[:, :-1, :-1])[:, 0]
    torch.testing.assert_close(traced.rollout(start), expected, atol=MEAN, rtol=0)
    for cache in (None, out.past_key_values):
        reading = read_answers(model, inputs, out.sequences[:, prompt:].tolist(), LAYER, cache=cache)
        torch.testing.assert_close(reading.spread, rows.mean(1)[:, :prompt].cpu(), atol=MEAN, rtol=0)


@pytest.mark.parametrize("implementation", FUSED)
def test_edits_on_a_gpu_equal_those_on_eager_attention(model: Any, inputs: dict[str, Any], implementation: str) -> None:
    """A hidden picture, a weighted one and a scaled head, in one pass; eager attention takes the same edits."""
    places = torch.zeros(2, 2, 150, dtype=torch.bool)
    places[:, 0, 10:74] = places[:, 1, 74:138] = True
    prompts = PromptPlaces(list(places), torch.tensor([150, 150]))
    edits = (
        lambda: images_hidden(model, prompts, [0], layers=[1, 2]),
        lambda: images_rebalanced(model, prompts, {1: 3.0}),
        lambda: heads_scaled(model, [(LAYER, 1)], 3.0),
    )

    def last_logps(kind: str, edit: Any) -> torch.Tensor:
        model.set_attn_implementation(kind)
        with torch.inference_mode(), edit():
            return model(**inputs).logits[:, -1].float().log_softmax(-1)  # type: ignore[no-any-return]

    for edit in edits:
        found, expected = last_logps(implementation, edit), last_logps("eager", edit)
        torch.testing.assert_close(found, expected, atol=LOGP, rtol=0)
