"""One optimizer step: its forward and backward passes, the guard against NaN, the update, its line of metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from mia_augment import DataError, seed_from
from torch import Tensor

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.logps.offloading import offloading
from mia_dpo_train.training.checkpoints import checkpoint_folders
from mia_dpo_train.training.metrics import Sums, means, memory_mb, pass_sums
from mia_dpo_train.training.step_plan import OptimizerStep, learning_rate_factor
from mia_dpo_train.training.training_run import TrainingRun


def optimizer_step(run: TrainingRun, step: OptimizerStep, stream: Iterator[PairBatch]) -> dict[str, float]:
    """Take one step; returns its metrics, which the log has then.

    Args:
        stream: gives the batches of this process, one for every pass that has pairs.

    Raises:
        DataError: the loss or a gradient is NaN or inf.
    """
    settings, optimizer = run.settings, run.trained.optimizer
    started = time.perf_counter()
    rate = settings.learning_rate * learning_rate_factor(step.number, run.steps, settings.warmup, settings.schedule)
    for group in optimizer.param_groups:
        group["lr"] = rate
    sums = _all_passes(run, step, stream)
    run.rewards.add(sums)
    norm = run.accelerator.clip_grad_norm_(run.trained.wrapped.parameters(), settings.max_grad_norm)
    norm = None if norm is None else float(norm)
    check_gradient(run, step, norm)
    optimizer.step()
    optimizer.zero_grad()
    metrics = means(sums, settings)
    extra = {
        "epoch": step.epoch,
        "grad_norm": norm,
        "learning_rate": rate,
        "tokens_per_second": sums["tokens"] / (time.perf_counter() - started),
        "memory_mb": memory_mb(run.accelerator.device),
    }
    run.log.add(step.number + 1, {**metrics, **extra})
    return metrics


def _all_passes(run: TrainingRun, step: OptimizerStep, stream: Iterator[PairBatch]) -> dict[str, float]:
    """Forward and backward of a step's batches; returns its sums over all processes, by name."""
    accelerator = run.accelerator
    sums, numbers = Sums.zero(accelerator.device), {}
    # Backward averages over processes, and over passes even where a short step has fewer: undone here.
    scale = accelerator.num_processes * run.settings.accumulation
    for number, part in enumerate(step.passes):
        with accelerator.accumulate(run.trained.wrapped):
            if not any(part):
                continue
            loss, found = _forward(run, step, number, next(stream))
            sums += found
            if number == len(step.passes) - 1:  # before the last backward, which would put NaN into the gradients
                numbers = sums.over_processes(accelerator).numbers()
                check_loss(run, step, numbers)
            accelerator.backward(loss * scale)
    return numbers


def _forward(run: TrainingRun, step: OptimizerStep, number: int, batch: PairBatch) -> tuple[Tensor, Sums]:
    """Forward pass of one batch: its share of the step's loss, and its sums."""
    settings, rank = run.settings, run.accelerator.process_index
    batch = batch.to(run.accelerator.device)
    reference = run.reference.of(batch)
    torch.manual_seed(pass_seed(settings.seed, step.number * settings.accumulation + number, rank))
    with offloading(run.trained.model, batch.prompt.device, wanted=settings.offload_activations):
        policy = run.trained.wrapped(batch)
    if not step.passes[number][rank]:  # a stand-in, so that this process takes part in the step
        return policy.sum() * 0, Sums.zero(policy.device)
    indices = step.pairs
    chosen_tokens = sum(run.pairs.measured[index].chosen_tokens for index in indices)
    found = run.loss(batch, policy, reference, pairs=len(indices), chosen_tokens=chosen_tokens)
    other = batch.others is not None
    return found.loss, pass_sums(found, policy, reference, batch.lengths, settings, batch.tokens, other_pictures=other)


def pass_seed(seed: int, passes: int, rank: int) -> int:
    """Seed of the dropout of one forward pass: the same wherever a run was interrupted before it."""
    return seed_from(seed, passes, rank, bits=32, algorithm="sha256", separator=b"/", order="big")


def check_loss(run: TrainingRun, step: OptimizerStep, sums: dict[str, float]) -> None:
    """Raise DataError where the loss or a log-prob of a step is NaN or inf; in all processes, since the sums are of all."""
    if sums["not_finite"] > 0 or not all(math.isfinite(value) for value in sums.values()):
        raise _stopped(run, step, "the loss is NaN or inf")


def check_gradient(run: TrainingRun, step: OptimizerStep, norm: float | None) -> None:
    """Raise DataError where the norm of a step's gradient is NaN or inf (None: it is not known here)."""
    if norm is not None and not norm < float("inf"):
        raise _stopped(run, step, f"the gradient's norm is {norm}")


def _stopped(run: TrainingRun, step: OptimizerStep, problem: str) -> DataError:
    ids = [run.pairs.pairs[index].id for index in step.pairs]
    last = next(iter(checkpoint_folders(run.checkpoints)), None)
    kept = f"the last good checkpoint is {last}" if last else "there was no checkpoint yet"
    return DataError(
        f"step {step.number + 1}: {problem}; its pairs are {', '.join(ids)}; {kept}. Lower learning_rate, set "
        "precision: fp32, or look at these pairs"
    )
