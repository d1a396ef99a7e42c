from __future__ import annotations

import numpy as np
import pytest
from mia_augment.compose.noise import disturb
from mia_augment.errors import ConfigError
from PIL import Image


def gray(level: int = 128, size: tuple[int, int] = (200, 100)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def test_noise_stays_in_the_box_and_the_picture_itself_is_left_alone():
    picture = gray()
    noisy = np.asarray(disturb(picture, (20, 10, 120, 60), 30, np.random.default_rng(1)))
    inside = np.zeros((100, 200), dtype=bool)
    inside[10:60, 20:120] = True
    assert (noisy[~inside] == 128).all()
    assert (noisy[inside] != 128).mean() > 0.9
    assert picture.getcolors() == [(20000, (128, 128, 128))]


def test_the_noise_has_the_given_spread_and_no_bias():
    noisy = np.asarray(disturb(gray(), None, 20, np.random.default_rng(0))).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.5)
    assert noisy.std() == pytest.approx(20, rel=0.02)
    red, green = noisy[..., 0].ravel(), noisy[..., 1].ravel()
    assert abs(np.corrcoef(red, green)[0, 1]) < 0.03


def test_noise_is_clipped_and_never_wraps_around():
    # a fraction (1 + erf(-1/sqrt(2)))/2 = 15.9 % of a normal lies below -1 sigma; half of it below 0
    noisy = np.asarray(disturb(gray(225), None, 225, np.random.default_rng(2)))
    assert (noisy == 0).mean() == pytest.approx(0.159, abs=0.01)
    assert (noisy == 255).mean() == pytest.approx(0.447, abs=0.01)
    bright = np.asarray(disturb(gray(250), None, 3, np.random.default_rng(3)))
    assert bright.min() > 230


def test_the_same_generator_state_gives_the_same_noise():
    box = (0, 0, 50, 50)
    first, second = (disturb(gray(), box, 49, np.random.default_rng(7)).tobytes() for _ in range(2))
    assert first == second
    assert first != disturb(gray(), box, 49, np.random.default_rng(8)).tobytes()


def test_sigma_zero_changes_nothing():
    assert disturb(gray(), None, 0, np.random.default_rng(0)).tobytes() == gray().tobytes()


@pytest.mark.parametrize("box", [(0, 0, 201, 100), (-1, 0, 10, 10), (10, 10, 10, 20)])
def test_a_box_outside_or_empty_is_refused(box):
    with pytest.raises(ConfigError, match="200 x 100"):
        disturb(gray(), box, 1, np.random.default_rng(0))


def test_other_modes_and_negative_sigma_are_refused():
    with pytest.raises(ConfigError, match="mode L"):
        disturb(gray().convert("L"), None, 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="sigma"):
        disturb(gray(), None, -1, np.random.default_rng(0))
