"""The readout `alone`: shares of the answer's likelihood stand where the attention ratio stands."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from mia_attention import ScoreSettings, analyze_one, attend, look_at, score, under_each_picture
from mia_attention.scoring.alone import share_of_target
from mia_augment.errors import ModelError
from mia_augment.records import LogpAlone, Sample, ScoredSample

ALONE = ScoreSettings(layer="alone", batch_size=3, max_new_tokens=4)


def samples_of(tiny: SimpleNamespace) -> list[Sample]:
    return [
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 2),
        tiny.grid("g"),
        tiny.single("x"),
        tiny.sequence("s2", ["a.png", "b.png"], 0),
    ]


def test_the_targets_share_takes_the_ratios_place(tiny: SimpleNamespace) -> None:
    sample = tiny.sequence("s2", ["a.png", "b.png"], 1)
    logps = LogpAlone(summed=[math.log(0.1), math.log(0.3)], per_token=[math.log(0.1) / 2, math.log(0.3) / 2])
    found = share_of_target(sample, logps)
    assert (found.layer, found.image_mass, found.reason) == ("alone", [], None)
    assert found.region_mass == pytest.approx([0.25, 0.75])
    assert found.ratio == pytest.approx(0.75)
    assert found.logp_alone == logps
    missing = share_of_target(sample, LogpAlone(summed=[None, -1.0], per_token=[None, -0.5]))
    assert (missing.ratio, missing.region_mass, missing.reason) == (None, [], "the original picture of Image1 cannot be used")
    single = share_of_target(tiny.single("x"), None)
    assert (single.ratio, single.reason) == (None, "a single picture: nothing to compare with")


def test_scores_carry_the_log_probs_of_the_emitted_answer(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = samples_of(tiny)
    scored = list(score(samples, build.model, build.processor, ALONE, open_image=tiny.open_image))
    plain = list(
        score(samples, build.model, build.processor, ALONE.model_copy(update={"layer": 1}), open_image=tiny.open_image)
    )
    assert [one.response_ids for one in scored] == [one.response_ids for one in plain]  # what is read changes no answer
    for sample, one in zip(samples, scored, strict=True):
        if sample.parts == 1:
            assert one.attention.logp_alone is None
            assert one.attention.reason
            continue
        (expected,) = under_each_picture(
            [sample], [one.response_ids or []], build.model, build.processor, open_image=tiny.open_image
        )
        assert one.attention.logp_alone is not None
        assert one.attention.logp_alone.summed == pytest.approx(expected.summed, abs=1e-4)
        assert one.attention.region_mass == pytest.approx(share_of_target(sample, expected).region_mass, abs=1e-4)
        assert one.attention.ratio == one.attention.region_mass[sample.target]


def test_given_answers_get_the_same_shares(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = [sample for sample in samples_of(tiny) if sample.parts > 1]
    scored = list(score(samples, build.model, build.processor, ALONE, open_image=tiny.open_image))
    said = [one.response_ids or [] for one in scored]
    given = attend(samples, said, build.model, build.processor, ALONE, open_image=tiny.open_image)
    for one, attention in zip(scored, given, strict=True):
        assert attention.region_mass == pytest.approx(one.attention.region_mass, abs=1e-5)


def test_an_original_that_is_gone_costs_the_ratio_not_the_sample(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")

    (one,) = score([tiny.grid("g")], build.model, build.processor, ALONE, open_image=tiny.open_without("b.png"))
    assert one.attention.ratio is None
    assert one.attention.reason == "the original picture of Image2 cannot be used"
    assert one.attention.logp_alone is not None
    assert one.attention.logp_alone.summed[1] is None


def test_the_answer_about_the_target_is_kept_with_its_tokens(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = samples_of(tiny)

    def run(**changes: bool) -> list[ScoredSample]:
        settings = ScoreSettings(layer=1, batch_size=3, max_new_tokens=4, **changes)  # type: ignore[arg-type]
        return list(score(samples, build.model, build.processor, settings, open_image=tiny.open_image))

    every, target, none = run(confusions=True), run(own_answer=True), run()
    for sample, all_parts, own, nothing in zip(samples, every, target, none, strict=True):
        assert (own.own_answer, own.own_answer_ids) == (all_parts.own_answer, all_parts.own_answer_ids)
        ids = own.own_answer_ids or []
        assert build.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == own.own_answer
        assert own.confusions is None
        assert all_parts.confusions is not None
        assert all_parts.confusions[sample.target] is None
        assert nothing.own_answer is None
        assert nothing.own_answer_ids is None
    assert every[3].own_answer == every[2].own_answer  # the same picture and question


def test_the_largest_share_names_the_picture_an_answer_speaks_of(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    (one,) = score([tiny.pic_in_pic("p")], build.model, build.processor, ALONE, open_image=tiny.open_image)
    shared = one.model_copy(update={"attention": one.attention.model_copy(update={"region_mass": [0.9, 0.1]})})
    found = analyze_one(shared)
    assert found.shares == [0.9, 0.1]  # the outer picture is a part for itself, not less the inner one
    assert (found.peak, found.kind) == (0, "sequence_confusion")


def test_there_is_no_map_of_likelihoods(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    with pytest.raises(ModelError, match="no attention over positions"):
        look_at(tiny.grid("g"), build.model, build.processor, ALONE, open_image=tiny.open_image)


@pytest.mark.parametrize("layer", ["alone", "middle"])
def test_a_question_about_several_pictures_has_no_ratio_and_is_not_asked_of_one(tiny: SimpleNamespace, layer: str) -> None:
    build = tiny.build("llava")
    asked = tiny.sequence("s3", ["a.png", "b.png", "c.png"], 2)
    several = asked.model_copy(update={"id": "all", "format": "search", "named": [0, 1, 2], "answer": "Image3"})
    settings = ScoreSettings(layer=layer, batch_size=2, max_new_tokens=4, own_answer=True, confusions=True)
    one, every = score([asked, several], build.model, build.processor, settings, open_image=tiny.open_image)
    assert one.attention.ratio is not None
    assert one.own_answer is not None
    assert one.confusions is not None
    assert (every.attention.ratio, every.own_answer, every.confusions) == (None, None, None)
    assert every.attention.reason == "the question is about several pictures: none is the target"
    assert (every.response, every.named) == (one.response, [0, 1, 2])
    assert every.attention.region_mass == ([] if layer == "alone" else pytest.approx(one.attention.region_mass, abs=1e-5))
