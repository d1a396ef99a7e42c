"""Attention of given answers equals what was captured while the model gave them itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mia_attention import ScoreSettings, attend, respond, score
from mia_augment.errors import DataError
from mia_augment.records import Sample

FAMILIES = ["llava", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "gemma3", "mistral3"]


def mixed(tiny: SimpleNamespace) -> list[Sample]:
    return [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.grid("g"), tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0)]


def compare(tiny: SimpleNamespace, name: str, settings: ScoreSettings) -> None:
    build = tiny.build(name)
    arguments: tuple[Any, ...] = (build.model, build.processor)
    plain = settings.model_copy(update={"disturb": False})
    own = list(score(mixed(tiny), *arguments, plain, open_image=tiny.open_image))
    tokens = [
        r.tokens for r in respond(mixed(tiny), *arguments, open_image=tiny.open_image, max_new_tokens=settings.max_new_tokens)
    ]
    given = attend(mixed(tiny), tokens, *arguments, plain, open_image=tiny.open_image)
    for one, two in zip(own, given, strict=True):
        assert two.image_mass == pytest.approx(one.attention.image_mass, abs=1e-5)
        assert two.ratio == pytest.approx(one.attention.ratio, abs=1e-5)
        assert two.reason == one.attention.reason


@pytest.mark.parametrize("name", FAMILIES)
def test_own_answers_read_again_look_the_same(tiny: SimpleNamespace, name: str) -> None:
    compare(tiny, name, ScoreSettings(max_new_tokens=5, batch_size=2))


@pytest.mark.parametrize("change", [{"rows": "predicting"}, {"rows": "question"}, {"layer": [0, 1]}, {"layer": "rollout"}])
def test_every_way_to_read_looks_the_same(tiny: SimpleNamespace, change: dict[str, Any]) -> None:
    compare(tiny, "llava", ScoreSettings(max_new_tokens=5, batch_size=2, **change))


def test_texts_end_with_the_end_token_and_a_one_token_answer_has_no_row(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    ids = [*build.processor.tokenizer("a cat", add_special_tokens=False).input_ids, build.processor.tokenizer.eos_token_id]
    settings = ScoreSettings(batch_size=3)
    samples = [tiny.sequence("s2", ["a.png", "b.png"], 1)] * 3
    text, tokens, one = attend(samples, ["a cat", ids, [5]], build.model, build.processor, settings, open_image=tiny.open_image)
    assert text.image_mass == pytest.approx(tokens.image_mass, abs=1e-7)
    assert one.ratio is None
    assert "one token" in str(one.reason)


def test_an_answer_that_holds_the_image_token_is_refused(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    arguments: tuple[Any, ...] = (build.model, build.processor, ScoreSettings())
    with pytest.raises(DataError, match="sample x: the answer holds the token that stands for pictures"):
        list(attend([tiny.single("x")], ["a <image> cat"], *arguments, open_image=tiny.open_image))
