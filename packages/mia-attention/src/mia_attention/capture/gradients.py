"""Gradient x attention: which positions an answer came from, by attention weighted with what it changes.

Where attention goes says little where most of it makes no difference. Weighted by the gradient of the answer's log-prob L,
it says which of it does (Chefer et al., 2021, here without their product over layers):

    g_ij = sum over layers and heads of relu(A_ij * dL / dA_ij),      dL / dA_ij = dL / dO_i . v_j

for query row i and key j, with the attention weights A, the values v and the attention's output O = A v of each head. The
right-hand side needs the gradient of O only, which autograd has on any attention implementation; A is made for the chosen
rows alone. One pass forward and one back, with the activations of a training step without its parameters' gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mia_augment import ModelError
from torch import Tensor, nn

from mia_attention.capture.hook import probing
from mia_attention.capture.weights import ROW_CHUNK, head_rows, visible
from mia_attention.models.decoder import check_readable, decoder_layers
from mia_attention.models.families import adapter_of
from mia_attention.models.layer_call import Call


class LastCall:
    """Observer of one layer: keeps its only call."""

    def __init__(self) -> None:
        self.call: Call | None = None

    def __call__(self, call: Call) -> None:
        if self.call is not None:
            raise ModelError("gradient: expected one pass over prompt and answer, a layer was called twice")
        self.call = call


def gradient_layers(model: Any) -> dict[int, nn.Module]:
    """The layers that `gradient_rows` reads.

    Raises:
        ModelError: the model's attention does not go through transformers' interface.
    """
    if adapter_of(model) is not None:
        raise ModelError("gradient: models with an adapter give no attention outputs; expected transformers' interface")
    return check_readable(model, list(decoder_layers(model)), warn=False)


def gradient_rows(model: Any, inputs: Mapping[str, Any], targets: Tensor, own: Tensor) -> Tensor:
    """Mean of the chosen rows' gradient x attention, as a share of its sum.

    Args:
        model: a transformers model in evaluation mode.
        inputs: whole sequences, prompt and answer, (batch, length).
        targets: (batch, length): the token that each position is to predict, -100 where none.
        own: (batch, length) bool: each sequence's query rows.

    Returns:
        (batch, length) float32; each row sums to 1, or is 0 where it has no row or nothing made a difference.

    Raises:
        ModelError: the model's attention does not go through transformers' interface, or has no parameters to begin at.
    """
    with torch.no_grad():
        total = torch.zeros(own.shape, device=own.device)
        for call, gradient in _calls(model, inputs, targets):
            for rows, told in _told(call, gradient, own):
                total += (told * own[:, rows, None].to(told.device)).sum(1).to(total.device)
        return total / total.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def gradient_each_row(model: Any, inputs: Mapping[str, Any], targets: Tensor, rows: range) -> Tensor:
    """Gradient x attention of single query rows, summed over layers and heads.

    A row makes a difference to what is predicted at it and behind it: its numbers are about its own token and the answer's
    later ones. Their sum over rows is what `gradient_rows` shares out.

    Args:
        model, inputs, targets: as for `gradient_rows`.
        rows: positions, the same in every sequence.

    Returns:
        (batch, rows, length) float32, not negative; their sizes compare between rows.

    Raises:
        ModelError: as `gradient_rows`.
    """
    own = torch.zeros_like(targets, dtype=torch.bool)
    own[:, rows.start : rows.stop] = True
    with torch.no_grad():
        total = torch.zeros(len(own), len(rows), own.shape[1], device=own.device)
        for call, gradient in _calls(model, inputs, targets):
            for some, told in _told(call, gradient, own):
                total[:, (some - rows.start).to(total.device)] += told.to(total.device)
        return total


def _calls(model: Any, inputs: Mapping[str, Any], targets: Tensor) -> list[tuple[Call, Tensor]]:
    """One pass forward and back: each layer's call, and the gradient of sum log p(target) by its output."""
    modules = gradient_layers(model)
    observers = {layer: LastCall() for layer in modules}
    begin = _only(model, modules[min(modules)])
    with torch.inference_mode(False), torch.enable_grad(), begin, probing(observers, modules):
        logits = model(**inputs, use_cache=False).logits
        asked = targets != -100
        logps = logits[asked].float().log_softmax(-1).gather(1, targets[asked][:, None])
        calls = [observer.call for observer in observers.values() if observer.call is not None]
        outputs = [call.output for call in calls if call.output is not None]
        return list(zip(calls, torch.autograd.grad(logps.sum(), outputs), strict=True))


def _told(call: Call, gradient: Tensor, own: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """One layer's sum over heads, some rows at a time: their positions, and (batch, rows, length).

    Args:
        gradient: of the attention's output, (batch, length, heads, dim).
        own: as in `gradient_rows`; rows of no sequence are left out.
    """
    used = own.any(0).nonzero()[:, 0]
    value = call.value.repeat_interleave(call.query.shape[1] // call.value.shape[1], dim=1).float()
    length = own.shape[1]
    for start in range(0, len(used), ROW_CHUNK):
        rows = used[start : start + ROW_CHUNK].to(call.query.device)
        mask = visible(call.mask, rows, length, length, causal=call.causal, flash=call.flash, window=call.window)
        one = call.of_rows(rows)
        weights = head_rows(one.query, call.key, mask, call.scaling, softcap=call.softcap, sink=one.sink)
        change = torch.matmul(gradient[:, rows].transpose(1, 2).float(), value.transpose(-1, -2))
        yield rows, (weights * change).clamp_min(0).sum(1)


@contextlib.contextmanager
def _only(model: nn.Module, module: nn.Module) -> Iterator[None]:
    """Gradients begin at `module`: no graph below it, and none for any other parameter; restored on leaving."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        begun = [parameter.requires_grad_() for parameter in module.parameters() if parameter.is_floating_point()]
        if not begun:
            raise ModelError(f"gradient: {type(module).__name__} has no parameters in floating point to begin at (quantized?)")
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def next_tokens(prompts: Sequence[int], answers: Sequence[Sequence[int]], length: int) -> Tensor:
    """What each position of prompt and answer is to predict: the answers' tokens, -100 elsewhere; (batch, length).

    Args:
        prompts: length of each prompt; the sequences begin at position 0.
    """
    targets = torch.full((len(answers), length), -100)
    for row, (start, answer) in enumerate(zip(prompts, answers, strict=True)):
        targets[row, start - 1 : start - 1 + len(answer)] = torch.tensor(list(answer))
    return targets
