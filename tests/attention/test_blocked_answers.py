"""Scoring can also answer with attention between pictures blocked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mia_attention import ScoreSettings, encode_prompts, images_blocked, register_adapter, score
from mia_attention.models.families import FAMILIES
from mia_augment.errors import ModelError

SETTINGS = ScoreSettings(layer=1, max_new_tokens=6, disturb=False, batch_size=3)


def test_the_answer_is_that_of_generate_with_pictures_hidden_from_each_other(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    samples = [tiny.sequence("s1", ["a.png", "b.png"], 1), tiny.grid("g"), tiny.sequence("s2", ["c.png", "b.png", "a.png"], 0)]
    asked = SETTINGS.model_copy(update={"blocked_answer": True})
    plain = list(score(samples, build.model, build.processor, SETTINGS, open_image=tiny.open_image))
    found = list(score(samples, build.model, build.processor, asked, open_image=tiny.open_image))
    none = {"blocked_answer": None, "blocked_answer_ids": None}
    assert [one.model_copy(update=none) for one in found] == plain  # nothing else changes
    assert found[1].blocked_answer is found[1].blocked_answer_ids is None  # one picture
    for sample in (found[0], found[2]):
        pictures = [tiny.open_image(name) for name in sample.images]
        encoded = encode_prompts(build.model, build.processor, [sample.prompt], [pictures])
        with images_blocked(build.model, encoded):
            out = build.model.generate(**encoded.inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
        assert sample.blocked_answer_ids == out[0, encoded.prompt_length :].tolist()
        assert sample.blocked_answer_ids != sample.response_ids
        assert sample.blocked_answer == build.processor.tokenizer.decode(sample.blocked_answer_ids, skip_special_tokens=True)


def test_a_model_whose_attention_cannot_be_changed_is_refused_before_it_answers(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    asked = SETTINGS.model_copy(update={"blocked_answer": True})
    before = FAMILIES["llava"]
    reads_only = SimpleNamespace(layers=lambda model: {0: None, 1: None}, brightness=lambda *_: None)
    register_adapter("llava", reads_only)  # type: ignore[arg-type]
    try:
        with pytest.raises(ModelError, match="can be read but not changed"):
            list(score([tiny.single("s")], build.model, build.processor, asked, open_image=tiny.open_image))
    finally:
        FAMILIES["llava"] = before
