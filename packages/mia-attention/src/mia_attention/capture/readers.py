"""What attention is read from while a batch is answered: some layers, or the rollout through all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from mia_augment import ModelError, Readout
from torch import Tensor

from mia_attention.capture.layer_rows import Captured, RowSpan, capture_attention
from mia_attention.capture.rollouts import Traced, capture_rollout
from mia_attention.readouts import layers_of, readout_kind


class Reader(Protocol):
    """Observes one batch; afterwards it knows how attention of any rows is spread over the positions."""

    readouts: list[Readout]

    def reading(self, span: RowSpan, *, stop: bool = False, past: int = 0) -> contextlib.AbstractContextManager[None]:
        """Run the model within it; `span`: rows that will be asked for, `stop`: end the pass after the last layer needed,
        `past`: positions that the cache holds already."""
        ...

    @property
    def length(self) -> int:
        """Positions that went through the model."""
        ...

    def spread(self, own: Tensor, readout: Readout) -> Tensor:
        """Mean attention of each sample's rows: (batch, length) bool -> (batch, length) float32; 0 where it has no row."""
        ...


class LayersReader:
    """Keeps the rows of some layers."""

    def __init__(self, model: Any, readouts: list[Readout], *, value_weighted: bool) -> None:
        self.readouts = readouts
        self._model = model
        self._layers = sorted({layer for readout in readouts for layer in layers_of(readout)})
        self._value_weighted = value_weighted
        self._captured: Captured | None = None

    @contextlib.contextmanager
    def reading(self, span: RowSpan, *, stop: bool = False, past: int = 0) -> Iterator[None]:
        with capture_attention(
            self._model, self._layers, rows=span, value_weighted=self._value_weighted, stop=stop, past=past
        ) as captured:
            self._captured = captured
            yield

    @property
    def length(self) -> int:
        return 0 if self._captured is None else self._captured.length

    def spread(self, own: Tensor, readout: Readout) -> Tensor:
        captured = self._captured
        if captured is None or captured.rows == 0:
            return torch.zeros(own.shape, device=own.device)
        layers = layers_of(readout)
        first = captured.first
        weights = own[:, first : first + captured.rows].float()
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        spread = torch.zeros(own.shape, device=own.device)
        for layer in layers:
            rows = captured.attention(layer).to(own.device)  # a model may be spread over several devices
            spread[:, : rows.shape[-1]] += torch.matmul(weights[:, None], rows)[:, 0] / len(layers)
        return spread


class HeadsReader:
    """Keeps the rows of some heads; each readout is a list of (layer, head), read as the mean over them."""

    def __init__(self, model: Any, readouts: list[Readout], *, value_weighted: bool) -> None:
        self.readouts = readouts
        self._model = model
        self._value_weighted = value_weighted
        self._captured: Captured | None = None
        self._spreads: dict[int, Tensor] = {}
        self._heads: dict[int, list[int]] = {}
        for layer, head in sorted({pair for readout in readouts for pair in _pairs(readout)}):
            self._heads.setdefault(layer, []).append(head)

    @contextlib.contextmanager
    def reading(self, span: RowSpan, *, stop: bool = False, past: int = 0) -> Iterator[None]:
        with capture_attention(
            self._model,
            list(self._heads),
            rows=span,
            value_weighted=self._value_weighted,
            stop=stop,
            past=past,
            heads=self._heads,
        ) as captured:
            self._captured = captured
            self._spreads = {}
            yield

    @property
    def length(self) -> int:
        return 0 if self._captured is None else self._captured.length

    def spread(self, own: Tensor, readout: Readout) -> Tensor:
        pairs = _pairs(readout)
        if self._captured is None or self._captured.rows == 0:
            return torch.zeros(own.shape, device=own.device)
        spread = torch.zeros(own.shape, device=own.device)
        for layer, head in pairs:
            rows = self._of_layer(layer, own)[:, self._heads[layer].index(head)].to(own.device)
            spread[:, : rows.shape[-1]] += rows / len(pairs)
        return spread

    def _of_layer(self, layer: int, own: Tensor) -> Tensor:
        """Mean over each sample's rows, (batch, heads, keys); made once, as all readouts ask for the same rows."""
        if layer not in self._spreads and self._captured is not None:
            first = self._captured.first
            weights = own[:, first : first + self._captured.rows].float()
            weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
            rows = self._captured.heads(layer)
            self._spreads[layer] = torch.einsum("br,brhk->bhk", weights.to(rows.device), rows)
        return self._spreads[layer]


class RolloutReader:
    """Keeps queries and keys of all layers."""

    def __init__(self, model: Any, *, value_weighted: bool) -> None:
        self.readouts: list[Readout] = ["rollout"]
        self._model = model
        self._value_weighted = value_weighted
        self._traced: Traced | None = None

    @contextlib.contextmanager
    def reading(self, span: RowSpan, *, stop: bool = False, past: int = 0) -> Iterator[None]:
        if past:
            raise ModelError("rollout follows every position: expected no filled cache")
        with capture_rollout(self._model, value_weighted=self._value_weighted, stop=stop) as traced:
            self._traced = traced
            yield

    @property
    def length(self) -> int:
        return 0 if self._traced is None else self._traced.length

    def spread(self, own: Tensor, readout: Readout) -> Tensor:
        if self._traced is None:
            return torch.zeros(own.shape, device=own.device)
        weights = own.float() / own.sum(1, keepdim=True).clamp_min(1)
        return self._traced.rollout(weights)


def reader_for(model: Any, readouts: list[Readout], *, value_weighted: bool) -> Reader:
    """What reads some readouts while the model answers: any number of layers or heads together, any other by itself.

    Raises:
        ModelError: several readouts that are not all layers or all heads, or one that is read from finished answers only.
    """
    kind = readout_kind(readouts[0])
    if len(readouts) > 1 and not (kind.together and all(readout_kind(readout) is kind for readout in readouts)):
        raise ModelError(f"expected several layers, or one readout of another kind by itself, got {readouts}")
    if kind.reader is None:
        raise ModelError(f"{readouts[0]}: needs a given answer; read it with read_answers, or score with it")
    return kind.reader(model, readouts, value_weighted)


def _pairs(readout: Readout) -> list[tuple[int, int]]:
    return [(each[0], each[1]) for each in readout if not isinstance(each, (int, str))] if isinstance(readout, list) else []
