"""Answers under each picture alone against one prompt at a time, and their shares against values worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import respond, under_each_picture
from mia_attention.answering.model_view import encode_prompts
from mia_augment.errors import DataError
from mia_augment.records import Sample
from mia_augment.statistics import shares
from PIL import Image

BARE = "<image>\nwhat is on the left ?"


def plain(tiny: SimpleNamespace, build: Any, path: str, ids: list[int]) -> float:
    """log p(answer | picture), token after token, without padding, batch or cache."""
    inputs = dict(encode_prompts(build.model, build.processor, [BARE], [[tiny.open_image(path)]]).inputs)
    total = 0.0
    for token in ids:
        with torch.no_grad():
            total += float(build.model(**inputs).logits[0, -1].float().log_softmax(-1)[token])
        for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
            if name in inputs:
                added = {"input_ids": token, "attention_mask": 1}.get(name, 0)
                inputs[name] = torch.cat([inputs[name], torch.tensor([[added]])], 1)
    return total


def samples_of(tiny: SimpleNamespace) -> list[Sample]:
    return [
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 2),
        tiny.grid("g"),
        tiny.pic_in_pic("p"),
        tiny.sequence("s2", ["a.png", "b.png"], 0),
    ]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_batches_with_shared_views_equal_one_prompt_at_a_time(tiny: SimpleNamespace, name: str) -> None:
    build = tiny.build(name)
    samples = samples_of(tiny)
    said = [
        list(response.tokens)
        for response in respond(samples, build.model, build.processor, open_image=tiny.open_image, max_new_tokens=4)
    ]
    for size in (1, 3, 8):
        found = under_each_picture(samples, said, build.model, build.processor, open_image=tiny.open_image, batch_size=size)
        for sample, ids, alone in zip(samples, said, found, strict=True):
            expected = [plain(tiny, build, path, ids) for path in sample.source.paths]
            assert alone.summed == pytest.approx(expected, abs=1e-4)
            assert alone.per_token == pytest.approx([logp / len(ids) for logp in expected], abs=1e-4)
            assert alone.per_token_any is not None
            assert alone.per_token_any >= max(logp / len(ids) for logp in expected) - 1e-4


def test_a_given_text_is_the_templates_turn_with_its_end(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    tokenizer = build.processor.tokenizer
    sample = tiny.sequence("s2", ["a.png", "b.png"], 0)
    ids = [*tokenizer("a cat", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    (alone,) = under_each_picture([sample], ["a cat"], build.model, build.processor, open_image=tiny.open_image)
    assert alone.summed == pytest.approx([plain(tiny, build, path, ids) for path in ("a.png", "b.png")], abs=1e-4)


def test_a_view_that_samples_share_is_opened_once(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    opened: list[str] = []

    def open_image(name: str) -> Image.Image:
        opened.append(name)
        picture: Image.Image = tiny.open_image(name)
        return picture

    samples = samples_of(tiny)
    under_each_picture(samples, ["a cat", "two dog", "a cat", "what"], build.model, build.processor, open_image=open_image)
    assert sorted(opened) == ["a.png", "b.png", "c.png"]


def test_a_part_that_cannot_be_opened_costs_itself_alone(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    sample = tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0)
    (whole,) = under_each_picture([sample], ["a cat"], build.model, build.processor, open_image=tiny.open_image)
    (found,) = under_each_picture([sample], ["a cat"], build.model, build.processor, open_image=tiny.open_without("b.png"))
    assert found.summed[1] is None
    assert found.per_token[1] is None
    assert found.summed[::2] == pytest.approx(whole.summed[::2], abs=1e-5)


def test_nothing_said_and_parts_without_a_source_have_no_likelihood(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    sample = tiny.sequence("s2", ["a.png", "b.png"], 0)
    foreign = sample.model_copy(update={"source": sample.source.model_copy(update={"paths": []})})
    found = under_each_picture(
        [sample, sample, foreign], ["", [], "a cat"], build.model, build.processor, open_image=tiny.open_image
    )
    assert [alone.summed for alone in found] == [[None, None]] * 3
    with pytest.raises(DataError, match="a response for each of 1 samples, got 2"):
        under_each_picture([sample], ["a", "b"], build.model, build.processor, open_image=tiny.open_image)


def test_shares_are_the_softmax_of_log_probs() -> None:
    assert shares([math.log(0.3), math.log(0.1)]) == pytest.approx([0.75, 0.25])
    assert shares([-2000.0, -2000.0 - math.log(3)]) == pytest.approx([0.75, 0.25])  # exp(-2000) is 0 in float64
    assert shares([-1.0, -math.inf]) == [1.0, 0.0]
    assert shares([-1.0, None]) is None
    assert shares([-math.inf, -math.inf]) is None
    assert shares([]) is None
