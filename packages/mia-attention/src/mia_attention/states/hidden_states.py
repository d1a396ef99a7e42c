"""Hidden states of chosen layers and positions, read while a model runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mia_augment import ConfigError, ModelError
from torch import Tensor, nn

from mia_attention.capture.hook import StopForwardError


class States:
    """What `capture_states` has read so far."""

    def __init__(self, layers: Sequence[int], positions: Sequence[int] | None) -> None:
        self._positions = positions
        self._parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        self._seen = dict.fromkeys(layers, 0)
        self._first: int | None = None

    @property
    def layers(self) -> list[int]:
        return list(self._parts)

    def at(self, layer: int) -> Tensor:
        """Hidden states of one layer.

        Returns:
            (batch, positions, hidden) in the model's type, on its device; positions in the order they were asked for, or all
            that went through the model.

        Raises:
            ModelError: the layer was not captured, or a chosen position has not gone through the model.
        """
        if layer not in self._parts:
            raise ModelError(f"layer {layer} was not captured: expected one of {self.layers}")
        if not self._parts[layer] or self._first is None:
            raise ModelError("no hidden state was captured: expected a forward pass that reaches the chosen layers; "
                             "see docs/errors.md#nothing-was-captured")  # fmt: skip
        whole = torch.cat(self._parts[layer], dim=1)
        if self._positions is None:
            return whole
        places = [position if position >= 0 else self._first + position for position in self._positions]
        if wrong := [position for position in places if not 0 <= position < whole.shape[1]]:
            raise ModelError(f"position {wrong[0]}: expected one of the {whole.shape[1]} positions that went through the model")
        return whole[:, places]

    def add(self, layer: int, state: Tensor) -> None:
        """Keep what a layer was given or has given, (batch, some positions, hidden)."""
        if self._first is None:
            self._first = state.shape[1]
        self._seen[layer] += state.shape[1]
        self._parts[layer].append(state.detach())


def decoder_blocks(model: Any) -> tuple[list[nn.Module], nn.Module]:
    """The decoder's layers, those without attention included, and its final norm.

    Raises:
        ModelError: the model has no decoder in transformers' shape.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers, norm = getattr(decoder, "layers", None), getattr(decoder, "norm", None)
    if layers is None or norm is None:
        raise ModelError(
            f"{type(model).__name__}: expected a decoder with `layers` and a final `norm` (model.get_decoder()), found none; "
            "its hidden states cannot be read; see docs/errors.md#states-that-cannot-be-read"
        )
    return list(layers), norm


@contextlib.contextmanager
def capture_states(
    model: Any, layers: Sequence[int], *, positions: Sequence[int] | None = None, stop: bool = False
) -> Iterator[States]:
    """Keep hidden states of some layers while the body runs the model. ::

        with capture_states(model, layers=[8, 16], positions=[-1]) as states:
            model.generate(**inputs)
        states.at(16)  # (batch, positions, hidden)

    Memory is positions seen x hidden size of each layer. Nothing else of the model changes.

    Args:
        model: a transformers model (or a PEFT wrapper of one).
        layers: as `output_hidden_states` counts: 0 the embeddings with the pictures in place, l what the l-th layer gives, and
            the number of layers the last one's output behind the final norm.
        positions: in the padded sequence, from 0; negative ones count back from the end of the first pass, the prompt: -1 is
            the position that predicts the answer's first token. None: all.
        stop: end the pass after the last of these layers; the body ends there without an error.

    Raises:
        ConfigError: no layer was named, or one twice.
        ModelError: a layer does not exist, or the model has no decoder in transformers' shape.
    """
    blocks, norm = decoder_blocks(model)
    if not layers or len(set(layers)) != len(layers):
        raise ConfigError(f"layers: expected one or several different ones, got {list(layers)}")
    if wrong := [layer for layer in layers if not 0 <= layer <= len(blocks)]:
        raise ModelError(f"layer {wrong[0]}: expected one of 0-{len(blocks)}; see docs/errors.md#no-such-layer")
    states = States(layers, positions)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            last = stop and layer == max(layers)
            stack.callback(_attach(blocks, norm, layer, states, stop=last).remove)
        with contextlib.suppress(StopForwardError):
            yield states


def _attach(blocks: Sequence[nn.Module], norm: nn.Module, layer: int, states: States, *, stop: bool) -> Any:
    def keep(state: Tensor) -> None:
        states.add(layer, state)
        if stop:
            raise StopForwardError

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    def after(_: nn.Module, __: Any, output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    if layer == 0:
        return blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    return (norm if layer == len(blocks) else blocks[layer - 1]).register_forward_hook(after)


def as_words(model: Any, states: Tensor, *, normed: bool = False) -> Tensor:
    """The logit lens (nostalgebraist, 2020): what the model would say if a layer's hidden states were its last ones.

    log softmax(lm_head(norm(h)))

    Args:
        states: (.., hidden) of any layer.
        normed: they went through the final norm already, as the last layer's of `capture_states` did.

    Returns:
        (.., vocabulary) float32 log-probs.

    Raises:
        ModelError: the model has no output embeddings or no decoder in transformers' shape.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(model).__name__}: expected output embeddings (lm_head), found none; "
            "see docs/errors.md#states-that-cannot-be-read"
        )
    _, norm = decoder_blocks(model)
    with torch.no_grad():
        logits: Tensor = head(states if normed else norm(states)).float()
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    return logits.log_softmax(-1)
