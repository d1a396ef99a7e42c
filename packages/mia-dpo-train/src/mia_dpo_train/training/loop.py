"""The optimizer steps: passes, checks, updates, measurements on held-out pairs, checkpoints."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mia_augment import ConfigError, DataError, seed_from
from mia_augment.storage import Progress
from torch import Tensor

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.data.pair_set import PairSet, batches
from mia_dpo_train.logps.reference import ReferenceSource
from mia_dpo_train.models.trainable import Trained, text_hash, trainable
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training import checkpoints
from mia_dpo_train.training.metrics_log import SUMS, MetricsLog, means, memory_mb, pass_loss
from mia_dpo_train.training.step_plan import Step, epoch_steps, learning_rate_factor, length_batches, steps_per_epoch

logger = logging.getLogger(__name__)

_NO_INFLUENCE = {"checkpoint_every", "keep_checkpoints", "workers", "image_cache_mb", "trackers", "max_length", "too_long"}
"""Settings that change no weight: a run may be continued with others."""


class Loop:
    """One run over all epochs, from wherever an earlier call stopped."""

    def __init__(
        self,
        trained: Trained,
        settings: TrainSettings,
        out: Path,
        pairs: PairSet,
        held_out: PairSet,
        reference: ReferenceSource,
        pad: int,
        progress: Progress | None,
    ) -> None:
        self.trained, self.settings, self.accelerator = trained, settings, trained.accelerator
        self.pairs, self.held_out, self.reference, self.pad, self.progress = pairs, held_out, reference, pad, progress
        self.checkpoints = out / "checkpoints"
        self.log = MetricsLog(out / "metrics.jsonl", self.accelerator)
        world = self.accelerator.num_processes
        self.per_epoch = steps_per_epoch(len(pairs), settings.per_device_batch_size, settings.accumulation, world)
        self.total = min(self.per_epoch * settings.epochs, settings.max_steps or self.per_epoch * settings.epochs)

    @property
    def key(self) -> str:
        """Hash of all that the weights depend on."""
        parts = {
            "settings": self.settings.model_dump(mode="json", exclude=_NO_INFLUENCE),
            "reference": self.reference.key,
            "pairs": self.pairs.digest,
        }
        return text_hash(json.dumps(parts, sort_keys=True))

    def run(self) -> tuple[dict[str, float], int, dict[str, float] | None]:
        """Metrics of the last step, number of steps, metrics of the held-out pairs."""
        done = self._resume()
        metrics: dict[str, float] = {}
        held_out: dict[str, float] | None = None
        self.trained.wrapped.train()
        for epoch in range(done // self.per_epoch, self.settings.epochs):
            steps = [step for step in self._planned(epoch) if done <= step.number < self.total]
            mine = [part[self.accelerator.process_index] for step in steps for part in step.passes if any(part)]
            stream = batches(self.pairs, mine, workers=self.settings.workers, pad=self.pad)
            for step in steps:
                metrics = self._step(step, stream)
                done = step.number + 1
                if len(self.held_out) and (done % self.settings.evaluate_every == 0 or done == self.total):
                    held_out = self._evaluate(done)
                if done % self.settings.checkpoint_every == 0 or done == self.total:
                    self._checkpoint(done)
                self.report(self.reference.batches + done)
        return metrics or self._logged("train") or {}, done, held_out or self._logged("held_out")

    def report(self, done: int) -> None:
        if self.progress and self.accelerator.is_main_process:
            self.progress(done, self.reference.batches + self.total)

    def _planned(self, epoch: int) -> Iterator[Step]:
        settings = self.settings
        return epoch_steps(
            self.pairs.lengths,
            size=settings.per_device_batch_size,
            accumulation=settings.accumulation,
            world=self.accelerator.num_processes,
            seed=settings.seed,
            epoch=epoch,
            group=settings.group_by_length,
        )

    def _step(self, step: Step, stream: Iterator[PairBatch]) -> dict[str, float]:
        """One optimizer step: all its passes, the check of its loss, the update, its line of metrics."""
        settings, optimizer = self.settings, self.trained.optimizer
        started = time.perf_counter()
        rate = settings.learning_rate * learning_rate_factor(step.number, self.total, settings.warmup, settings.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        sums = self._passes(step, stream)
        norm = self.accelerator.clip_grad_norm_(self.trained.wrapped.parameters(), settings.max_grad_norm)
        norm = None if norm is None else float(norm)
        if norm is not None and not norm < float("inf"):
            self._stop(step, f"the gradient's norm is {norm}")
        optimizer.step()
        optimizer.zero_grad()
        metrics = means(sums, settings)
        extra = {
            "epoch": step.epoch,
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens_per_second": sums[-1].item() / (time.perf_counter() - started),
            "memory_mb": memory_mb(self.accelerator.device),
        }
        self.log.add(step.number + 1, {**metrics, **extra})
        return metrics

    def _passes(self, step: Step, stream: Iterator[PairBatch]) -> Tensor:
        """Forward and backward of a step's batches; returns its sums over all processes (`metrics.SUMS`)."""
        accelerator = self.accelerator
        sums = torch.zeros(len(SUMS), dtype=torch.double, device=accelerator.device)
        # Backward averages over processes, and over passes even where a short step has fewer: undone here.
        scale = accelerator.num_processes * self.settings.accumulation
        for number, part in enumerate(step.passes):
            with accelerator.accumulate(self.trained.wrapped):
                if not any(part):
                    continue
                loss, found = self._pass(step, number, next(stream))
                sums += found
                if number == len(step.passes) - 1:
                    sums = accelerator.reduce(sums, "sum")
                    if not bool(torch.isfinite(sums).all()) or sums[SUMS.index("not_finite")] > 0:
                        self._stop(step, "the loss is NaN or inf")
                accelerator.backward(loss * scale)
        return sums

    def _pass(self, step: Step, number: int, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Forward pass of one batch: its share of the step's loss, and its sums."""
        rank = self.accelerator.process_index
        batch = batch.to(self.accelerator.device)
        reference = self.reference.of(batch)
        torch.manual_seed(pass_seed(self.settings.seed, step.number * self.settings.accumulation + number, rank))
        policy = self.trained.wrapped(batch)
        if not step.passes[number][rank]:
            return policy.sum() * 0, torch.zeros(len(SUMS), dtype=torch.double, device=policy.device)
        indices = step.pairs
        chosen_tokens = sum(self.pairs.measured[index].chosen_tokens for index in indices)
        loss, sums = pass_loss(policy, reference, batch.lengths, self.settings, pairs=len(indices), chosen_tokens=chosen_tokens)
        sums[-1] = batch.tokens
        return loss, sums

    def _evaluate(self, steps: int) -> dict[str, float]:
        """Loss, rewards and accuracy on the held-out pairs."""
        accelerator = self.accelerator
        order = length_batches(self.held_out.lengths, self.settings.per_device_batch_size)
        order += [()] * (-len(order) % accelerator.num_processes)
        mine = order[accelerator.process_index :: accelerator.num_processes]
        sums = torch.zeros(len(SUMS), dtype=torch.double, device=accelerator.device)
        self.trained.wrapped.eval()
        with torch.no_grad():
            for indices, batch in zip(mine, batches(self.held_out, mine, workers=0, pad=self.pad), strict=True):
                batch = batch.to(accelerator.device)
                policy, reference = self.trained.wrapped(batch), self.reference.of(batch)
                if indices:
                    sums += pass_loss(policy, reference, batch.lengths, self.settings, pairs=1, chosen_tokens=1)[1]
        self.trained.wrapped.train()
        metrics = means(accelerator.reduce(sums, "sum"), self.settings, loss_is_weighted=False)
        self.log.add(steps, {**metrics}, part="held_out")
        return metrics

    def _stop(self, step: Step, problem: str) -> None:
        ids = [self.pairs.pairs[index].id for index in step.pairs]
        last = next(iter(checkpoints.checkpoint_folders(self.checkpoints)), None)
        kept = f"the last good checkpoint is {last}" if last else "there was no checkpoint yet"
        raise DataError(
            f"step {step.number + 1}: {problem}; its pairs are {', '.join(ids)}; {kept}. Lower learning_rate, set "
            "precision: fp32, or look at these pairs"
        )

    def _resume(self) -> int:
        """Go on from the newest whole checkpoint; returns how many steps are done."""
        found = checkpoints.newest(self.checkpoints, self.key)
        if found is None:
            self.log.start(0, self.settings)
            return 0
        folder, progressed = found
        now = self.accelerator.num_processes
        if progressed.processes != now:
            raise ConfigError(
                f"{folder} was made by {progressed.processes} processes, now there are {now}: run with "
                f"{progressed.processes} to go on, or delete {self.checkpoints} to start anew"
            )
        logger.info("going on from %s", folder)
        if self.trained.sharded:
            self.accelerator.load_state(str(folder / "accelerate"))
        else:
            checkpoints.read_tensors(folder, trainable(self.trained.model), self.trained.optimizer.optimizer)
        self.log.start(progressed.metrics_lines, self.settings)
        return progressed.steps

    def _checkpoint(self, steps: int) -> None:
        accelerator, trained = self.accelerator, self.trained
        self.log.sync()
        progressed = checkpoints.Progressed(self.key, steps, accelerator.num_processes, self.log.lines)
        folder = self.checkpoints / checkpoints.checkpoint_name(steps)
        parts = self.checkpoints / f".{folder.name}.parts"
        if trained.sharded:  # all processes write into one folder, which the main one then makes the checkpoint
            accelerator.save_state(str(parts), safe_serialization=True)
            accelerator.wait_for_everyone()

        def write(temporary: Path) -> None:
            if trained.sharded:
                parts.rename(temporary / "accelerate")
            else:
                checkpoints.write_tensors(temporary, trainable(trained.model), trained.optimizer.optimizer)
            checkpoints.write_state(temporary, progressed)

        if accelerator.is_main_process:
            checkpoints.whole_folder(folder, write)
            checkpoints.prune(self.checkpoints, self.settings.keep_checkpoints)
        accelerator.wait_for_everyone()

    def _logged(self, part: str) -> dict[str, float] | None:
        """The last metrics that an earlier call wrote, where this one had nothing left to do."""
        rows: list[dict[str, Any]] = self.log.read()
        found = [row for row in rows if row["part"] == part]
        return {name: value for name, value in found[-1].items() if isinstance(value, float)} if found else None


def pass_seed(seed: int, passes: int, rank: int) -> int:
    """Seed of the dropout of one forward pass: the same wherever a run was interrupted before it."""
    return seed_from(seed, passes, rank, bits=32, algorithm="sha256", separator=b"/", order="big")
