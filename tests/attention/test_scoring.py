"""Scores against a plain computation: one sample at a time, eager attention, explicit sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mia_attention import ScoreSettings, respond, score
from mia_attention.answering.model_view import open_view, record_rng, render_with_tail
from mia_attention.measure.ratio import region_ratio, sequence_ratio
from mia_attention.models.inputs import encode
from mia_augment.compose.noise import disturb
from mia_augment.errors import DataError, ModelError
from mia_augment.records import Attention, Region, Sample, ScoredSample, Skipped
from PIL import Image

CLEAN = ScoreSettings(batch_size=3, max_new_tokens=6, disturb=False)


@pytest.fixture
def llava(tiny: SimpleNamespace) -> Iterator[Any]:
    """A model whose answers end at different lengths, because an ordinary token ends them."""
    build = tiny.build("llava")
    config = build.model.generation_config
    kept = config.eos_token_id
    yield build
    config.eos_token_id = kept


def mixed(tiny: SimpleNamespace) -> list[Sample]:
    return [
        tiny.sequence("s2", ["a.png", "b.png"], 1),
        tiny.grid("g"),
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0),
        tiny.pic_in_pic("p"),
        tiny.sequence("t2", ["c.png", "a.png"], 0),
    ]


def run(tiny: SimpleNamespace, build: Any, samples: list[Sample], settings: ScoreSettings = CLEAN) -> list[ScoredSample]:
    return list(score(samples, build.model, build.processor, settings, open_image=tiny.open_image))


def eager_answer(tiny: SimpleNamespace, build: Any, sample: Sample, steps: int) -> tuple[Any, Any]:
    text, _ = render_with_tail(build.processor, sample.prompt)
    encoded = encode(build.model, build.processor, [text], [[tiny.open_image(name) for name in sample.images]])
    build.model.set_attn_implementation("eager")
    out = build.model.generate(
        **encoded.inputs,
        max_new_tokens=steps,
        do_sample=False,
        pad_token_id=0,
        output_attentions=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    build.model.set_attn_implementation("sdpa")
    return encoded, out


def rows_by_hand(rows: str, out: Any, encoded: Any, layer: int, tail_tokens: int) -> list[list[float]]:
    """Head-mean rows over the prompt's columns."""
    prompt, first = encoded.prompt_length, out.attentions[0][layer][0].mean(0)
    decoded = [a[layer][0, :, 0, :prompt].mean(0).tolist() for a in out.attentions[1:]]
    if rows == "generated":
        return decoded
    if rows == "predicting":
        return [first[-1].tolist(), *decoded]
    start = int(encoded.image_tokens[0][-1][-1]) + 1
    return [row.tolist() for row in first[start : prompt - tail_tokens]]


def ending_token(tiny: SimpleNamespace, build: Any, samples: list[Sample]) -> int:
    """A token that comes up in some answers, so that it can end them early."""
    answers = [*respond(samples, build.model, build.processor, open_image=tiny.open_image, max_new_tokens=6)]
    tokens = {token for answer in answers for token in answer.tokens[1:5]}
    return next(token for token in tokens if 0 < sum(token in answer.tokens for answer in answers) < len(answers))


@pytest.mark.parametrize("rows", ["generated", "predicting", "question"])
def test_masses_and_log_probs_equal_eager_attention_one_by_one(tiny: SimpleNamespace, llava: Any, rows: Any) -> None:
    samples = mixed(tiny)
    llava.model.generation_config.eos_token_id = ending_token(tiny, llava, samples)
    scored = run(tiny, llava, samples, CLEAN.model_copy(update={"rows": rows}))
    assert len({item.response_tokens for item in scored}) > 1
    for sample, got in zip(samples, scored, strict=True):
        encoded, out = eager_answer(tiny, llava, sample, 6)
        logps = [logits[0].log_softmax(-1).max().item() for logits in out.logits]
        assert got.response_tokens == len(logps)
        assert got.mean_logp == pytest.approx(sum(logps) / len(logps), abs=1e-5)
        assert got.perplexity == pytest.approx(math.exp(-sum(logps) / len(logps)), rel=1e-5)
        assert got.attention.layer == 2
        matrix = rows_by_hand(rows, out, encoded, 2, tail_tokens=2)
        mean = [sum(column) / len(matrix) for column in zip(*matrix, strict=True)]
        masses = [sum(mean[position] for position in places.tolist()) for places in encoded.image_tokens[0]]
        assert got.attention.image_mass == pytest.approx(masses, abs=1e-6)
        if sample.format == "sequence":
            assert got.attention.region_mass == pytest.approx(masses, abs=1e-6)
            assert got.attention.ratio == pytest.approx(masses[sample.target] / sum(masses), abs=1e-5)  # all images: 16 tokens


