"""Attention sinks by massive activation, with values worked by hand."""

from __future__ import annotations

import pytest
import torch
from mia_attention import massive_sinks, sink_dimensions, sink_threshold


def test_tokens_massive_in_a_dimension_of_the_first_token_are_sinks() -> None:
    states = torch.ones(1, 4, 16)
    states[0, 1, 3] = 30.0  # the first real token: |30| / sqrt((15 + 900) / 16) = 3.97
    states[0, 2, 3] = -5.0  # 5 / sqrt((15 + 25) / 16) = 3.16
    states[0, 3, 7] = 30.0  # massive in a dimension that is none of the first token's
    dimensions = sink_dimensions(states, torch.tensor([1]), 3.5)
    assert dimensions.tolist() == [3]
    assert massive_sinks(states, dimensions, 3.5).tolist() == [[False, True, False, False]]
    assert massive_sinks(states, dimensions, 3.1).tolist() == [[False, True, True, False]]
    assert massive_sinks(states, dimensions, 3.2).tolist() == [[False, True, False, False]]


def test_the_threshold_is_the_published_one_at_its_width_and_can_be_reached_below() -> None:
    assert sink_threshold(4096) == 20.0
    assert sink_threshold(64) == pytest.approx(2.5)
    states = torch.zeros(1, 2, 64)
    states[0, :, 5] = 1.0  # all of it in one dimension: sqrt(64) = 8
    assert sink_dimensions(states, torch.tensor([0])).tolist() == [5]
    assert sink_dimensions(states, torch.tensor([0]), 20.0).tolist() == []


def test_without_a_massive_first_token_there_are_none() -> None:
    states = torch.ones(2, 3, 16)
    assert not massive_sinks(states, sink_dimensions(states, torch.tensor([0, 1]))).any()
