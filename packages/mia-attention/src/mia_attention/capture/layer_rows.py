"""Read attention of chosen layers and rows while a model runs on its usual, fast attention."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from mia_augment import ModelError
from torch import Tensor, nn

from mia_attention.capture.hook import StopForwardError, probing
from mia_attention.capture.weights import ROW_CHUNK, attention_rows, head_rows, visible
from mia_attention.models.decoder import check_heads, check_readable, head_count
from mia_attention.models.families import adapter_of
from mia_attention.models.layer_call import Call, check_growing

RowSpan = Literal["generated", "predicting", "all"] | tuple[int, int | None]
"""Query rows by position in the (padded) sequence: from, to (half-open; None: no end). `generated` starts where the first
forward call, the prompt, ends; `predicting` one row earlier."""


class LayerRows:
    """Observer of one layer: keeps the chosen rows."""

    def __init__(self, rows: RowSpan, *, value_weighted: bool, past: int = 0) -> None:
        self._span = rows
        self.value_weighted = value_weighted
        self._past = past
        self._seen = past
        self._parts: list[tuple[Tensor, int]] = []

    def __call__(self, call: Call) -> None:
        check_growing(call, self._seen, self._past)
        q_len, k_len = call.query.shape[2], call.key.shape[2]
        if isinstance(self._span, str):
            start = {"generated": q_len, "predicting": q_len - 1, "all": 0}[self._span]
            self._span = (self._past + start, None)
        first = max(self._span[0] - self._seen, 0)
        last = q_len if self._span[1] is None else min(self._span[1] - self._seen, q_len)
        self._seen += q_len
        if first >= last:
            return
        rows = torch.arange(first, last, device=call.query.device)
        key, value = call.key, call.value
        if k_len > self._seen:  # a static cache is longer than what has been written
            key, value, k_len = key[:, :, : self._seen], value[:, :, : self._seen], self._seen
        mask = visible(call.mask, rows, q_len, k_len, causal=call.causal, flash=call.flash, window=call.window)
        skipped = self._seen - k_len  # keys that a sliding cache has dropped
        chosen = replace(call.of_rows(slice(first, last)), key=key, value=value, mask=mask)
        self._parts.append((self.weights(chosen, skipped), skipped))

    def weights(self, call: Call, skipped: int) -> Tensor:
        """(batch, rows, keys): attention of a call's queries, whose mask is that of these rows.

        Args:
            skipped: positions before the call's first key.
        """
        return attention_rows(
            call.query,
            call.key,
            call.mask,
            call.scaling,
            softcap=call.softcap,
            value=call.value if self.value_weighted else None,
            sink=call.sink,
        )

    def result(self) -> Tensor:
        """(batch, rows, keys), each key at its position in the sequence."""
        if not self._parts:
            raise ModelError(
                "no attention row was captured: expected at least one forward pass that reaches the "
                "chosen rows; see docs/errors.md#nothing-was-captured"
            )
        parts = [nn.functional.pad(part, (skipped, self._seen - skipped - part.shape[-1])) for part, skipped in self._parts]
        return torch.cat(parts, dim=1)

    @property
    def length(self) -> int:
        """Positions seen so far, those of a filled cache included."""
        return self._seen

    @property
    def first(self) -> int:
        """Position of the first row."""
        return self._span[0] if not isinstance(self._span, str) else 0

    def __len__(self) -> int:
        return sum(part.shape[1] for part, _ in self._parts)


class HeadRows(LayerRows):
    """Observer of one layer: keeps the chosen rows of every head, or of some."""

    def __init__(self, rows: RowSpan, *, value_weighted: bool, past: int = 0, chosen: Sequence[int] | None = None) -> None:
        super().__init__(rows, value_weighted=value_weighted, past=past)
        self._chosen = None if chosen is None else list(chosen)

    def weights(self, call: Call, skipped: int) -> Tensor:
        """(batch, rows, heads, keys)."""
        if self._chosen is not None:
            call = _of_heads(call, self._chosen)
        found = torch.empty(
            (call.query.shape[0], call.query.shape[2], call.query.shape[1], call.key.shape[2]), device=call.query.device
        )
        for start in range(0, call.query.shape[2], ROW_CHUNK):
            part = slice(start, start + ROW_CHUNK)
            mask = None if call.mask is None else call.mask[:, :, part]
            one = call.of_rows(part)
            each = head_rows(one.query, call.key, mask, call.scaling, softcap=call.softcap, sink=one.sink)
            if self.value_weighted:
                lengths = torch.linalg.vector_norm(call.value.float(), dim=-1)
                each = each * lengths.repeat_interleave(each.shape[1] // lengths.shape[1], dim=1)[:, :, None]
                each = each / each.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            found[:, part] = each.transpose(1, 2)
        return found


def _of_heads(call: Call, heads: list[int]) -> Call:
    """The call as if it had some heads only, each with its own keys."""
    groups = call.query.shape[1] // call.key.shape[1]
    own = [head // groups for head in heads]
    mask = call.mask[:, heads] if call.mask is not None and call.mask.dim() == 4 and call.mask.shape[1] > 1 else call.mask
    sink = None if call.sink is None else call.sink[:, heads]
    return replace(call, query=call.query[:, heads], key=call.key[:, own], value=call.value[:, own], mask=mask, sink=sink)


class Captured:
    """What `capture_attention` has read so far."""

    def __init__(self, layers: dict[int, LayerRows]) -> None:
        self._layers = layers

    @property
    def layers(self) -> list[int]:
        return list(self._layers)

    @property
    def rows(self) -> int:
        """Rows captured in each layer."""
        return len(self._any)

    @property
    def first(self) -> int:
        """Position of the first captured row in the padded sequence."""
        return self._any.first

    @property
    def length(self) -> int:
        """Positions that went through the model."""
        return self._any.length

    @property
    def _any(self) -> LayerRows:
        return next(iter(self._layers.values()))

    def heads(self, layer: int) -> Tensor:
        """Attention of each head of one layer, of a capture with `heads`.

        Returns:
            (batch, rows, heads, keys) float32, rows in order of position; keys as positions in the padded sequence.

        Raises:
            ModelError: no row was captured, not this layer, or only the mean over heads.
        """
        found = self._result(layer)
        if found.dim() != 4:
            raise ModelError("only the mean over heads was captured: open the capture with heads=True")
        return found

    def _result(self, layer: int) -> Tensor:
        if layer not in self._layers:
            raise ModelError(f"layer {layer} was not captured: expected one of {self.layers}")
        return self._layers[layer].result()

    def attention(self, layer: int | None = None) -> Tensor:
        """Head-mean attention of one layer, or the mean over all captured layers.

        Returns:
            (batch, rows, keys) float32, rows in order of position; keys as positions in the padded sequence.

        Raises:
            ModelError: no row was captured, or not this layer.
        """
        found = torch.stack([self._result(each) for each in (self.layers if layer is None else [layer])]).mean(0)
        return found.mean(2) if found.dim() == 4 else found


@contextlib.contextmanager
def capture_attention(
    model: nn.Module,
    layers: Sequence[int],
    *,
    rows: RowSpan = "generated",
    value_weighted: bool = False,
    stop: bool = False,
    past: int = 0,
    heads: bool | Mapping[int, Sequence[int]] = False,
) -> Iterator[Captured]:
    """Capture head-mean attention of some layers while the body runs the model, on SDPA, flash or eager attention. ::

        with capture_attention(model, layers=[16]) as captured:
            model.generate(**inputs, max_new_tokens=64)
        captured.attention(16)  # (batch, rows, keys)

    The model's outputs are those it gives without it: the stock attention function still computes them. Memory is rows x keys
    of each layer, times its heads with `heads`; `capture_bytes` says it beforehand. The body may call the model as often as one
    growing sequence needs (as greedy or sampling `generate` does; not beam search, whose rows do not follow its outputs).

    Args:
        model: a transformers model (or a PEFT wrapper of one).
        layers: decoder layers, counted from 0.
        rows: which query rows to keep, see `RowSpan`.
        value_weighted: weight attention by the length of the value vectors.
        stop: end the pass after the last of these layers; the body ends there without an error.
        past: positions that the cache given to the model holds already; rows and keys count from its first one.
        heads: keep every head's rows, (batch, rows, heads, keys): `captured.heads(16)`. By layer, some heads: only these, in
            this order.

    Raises:
        ModelError: a layer does not exist or cannot be read, is being captured already, the model is run by another thread, or
            its calls are not those of one growing sequence.
    """
    modules = check_readable(model, list(layers))
    if not modules:
        raise ModelError("capture_attention: expected at least one layer, got none")
    options: dict[str, Any] = {"value_weighted": value_weighted, "past": past}
    observers: dict[int, LayerRows]
    if isinstance(heads, Mapping):
        check_heads(model, heads)
        observers = {layer: HeadRows(rows, chosen=heads.get(layer), **options) for layer in modules}
    else:
        observers = {layer: (HeadRows if heads else LayerRows)(rows, **options) for layer in modules}
    with probing(observers, modules, adapter=adapter_of(model), stop=stop), contextlib.suppress(StopForwardError):
        yield Captured(observers)


def capture_bytes(model: Any, layers: Sequence[int], *, rows: int, keys: int, batch: int = 1, heads: bool = False) -> int:
    """Memory that a capture will hold, in bytes, before it is opened: layers x batch x rows x keys float32, times the heads.

    Args:
        rows, keys: how many; of a whole answer, its tokens, and those of the prompt and the answer.
        heads: of a capture with `heads=True`.

    Raises:
        ModelError: a layer does not exist or cannot be read.

    One layer of 32 heads, 100 rows of an answer to 3,000 tokens: 1.2 MB, with heads 38 MB.
    """
    modules = check_readable(model, list(layers), warn=False)
    return sum(4 * batch * rows * keys * (head_count(module) if heads else 1) for module in modules.values())
