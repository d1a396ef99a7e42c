"""An attention function that computes what the stock one computes, lets an observer look at its inputs, and edits change it.

Every decoder attention module of transformers asks `ALL_ATTENTION_FUNCTIONS` for the function named by its own config. So one
module alone is probed by giving it a shallow copy of its config that names ours; masks are still built from the model's config,
and all other layers stay as they were.

An edited mask is one that a fast kernel may not take (flash attention takes none of four dimensions): a layer whose mask is
edited is computed by SDPA, whatever the model runs on, or by eager attention where that is what runs or logits are capped.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from mia_augment import ModelError
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mia_attention.capture.extra_logits import BIAS, biased, sink_of
from mia_attention.models.adapters import Adapter
from mia_attention.models.layer_call import Call, Edit, Observer

NAME = "mia_attention_probe"
_STATE = "_mia_attention_probe"


class StopForwardError(BaseException):
    """Ends a forward pass after the last layer of interest; no Exception, so that nobody's `except Exception` swallows it."""


@dataclass
class _State:
    base: str
    observer: Observer | None
    thread: int
    stop: bool
    edits: list[Edit] = field(default_factory=list)
    config: Any = None
    """The module's own, to be given back."""


def _base_function(module: nn.Module, name: str) -> Callable[..., Any]:
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    function = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    if function is None:
        raise ModelError(f"{type(module).__name__}: attention implementation {name!r} not found")
    return function


def probe_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    """The function registered with transformers: the stock result, untouched but for edits; then the observer gets its look."""
    state: _State | None = module.__dict__.get(_STATE)
    if state is None:
        raise ModelError(f"attention implementation {NAME!r} belongs to capture_attention and cannot be chosen by hand")
    _check_thread(state)
    base = state.base
    if state.edits:
        call = _call(state, _Given(module, query, key, value, attention_mask, kwargs))
        mask, base = _edited(state, call)
        if mask is not call.mask:  # the edited mask holds the bias already
            attention_mask, kwargs = mask, {name: value for name, value in kwargs.items() if name != BIAS}
    out = _base_function(module, base)(module, query, key, value, attention_mask, **kwargs)
    for edit in state.edits:
        out = (edit.output(out[0]), *out[1:])
    _observe(state, _Given(module, query, key, value, attention_mask, kwargs), out[0])
    if state.stop:
        raise StopForwardError
    return out


def _edited(state: _State, call: Call) -> tuple[Tensor | None, str]:
    """The mask after all edits, and which implementation can take it."""
    given = call.mask
    for edit in state.edits:
        if (mask := edit.mask(call)) is not None:
            call = replace(call, mask=mask)
    mask = call.mask
    if mask is given or mask is None:
        return given, state.base
    if state.base != "eager" and call.softcap is None and call.sink is None:
        return mask, "sdpa"
    if mask.dtype == torch.bool:  # eager attention adds its mask
        mask = torch.zeros_like(mask, dtype=call.query.dtype).masked_fill(~mask, torch.finfo(call.query.dtype).min)
    return mask, "eager"


def _check_thread(state: _State) -> None:
    if state.thread != threading.get_ident():
        raise ModelError(
            "the model runs in another thread than the one that captures its attention; give each thread a model; "
            "see docs/errors.md#one-capture-one-sequence"
        )


class _Given(NamedTuple):
    """What an attention function was called with."""

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    kwargs: dict[str, Any]


def _call(state: _State, given: _Given, output: Tensor | None = None) -> Call:
    module, query, key, value, mask, kwargs = given
    if mask is not None and not torch.is_tensor(mask):
        raise ModelError(
            f"attention mask of type {type(mask).__name__} cannot be read; load the model with sdpa, flash or eager attention; "
            "see docs/errors.md#attention-that-cannot-be-read"
        )
    scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
    call = Call(
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        mask=mask,
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        flash="flash" in state.base,
        softcap=kwargs.get("softcap"),
        window=kwargs.get("sliding_window"),
        sink=sink_of(kwargs),
        output=output,
    )
    bias = kwargs.get(BIAS)
    return call if bias is None else biased(call, bias)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _observe(state: _State, given: _Given, output: Tensor | None = None) -> None:
    if state.observer is not None:
        with torch.no_grad():
            state.observer(_call(state, given, output))


