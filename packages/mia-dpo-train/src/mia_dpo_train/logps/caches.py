"""Caches of prompts that several answers go on from: keys and values, and the states of layers that carry one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

_STATES = ("conv_states", "recurrent_states")
"""Of layers that do not attend (linear attention, state-space models, convolutions): by number, what they carry on."""


def repeat_cache(cache: Any, count: int) -> None:
    """Repeat every row of a cache `count` times, for answers that go on from it and end there.

    Layers that carry a state write the next one over it, which would take from the backward pass what it needs; since nothing
    follows an answer, they leave it as it is.
    """
    for layer in cache.layers:
        if hasattr(layer, "batch_repeat_interleave"):
            layer.batch_repeat_interleave(count)
        carried = [states for name in _STATES if isinstance(states := getattr(layer, name, None), dict)]
        for states in carried:
            for number, state in states.items():
                states[number] = None if state is None else state.repeat_interleave(count, dim=0)
        if carried:
            layer.update_conv_state = partial(_behind, layer)
            layer.update_recurrent_state = _as_it_is


def _behind(layer: Any, states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
    """What a convolution sees: the last inputs of the prompt, and those that follow."""
    return torch.cat([layer.conv_states[state_idx], states], dim=-1)


def _as_it_is(states: Tensor, *_: Any, **__: Any) -> Tensor:
    return states
