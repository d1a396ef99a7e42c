"""Measurements on held-out pairs during training."""

from __future__ import annotations

import torch

from mia_dpo_train.data.pair_set import batches
from mia_dpo_train.training.metrics import Sums, means, pass_sums
from mia_dpo_train.training.step_plan import length_batches
from mia_dpo_train.training.training_run import TrainingRun


def evaluate_held_out(run: TrainingRun, steps: int) -> dict[str, float]:
    """Loss, rewards and accuracy on the held-out pairs after some steps; the log has them then."""
    accelerator, settings = run.accelerator, run.settings
    order = length_batches(run.held_out.lengths, settings.per_device_batch_size)
    order += [()] * (-len(order) % accelerator.num_processes)
    mine = order[accelerator.process_index :: accelerator.num_processes]
    sums = Sums.zero(accelerator.device)
    run.trained.wrapped.eval()
    with torch.no_grad():
        for indices, batch in zip(mine, batches(run.held_out, mine, workers=0, pad=run.pad), strict=True):
            batch = batch.to(accelerator.device)
            policy, reference, lengths = run.trained.wrapped(batch), run.reference.of(batch), batch.lengths
            if indices:
                found = run.loss(batch, policy, reference, pairs=1, chosen_tokens=1)
                other = batch.others is not None
                sums += pass_sums(found, policy, reference, lengths, settings, batch.tokens, other_pictures=other)
    run.trained.wrapped.train()
    metrics = means(sums.over_processes(accelerator).numbers(), settings, loss_is_weighted=False)
    run.log.add(steps, {**metrics}, part="held_out")
    return metrics
