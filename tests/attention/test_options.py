"""Rollout, sinks, confusions and whole-image ratios of unknown families in scoring."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mia_attention import ScoreSettings, respond, score
from mia_attention.measure.masses import find_sinks, measure
from mia_attention.measure.token_weights import Columns
from mia_attention.models.families import FAMILIES
from mia_augment.errors import ConfigError
from mia_augment.records import Region
from pydantic import ValidationError

CLEAN = ScoreSettings(max_new_tokens=5, disturb=False)


def test_rollout_is_recorded_and_differs_from_a_layer(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.grid("g"), tiny.sequence("s3", ["a.png", "b.png", "c.png"], 2)]
    layer = list(score(samples, build.model, build.processor, CLEAN, open_image=tiny.open_image))
    rolled = CLEAN.model_copy(update={"layer": "rollout", "batch_size": 2})
    for one, two in zip(layer, score(samples, build.model, build.processor, rolled, open_image=tiny.open_image), strict=True):
        assert two.attention.layer == "rollout"
        assert two.response == one.response
        assert two.attention.ratio is not None
        assert two.attention.ratio != pytest.approx(one.attention.ratio, abs=1e-6)
        assert 0 < sum(two.attention.image_mass) < 1


def test_sinks_stand_out_of_their_own_image_and_are_left_out(tiny: SimpleNamespace) -> None:
    sample = tiny.sequence("s", ["a.png", "b.png"], 0)
    weights = torch.zeros(9, 4)
    weights[0:4, 0] = weights[0:4, 2] = 1
    weights[4:8, 1] = weights[4:8, 3] = 1
    columns = Columns(weights, 2, [4, 4], True)
    spread = torch.tensor([0.01, 0.01, 0.01, 0.09, 0.2, 0.2, 0.2, 0.2, 0.08])
    assert find_sinks(spread, columns, 2.5).nonzero().flatten().tolist() == [3]
    sinks = find_sinks(spread, columns, 2.5)
    found = measure(sample, spread, columns, readout=2, rows="generated", sinks=sinks)
    assert found.ratio == pytest.approx(0.12 / (0.12 + 0.8))
    assert found.ratio_without_sinks == pytest.approx((0.03 / 3) / (0.03 / 3 + 0.8 / 4))


def test_a_box_is_compared_with_its_own_picture_among_several(tiny: SimpleNamespace) -> None:
    regions = [Region(image=0, label="a"), Region(image=1, box=(0, 0, 10, 10), label="b")]
    sample = tiny.sequence("s", ["a.png", "b.png"], 1).model_copy(update={"regions": regions})
    weights = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0.5]])
    columns = Columns(weights, 2, [1, 1.5], True)
    found = measure(sample, torch.tensor([0.5, 0.1, 0.2]), columns, readout=0, rows="generated")
    assert found.image_mass == pytest.approx([0.5, 0.3])
    assert found.region_mass == pytest.approx([0.5, 0.2])
    assert found.ratio == pytest.approx(0.2 / 0.3)


def test_confusions_are_the_answers_about_the_other_parts_alone(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.grid("g"), tiny.sequence("s3", ["b.png", "a.png", "b.png"], 0)]
    asked = CLEAN.model_copy(update={"confusions": True})
    scored = list(score(samples, build.model, build.processor, asked, open_image=tiny.open_without("c.png")))
    alone = tiny.single("x")  # the same question about a.png
    answers = {}
    for name in ("a.png", "b.png"):
        prompt = alone.model_copy(update={"images": [name]})
        answers[name] = next(respond([prompt], build.model, build.processor, open_image=tiny.open_image, max_new_tokens=5)).text
    # the source pictures are a.png, b.png, c.png in this order
    assert scored[0].confusions == [answers["a.png"], None]
    assert scored[1].confusions == [answers["a.png"], None]
    assert scored[2].confusions == [None, answers["b.png"], None]


def test_a_family_that_no_guess_fits_gets_whole_images_but_no_boxes(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny.build("llava")
    monkeypatch.delitem(FAMILIES, "llava")
    monkeypatch.setattr("mia_attention.models.painting.fitting", lambda *_: iter(()))
    samples = [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.grid("g")]
    sequence, grid = score(samples, build.model, build.processor, CLEAN, open_image=tiny.open_image)
    assert sequence.attention.ratio is not None
    assert grid.attention.ratio is None
    assert "cannot be mapped" in str(grid.attention.reason)
    assert grid.attention.image_mass[0] > 0
    assert grid.attention.region_mass == []


def test_a_model_with_a_lora_adapter_is_read_like_the_merged_one(tiny: SimpleNamespace) -> None:
    peft = pytest.importorskip("peft")
    build = tiny.build("llava")
    lora = peft.LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)", init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(copy.deepcopy(build.model), lora).eval()
    samples = [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.grid("g")]
    adapted = list(score(samples, wrapped, build.processor, CLEAN, open_image=tiny.open_image))
    merged = wrapped.merge_and_unload()
    for one, two in zip(adapted, score(samples, merged, build.processor, CLEAN, open_image=tiny.open_image), strict=True):
        assert one.response == two.response
        assert one.attention.ratio == pytest.approx(two.attention.ratio, abs=1e-5)
    base = list(score(samples, build.model, build.processor, CLEAN, open_image=tiny.open_image))
    assert base[0].mean_logp != pytest.approx(adapted[0].mean_logp, abs=1e-4)


def test_auto_without_a_choice_is_refused_by_score(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    with pytest.raises(ConfigError, match="auto"):
        list(score([tiny.single("x")], build.model, build.processor, ScoreSettings(layer="auto"), open_image=tiny.open_image))


@pytest.mark.parametrize("layer", [-1, [], [1, 1], "first"])
def test_impossible_layers_are_refused(layer: object) -> None:
    with pytest.raises(ValidationError, match="layer"):
        ScoreSettings(layer=layer)  # type: ignore[arg-type]


def test_defaults_are_the_papers() -> None:
    settings = ScoreSettings()
    assert (settings.layer, settings.rows, settings.max_new_tokens, settings.disturb) == ("middle", "generated", 512, True)
    assert (settings.sigma.sequence, settings.sigma.grid, settings.sigma.pic_in_pic) == (0, 225, 49)
