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
from mia_attention.readouts import LAYERS, readout_kind


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
        self._layers = _layers(readouts)
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
        if captured is None or captured.rows == 0 or isinstance(readout, str):
            return torch.zeros(own.shape, device=own.device)
        layers = [readout] if isinstance(readout, int) else readout
        first = captured.first
        weights = own[:, first : first + captured.rows].float()
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        spread = torch.zeros(own.shape, device=own.device)
        for layer in layers:
            rows = captured.attention(layer).to(own.device)  # a model may be spread over several devices
            spread[:, : rows.shape[-1]] += torch.matmul(weights[:, None], rows)[:, 0] / len(layers)
        return spread


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
    """What reads some readouts while the model answers: any number of layers together, any other readout by itself.

    Raises:
        ModelError: several readouts that are not all layers, or one that is read from finished answers only.
    """
    kind = readout_kind(readouts[0])
    if len(readouts) > 1 and not all(readout_kind(readout) is LAYERS for readout in readouts):
        raise ModelError(f"expected several layers, or one readout of another kind by itself, got {readouts}")
    if kind.reader is None:
        raise ModelError(f"{readouts[0]}: needs a given answer; read it with read_answers, or score with it")
    return kind.reader(model, readouts, value_weighted)


def _layers(readouts: list[Readout]) -> list[int]:
    layers: set[int] = set()
    for readout in readouts:
        layers.update([readout] if isinstance(readout, int) else [layer for layer in readout if isinstance(layer, int)])
    return sorted(layers)
