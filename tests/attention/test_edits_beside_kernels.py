"""Hiding, weighting and scaling beside a flash kernel and in bfloat16: edited layers leave the kernel, the numbers stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flash_stand_in import flash_stand_in
from mia_attention import (
    Encoded,
    capture_attention,
    delimiters_scaled,
    encode_prompts,
    head_means,
    heads_ablated,
    heads_scaled,
    images_blocked,
    images_hidden,
    images_rebalanced,
    knockout,
)
from mia_attention.models.decoder import decoder_layers

PROMPTS = ["Image1:<image>\nImage2:<image>\nIn Image2 , what is on the left ?", "Image1:<image>\nImage2:<image>\nwhat ?"]
ANSWERS = [[30, 31, 32], [33, 34]]
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
LOSS = 0.15
"""Nats by which a knockout in bfloat16 may differ from one in float32, as the answer's log-prob does."""


def encoded_of(build: Any, tiny: SimpleNamespace) -> Encoded:
    pictures = [[tiny.picture(60, 60, 2 * row + side) for side in (1, 2)] for row in (0, 1)]
    return encode_prompts(build.model, build.processor, PROMPTS, pictures)


def text_config_of(model: Any) -> Any:
    return decoder_layers(model)[0].config


def test_a_hidden_picture_is_computed_by_sdpa(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    expected = knockout(build.model, encoded, ANSWERS, layers=[1, 2])
    with flash_stand_in(text_config_of(build.model)) as called:
        found = knockout(build.model, encoded, ANSWERS, layers=[1, 2])
    for one, other in zip(found, expected, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-4)
        assert one.loss == pytest.approx(other.loss, abs=1e-4)
    assert called == [0, 1, 2, 3, 0, 3, 0, 3]


EDITS: list[tuple[str, Callable[[Any, Encoded, Any], Any], set[int]]] = [
    ("hidden", lambda model, encoded, _: images_hidden(model, encoded, [0], layers=[1, 2]), {0, 3}),
    ("blocked", lambda model, encoded, _: images_blocked(model, encoded, layers=[1]), {0, 1, 2, 3}),
    ("weighted", lambda model, encoded, _: images_rebalanced(model, encoded, {1: 3.0}, heads=[(2, 1)]), {0, 1, 3}),
    ("scaled", lambda model, encoded, _: heads_scaled(model, [(1, 2)], 2.5), {0, 1, 2, 3}),
    ("ablated", lambda model, encoded, means: heads_ablated(model, [(1, 2)], means), {0, 1, 2, 3}),
    ("delimiters", lambda model, encoded, _: delimiters_scaled(model, encoded, layers=[0]), {0, 1, 2, 3}),
]


@torch.no_grad()
@pytest.mark.parametrize(("edit", "kernel_layers"), [each[1:] for each in EDITS], ids=[each[0] for each in EDITS])
def test_generating_beside_the_kernel_equals_sdpa(
    tiny: SimpleNamespace, edit: Callable[[Any, Encoded, Any], Any], kernel_layers: set[int]
) -> None:
    """Log-probs of each step and rows of every head; no row of an answer is `blocked`, so that its steps run on the kernel."""
    build = tiny.build("llava", strong=True)
    encoded = encoded_of(build, tiny)
    means = head_means(build.model, encoded.inputs, [1])

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        with edit(build.model, encoded, means), capture_attention(build.model, [2], heads=True) as captured:
            out = build.model.generate(**encoded.inputs, **GREEDY, output_logits=True, return_dict_in_generate=True)
        return torch.stack(out.logits, dim=1).log_softmax(-1), captured.heads(2)

    expected, rows = run()
    plain = build.model.generate(**encoded.inputs, **GREEDY, output_logits=True, return_dict_in_generate=True)
    with flash_stand_in(text_config_of(build.model)) as called:
        found, beside = run()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(beside, rows, atol=1e-5, rtol=0)
    assert set(called) == kernel_layers
    assert (found[:, 0] - plain.logits[0].log_softmax(-1)).abs().max() > 1e-4


@torch.no_grad()
def test_a_knockout_in_bfloat16_is_that_of_float32_within_what_rounding_leaves(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    exact = knockout(build.model, encoded, ANSWERS)
    half = copy.deepcopy(build.model).to(torch.bfloat16)
    rounded = {name: value.bfloat16() if value.is_floating_point() else value for name, value in encoded.inputs.items()}
    inputs = copy.copy(encoded)
    object.__setattr__(inputs, "inputs", rounded)
    for one, other in zip(knockout(half, inputs, ANSWERS), exact, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=LOSS)
        assert one.loss == pytest.approx(other.loss, abs=LOSS)
    hidden = images_hidden(half, inputs, [0])
    with hidden, capture_attention(half, [1], rows="all", heads=True) as captured:
        half(**inputs.inputs)
    first = encoded.image_tokens[0][0]
    assert float(captured.heads(1)[0, -1][:, first].abs().max()) == 0.0
