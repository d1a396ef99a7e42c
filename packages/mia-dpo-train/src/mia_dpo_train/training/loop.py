"""All optimizer steps of a run, from wherever an earlier call stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mia_dpo_train.data.pair_set import batches
from mia_dpo_train.training.checkpoints import resume, save_checkpoint
from mia_dpo_train.training.held_out_pairs import evaluate_held_out
from mia_dpo_train.training.optimizer_step import optimizer_step
from mia_dpo_train.training.step_plan import OptimizerStep, epoch_steps
from mia_dpo_train.training.training_run import TrainingRun


def train_epochs(run: TrainingRun, report: Callable[[int], None]) -> tuple[dict[str, float], dict[str, float] | None]:
    """Take all steps that are left; returns the metrics of the last one, and those of the held-out pairs after it.

    Args:
        report: called with the number of finished steps.
    """
    settings, rank = run.settings, run.accelerator.process_index
    done = resume(run)
    metrics: dict[str, float] | None = None
    held_out: dict[str, float] | None = None
    run.trained.wrapped.train()
    for epoch in range(done // run.steps_per_epoch, settings.epochs):
        steps = [step for step in _planned(run, epoch) if done <= step.number < run.steps]
        mine = [part[rank] for step in steps for part in step.passes if any(part)]
        stream = batches(run.pairs, mine, workers=settings.workers, pad=run.pad)
        for step in steps:
            metrics = optimizer_step(run, step, stream)
            done = step.number + 1
            last = done == run.steps
            if len(run.held_out) and (last or done % settings.evaluate_every == 0):
                held_out = evaluate_held_out(run, done)
            if last or done % settings.checkpoint_every == 0:
                save_checkpoint(run, done)
            report(done)
    # Where nothing was left to do, an earlier call wrote them.
    return metrics or run.log.last("train") or {}, held_out or run.log.last("held_out")


def _planned(run: TrainingRun, epoch: int) -> Iterator[OptimizerStep]:
    settings = run.settings
    return epoch_steps(
        run.pairs.lengths,
        size=settings.per_device_batch_size,
        accumulation=settings.accumulation,
        world=run.accelerator.num_processes,
        seed=settings.seed,
        epoch=epoch,
        group=settings.group_by_length,
    )
