from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mia_augment.compose.canvas import GridStyle, compose_grid, compose_pic_in_pic
from mia_augment.errors import ConfigError
from mia_augment.images.geometry import fit
from PIL import Image

COLORS = [(200, 10 * i, 255 - 20 * i) for i in range(9)]
Size = tuple[int, int]


def plain(sizes: list[Size]) -> list[Image.Image]:
    return [Image.new("RGB", size, color) for size, color in zip(sizes, COLORS, strict=False)]


def test_two_cells_lie_where_the_arithmetic_says():
    # cells of 100 with gaps of 20: the second begins at 120, both below a label strip of 20; 200x100 fits as 100x50
    composed = compose_grid(plain([(200, 100), (30, 60)]), ["Image1", "Image2"], style=GridStyle(cell=100, gap=20, label=16))
    assert composed.image.size == (220, 120)
    assert composed.boxes == ((0, 20, 100, 70), (120, 20, 170, 120))


def test_nine_cells_make_three_rows_and_five_leave_the_last_place_empty():
    style = GridStyle(cell=50, gap=10, label=8)
    nine = compose_grid(plain([(50, 50)] * 9), [f"Image{i}" for i in range(9)], style=style)
    assert nine.image.size == (170, 180)
    assert nine.boxes[8] == (120, 130, 170, 180)
    five = compose_grid(plain([(50, 50)] * 5), [f"Image{i}" for i in range(5)], style=style)
    assert five.image.size == (170, 120)
    assert five.boxes[4] == (60, 70, 110, 120)
    assert five.image.crop((120, 60, 170, 120)).getcolors() == [(50 * 60, (255, 255, 255))]


def test_rows_can_be_chosen():
    composed = compose_grid(plain([(10, 10)] * 4), list("abcd"), rows=4, style=GridStyle(cell=10, gap=5, label=4))
    assert composed.image.size == (10, 60)


def test_the_label_is_drawn_above_its_cell_and_nowhere_else():
    style = GridStyle(cell=100, gap=40, label=30)
    with_label = compose_grid(plain([(100, 100)] * 2), ["Image1", "Image2"], style=style).image
    without = compose_grid(plain([(100, 100)] * 2), ["", "Image2"], style=style).image
    strip = (0, 0, 100, 40)
    assert with_label.crop(strip).getextrema()[0][0] < 50
    assert without.crop(strip).getcolors() == [(4000, (255, 255, 255))]
    assert with_label.crop((0, 40, 240, 140)).tobytes() == without.crop((0, 40, 240, 140)).tobytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=2, max_size=9))
def test_every_box_holds_its_picture_and_nothing_else(sizes: list[Size]):
    style = GridStyle(cell=60, gap=12, label=10)
    composed = compose_grid(plain(sizes), [""] * len(sizes), style=style)
    outside = composed.image.copy()
    for box, color, size in zip(composed.boxes, COLORS, sizes, strict=False):
        part = composed.image.crop(box)
        assert part.getcolors() == [(part.width * part.height, color)]
        assert (part.width, part.height) == fit(size, (60, 60))
        outside.paste((255, 255, 255), box)
    assert outside.getcolors() == [(outside.width * outside.height, (255, 255, 255))]


def test_the_inner_picture_lies_in_the_middle_at_seventy_per_cent():
    outer, inner = plain([(200, 100), (50, 50)])
    composed = compose_pic_in_pic(outer, inner)
    # 70 % of 200 x 100 is 140 x 70; a square fits as 70 x 70, so 65 px left and right, 15 above and below
    assert composed.boxes == ((0, 0, 200, 100), (65, 15, 135, 85))
    assert composed.image.crop((65, 15, 135, 85)).getcolors() == [(4900, COLORS[1])]
    assert composed.image.getcolors() is not None
    assert {c: n for n, c in composed.image.getcolors()} == {COLORS[0]: 20000 - 4900, COLORS[1]: 4900}
    assert outer.getcolors() == [(20000, COLORS[0])]


@pytest.mark.parametrize(
    ("position", "box"), [((0, 0), (0, 0, 50, 50)), ((1, 1), (50, 50, 100, 100)), ((1, 0), (50, 0, 100, 50))]
)
def test_the_inner_picture_goes_to_its_corner(position, box):
    assert compose_pic_in_pic(*plain([(100, 100), (7, 7)]), scale=0.5, position=position).boxes[1] == box


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.floats(0.05, 0.95),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_inner_box_is_within_and_holds_the_inner_picture(outer: Size, inner: Size, scale: float, position):
    composed = compose_pic_in_pic(*plain([outer, inner]), scale=scale, position=position)
    left, top, right, bottom = composed.boxes[1]
    assert 0 <= left < right <= outer[0]
    assert 0 <= top < bottom <= outer[1]
    assert composed.image.crop(composed.boxes[1]).getcolors() == [((right - left) * (bottom - top), COLORS[1])]
    assert composed.image.size == outer


def test_impossible_grids_are_refused():
    with pytest.raises(ConfigError, match="2 to 9 pictures"):
        compose_grid(plain([(5, 5)]), ["a"])
    with pytest.raises(ConfigError, match="as many labels"):
        compose_grid(plain([(5, 5)] * 2), ["a"])
    with pytest.raises(ConfigError, match="1 to 2 rows"):
        compose_grid(plain([(5, 5)] * 2), ["a", "b"], rows=3)
    with pytest.raises(ConfigError, match="scale"):
        compose_pic_in_pic(*plain([(5, 5)] * 2), scale=1)
