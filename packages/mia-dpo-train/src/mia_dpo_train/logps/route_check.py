"""The start-up check: which route gives exact log-probs for this model, found by trying."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment import ModelError, is_out_of_memory, text_config
from torch import Tensor, nn

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.settings import Route, TrainSettings

FP32_TOLERANCE = 1e-3
"""Largest difference of a summed log-prob from the plain computation, in nats."""
LOW_PRECISION_TOLERANCE = 0.05
"""Likewise per response token, where the weights are in 16 bits (their rounding alone reaches 0.01)."""
_TIMES_NOISE = 4.0
"""So many times what a model differs from itself is taken for noise."""
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class RouteChoice:
    route: Route
    reason: str


def choose_route(
    logps: PairLogps, batch: PairBatch, settings: TrainSettings, call: Callable[[PairBatch], Tensor]
) -> RouteChoice:
    """Try the routes from the cheapest on, on a batch of real pairs.

    Args:
        logps: its `route` is set to the one that is tried, and left at the one that was chosen.
        call: runs `logps` on a batch (through whatever wraps it).

    Raises:
        ModelError: the settings force a route that is wrong for this model.
    """
    tried: list[str] = []
    candidates = _from_the_cheapest(settings) if settings.route == "auto" else [settings.route]
    with torch.no_grad(), as_in_training(logps, batch, call):
        for route in candidates:
            problem = None if route == "plain" else _static_problem(logps, route, settings)
            problem = problem or _measured_problem(logps, route, batch, call)
            if problem is None:
                logps.route = route
                return RouteChoice(route, "; ".join([*tried, f"{route} {_praise(route)}"]))
            tried.append(f"{route} ruled out: {problem}")
    raise ModelError(f"route {settings.route} is wrong for this model ({'; '.join(tried)}); set route: auto")


@contextlib.contextmanager
def as_in_training(logps: PairLogps, batch: PairBatch, call: Callable[[PairBatch], Tensor]) -> Iterator[None]:
    """The model in training mode, in which some families want other inputs, but without dropout.

    Where it is random all the same (dropout that is no module), in evaluation mode.
    """
    before = {module: module.training for module in logps.modules()}
    logps.train()
    for module in before:
        if isinstance(module, _DROPOUTS):
            module.eval()
    try:
        with _in_full_fp32():
            route, logps.route = logps.route, "plain"
            if not torch.equal(call(batch), call(batch)):
                logps.eval()
            logps.route = route
            yield
    finally:
        for module, training in before.items():
            module.training = training


@contextlib.contextmanager
def _in_full_fp32() -> Iterator[None]:
    """No TF32, in which cuDNN embeds patches, by another algorithm for another number of pictures."""
    kinds: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    with contextlib.ExitStack() as undo:
        for kind in kinds:
            with contextlib.suppress(RuntimeError):  # set through torch's newer names, which refuse these
                undo.callback(setattr, kind, "allow_tf32", kind.allow_tf32)
                kind.allow_tf32 = False
        yield


def batch_problem(
    logps: PairLogps, batch: PairBatch, alone: Sequence[PairBatch], call: Callable[[PairBatch], Tensor]
) -> str | None:
    """How far the log-probs of pairs side by side are from those of each alone; None: within rounding.

    Args:
        batch: several pairs.
        alone: the same pairs, one by one.
    """
    with torch.no_grad(), as_in_training(logps, batch, call):
        route, logps.route = logps.route, "plain"
        together = call(batch)
        each = torch.cat([call(pair) for pair in alone], dim=1)
        logps.route = route
    difference = (together - each).abs()
    if bool((difference <= _allowed(logps, batch, difference)).all()):
        return None
    return f"log-probs of pairs side by side differ from those of each alone by {difference.max().item():.1e}"


def _from_the_cheapest(settings: TrainSettings) -> list[Route]:
    """One pair at a time needs no mask over its prompt, so kv runs it by the causal kernel, which skips half of the work;
    with padding both need a mask, and packed saves the second pass through the model.
    """
    if settings.per_device_batch_size == 1 and not settings.gradient_checkpointing:
        return ["kv", "packed", "plain"]
    return ["packed", "kv", "plain"]


def _praise(route: Route) -> str:
    return "needs no check" if route == "plain" else "agrees with plain, and neither answer sees the other"


def _static_problem(logps: PairLogps, route: Route, settings: TrainSettings) -> str | None:
    attention = text_config(logps.model)._attn_implementation
    if logps.facts.encodes:
        return "the prompt goes through an encoder of its own, and answers do not stand behind it"
    if route == "packed" and logps.facts.linear_layers:
        return "the model has linear-attention layers, whose state would run from one answer into the other"
    if route == "packed" and attention not in ("sdpa", "eager"):
        return f"{attention} takes no custom mask"
    if route == "kv" and settings.gradient_checkpointing:
        return "gradient checkpointing drops the cache"
    return None


def _measured_problem(logps: PairLogps, route: Route, batch: PairBatch, call: Callable[[PairBatch], Tensor]) -> str | None:
    if route == "plain":
        return None
    try:
        logps.route = route
        computed = call(batch)
        rejected = slice(1, len(batch.answers))
        leak = (call(_with_other_chosen(batch))[rejected] - computed[rejected]).abs().max().item()
    except Exception as error:  # any family may refuse the mask or the cache in its own way; the reason is reported
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {str(error)[:200]}"
    if leak > 0 and leak > _TIMES_NOISE * _noise(computed, batch, call):
        return f"the rejected answer's log-prob moved by {leak:.1e} when the chosen answer was replaced"
    logps.route = "plain"
    difference = (computed - call(batch)).abs()
    if not bool((difference <= _allowed(logps, batch, difference)).all()):
        return f"log-probs differ from plain by {difference.max().item():.1e}"
    return None


def _noise(computed: Tensor, batch: PairBatch, call: Callable[[PairBatch], Tensor]) -> float:
    """By how much the same computation differs from itself: 0 but for kernels that add up in any order, as some of a GPU do."""
    return float((call(batch) - computed).abs().max())


def _allowed(logps: PairLogps, batch: PairBatch, difference: Tensor) -> Tensor:
    exact = all(parameter.dtype == torch.float32 for parameter in logps.parameters() if parameter.is_floating_point())
    return torch.full_like(difference, FP32_TOLERANCE) if exact else LOW_PRECISION_TOLERANCE * batch.lengths


def _with_other_chosen(batch: PairBatch) -> PairBatch:
    """The same batch with other chosen answers of the same lengths: every token replaced by one of the rejected answer."""
    width = batch.chosen.shape[1]
    repeats = -(-width // batch.rejected.shape[1])
    other = batch.rejected.repeat(1, repeats)[:, :width].roll(1, dims=1)
    other = torch.where(other == batch.chosen, batch.prompt[:, -1:], other)
    return dataclasses.replace(batch, chosen=other)
