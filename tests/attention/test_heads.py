"""Single heads as a readout, and which of them tell most."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import ScoreSettings, analyze_one, attend, capture_attention, encode_prompts, score
from mia_augment.errors import ModelError
from mia_augment.records import ScoredSample
from pydantic import ValidationError

HEADS = [(1, 3), (3, 0), (3, 2)]


def scored_by(tiny: SimpleNamespace, build: Any, samples: list[Any], **settings: Any) -> list[ScoredSample]:
    made = ScoreSettings.model_validate({"max_new_tokens": 5, "disturb": False, "layer": "heads", "heads": HEADS, **settings})
    return list(score(samples, build.model, build.processor, made, open_image=tiny.open_image))


@torch.no_grad()
@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_heads_are_the_mean_of_eager_attention_of_these_heads(tiny: SimpleNamespace, name: str) -> None:
    build = tiny.build(name, strong=True)
    samples = [tiny.sequence("s1", ["a.png", "b.png"], 1), tiny.sequence("s2", ["c.png", "b.png", "a.png"], 0)]
    found = scored_by(tiny, build, samples)
    for sample in found:
        encoded = encode_prompts(build.model, build.processor, [sample.prompt], [[tiny.open_image(n) for n in sample.images]])
        build.model.set_attn_implementation("eager")
        out = build.model.generate(
            **encoded.inputs, max_new_tokens=5, do_sample=False, output_attentions=True, return_dict_in_generate=True
        )
        build.model.set_attn_implementation("sdpa")
        assert out.sequences[0, encoded.prompt_length :].tolist() == sample.response_ids
        prompt = encoded.prompt_length
        steps = [
            torch.stack([step[layer][0, head, 0, :prompt] for layer, head in HEADS]).mean(0) for step in out.attentions[1:]
        ]
        spread = torch.stack(steps).mean(0)
        masses = [float(spread[tokens].sum()) for tokens in encoded.image_tokens[0]]
        assert sample.attention.image_mass == pytest.approx(masses, abs=1e-6)
        assert sample.attention.layer == HEADS
    assert ScoredSample.model_validate_json(found[0].model_dump_json()) == found[0]
    assert analyze_one(found[0]).layer == "1.3+3.0+3.2"


def test_given_answers_are_read_by_heads_in_every_way(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    sample = tiny.sequence("s1", ["a.png", "b.png"], 1)
    [found] = scored_by(tiny, build, [sample])
    settings = ScoreSettings(layer="heads", heads=HEADS, disturb=False)
    once = list(attend([sample], [found.response_ids], build.model, build.processor, settings, open_image=tiny.open_image))
    twice = list(
        attend([sample] * 2, [found.response_ids] * 2, build.model, build.processor, settings, open_image=tiny.open_image)
    )
    for reading in (*once, *twice):
        assert reading.region_mass == pytest.approx(found.attention.region_mass, abs=1e-5)


def test_all_heads_of_a_layer_are_the_layer(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    samples = [tiny.sequence("s1", ["a.png", "b.png"], 1), tiny.grid("g"), tiny.pic_in_pic("p")]
    heads = scored_by(tiny, build, samples, heads=[(2, head) for head in range(4)])
    layer = scored_by(tiny, build, samples, layer=2, heads=None)
    for one, other in zip(heads, layer, strict=True):
        assert one.attention.ratio == pytest.approx(other.attention.ratio, abs=1e-5)
        assert one.attention.region_mass == pytest.approx(other.attention.region_mass, abs=1e-5)


@torch.no_grad()
def test_some_heads_are_captured_in_the_order_they_were_named(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encode_prompts(build.model, build.processor, ["<image>what ?"], [[tiny.picture(60, 60)]])
    with capture_attention(build.model, [1], rows="all", heads=True) as every:
        build.model(**encoded.inputs)
    with capture_attention(build.model, [1], rows="all", heads={1: [3, 0]}) as some:
        build.model(**encoded.inputs)
    torch.testing.assert_close(some.heads(1), every.heads(1)[:, :, [3, 0]], atol=1e-6, rtol=0)


def test_a_head_that_is_not_there_is_told(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    for heads, message in (
        ([(1, 4)], r"layer 1: expected heads from 0 to 3, got 4"),
        ([(7, 0)], r"layer 7: expected one of the attention layers 0-3"),
    ):
        with pytest.raises(ModelError, match=message):
            scored_by(tiny, build, [tiny.sequence("s", ["a.png", "b.png"], 0)], heads=heads)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "heads"}, "expected `layer: heads` with `heads:"),
        ({"layer": 3, "heads": [[1, 2]]}, "expected `layer: heads` with `heads:"),
        ({"layer": "heads", "heads": []}, "one or several different"),
        ({"layer": "heads", "heads": [[1, 2], [1, 2]]}, "one or several different"),
        ({"layer": "heads", "heads": [[1, -2]]}, "counted from 0"),
    ],
)
def test_settings_of_heads_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreSettings.model_validate(settings)
