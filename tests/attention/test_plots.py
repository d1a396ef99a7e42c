"""Attention maps add up to what was measured, and figures show it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mia_attention import BoxCoverage, HeadChoice, ScoreSettings, choose_layer, layer_profile, look_at, score
from mia_attention.measure.attention_maps import cell_masses, relative_maps
from mia_attention.measure.maps import coverages
from mia_attention.plots import plot_before_after, plot_heads, plot_look, plot_profile, plot_ratios
from mia_augment.errors import DataError, ModelError

SETTINGS = ScoreSettings(max_new_tokens=4, disturb=False)


def texts(figure: Any) -> str:
    import matplotlib.text

    return " | ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_cells_share_out_each_tokens_attention_by_what_it_sees(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava")
    coverage = coverages(BoxCoverage(llava.model, llava.processor), 16, several=False)
    masses = cell_masses(np.arange(16.0), (56, 56), coverage, cells=2)
    square = np.arange(16).reshape(4, 4)
    assert masses == pytest.approx(
        np.array([[square[:2, :2].sum(), square[:2, 2:].sum()], [square[2:, :2].sum(), square[2:, 2:].sum()]])
    )


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl", "idefics3"])
def test_maps_sum_to_the_mass_on_tokens_that_see_pixels(tiny: SimpleNamespace, name: str) -> None:
    build = tiny.build(name)
    seen = look_at(
        tiny.sequence("s", ["a.png", "b.png"], 1), build.model, build.processor, SETTINGS, open_image=tiny.open_image, cells=4
    )
    for index, mass in enumerate(seen.maps):
        image_mass = seen.scored.attention.image_mass[index]
        if name == "llava_next":  # newline tokens belong to the image and see no pixel
            assert mass.sum() < image_mass
        else:
            assert mass.sum() == pytest.approx(image_mass, rel=1e-4)
    assert seen.maps[1].shape == (4, 2)  # 70 x 130 px


def test_figure_of_one_answer_names_parts_masses_and_ratio(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    seen = look_at(tiny.grid("g"), build.model, build.processor, SETTINGS, open_image=tiny.open_image, cells=4)
    shown = texts(plot_look(seen))
    assert f"Image2 (target): {seen.scored.attention.region_mass[1]:.3f}" in shown
    assert f"ratio: {seen.scored.attention.ratio:.2f}" in shown


def test_a_picture_of_three_times_the_size_is_as_bright(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    sample = tiny.sequence("s", ["a.png", "b.png"], 1)
    seen = look_at(sample, build.model, build.processor, SETTINGS, open_image=tiny.open_image, cells=4)
    first, second = seen.pictures
    larger = dataclasses.replace(seen, pictures=[first, second.resize((3 * second.width, 3 * second.height))])
    whole = dataclasses.replace(seen, maps=[np.full((2, 4), 0.02), np.full((8, 4), 0.005)])

    def drawn(shown: Any) -> list[Any]:
        return [np.asarray(axis.images[0].get_array()) for axis in plot_look(shown).axes if axis.images][2:4]

    for before, after in zip(drawn(seen), drawn(larger), strict=True):
        assert after == pytest.approx(before)
    # 0.16 of the attention on each picture, evenly: as bright, whatever the raster
    assert [float(np.unique(shade).item()) for shade in drawn(whole)] == pytest.approx([1, 1])


def test_a_long_question_stays_within_its_figure(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    sample = tiny.pic_in_pic("p").model_copy(update={"prompt": "<image>\n" + "what costs $ 1 and $ 2 ? " * 8})
    seen = look_at(sample, build.model, build.processor, SETTINGS, open_image=tiny.open_image, cells=4)
    figure = plot_look(seen)
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.width
    assert title.y1 <= figure.bbox.height


def test_figures_of_many_answers_count_them(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = [tiny.sequence(f"s{i}", ["a.png", "b.png"], i % 2) for i in range(4)] + [tiny.single("x"), tiny.grid("g")]
    scored = list(score(samples, build.model, build.processor, SETTINGS, open_image=tiny.open_image))
    ratios = texts(plot_ratios(scored, {"sequence": 0.9}))
    assert "sequence/2 (n=4)" in ratios
    assert "0.9: 4 below" in ratios
    assert "1 without a ratio" in ratios
    assert "sequence/2 (n=3)" in texts(plot_before_after(scored[:3], scored[::-1]))
    profile = layer_profile(samples[:4], build.model, build.processor, SETTINGS, open_image=tiny.open_image)
    table: dict[int, list[float | None]] = {layer: [row[2][layer].ratio for row in profile] for layer in range(4)}
    choice = choose_layer(table, [True, False, False, True], ["sequence/2"] * 4)
    assert f"chosen: layer {choice.layer}" in texts(plot_profile(profile, choice))


def test_heads_stand_in_a_grid_of_layers_and_the_chosen_ones_are_framed() -> None:
    scores = [((3, 1), 0.9), ((1, 0), 0.75), ((1, 1), 0.5), ((3, 0), 0.4)]  # layer 2 has no attention
    figure = plot_heads(HeadChoice([(3, 1), (1, 0)], 0.8, 0.7, 0.85, 40, scores))
    axis, _ = figure.axes
    [grid] = axis.images
    np.testing.assert_allclose(grid.get_array().filled(np.nan), [[0.75, 0.5], [0.4, 0.9]])
    assert grid.get_clim() == pytest.approx((0.1, 0.9))  # chance in the middle
    assert [frame.get_xy() for frame in axis.patches] == [(0.5, 0.5), (-0.5, -0.5)]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1", "3"]
    assert "3.1, 1.0: 0.80 [0.70, 0.85] | on 40 samples" in texts(figure).replace("\n", " | ")


def test_what_cannot_be_looked_at_is_an_error(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")

    def gone(name: str) -> Any:
        raise DataError(f"{name}: gone")

    with pytest.raises(ModelError, match=r"sample x: a\.png: gone"):
        look_at(tiny.single("x"), build.model, build.processor, SETTINGS, open_image=gone)
    short = SETTINGS.model_copy(update={"max_new_tokens": 1})
    with pytest.raises(ModelError, match="one token"):
        look_at(tiny.single("x"), build.model, build.processor, short, open_image=tiny.open_image)


def test_a_tokens_attention_goes_to_the_cells_it_sees() -> None:
    """Four tokens, a quarter of the picture each; the last one sees nothing (cropped away)."""
    seen_by = [(0, 0, 4, 4), (4, 0, 8, 4), (0, 4, 4, 8), None]

    def coverage(size: tuple[int, int], box: Any) -> Any:
        overlaps = []
        for token in seen_by:
            if token is None:
                overlaps.append(0.0)
                continue
            width = max(0, min(token[2], box[2]) - max(token[0], box[0]))
            height = max(0, min(token[3], box[3]) - max(token[1], box[1]))
            overlaps.append(width * height / 16)
        return np.array(overlaps)

    cells = cell_masses(np.array([0.1, 0.2, 0.3, 0.4]), (8, 8), coverage, cells=4)
    assert cells.shape == (4, 4)
    assert cells[:2, :2] == pytest.approx(0.1 / 4)
    assert cells[:2, 2:] == pytest.approx(0.2 / 4)
    assert cells[2:, :2] == pytest.approx(0.3 / 4)
    assert cells[2:, 2:] == pytest.approx(0.0)


def test_maps_of_pictures_with_more_cells_are_compared_by_area() -> None:
    """The same attention on 4 cells as on 1 is as dense on each quarter of the picture."""
    assert relative_maps([np.full((2, 2), 0.1), np.array([[0.4]])]) == [[[1.0, 1.0], [1.0, 1.0]], [[1.0]]]
