"""Attention rollout: follow the attention of some rows through all layers down to the input.

Abnar and Zuidema (2020) multiply the attention matrices of all layers, each mixed with the identity for the residual stream.
Only the mean of some rows of that product is wanted, so one row vector is carried from the last layer to the first:

    r <- residual * r + (1 - residual) * r A_l

A_l is made in pieces from queries and keys, so no layers x N x N tensor ever exists.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from mia_augment import ModelError
from torch import Tensor, nn

from mia_attention.capture.hook import StopForwardError, probing
from mia_attention.capture.weights import ROW_CHUNK, attention_rows, visible
from mia_attention.models.decoder import check_readable, decoder_layers
from mia_attention.models.families import adapter_of
from mia_attention.models.layer_call import Call, check_growing

RESIDUAL = 0.5
"""Share of a position's content that comes from itself."""


def rollout(rows: Tensor, products: Iterable[Callable[[Tensor], Tensor]], residual: float = RESIDUAL) -> Tensor:
    """Carry row vectors through all layers.

    Args:
        rows: (batch, length) where to start, e.g. 1 / n at each of n answer tokens.
        products: of each layer, from the last to the first: r -> r A, both (batch, length).
        residual: share of the residual stream, 0..1.

    Returns:
        (batch, length): how much each input position has to do with the rows; its sum is that of `rows`.
    """
    for product in products:
        rows = residual * rows + (1 - residual) * product(rows)
    return rows


@dataclass(frozen=True)
class _Part:
    """One call of a layer: its queries begin at position `start`, its keys, `keys` of them, at `first_key`."""

    call: Call
    start: int
    first_key: int
    keys: int


class LayerTrace:
    """Observer of one layer: keeps queries and keys, from which any product r A can be made later."""

    def __init__(self, *, value_weighted: bool = False) -> None:
        self._parts: list[_Part] = []
        self._longest: Call | None = None
        self._seen = 0
        self._value_weighted = value_weighted

    def __call__(self, call: Call) -> None:
        check_growing(call, self._seen)
        start = self._seen
        self._seen += call.query.shape[2]
        keys = min(call.key.shape[2], self._seen)
        first_key = self._seen - keys
        if first_key == 0:  # these keys hold those of all calls so far
            self._longest = replace(call, output=None)
            nothing = call.key.new_empty(0)  # a slice would keep the whole cache of this step alive
            call = replace(call, key=nothing, value=nothing)
        call = replace(call, output=None)
        self._parts.append(_Part(call, start, first_key, keys))

    def product(self, rows: Tensor) -> Tensor:
        """(batch, length) r -> r A."""
        out = torch.zeros_like(rows)
        for part in self._parts:
            count = part.call.query.shape[2]
            for offset in range(0, count, ROW_CHUNK):
                size = min(ROW_CHUNK, count - offset)
                piece = rows[:, part.start + offset : part.start + offset + size]
                if piece.any():
                    weights = self._weights(part, offset, size)
                    keys = slice(part.first_key, part.first_key + weights.shape[-1])
                    out[:, keys] += torch.matmul(piece[:, None].to(weights.device), weights)[:, 0].to(out.device)
        return out

    @property
    def length(self) -> int:
        """Positions seen so far."""
        return self._seen

    def _weights(self, part: _Part, offset: int, size: int) -> Tensor:
        call = part.call
        source = self._longest if part.first_key == 0 and self._longest is not None else call
        limit = _visible_keys(call, part.keys, offset, size)
        key, value = source.key[:, :, :limit], source.value[:, :, :limit]
        rows = torch.arange(offset, offset + size, device=call.query.device)
        q_len = call.query.shape[2]
        chosen = call.of_rows(slice(offset, offset + size))
        return attention_rows(
            chosen.query,
            key,
            visible(call.mask, rows, q_len, limit, causal=call.causal, flash=call.flash, window=call.window),
            call.scaling,
            softcap=call.softcap,
            value=value if self._value_weighted else None,
            sink=chosen.sink,
        )


def _visible_keys(call: Call, keys: int, offset: int, size: int) -> int:
    """How many of the keys the queries from `offset` on can see at most: later ones need not be multiplied."""
    if call.mask is None:
        return min(keys, offset + size) if call.causal and call.query.shape[2] > 1 and not call.flash else keys
    if call.mask.dim() == 4 and call.mask.dtype == torch.bool and call.mask.shape[2] > 1:
        seen = call.mask[:, :, offset : offset + size, :keys].flatten(0, 2).any(0).nonzero()
        return int(seen[-1]) + 1 if len(seen) else keys
    return keys


class Traced:
    """Queries and keys of all layers, as `capture_rollout` has collected them."""

    def __init__(self, layers: dict[int, LayerTrace]) -> None:
        self._layers = layers

    @property
    def length(self) -> int:
        """Positions that went through the model as queries."""
        return next(iter(self._layers.values())).length

    def rollout(self, rows: Tensor, residual: float = RESIDUAL) -> Tensor:
        """`rollout` of (batch, length) start weights through all layers.

        Raises:
            ModelError: `rows` has another length than what went through the model.
        """
        if rows.shape[1] != self.length:
            raise ModelError(f"rollout: expected start weights for {self.length} positions, got {rows.shape[1]}")
        with torch.no_grad():
            return rollout(
                rows.float(), [self._layers[layer].product for layer in sorted(self._layers, reverse=True)], residual
            )


def rollout_layers(model: Any) -> dict[int, nn.Module]:
    """The layers that rollout follows, all of the decoder's.

    Raises:
        ModelError: some layers are no attention layers, so that none can be followed; or one cannot be read.
    """
    available = decoder_layers(model)
    if len(available) != max(available) + 1:
        raise ModelError("rollout: expected attention in every layer; this model has layers of another kind between them")
    return check_readable(model, list(available), warn=False)


@contextlib.contextmanager
def capture_rollout(model: Any, *, value_weighted: bool = False, stop: bool = False) -> Iterator[Traced]:
    """Collect what attention rollout needs while the body runs the model. ::

        with capture_rollout(model) as traced:
            model.generate(**inputs)
        traced.rollout(rows)

    Memory is that of the queries and keys of all layers. With `stop` the pass ends after the last layer's attention.

    Raises:
        ModelError: as `mia_attention.capture_attention`, a filled cache included (queries of its positions are gone); or some
            layers are no attention layers, so that none can be followed.
    """
    modules = rollout_layers(model)
    observers = {layer: LayerTrace(value_weighted=value_weighted) for layer in modules}
    with probing(observers, modules, adapter=adapter_of(model), stop=stop), contextlib.suppress(StopForwardError):
        yield Traced(observers)
