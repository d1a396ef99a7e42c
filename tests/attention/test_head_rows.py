"""Attention of single heads equals eager attention's, and its memory is said beforehand."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import capture_attention, capture_bytes
from mia_augment.errors import ModelError

GREEDY: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}


def inputs_of(build: Any, tiny: SimpleNamespace) -> dict[str, Any]:
    text = f"user : {build.tag} {build.tag} what is in image ?"
    pictures = [tiny.picture(60, 60, 1), tiny.picture(60, 60, 2)]
    return dict(build.processor(images=[pictures], text=[text], return_tensors="pt"))


@torch.no_grad()
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "internvl"])  # all with half as many key heads as heads
def test_heads_of_several_layers_equal_eager_attention(tiny: SimpleNamespace, name: str) -> None:
    build = tiny.build(name)
    inputs = inputs_of(build, tiny)
    with capture_attention(build.model, [1, 3], heads=True) as captured:
        tokens = build.model.generate(**inputs, **GREEDY)
    prompt = inputs["input_ids"].shape[1]
    build.model.set_attn_implementation("eager")
    eager = build.model.generate(**inputs, **GREEDY, output_attentions=True, return_dict_in_generate=True)
    build.model.set_attn_implementation("sdpa")
    assert eager.sequences.tolist() == tokens.tolist()
    for layer in (1, 3):
        found = captured.heads(layer)
        assert found.shape == (1, 3, 4, prompt + 3)
        for row, step in enumerate(eager.attentions[1:]):
            torch.testing.assert_close(found[:, row, :, : prompt + row + 1], step[layer][:, :, 0], atol=1e-6, rtol=0)
        torch.testing.assert_close(captured.attention(layer), found.mean(2), atol=0, rtol=0)


@torch.no_grad()
def test_heads_in_bfloat16_equal_eager_within_what_its_rounding_leaves(tiny: SimpleNamespace) -> None:
    """On weights this large SDPA and eager attention in bfloat16 part by 0.03 at most, and by less than 0.001 in the mean."""
    build = tiny.build("llava", strong=True)
    inputs = inputs_of(build, tiny)
    with capture_attention(build.model, [2], rows="all", heads=True) as exact:
        build.model(**inputs)
    half = copy.deepcopy(build.model).to(torch.bfloat16)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with capture_attention(half, [2], rows="all", heads=True) as captured:
        half(**inputs)
    half.set_attn_implementation("eager")
    eager = half(**inputs, output_attentions=True).attentions[2]
    found = captured.heads(2).transpose(1, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, eager.float(), atol=5e-2, rtol=0)
    assert float((found - eager).abs().mean()) < 1e-3
    assert float((captured.heads(2) - exact.heads(2)).abs().mean()) < 5e-3


@torch.no_grad()
def test_memory_is_what_was_said_beforehand(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    inputs = inputs_of(build, tiny)
    with capture_attention(build.model, [0, 2], rows=(5, 9), heads=True) as captured:
        build.model(**inputs)
    keys = inputs["input_ids"].shape[1]
    held = sum(captured.heads(layer).nbytes for layer in (0, 2))
    assert capture_bytes(build.model, [0, 2], rows=4, keys=keys, heads=True) == held
    assert capture_bytes(build.model, [0, 2], rows=4, keys=keys, batch=2) == held / 4 * 2
    with pytest.raises(ModelError, match="layer 7"):
        capture_bytes(build.model, [7], rows=1, keys=1)


@torch.no_grad()
def test_heads_that_were_not_captured_are_an_error(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    with capture_attention(build.model, [0], rows="all") as captured:
        build.model(**inputs_of(build, tiny))
    with pytest.raises(ModelError, match="heads=True"):
        captured.heads(0)
    with pytest.raises(ModelError, match="layer 1 was not captured"):
        captured.heads(1)


@torch.no_grad()
def test_value_weighted_heads_sum_to_one(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    inputs = inputs_of(build, tiny)
    with capture_attention(build.model, [0], rows="all", heads=True) as plain:
        build.model(**inputs)
    values: list[torch.Tensor] = []
    module: Any = build.model.model.language_model.layers[0].self_attn
    hook = module.v_proj.register_forward_hook(lambda _, __, out: values.append(out))
    with capture_attention(build.model, [0], rows="all", heads=True, value_weighted=True) as captured:
        build.model(**inputs)
    hook.remove()
    keys = inputs["input_ids"].shape[1]
    lengths = values[0].view(1, keys, 2, -1).norm(dim=-1).transpose(1, 2).repeat_interleave(2, 1)
    weighted = plain.heads(0) * lengths[:, None]
    torch.testing.assert_close(captured.heads(0), weighted / weighted.sum(-1, keepdim=True), atol=1e-6, rtol=0)
