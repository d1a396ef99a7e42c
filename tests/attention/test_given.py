"""Answers read again: every way gives what was captured while the model answered, and the cheapest right one is taken."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import ScoreSettings, attend, capture_attention, read_answers
from mia_attention.models.inputs import encode
from mia_augment import image_token_id
from mia_augment.errors import DataError, ModelError
from transformers import StaticCache

FAMILIES = ["llava", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "gemma3", "mistral3"]
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
OTHERS = [[30, 31, 32], [33], [34, 35, 36, 37, 38, 39]]


def answered(tiny: SimpleNamespace, name: str, layers: list[int]) -> SimpleNamespace:
    """Two prompts of one and two images, padded on the left, with answers and the rows captured while they were made."""
    build = tiny.build(name)
    a, b, c = tiny.picture(100, 60, 1), tiny.picture(70, 130, 2), tiny.picture(64, 64, 3)
    texts = [f"user : {build.tag} what is in image ?", f"user : a {build.tag} b {build.tag} what ?"]
    encoded = encode(build.model, build.processor, texts, [[a], [b, c]])
    barred = [image_token_id(build.model)]
    with capture_attention(build.model, layers, rows="predicting") as captured:
        out = build.model.generate(**encoded.inputs, **GREEDY, suppress_tokens=barred, return_dict_in_generate=True)
    length = encoded.prompt_length
    rows = captured.attention()[:, :, :length]
    return SimpleNamespace(
        model=build.model,
        inputs=encoded.inputs,
        answers=out.sequences[:, length:].tolist(),
        cache=out.past_key_values,
        expected={"predicting": rows.mean(1), "generated": rows[:, 1:].mean(1)},
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rows", ["generated", "predicting"])
def test_every_way_gives_what_was_captured_while_answering(tiny: SimpleNamespace, name: str, rows: Any) -> None:
    done = answered(tiny, name, [1])
    arguments: tuple[Any, ...] = (done.model, done.inputs)
    alone = read_answers(*arguments, done.answers, 1, rows=rows)
    after = read_answers(*arguments, done.answers, 1, rows=rows, cache=done.cache)
    again = read_answers(*arguments, done.answers, 1, rows=rows, cache=done.cache)  # the cache is as it was
    several = [*OTHERS, done.answers[1], done.answers[0]]
    shared = read_answers(*arguments, several, 1, rows=rows, prompts=[1, 0, 1, 1, 0])
    assert alone.way == "one_pass"
    assert shared.way == "shared_prompt"
    if name == "gemma3":
        assert after.way == "one_pass"
        assert "sliding window and has dropped" in after.reason
    else:
        assert after.way == "generate_cache"
    for spread in (alone.spread, after.spread, again.spread, shared.spread[[4, 3]]):
        torch.testing.assert_close(spread, done.expected[rows], atol=2e-6, rtol=0)
    for index, (owner, answer) in enumerate(zip([1, 0, 1], OTHERS, strict=True)):
        both = [answer, answer]
        torch.testing.assert_close(
            shared.spread[index], read_answers(*arguments, both, 1, rows=rows).spread[owner], atol=2e-6, rtol=0
        )


@pytest.mark.parametrize(
    ("rows", "readout"), [("generated", "rollout"), ("question", 2), ("question", "rollout"), ("predicting", [0, 2])]
)
def test_several_answers_to_a_prompt_are_read_like_each_alone(tiny: SimpleNamespace, rows: Any, readout: Any) -> None:
    done = answered(tiny, "llava", [2])
    length = done.inputs["input_ids"].shape[1]
    more: dict[str, Any] = {"rows": rows, "question": [(length - 4, length - 1), (length - 2, length)], "value_weighted": True}
    together = read_answers(done.model, done.inputs, OTHERS, readout, prompts=[1, 1, 0], **more)
    expected_way = "prompt_alone" if rows == "question" else "one_pass" if readout == "rollout" else "shared_prompt"
    assert together.way == expected_way
    for index, (owner, answer) in enumerate(zip([1, 1, 0], OTHERS, strict=True)):
        alone = read_answers(done.model, done.inputs, [answer, answer], readout, **more)
        torch.testing.assert_close(together.spread[index], alone.spread[owner], atol=2e-6, rtol=0)


def test_fewest_tokens_are_run(tiny: SimpleNamespace) -> None:
    done = answered(tiny, "llava", [1])
    run: list[tuple[int, int]] = []
    layer = done.model.model.language_model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, args: run.append(tuple(args[0].shape[:2])))
    pictures: list[int] = []
    tower = done.model.model.vision_tower.register_forward_pre_hook(lambda *_: pictures.append(1))
    length = done.inputs["input_ids"].shape[1]
    try:
        read_answers(done.model, done.inputs, done.answers, 1, cache=done.cache)
        assert (run, pictures) == ([(2, 5)], [])
        run.clear()
        read_answers(done.model, done.inputs, OTHERS, 1, prompts=[0, 0, 1])
        assert (run, pictures) == ([(2, length), (3, 6)], [1])
    finally:
        hook.remove()
        tower.remove()


def test_a_cache_of_something_else_is_not_used(tiny: SimpleNamespace) -> None:
    done = answered(tiny, "llava", [1])
    fixed = StaticCache(done.model.config.get_text_config(), max_cache_len=200)
    reading = read_answers(done.model, done.inputs, done.answers, 1, cache=fixed)
    assert (reading.way, "StaticLayer, expected one that grows" in reading.reason) == ("one_pass", True)
    one = {name: value[:1] for name, value in done.inputs.items()}
    assert "does not hold 1 prompts" in read_answers(done.model, one, done.answers[:1], 1, cache=done.cache).reason


def test_attend_reads_each_prompt_once_and_says_so(tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    build = tiny.build("qwen2_5_vl")
    two, three = tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0)
    samples, texts = [two, three, two, two], ["a cat", "dog", "the dog .", "b"]
    settings = ScoreSettings(batch_size=4, disturb=False)
    with caplog.at_level(logging.INFO):
        together = list(attend(samples, texts, build.model, build.processor, settings, open_image=tiny.open_image))
    assert "by shared_prompt: 4 answers to 2 prompts: each prompt is run once" in caplog.text
    single = settings.model_copy(update={"batch_size": 1})
    for one, two in zip(
        together, attend(samples, texts, build.model, build.processor, single, open_image=tiny.open_image), strict=True
    ):
        assert one.image_mass == pytest.approx(two.image_mass, abs=2e-6)
        assert one.ratio == pytest.approx(two.ratio, abs=1e-5)


def test_what_does_not_fit_is_refused(tiny: SimpleNamespace) -> None:
    done = answered(tiny, "llava", [1])
    with pytest.raises(DataError, match="expected one of 2 prompts for each of 3 answers"):
        read_answers(done.model, done.inputs, OTHERS, 1)
    with pytest.raises(DataError, match="answer 1 holds the token that stands for pictures"):
        read_answers(done.model, done.inputs, [[5], [image_token_id(done.model)]], 1)
    with pytest.raises(DataError, match="place of each of 2 questions"):
        read_answers(done.model, done.inputs, done.answers, 1, rows="question")
    with pytest.raises(ModelError, match="take input ids"):
        read_answers(done.model, {"inputs_embeds": torch.zeros(1, 1, 1)}, [], 1)
