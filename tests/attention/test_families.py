"""Every family: captured rows against eager `output_attentions`, and box coverage against what perturbed pixels change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import BoxCoverage, capture_attention
from mia_attention.models.decoder import decoder_layers
from mia_attention.models.inputs import encode
from PIL import Image

FAMILIES = [
    "llava",
    "llava_pad",
    "llava_next",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
    "idefics3",
    "smolvlm",
    "gemma3",
    "mistral3",
]
NEW = 5


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny: SimpleNamespace) -> Any:
    return tiny.build(request.param)


def batch(tiny: SimpleNamespace, family: Any) -> Any:
    """Two prompts of one and two images: the shorter is padded on the left."""
    a, b, c = tiny.picture(100, 60, 1), tiny.picture(70, 130, 2), tiny.picture(64, 64, 3)
    texts = [f"user : {family.tag} what is in image ?", f"user : a {family.tag} b {family.tag} what ?"]
    encoded = encode(family.model, family.processor, texts, [[a], [b, c]])
    assert encoded.inputs["attention_mask"].min() == 0
    return encoded


def eager_rows(model: Any, encoded: Any, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and head-mean rows of the generated tokens from `output_attentions`, keys at their positions."""
    model.set_attn_implementation("eager")
    try:
        out = model.generate(**encoded.inputs, **GREEDY, output_attentions=True, return_dict_in_generate=True)
    finally:
        model.set_attn_implementation("sdpa")
    length = encoded.prompt_length + NEW - 1
    rows = []
    for step, attentions in enumerate(out.attentions[1:], 1):
        row = attentions[layer].float().mean(1)
        seen = encoded.prompt_length + step
        rows.append(torch.nn.functional.pad(row, (seen - row.shape[-1], length - seen)))
    return out.sequences, torch.cat(rows, 1)


GREEDY: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}


def test_captured_rows_equal_eager_attention_and_outputs_are_untouched(family: Any, tiny: SimpleNamespace) -> None:
    encoded = batch(tiny, family)
    layers = list(decoder_layers(family.model))
    plain = family.model.generate(**encoded.inputs, **GREEDY)
    with capture_attention(family.model, layers) as captured:
        probed = family.model.generate(**encoded.inputs, **GREEDY)
    assert torch.equal(plain, probed)
    for layer in layers:
        tokens, expected = eager_rows(family.model, encoded, layer)
        assert torch.equal(tokens, plain)
        assert (captured.attention(layer) - expected).abs().max() < 1e-6


def zero_vision_attention(model: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Stop the vision tower from mixing its patches; returns what to put back."""
    decoder = set(map(id, decoder_layers(model).values()))
    kept = []
    for module in model.modules():
        if not type(module).__name__.endswith("Attention") or id(module) in decoder:
            continue
        for name in ("out_proj", "proj", "o_proj", "projection_layer"):
            for parameter in getattr(module, name, torch.nn.Identity()).parameters():
                kept.append((parameter, parameter.detach().clone()))
                parameter.data.zero_()
    assert kept
    return kept


def visual_embeddings(family: Any, images: list[Image.Image], index: int) -> torch.Tensor:
    """What the language model gets as the visual tokens of one image, (tokens, width)."""
    encoded = encode(family.model, family.processor, [f"user : {family.tag * len(images)} what ?"], [images])
    seen: list[torch.Tensor] = []
    first = next(iter(decoder_layers(family.model).values()))
    hook = first.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True)
    with torch.no_grad():
        family.model(**encoded.inputs)
    hook.remove()
    return seen[0][0, encoded.image_tokens[0][index]]


@pytest.mark.parametrize("several", [False, True], ids=["one image", "two images"])
def test_tokens_that_see_the_box_are_those_its_pixels_change(family: Any, tiny: SimpleNamespace, several: bool) -> None:
    size, box = (150, 90), (80, 50, 110, 80)
    black = Image.new("RGB", size)
    painted = black.copy()
    painted.paste((255, 120, 200), box)
    before = [tiny.picture(64, 100, 3)] if several else []
    kept = zero_vision_attention(family.model)
    try:
        one = visual_embeddings(family, [*before, black], len(before))
        two = visual_embeddings(family, [*before, painted], len(before))
    finally:
        for parameter, value in kept:
            parameter.data.copy_(value)
    changed = (one - two).abs().amax(-1) > 1e-6
    weights = BoxCoverage(family.model, family.processor)(size, box, tokens=len(one), several=several)
    assert torch.equal(weights > 0, changed)
    assert 0 < changed.sum() < len(changed)
