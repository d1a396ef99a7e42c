"""The format `strip`: pictures side by side without labels, asked by position."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, ConfigError, Sample, augment, compose_strip
from PIL import Image
from pydantic import ValidationError

RED, GREEN, WHITE = (200, 30, 30), (30, 160, 40), (255, 255, 255)
PLACES = ["first", "second", "third", "fourth", "fifth", "sixth"]


def strips(data, **options):
    """(samples, pictures by name)."""
    pictures: dict[str, Image.Image] = {}
    settings = AugmentSettings.model_validate({"formats": ["strip"], **options})
    made = list(augment(data.rows, data.root, settings, write_image=pictures.__setitem__))
    assert all(isinstance(sample, Sample) for sample in made)
    return made, pictures


def test_pictures_stand_side_by_side_at_one_height():
    composed = compose_strip([Image.new("RGB", (100, 50), RED), Image.new("RGB", (30, 60), GREEN)], height=40, gap=6)
    assert composed.image.size == (80 + 6 + 20, 40)
    assert composed.boxes == ((0, 0, 80, 40), (86, 0, 106, 40))
    parts = [composed.image.crop(box) for box in (*composed.boxes, (80, 0, 86, 40))]
    assert [part.getcolors() for part in parts] == [[(3200, RED)], [(800, GREEN)], [(240, WHITE)]]


def test_a_very_wide_picture_leaves_room_for_the_others():
    composed = compose_strip([Image.new("RGB", (4000, 10), RED), Image.new("RGB", (10, 10), GREEN)], height=40, gap=0)
    assert composed.boxes == ((0, 0, 320, 1), (320, 0, 360, 40))


@pytest.mark.parametrize(("number", "height", "gap"), [(1, 40, 6), (2, 0, 6), (2, 40, -1)])
def test_sizes_out_of_range_are_refused(number, height, gap):
    with pytest.raises(ConfigError, match="expected 2 or more pictures"):
        compose_strip([Image.new("RGB", (8, 8))] * number, height=height, gap=gap)


@pytest.mark.parametrize("count", range(2, 7))
def test_the_question_names_the_place_and_the_regions_hold_the_pixels(data, count):
    samples, pictures = strips(data, strip={"counts": [count], "height": 32, "gap": 4}, samples_per_row=3)
    assert len(samples) == 36
    for sample in samples:
        (name,) = sample.images
        assert sample.prompt == f"<image>\nIn the {PLACES[sample.target]} picture from the left, what color is it?"
        assert [region.label for region in sample.regions] == PLACES[:count]
        assert sample.id.startswith(f"{Path(sample.source.paths[sample.target]).stem}-strip{count}")
        for region, path in zip(sample.regions, sample.source.paths, strict=True):
            assert pictures[name].crop(region.box).getcolors() == [(48 * 32, data.colors[Path(path).stem])]
    assert set(Counter(sample.target for sample in samples)) == set(range(count))


def test_rows_with_coordinates_make_no_strip(data, make_row):
    data.rows[0] = make_row("box", "plain/red.png", ("What is in [12, 40, 330, 200]?", "A cup."))
    settings = AugmentSettings.model_validate({"formats": ["strip"], "strip": {"height": 32}})
    reasons = [made.reason for made in augment(data.rows, data.root, settings) if not isinstance(made, Sample)]
    assert [reason.split(":")[0] for reason in reasons] == ["coordinates"]


def test_own_words_need_the_place():
    settings = AugmentSettings.model_validate({"templates": {"strip": ["Number {label}: {question}"]}})
    assert settings.templates.strip == ("Number {label}: {question}",)
    with pytest.raises(ValidationError, match=r"expected {label} exactly once"):
        AugmentSettings.model_validate({"templates": {"strip": ["Here: {question}"]}})


@pytest.mark.parametrize("counts", [[1], [7], {3: 0}])
def test_numbers_that_a_strip_cannot_have_are_refused(counts):
    with pytest.raises(ValidationError):
        AugmentSettings.model_validate({"strip": {"counts": counts}})