AttentionInterface.register(NAME, probe_forward)


@contextlib.contextmanager
def probing(
    observers: Mapping[int, Observer], modules: Mapping[int, nn.Module], *, adapter: Adapter | None = None, stop: bool = False
) -> Iterator[None]:
    """Let `observers[layer]` see every call of `modules[layer]`'s attention; all is restored on leaving, however that happens.

    Args:
        observers: what to call, by layer.
        modules: attention modules, by layer (see `mia_attention.models.decoder.decoder_layers`).
        adapter: of a model whose attention does not go through transformers' interface.
        stop: end the forward pass after the last of these layers, by `StopForwardError`.

    Raises:
        ModelError: one of the modules is being probed already.
    """
    for layer in observers:
        state: _State | None = modules[layer].__dict__.get(_STATE)
        if state is not None and state.observer is not None:
            raise ModelError(
                f"layer {layer} is being captured already; captures may be nested only on different layers; "
                "see docs/errors.md#one-capture-one-sequence"
            )
    with contextlib.ExitStack() as stack:
        for layer, observer in observers.items():
            last = stop and layer == max(observers)
            attach = _attach if adapter is None else functools.partial(_hook, adapter)
            stack.callback(attach(modules[layer], observer, stop=last))
        yield


@contextlib.contextmanager
def editing(edits: Mapping[int, Edit], modules: Mapping[int, nn.Module]) -> Iterator[None]:
    """Let `edits[layer]` change the attention of `modules[layer]`; all is restored on leaving, however that happens.

    Edits may be nested, on the same layer too (the first one entered works first), and within or around a capture, which sees
    the edited attention.
    """
    with contextlib.ExitStack() as stack:
        for layer, edit in edits.items():
            stack.callback(_edit(modules[layer], edit))
        yield


def _entered(module: nn.Module) -> _State:
    """The state of a module that runs our function from now on."""
    state: _State | None = module.__dict__.get(_STATE)
    if state is None:
        original: Any = module.config
        config = copy.copy(original)
        config._attn_implementation_internal = NAME
        state = _State(original._attn_implementation, None, threading.get_ident(), stop=False, config=original)
        module.__dict__[_STATE] = state
        module.config = config
    return state


def _left(module: nn.Module, state: _State) -> None:
    """Give a module its own config back, once neither an observer nor an edit is left."""
    if state.observer is None and not state.edits:
        module.config = state.config
        module.__dict__.pop(_STATE, None)


def _attach(module: nn.Module, observer: Observer, *, stop: bool) -> Callable[[], None]:
    """Probe one module; returns what undoes it."""
    state = _entered(module)
    state.observer, state.stop = observer, stop

    def detach() -> None:
        state.observer, state.stop = None, False
        _left(module, state)

    return detach


def _edit(module: nn.Module, edit: Edit) -> Callable[[], None]:
    """Edit one module's attention; returns what undoes it."""
    state = _entered(module)
    state.edits.append(edit)

    def detach() -> None:
        state.edits[:] = [other for other in state.edits if other is not edit]
        _left(module, state)

    return detach


def _hook(adapter: Adapter, module: nn.Module, observer: Observer, *, stop: bool) -> Callable[[], None]:
    """Observe one module of an adapted model by a forward hook; returns what undoes it."""
    state = _State("", observer, threading.get_ident(), stop)

    def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        _check_thread(state)
        with torch.no_grad():
            observer(adapter.call(module, args, kwargs, output))
        if stop:
            raise StopForwardError

    module.__dict__[_STATE] = state
    handle = module.register_forward_hook(observe, with_kwargs=True)

    def detach() -> None:
        handle.remove()
        module.__dict__.pop(_STATE, None)

    return detach
