"""The order of pixels that painting finds is the one that the table of families has; what it cannot find says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import BoxCoverage
from mia_attention.models import families
from mia_attention.models.painting import changed_tokens, own_cells
from mia_attention.models.pixel_orders import crops, own_size, placed

SIZE, BOX = (420, 260), (200, 90, 330, 200)


def counted(family: Any) -> int:
    return len(changed_tokens(family.model, family.processor, SIZE, BOX))


@pytest.mark.parametrize(
    "name", ["llava_pad", "llava_next", "qwen2_vl", "qwen3_vl", "internvl", "idefics3", "gemma3", "mistral3"]
)
def test_a_family_out_of_the_table_is_mapped_as_in_it(
    name: str, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = tiny.build(name)
    tokens = counted(family)
    described = BoxCoverage(family.model, family.processor)(SIZE, BOX, tokens=tokens, several=False)
    monkeypatch.delitem(families.FAMILIES, family.model.config.model_type)
    found = BoxCoverage(family.model, family.processor)
    assert found.known
    assert (found(SIZE, BOX, tokens=tokens, several=False) - described).abs().max() < 0.02


def test_a_model_whose_tokens_see_the_whole_picture_has_no_boxes_and_says_why(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = tiny.build("llava")
    monkeypatch.delitem(families.FAMILIES, "llava")
    embed = family.model.model.multi_modal_projector
    hook = embed.register_forward_hook(lambda _, __, output: output.mean(-2, keepdim=True).expand_as(output))
    try:
        coverage = BoxCoverage(family.model, family.processor)
        assert not coverage.known
        assert coverage.order.reason == "each of its visual tokens sees the whole picture"
    finally:
        hook.remove()


@pytest.mark.parametrize(("size", "step", "padding"), [(3, 1, 1), (3, 2, 1), (7, 4, 3), (4, 4, 0), (5, 2, 2), (3, 1, "same")])
def test_a_convolution_that_overlaps_shows_its_own_cell_alone(size: int, step: int, padding: Any) -> None:
    conv = torch.nn.Conv2d(1, 1, size, step, padding, bias=False)
    torch.nn.init.ones_(conv.weight)
    whole = conv.weight.data.clone()
    with torch.no_grad(), own_cells([conv]):
        for row, column in ((0, 0), (5, 6), (9, 3)):
            picture = torch.zeros(1, 1, 12, 12)
            picture[0, 0, row, column] = 1.0
            assert conv(picture)[0, 0].nonzero().tolist() == [[row // step, column // step]]
    assert torch.equal(conv.weight.data, whole)


def test_a_wrong_order_of_tokens_is_not_taken(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny.build("llava")
    monkeypatch.delitem(families.FAMILIES, "llava")
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    hook = family.model.model.multi_modal_projector.register_forward_hook(lambda _, __, output: output[:, shuffled])
    try:
        coverage = BoxCoverage(family.model, family.processor)
        assert not coverage.known
        assert coverage.order.reason == "the tokens that a painted box changes are in none of the known orders"
    finally:
        hook.remove()


def test_orders_by_hand() -> None:
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    assert crops(None, None, {"pixel_values": picture}, 4).tolist() == [2.5, 4.5, 10.5, 12.5]  # type: ignore[union-attr]
    both = torch.cat([picture, picture + 100])
    turned = crops(None, None, {"pixel_values": both}, 8, turn=1)
    assert turned is not None
    assert turned.tolist()[:4] == [102.5, 104.5, 110.5, 112.5]
    canvas = torch.nn.functional.pad(torch.ones(1, 3, 8, 4), (0, 6, 0, 2))
    rows = own_size(None, None, {"pixel_values": canvas, "image_sizes": [[8, 4]]}, 4, newline=True)
    assert rows is not None
    assert rows.tolist() == [1, 0, 1, 0]
    places = torch.tensor([[[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [3, 0], [2, 1], [3, 1], [-1, -1]]])
    patches = torch.tensor([1.0, 1, 1, 1, 3, 3, 3, 3, 9]).view(1, 9, 1)
    found = placed(None, None, {"pixel_values": patches, "image_position_ids": places}, 2)
    assert found is not None
    assert found.tolist() == [1, 3]
