"""Gradient x attention: equal to what eager attention and plain autograd give, one sequence at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from eager_passes import eager_pass
from mia_attention import ScoreSettings, read_answers, score
from mia_attention.models.inputs import encode
from mia_augment.errors import ModelError

FAMILIES = ["llava", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "gemma3", "mistral3"]
ANSWERS = [[30, 31, 32, 33], [34, 35]]


def prompts(tiny: SimpleNamespace, name: str) -> tuple[Any, list[tuple[str, list[Any]]]]:
    build = tiny.build(name)
    a, b, c = tiny.picture(100, 60, 1), tiny.picture(70, 130, 2), tiny.picture(64, 64, 3)
    return build, [
        (f"user : {build.tag} what is in image ?", [a]),
        (f"user : a {build.tag} b {build.tag} what ?", [b, c]),
    ]


def by_autograd(build: Any, text: str, pictures: list[Any], answer: list[int], rows: str) -> torch.Tensor:
    """relu(A dL/dA) of eager attention with autograd's own gradient of A, mean over rows, as a share; (prompt length,)."""
    found = eager_pass(build, text, pictures, answer)
    length = found.encoded.prompt_length
    first = length - (rows == "predicting")
    total = torch.zeros(length + len(answer))
    for weights, gradient in zip(found.weights, found.gradients, strict=True):
        total += (weights * gradient).clamp_min(0)[0, :, first : length + len(answer) - 1].sum((0, 1)).detach()
    return (total / total.sum())[:length]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rows", ["generated", "predicting"])
def test_equals_eager_attention_with_autograd(tiny: SimpleNamespace, name: str, rows: Any) -> None:
    build, asked = prompts(tiny, name)
    expected = [
        by_autograd(build, text, pictures, answer, rows) for (text, pictures), answer in zip(asked, ANSWERS, strict=True)
    ]
    inputs = encode(build.model, build.processor, [text for text, _ in asked], [pictures for _, pictures in asked]).inputs
    found = read_answers(build.model, inputs, ANSWERS, "gradient", rows=rows)
    assert found.way == "forward_and_back"
    for row, wanted in zip(found.spread, expected, strict=True):
        torch.testing.assert_close(row[len(row) - len(wanted) :], wanted, atol=1e-5, rtol=0)
        assert not row[: len(row) - len(wanted)].any()


def test_leaves_the_model_as_it_was(tiny: SimpleNamespace) -> None:
    build, asked = prompts(tiny, "llava")
    parameters = list(build.model.parameters())
    parameters[3].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in parameters]
    inputs = encode(build.model, build.processor, [asked[0][0]], [asked[0][1]]).inputs
    try:
        read_answers(build.model, inputs, ANSWERS[:1], "gradient")
        twice = {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
        with pytest.raises(ValueError, match="features"):  # more pictures than places: the pass fails
            read_answers(build.model, twice, ANSWERS[:1], "gradient")
        assert [parameter.requires_grad for parameter in parameters] == flags
        assert all(parameter.grad is None for parameter in parameters)
    finally:
        parameters[3].requires_grad_(True)


def test_scores_whole_samples_like_each_alone(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = [tiny.sequence("a", ["a.png", "b.png"], 1), tiny.sequence("b", ["c.png", "a.png", "b.png"], 0), tiny.grid("g")]
    settings = ScoreSettings(layer="gradient", rows="predicting", max_new_tokens=4, disturb=False)
    together = list(score(samples, build.model, build.processor, settings, open_image=tiny.open_image))
    alone = [next(score([sample], build.model, build.processor, settings, open_image=tiny.open_image)) for sample in samples]
    for one, other in zip(together, alone, strict=True):
        assert one.response == other.response
        assert one.attention.layer == "gradient"
        assert one.attention.ratio == pytest.approx(other.attention.ratio, abs=1e-5)
        assert 0 < sum(one.attention.image_mass) <= 1 + 1e-6


def test_rows_of_the_question_depend_on_the_answer(tiny: SimpleNamespace) -> None:
    build, asked = prompts(tiny, "llava")
    inputs = encode(build.model, build.processor, [asked[1][0]], [asked[1][1]]).inputs
    length = inputs["input_ids"].shape[1]
    more: dict[str, Any] = {"rows": "question", "question": [(length - 3, length - 1)], "prompts": [0, 0]}
    found = read_answers(build.model, inputs, [[30, 31], [40, 41]], "gradient", **more).spread
    assert (found[0] - found[1]).abs().max() > 1e-3
    torch.testing.assert_close(found.sum(1), torch.ones(2), atol=1e-5, rtol=0)


def test_is_not_mixed_with_layers(tiny: SimpleNamespace) -> None:
    from mia_attention.capture.readers import reader_for

    with pytest.raises(ModelError, match="gradient"):
        reader_for(tiny.build("llava").model, ["gradient", 1], value_weighted=False)
