"""How much of a box each visual token sees: cases worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mia_attention import BoxCoverage
from mia_augment.errors import DataError, ModelError


def test_centre_crop_hides_the_left_third_of_a_wide_picture(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava")
    coverage = BoxCoverage(llava.model, llava.processor)
    # 336 x 112 px shrinks to 168 x 56; the crop keeps its columns 56..112, that is 112..224 of the original
    assert coverage((336, 112), (0, 0, 112, 112), tokens=16, several=False).sum() < 0.5
    middle = coverage((336, 112), (112, 0, 224, 112), tokens=16, several=False)
    assert middle.min() > 0.9


def test_padding_keeps_the_left_third_in_the_middle_rows(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava_pad")
    weights = BoxCoverage(llava.model, llava.processor)((224, 112), (0, 0, 112, 112), tokens=16, several=False).view(4, 4)
    # padded to 224 x 224: the picture lies in rows 1 and 2 of four, the box in their first two columns
    expected = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).float()
    assert (weights - expected).abs().max() < 0.1


def test_half_a_patch_counts_half(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava")
    weights = BoxCoverage(llava.model, llava.processor)((56, 56), (0, 0, 7, 14), tokens=16, several=False)
    assert weights.tolist() == pytest.approx([0.5] + [0.0] * 15)


def test_qwen_merges_two_by_two_patches_into_a_token(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")
    # 112 x 56 px: 8 x 4 patches of 14, 4 x 2 tokens of 28
    weights = BoxCoverage(qwen.model, qwen.processor)((112, 56), (28, 0, 56, 42), tokens=8, several=False)
    assert weights.tolist() == pytest.approx([0, 1, 0, 0, 0, 0.5, 0, 0])


def test_newline_tokens_see_no_pixel(tiny: SimpleNamespace) -> None:
    model = tiny.build("llava_next")
    size = (112, 56)  # base crop 4 x 4, then 4 rows of 8 tiles' patches, each with a newline
    weights = BoxCoverage(model.model, model.processor)(size, (0, 0, *size), tokens=16 + 4 * 9, several=False)
    assert weights[16:].view(4, 9)[:, 8].tolist() == [0.0] * 4
    assert weights[16:].view(4, 9)[:, :8].min() > 0.9


def test_box_outside_the_picture_is_refused(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava")
    with pytest.raises(DataError, match="within the picture of 50 x 40 px"):
        BoxCoverage(llava.model, llava.processor)((50, 40), (10, 10, 60, 20), tokens=16, several=False)


def test_wrong_number_of_tokens_is_refused(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava")
    with pytest.raises(ModelError, match="17 visual tokens, but 16"):
        BoxCoverage(llava.model, llava.processor)((56, 56), (0, 0, 7, 14), tokens=17, several=False)