def test_grid_ratio_is_the_mass_in_the_targets_box_over_the_picture(tiny: SimpleNamespace, llava: Any) -> None:
    sample = tiny.grid("g").model_copy(
        update={
            "regions": [Region(image=0, box=(0, 0, 468, 488), label="a"), Region(image=0, box=(468, 0, 936, 488), label="b")],
            "target": 0,
        }
    )
    scored = run(tiny, llava, [sample])[0]
    encoded, out = eager_answer(tiny, llava, sample, 6)
    places = encoded.image_tokens[0][0].tolist()
    matrix = rows_by_hand("generated", out, encoded, 2, 0)
    mean = [sum(column) / len(matrix) for column in zip(*matrix, strict=True)]
    # the crop is centred, so the boxes' border lies between columns 2 and 3 of four
    left = sum(mean[p] for i, p in enumerate(places) if i % 4 < 2)
    assert scored.attention.ratio == pytest.approx(left / sum(mean[p] for p in places), abs=0.01)
    assert sum(scored.attention.region_mass) == pytest.approx(scored.attention.image_mass[0], rel=1e-3)


def test_batch_size_does_not_change_scores(tiny: SimpleNamespace, llava: Any) -> None:
    one, many = (run(tiny, llava, mixed(tiny), CLEAN.model_copy(update={"batch_size": size})) for size in (1, 5))
    for a, b in zip(one, many, strict=True):
        assert a.response == b.response
        assert a.attention.ratio == pytest.approx(b.attention.ratio, abs=1e-5)
        assert a.attention.image_mass == pytest.approx(b.attention.image_mass, abs=1e-6)


def test_one_token_answer_has_no_generated_row_but_a_predicting_one(tiny: SimpleNamespace, llava: Any) -> None:
    short = CLEAN.model_copy(update={"max_new_tokens": 1})
    generated = run(tiny, llava, mixed(tiny), short)
    assert all(item.attention.ratio is None and "one token" in str(item.attention.reason) for item in generated)
    predicting = run(tiny, llava, mixed(tiny), short.model_copy(update={"rows": "predicting"}))
    assert all(item.attention.ratio is not None for item in predicting)


@pytest.mark.parametrize(("rows", "tokens"), [("generated", 2), ("predicting", 1)])
def test_one_row_is_its_own_mean(tiny: SimpleNamespace, llava: Any, rows: Any, tokens: int) -> None:
    sample = mixed(tiny)[0]
    settings = CLEAN.model_copy(update={"rows": rows, "max_new_tokens": tokens})
    scored = run(tiny, llava, [sample], settings)[0]
    encoded, out = eager_answer(tiny, llava, sample, tokens)
    [row] = rows_by_hand(rows, out, encoded, 2, 0)
    masses = [sum(row[position] for position in places.tolist()) for places in encoded.image_tokens[0]]
    assert scored.attention.image_mass == pytest.approx(masses, abs=1e-6)


def test_single_picture_has_no_ratio(tiny: SimpleNamespace, llava: Any) -> None:
    attention: Attention = run(tiny, llava, [tiny.single("x")])[0].attention
    assert attention.ratio is None
    assert "single picture" in str(attention.reason)


def test_target_that_was_cropped_away_has_no_ratio(tiny: SimpleNamespace, llava: Any) -> None:
    sample = tiny.grid("g").model_copy(
        update={"regions": [Region(image=0, box=(0, 40, 100, 488), label="Image1"), tiny.grid("g").regions[1]], "target": 0}
    )
    attention = run(tiny, llava, [sample])[0].attention
    assert attention.ratio is None
    assert "cropped away" in str(attention.reason)


def test_middle_list_and_number_choose_layers(tiny: SimpleNamespace, llava: Any) -> None:
    samples = mixed(tiny)[:2]
    layers: list[Any] = [1, 3, [1, 3]]
    first, second, both = (run(tiny, llava, samples, CLEAN.model_copy(update={"layer": layer})) for layer in layers)
    for one, two, mean in zip(first, second, both, strict=True):
        assert mean.attention.layer == [1, 3]
        expected = (np.array(one.attention.image_mass) + np.array(two.attention.image_mass)) / 2
        assert mean.attention.image_mass == pytest.approx(expected.tolist(), abs=1e-6)


def test_missing_layer_is_named_with_those_there_are(tiny: SimpleNamespace, llava: Any) -> None:
    with pytest.raises(ModelError, match="layer 7: expected one of the attention layers 0-3"):
        run(tiny, llava, mixed(tiny), CLEAN.model_copy(update={"layer": 7}))


def test_ratio_formulas_by_hand() -> None:
    # means 0.3/10 and 0.3/30 -> 0.03 / 0.04
    assert sequence_ratio([0.3, 0.3], [10, 30], 0) == pytest.approx(0.75)
    assert sequence_ratio([0.0, 0.0], [10, 30], 0) is None
    assert region_ratio(0.1, 0.4) == pytest.approx(0.25)
    assert region_ratio(0.0, 0.0) is None


