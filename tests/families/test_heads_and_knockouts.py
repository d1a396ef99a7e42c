"""Every type of transformers' table, built tiny: heads are those of eager attention, and a hidden picture can be any picture.

The twelve most used run with every test; all whose attention is read, which takes minutes, with MIA_ALL_FAMILIES=1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from family_builds import build
from family_columns import picture, single
from mia_attention import capture_attention, encode_prompts, head_means, heads_ablated, heads_scaled, knockout
from mia_attention.models.decoder import decoder_layers, head_count, layers_left_out
from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded
from PIL import Image
from test_matrix import ASKED, MARKS, MOST_USED
from tiny_models import Build

ANSWERS = [[30, 31, 32]]
FAINT = ("molmo2",)
"""Types whose tiny build answers alike whatever the picture shows."""
NAMES = [
    *MOST_USED,
    *(
        pytest.param(name, marks=[pytest.mark.slow, ASKED])
        for name in MARKS
        if name not in MOST_USED and MARKS[name]["attention"]
    ),
]


def asked(made: Build, pictures: list[Image.Image]) -> Encoded:
    prompt = "<image>" * len(pictures) + "what is in image ?"
    return encode_prompts(made.model, made.processor, [prompt], [pictures])


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(9).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def pictures_of(name: str) -> list[Image.Image]:
    return [picture("a.png")] if single(name) else [picture("b.png"), picture("a.png")]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_each_head_is_eager_attentions(name: str) -> None:
    made = build(name)
    encoded = asked(made, pictures_of(name))
    layers = decoder_layers(made.model)
    with capture_attention(made.model, list(layers), rows="all", heads=True) as captured:
        made.model(**encoded.inputs)
    kept = made.model.config._attn_implementation
    made.model.set_attn_implementation("eager")
    try:
        out = made.model(**encoded.inputs, output_attentions=True)
        inner = out if hasattr(out, "attentions") else out.language_model_outputs  # BLIP's
        weights = [each for each in inner.attentions if each is not None]
    finally:
        made.model.set_attn_implementation(kept)
    for place, layer in enumerate(layers):
        rows = captured.heads(layer)[0]
        expected = weights[layer if len(weights) > max(layers) else place][0].float().transpose(0, 1)
        assert rows.shape[1] == head_count(layers[layer])
        torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-3)  # eager and SDPA round the layers below otherwise


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_hidden_picture_can_be_any_picture_or_it_is_told_what_carries_it_on(name: str, caplog: Any) -> None:
    """Layers without attention (linear attention, convolutions) carry pictures past every mask, and a warning says so."""
    made = build(name)
    if adapter_of(made.model) is not None:
        pytest.skip("its attention is its own code, which is read but not changed")
    *before, hidden = pictures_of(name)
    logps: dict[str, list[float]] = {"hidden": [], "seen": []}
    for shown in (hidden, noise(hidden.size)):
        [found] = knockout(made.model, asked(made, [*before, shown]), ANSWERS, images=[len(before)])
        logps["seen"].append(found.logp)
        logps["hidden"].append(found.logp - found.loss[len(before)])
    one, other = logps["hidden"]
    assert name in FAINT or abs(logps["seen"][0] - logps["seen"][1]) > 1e-5, (
        f"the picture tells nothing even where it is seen: {logps}"
    )
    if any("no attention" in told for told in layers_left_out(made.model)):
        assert "has layers without attention" in caplog.text
        assert abs(one - other) > 1e-5
    else:
        assert "without attention" not in caplog.text
        assert one == pytest.approx(other, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_heads_are_scaled_and_ablated(name: str) -> None:
    """Factor 1 and heads at their own output change nothing; 0 and the mean do."""
    made = build(name)
    if adapter_of(made.model) is not None:
        pytest.skip("its attention is its own code, which is read but not changed")
    encoded = asked(made, pictures_of(name))
    layer = max(decoder_layers(made.model))

    def logits(within: Any) -> torch.Tensor:
        with within:
            return made.model(**encoded.inputs).logits[0, -1].float()  # type: ignore[no-any-return]

    plain = logits(heads_scaled(made.model, [(layer, 0)], 1.0))
    torch.testing.assert_close(plain, made.model(**encoded.inputs).logits[0, -1].float(), atol=1e-6, rtol=0)
    means = head_means(made.model, encoded.inputs, [layer])
    assert (logits(heads_scaled(made.model, [(layer, 0)], 0.0)) - plain).abs().max() > 1e-7
    assert (logits(heads_ablated(made.model, [(layer, 0)], means)) - plain).abs().max() > 1e-7
