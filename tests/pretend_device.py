"""A second device that is not there: tensors of it hold numbers in the machine's memory, and refuse to meet others.

On a GPU an operation between one of its tensors and one of the CPU fails; on a CPU nothing does. Here a model is moved to the
`meta` device, whose tensors carry real numbers within `pretended()`: whole steps run, with data-dependent branches,
backward pass and generation, and whatever would fail on a GPU for standing on two devices raises `TwoDevices`. Numbers and
dtypes are those of the CPU; streams, kernels and memory are not pretended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_MOVES = {torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.copy}
_TAKE_CPU_INDICES = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._unsafe_index}


class TwoDevices(RuntimeError):
    """What a GPU would say."""


class There(torch.Tensor):
    """A tensor on the pretended device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.inner!r})"

    def numpy(self, **_: Any) -> Any:  # type: ignore[override]
        raise TypeError("can't convert a tensor of another device to numpy. Use Tensor.cpu() first")

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = There(self.inner.clone())
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Ran(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _MadeOfData(TorchFunctionMode):
    """`torch.tensor(.., device=..)` fills what it makes before an operation could be seen."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if function is torch.tensor and isinstance(args[0], list | tuple):  # reads numbers out of tensors, past all modes
            args = (tree_map(lambda leaf: leaf.inner.tolist() if isinstance(leaf, There) else leaf, args[0]), *args[1:])
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and device is not None and torch.device(device) == DEVICE:
            return function(*args, **{**kwargs, "device": torch.device("cpu")}).to(DEVICE)
        return function(*args, **kwargs)


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """Within, tensors that are made on the pretended device hold numbers; inference mode, which knows no such tensors, is
    plain `no_grad`.
    """
    with _MadeOfData(), _Ran(), mock.patch.object(torch, "inference_mode", _no_grad):
        yield


def _no_grad(mode: bool = True) -> Any:
    return torch.no_grad() if mode else contextlib.nullcontext()


class Executor(ThreadPoolExecutor):
    """A pool whose threads pretend as well: modes belong to a thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, initializer=lambda: (_MadeOfData().__enter__(), _Ran().__enter__()))


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    there = [leaf for leaf in given if isinstance(leaf, There)]
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        answer_there = torch.device(wanted) == DEVICE
    else:
        answer_there = bool(there)
    packet = function.overloadpacket
    if packet in _MOVES:
        answer_there = isinstance(args[0], There) if packet is not torch.ops.aten._to_copy or wanted is None else answer_there
    elif there:
        here = [leaf for leaf in given if not isinstance(leaf, There) and leaf.dim() > 0]
        if packet in _TAKE_CPU_INDICES:
            here = [leaf for leaf in here if leaf is args[0] or (len(args) > 2 and leaf is args[2])]
        if here:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in here)
            raise TwoDevices(f"{function}: tensors {shapes} lie on the CPU, others on the GPU")
    elif not answer_there:
        return function(*args, **kwargs)
    owners = {id(leaf.inner): leaf for leaf in there}
    inner_args, inner_kwargs = tree_map(lambda leaf: leaf.inner if isinstance(leaf, There) else leaf, (args, kwargs))
    with torch._C._DisableTorchDispatch():
        out = function(*inner_args, **inner_kwargs)
    if not answer_there:
        return out
    return tree_map(lambda leaf: _outside(leaf, owners) if isinstance(leaf, torch.Tensor) else leaf, out)


def _outside(inner: torch.Tensor, owners: dict[int, There]) -> torch.Tensor:
    return owners[id(inner)] if id(inner) in owners else There(inner)


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The model with all its weights and buffers on the pretended device; ties are kept."""
    known: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in known:
                    known[id(parameter)] = torch.nn.Parameter(There(parameter.data), parameter.requires_grad)
                module._parameters[name] = known[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = There(buffer)
    return model