def test_grid_view_is_disturbed_in_the_target_cell_only_and_by_record(tiny: SimpleNamespace) -> None:
    sample, settings = tiny.grid("g"), ScoreSettings(seed=3)
    clean = np.asarray(tiny.open_image("grid.png"))
    seen = np.asarray(open_view(sample, tiny.open_image, settings)[0])
    changed = (seen != clean).any(-1)
    assert changed[40:488, 488:936].mean() > 0.9
    changed[40:488, 488:936] = False
    assert not changed.any()
    expected = disturb(Image.fromarray(clean), (488, 40, 936, 488), 225.0, record_rng(3, "g"))
    assert np.array_equal(seen, np.asarray(expected))
    assert not np.array_equal(seen, np.asarray(open_view(tiny.grid("h"), tiny.open_image, settings)[0]))


def test_pic_in_pic_view_is_disturbed_everywhere_and_sequences_are_not(tiny: SimpleNamespace) -> None:
    settings = ScoreSettings()
    clean, seen = (
        np.asarray(p) for p in (tiny.open_image("pip.png"), open_view(tiny.pic_in_pic("p"), tiny.open_image, settings)[0])
    )
    assert (seen != clean).any(-1).mean() > 0.9
    pictures = open_view(tiny.sequence("s", ["a.png", "b.png"], 0), tiny.open_image, settings)
    assert all(
        np.array_equal(np.asarray(p), np.asarray(tiny.open_image(n))) for p, n in zip(pictures, ["a.png", "b.png"], strict=True)
    )


def test_unreadable_picture_costs_its_sample_only(tiny: SimpleNamespace, llava: Any) -> None:
    def refuse(name: str) -> Image.Image:
        if name == "pip.png":
            raise DataError("pip.png: cut off")
        picture: Image.Image = tiny.open_image(name)
        return picture

    skipped: list[Skipped] = []
    scored = list(score(mixed(tiny), llava.model, llava.processor, CLEAN, open_image=refuse, on_skip=skipped.append))
    assert [item.id for item in scored] == ["s2", "g", "s3", "t2"]
    assert skipped == [Skipped(id="p", reason="pip.png: cut off")]
    with pytest.raises(DataError, match=r"sample p: pip\.png: cut off"):
        list(score(mixed(tiny), llava.model, llava.processor, CLEAN, open_image=refuse))


def test_a_box_that_leaves_its_picture_costs_its_sample_only(tiny: SimpleNamespace, llava: Any) -> None:
    wrong = tiny.grid("wrong").model_copy(
        update={"regions": [Region(image=0, box=(0, 0, 9, 9), label="a"), Region(image=0, box=(0, 0, 937, 9), label="b")]}
    )
    skipped: list[Skipped] = []
    samples = [*mixed(tiny)[:2], wrong]
    scored = score(
        samples,
        llava.model,
        llava.processor,
        ScoreSettings(max_new_tokens=3),
        open_image=tiny.open_image,
        on_skip=skipped.append,
    )
    assert [item.id for item in scored] == ["s2", "g"]
    assert skipped == [Skipped(id="wrong", reason="region 'b': box (0, 0, 937, 9) leaves its picture of 936 x 488 px")]


def test_a_picture_that_the_processor_refuses_costs_its_sample_only(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")  # refuses aspect ratios above 200

    def open_image(name: str) -> Image.Image:
        picture: Image.Image = tiny.picture(600, 2) if name == "c.png" else tiny.open_image(name)
        return picture

    skipped: list[Skipped] = []
    scored = score(mixed(tiny), qwen.model, qwen.processor, CLEAN, open_image=open_image, on_skip=skipped.append)
    assert [item.id for item in scored] == ["s2", "g", "p"]
    assert [item.id for item in skipped] == ["s3", "t2"]
    assert "the model's processor refuses it: absolute aspect ratio" in skipped[0].reason


def test_nan_is_an_error_that_names_the_sample(tiny: SimpleNamespace, llava: Any) -> None:
    weight = llava.model.lm_head.weight
    kept = weight.detach().clone()
    weight.data.fill_(float("nan"))
    try:
        with pytest.raises(ModelError, match="sample s2: the model's outputs are NaN"):
            run(tiny, llava, mixed(tiny)[:1])
    finally:
        weight.data.copy_(kept)


def test_running_out_of_memory_halves_the_batch(tiny: SimpleNamespace, llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, expected = llava.model.generate, run(tiny, llava, mixed(tiny))
    sizes: list[int] = []

    def small_machine(**kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(**kwargs)

    monkeypatch.setattr(llava.model, "generate", small_machine)
    got = run(tiny, llava, mixed(tiny), CLEAN.model_copy(update={"batch_size": 5}))
    assert sizes == [5, 2, 3, 1, 2]
    assert [item.response for item in got] == [item.response for item in expected]


def test_two_samples_of_one_id_are_refused(tiny: SimpleNamespace, llava: Any) -> None:
    with pytest.raises(DataError, match="sample s2: expected unique ids"):
        run(tiny, llava, [mixed(tiny)[0], mixed(tiny)[0]])
