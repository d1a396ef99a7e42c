from __future__ import annotations

import pytest
from mia_augment.settings import AugmentSettings
from pydantic import ValidationError


def test_the_defaults_are_the_papers():
    shares = AugmentSettings().shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["sequence", 2] == pytest.approx(0.5 * 20000 / 36410)
    assert shares["sequence", 5] == pytest.approx(0.5 * 4410 / 36410)
    assert shares["grid", 7] == pytest.approx(0.3 / 8)
    assert shares["pic_in_pic", 2] == pytest.approx(0.2)


def test_a_list_means_equal_shares():
    settings = AugmentSettings.model_validate({"formats": ["sequence", "single"], "sequence": {"counts": [2, 3]}})
    assert settings.shares() == {("sequence", 2): 0.25, ("sequence", 3): 0.25, ("single", 1): 0.5}
    assert AugmentSettings.model_validate({"formats": "grid,single"}).formats == {"grid": 1, "single": 1}


def test_settings_survive_json():
    settings = AugmentSettings(samples_per_row=3)
    assert AugmentSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"formats": {"sequence": 0}}, "share above 0"),
        ({"formats": ["collage"]}, "sequence"),
        ({"formats": {"grid": -1}}, "greater than or equal to 0"),
        ({"sequence": {"counts": {1: 1}}}, "2 or more"),
        ({"grid": {"counts": {10: 1}}}, "2 to 9"),
        ({"grid": {"counts": [2, 4], "rows": 3}}, "rows 3 for grids of 2"),
        ({"pic_in_pic": {"scale": 1}}, "less than 1"),
        ({"templates": {"named": ["In {label}: what?"]}}, "{question} exactly once"),
        ({"templates": {"named": ["{question}"]}}, "{label} exactly once"),
        ({"templates": {"named": []}}, "empty list"),
        ({"templates": {"named": ["<image> In {label}, {question}"]}}, "no <image>"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(value, message):
    with pytest.raises(ValidationError, match=message):
        AugmentSettings.model_validate(value)
