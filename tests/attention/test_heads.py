"""Single heads as a readout, and which of them tell most."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import colour_samples
import numpy as np
import pytest
import torch
from mia_attention import (
    HeadShares,
    ScoreSettings,
    analyze_one,
    attend,
    capture_attention,
    choose_heads,
    encode_prompts,
    find_heads,
    head_shares,
    score,
)
from mia_attention.heads.head_choice import held_out_ratios
from mia_attention.measure.ratio import sequence_ratio
from mia_attention.scoring.every_readout import every_readout
from mia_augment.errors import ConfigError, DataError, ModelError
from mia_augment.records import Attention, ScoredSample
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
    with capture_attention(build.model, [1], rows="all", heads={1: [2, 1]}) as some:
        build.model(**encoded.inputs)
    torch.testing.assert_close(some.heads(1), every.heads(1)[:, :, [2, 1]], atol=1e-6, rtol=0)


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


def planted(number: int, wrong: bool) -> HeadShares:
    """Head (0, 1) looks at the target where the answer is right, (1, 0) always, the others by chance."""
    rng = np.random.default_rng(number)
    target = int(rng.integers(0, 3))

    def looking(at: int | None) -> Attention:
        masses = rng.uniform(0.05, 0.15, 3)
        if at is not None:
            masses[at] += 0.2
        ratio = sequence_ratio(masses.tolist(), [4.0] * 3, target)
        return Attention(
            layer=0,
            rows="generated",
            region_mass=masses.tolist(),
            image_mass=masses.tolist(),
            region_tokens=[4.0] * 3,
            ratio=ratio,
        )

    sample = colour_samples.sample(number, 3).model_copy(update={"target": target})
    other = (target + 1) % 3
    by_head = {
        (0, 0): looking(None),
        (0, 1): looking(other if wrong else target),
        (1, 0): looking(target),
        (1, 1): looking(None),
    }
    return HeadShares(sample, "blue" if wrong else "red", (1, 2), by_head)


def test_the_heads_that_tell_are_found_and_measured_on_samples_they_were_not_chosen_on() -> None:
    wrong = [bool(np.random.default_rng(i).integers(0, 2)) for i in range(80)]
    shares = [planted(i, each) for i, each in enumerate(wrong)]
    found = choose_heads(shares, wrong, most=2)
    assert found.heads[0] == (0, 1)
    assert (found.auroc, found.samples) == (1.0, 40)
    assert found.low <= found.auroc <= found.high
    assert found.scores[0] == ((0, 1), 1.0)
    assert len(found.scores) == 4
    flipped = [not each for each in wrong]  # the half that is measured: labels of odd index decide alone
    mixed = [flipped[i] if i % 2 else wrong[i] for i in range(80)]
    assert choose_heads(shares, mixed, most=1).auroc == 0.0
    target = choose_heads(shares, [None] * 80, "target", most=1)
    assert (target.heads, target.auroc) == ([(1, 0)], 1.0)
    chance = choose_heads([HeadShares(s.sample, s.response, s.tokens, {(0, 0): s.by_head[0, 0]}) for s in shares], wrong)
    assert 0.3 < chance.auroc < 0.7
    assert chance.low < 0.5 < chance.high


def test_every_sample_is_measured_by_heads_that_were_chosen_without_it() -> None:
    wrong = [bool(np.random.default_rng(i).integers(0, 2)) for i in range(80)]
    shares = [planted(i, each) for i, each in enumerate(wrong)]
    told = held_out_ratios(shares, wrong, most=1)
    assert told is not None
    assert told[0] == [(0, 1)]
    assert told[1] == [each.ratio([(0, 1)]) for each in shares]
    # among samples 0, 4, 8 .. it is head (1, 0) that tells
    reversed_heads = [dict(zip(each.by_head, list(each.by_head.values())[::-1], strict=True)) for each in shares]
    turned = [each if i % 4 else replace(each, by_head=reversed_heads[i]) for i, each in enumerate(shares)]
    heads, ratios = held_out_ratios(turned, wrong, most=1) or ([], [])
    assert ratios[2::4] == [each.ratio([(1, 0)]) for each in turned[2::4]]
    assert ratios[0::4] == [each.ratio([(0, 1)]) for each in turned[0::4]]
    assert ratios[1::2] == [each.ratio(heads) for each in turned[1::2]]
    assert held_out_ratios(shares[:6], [False] * 6) is None
    assert held_out_ratios([], []) is None


def test_the_mean_over_heads_is_taken_before_the_ratio() -> None:
    def one(masses: list[float]) -> Attention:
        return Attention(layer=0, rows="generated", region_mass=masses, image_mass=masses, region_tokens=[2.0, 4.0], ratio=0.5)

    sample = colour_samples.sample(1, 2)  # target 0
    shares = HeadShares(sample, "red", (1,), {(0, 0): one([0.2, 0.2]), (0, 1): one([0.0, 0.4])})
    assert shares.ratio([(0, 0)]) == pytest.approx(0.1 / 0.15)
    assert shares.ratio([(0, 0), (0, 1)]) == pytest.approx(0.05 / (0.05 + 0.075))
    assert (shares.found([(0, 0)]), shares.found([(0, 1)]), shares.found([(0, 0), (0, 1)])) == (1.0, 0.0, 0.0)
    none = HeadShares(sample, "red", (1,), {(0, 0): one([0.2, 0.2]).model_copy(update={"ratio": None})})
    assert none.ratio([(0, 0)]) is none.found([(0, 0)]) is None


def test_what_tells_nothing_is_told(tiny: SimpleNamespace) -> None:
    shares = [planted(i, False) for i in range(6)]
    with pytest.raises(
        DataError, match=r"3 right and 0 wrong answers in one half and 3 right and 0 wrong answers in the other"
    ):
        choose_heads(shares, [False] * 6)
    with pytest.raises(DataError, match="no heads can be chosen: 0 samples"):
        choose_heads([], [], "target")
    with pytest.raises(ConfigError, match="at least one head"):
        choose_heads(shares, [False] * 6, most=0)
    build = tiny.build("llava")
    options = {"open_image": tiny.open_image}
    sample = tiny.sequence("s", ["a.png", "b.png"], 0)
    with pytest.raises(ConfigError, match="one for each of 1 samples, got 2"):
        find_heads([sample], build.model, build.processor, labels=[True, False], **options)
    with pytest.raises(ConfigError, match="expected answers, alone or a list, got 'guess'"):
        find_heads([sample], build.model, build.processor, labels="guess", **options)
    with pytest.raises(ModelError, match="layer 8"):
        find_heads([sample], build.model, build.processor, layers=[8], **options)


@pytest.mark.parametrize("labels", ["answers", "alone", "list"])
def test_heads_of_a_model_are_those_that_scoring_reads(tiny: SimpleNamespace, labels: str) -> None:
    build = tiny.build("llava", strong=True)
    names = ["a.png", "b.png", "c.png"]
    samples = [tiny.sequence(f"s{i}", [names[i % 3], names[(i + 1 + i // 3 % 2) % 3]], i % 2) for i in range(12)]
    settings = ScoreSettings(max_new_tokens=4, disturb=False, batch_size=4)
    shares = head_shares(samples, build.model, build.processor, settings, open_image=tiny.open_image)
    answers = [each.response for each in shares]
    marked = [sample.model_copy(update={"answer": answers[i] if i % 4 < 2 else "x"}) for i, sample in enumerate(samples)]
    wrong: Any = labels if labels != "list" else [i % 4 >= 2 for i in range(12)]
    asked = {"open_image": tiny.open_image, "labels": wrong, "most": 3}
    found = find_heads(marked, build.model, build.processor, settings, **asked)
    assert 1 <= len(found.heads) <= 3
    assert len(found.scores) == 16
    scored = scored_by(tiny, build, samples, max_new_tokens=4, heads=found.heads)
    assert [each.attention.ratio for each in scored] == pytest.approx([each.ratio(found.heads) for each in shares], abs=1e-5)


def test_heads_stand_among_every_readout_measured_by_heads_chosen_without_them(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build = tiny.build("llava", strong=True)
    names = ["a.png", "b.png", "c.png"]
    samples = [tiny.sequence(f"s{i}", [names[i % 3], names[(i + 1 + i // 3 % 2) % 3]], i % 2) for i in range(16)]
    settings = ScoreSettings(max_new_tokens=4, disturb=False, batch_size=8, sinks=True, sink_rule="massive")
    options: dict[str, Any] = {"open_image": tiny.open_image}
    shares = head_shares(samples, build.model, build.processor, settings, **options)
    marked = [
        sample.model_copy(update={"answer": each.response if i % 8 < 4 else "x"})
        for i, (sample, each) in enumerate(zip(samples, shares, strict=True))
    ]
    monkeypatch.setattr(importlib.import_module("mia_attention.scoring.every_readout"), "BESIDE_LAYERS", ())
    ask = functools.partial(every_readout, thorough=False, progress=lambda *_: None, **options)
    found = ask(marked, build.model, build.processor, settings)
    told = found.readouts[-1]
    assert (told.rows, told.value_weighted, [each.layer for each in found.readouts].count(told.layer)) == (
        "generated",
        False,
        1,
    )
    scored = scored_by(tiny, build, samples, max_new_tokens=4, heads=told.layer)
    assert told.ratios[1::2] == pytest.approx([each.attention.ratio for each in scored][1::2], abs=1e-5)
    alike = [sample.model_copy(update={"answer": "x"}) for sample in samples]
    assert all(isinstance(each.layer, int) for each in ask(alike, build.model, build.processor, settings).readouts)
    assert "readout heads is left out: right and wrong answers do not meet" in caplog.text
