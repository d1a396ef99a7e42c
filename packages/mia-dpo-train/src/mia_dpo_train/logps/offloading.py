"""Activations in the machine's memory, from the forward pass until the backward pass asks for them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

SMALL_BYTES = 2**20
"""Smaller tensors stay where they are: moving them costs more than they take."""


def kept_on_the_host(model: nn.Module) -> Any:
    """Context of a forward pass: what autograd saves goes to the machine's memory, weights and small tensors aside.

    Copies go through pinned memory on the stream that computes, in order with it: none is read before it is written, and no
    number changes. Beside gradient checkpointing, which saves the inputs of layers alone, it moves these.
    """
    weights = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        # A tensor that does not move is let go of its graph: an operation that saved its own output would never be freed.
        if tensor.nbytes < SMALL_BYTES or tensor.untyped_storage().data_ptr() in weights:
            return tensor.detach()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return tensor.device, host.copy_(tensor, non_blocking=True)

    def unpack(packed: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed[1].to(packed[0], non_blocking=True)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def offloading(model: nn.Module, device: torch.device, *, wanted: bool) -> Any:
    """`kept_on_the_host` where it is wanted and there is another memory than the machine's."""
    return kept_on_the_host(model) if wanted and device.type != "cpu" else contextlib.nullcontext()
