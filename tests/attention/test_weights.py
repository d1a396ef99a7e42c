"""Head-mean attention rows against numbers worked by hand and against torch's own softmax attention."""

from __future__ import annotations

import math

import pytest
import torch
from mia_attention.capture.extra_logits import biased
from mia_attention.capture.weights import attention_rows, visible
from mia_attention.models.layer_call import Call


def test_two_heads_and_three_keys_by_hand() -> None:
    query = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2 heads, 1 row, 2)
    key = torch.tensor([[[[0.0, 0.0], [math.log(2), math.log(4)], [math.log(4), 0.0]]]])  # one key head for both
    # head 0: logits 0, ln 2, ln 4 -> 1/7, 2/7, 4/7; head 1: 0, ln 4, 0 -> 1/6, 4/6, 1/6; mean of both
    expected = torch.tensor([[[(1 / 7 + 1 / 6) / 2, (2 / 7 + 4 / 6) / 2, (4 / 7 + 1 / 6) / 2]]])
    torch.testing.assert_close(attention_rows(query, key, None, 1.0), expected)


def test_masked_keys_get_nothing_whether_bool_or_additive() -> None:
    query, key = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 4, 2)
    allowed = torch.tensor([[[[True, False, True, False]]]])
    added = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
    for mask in (allowed, added):
        assert attention_rows(query, key, mask, 1.0).tolist() == [[[0.5, 0.0, 0.5, 0.0]]]


def test_a_sink_takes_its_share_and_belongs_to_no_key() -> None:
    query, key = torch.zeros(1, 2, 3, 2), torch.zeros(1, 1, 4, 2)
    sink = torch.tensor([0.0, math.log(4)]).view(1, 2, 1, 1)  # of four equal keys: 4/5 and 1/2 are left
    expected = torch.full((1, 3, 4), (1 / 5 + 1 / 8) / 2)
    torch.testing.assert_close(attention_rows(query, key, None, 1.0, sink=sink), expected)
    each = torch.tensor([0.0, math.log(4), math.log(16)]).view(1, 1, 3, 1).expand(1, 2, 3, 1)
    found = attention_rows(query, key, None, 1.0, sink=each, row_chunk=2)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([1 / 5, 1 / 8, 1 / 20]))


def test_chunks_of_rows_and_grouped_heads_equal_the_plain_formula() -> None:
    torch.manual_seed(1)
    query, key = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 7, 8)
    mask = torch.rand(2, 1, 5, 7) > 0.3
    mask[..., 0] = True
    logits = query @ key.repeat_interleave(3, 1).transpose(-1, -2) * 0.3
    expected = logits.masked_fill(~mask, -math.inf).softmax(-1).mean(1)
    torch.testing.assert_close(attention_rows(query, key, mask, 0.3, row_chunk=2), expected)


def test_softcap_bends_the_logits_before_the_softmax() -> None:
    query, key = torch.tensor([[[[3.0]]]]), torch.tensor([[[[2.0], [0.0]]]])
    high = math.exp(2 * math.tanh(6.0 / 2))
    assert attention_rows(query, key, None, 1.0, softcap=2.0)[0, 0, 0].item() == pytest.approx(high / (high + 1))


def test_value_weighting_multiplies_by_value_length_and_sums_to_one() -> None:
    query, key = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 2)
    value = torch.tensor([[[[3.0, 4.0], [0.0, 15.0]]]])  # lengths 5 and 15, equal attention
    assert attention_rows(query, key, None, 1.0, value=value)[0, 0].tolist() == pytest.approx([0.25, 0.75])


ROWS = torch.tensor([0, 2])


def as_lists(mask: torch.Tensor | None) -> list[list[int]] | None:
    return None if mask is None else mask.int().flatten(0, -2).tolist()


def test_no_mask_and_several_queries_mean_causal_from_the_first_key() -> None:
    assert as_lists(visible(None, ROWS, 3, 4, causal=True, flash=False)) == [[1, 0, 0, 0], [1, 1, 1, 0]]


def test_flash_attention_is_causal_up_to_the_last_key() -> None:
    assert as_lists(visible(None, ROWS, 3, 5, causal=True, flash=True)) == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_one_query_sees_every_key() -> None:
    assert visible(None, torch.tensor([0]), 1, 5, causal=True, flash=False) is None


def test_window_hides_keys_further_back() -> None:
    assert as_lists(visible(None, ROWS, 3, 3, causal=True, flash=False, window=2)) == [[1, 0, 0], [0, 1, 1]]


def test_flash_padding_mask_hides_padding_too() -> None:
    padding = torch.tensor([[0, 1, 1]])
    assert as_lists(visible(padding, ROWS, 3, 3, causal=True, flash=True)) == [[0, 0, 0], [0, 1, 1]]


def test_four_dimensional_mask_is_cut_to_the_keys_and_rows() -> None:
    mask = torch.arange(3 * 6).view(1, 1, 3, 6).float()
    cut = visible(mask, ROWS, 3, 4, causal=True, flash=False)
    assert cut is not None
    assert cut.tolist() == [[[[0, 1, 2, 3], [12, 13, 14, 15]]]]


@pytest.mark.parametrize("given", ["causal", "bool", "added"])
def test_a_bias_is_added_to_the_logits_of_the_keys_that_are_seen(given: str) -> None:
    bias = torch.tensor([[0.0, 9.0], [math.log(3), 0.0]]).expand(1, 2, 2, 2)
    seen = torch.tensor([[True, False], [True, True]])[None, None]
    mask = {"causal": None, "bool": seen, "added": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}[given]
    call = biased(Call(torch.zeros(1, 2, 2, 4), torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), mask, 1.0), bias)
    found = attention_rows(call.query, call.key, call.mask, call.scaling)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.0], [0.75, 0.25]]]))
