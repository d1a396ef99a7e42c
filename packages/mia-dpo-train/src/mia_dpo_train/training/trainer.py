"""Training on preference pairs: what is settled before the first step, in which order, and what comes out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mia_augment import ModelError, PreferencePair, Skipped, is_out_of_memory, with_unique_ids, without_end_tokens
from mia_augment.images import OpenImage
from mia_augment.prompting import stop_ids
from mia_augment.storage import Progress, write_jsonl

from mia_dpo_train.data.contrasts import check_contrasts, with_what_is_used
from mia_dpo_train.data.encode import PairEncoder
from mia_dpo_train.data.pair_set import PairSet, measure_pairs
from mia_dpo_train.environment import check_environment
from mia_dpo_train.joining import different_pairs, joining_problem
from mia_dpo_train.logps.own_answers import check_own_answers
from mia_dpo_train.logps.reference import ReferenceSource
from mia_dpo_train.logps.route_check import RouteChoice, batch_problem, choose_route
from mia_dpo_train.models.trainable import Trained, prepare_trained, write_trained
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.checkpoints import whole_folder
from mia_dpo_train.training.loop import train_epochs
from mia_dpo_train.training.setup import leave_tidily, longest_allowed, make_accelerator, pad_token
from mia_dpo_train.training.step_plan import length_batches
from mia_dpo_train.training.training_run import TrainingRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What came out of a training run."""

    folder: Path
    """The adapter, or for full fine-tuning the model."""
    steps: int
    pairs: int
    held_out: int
    skipped: list[Skipped]
    route: str
    reason: str
    """Why this route."""
    attn_implementation: str
    renamed: int
    """Pairs whose id an earlier one had."""
    trimmed: int
    """Pairs with an answer that ended in an end token, which was taken off since training puts its own."""
    metrics: dict[str, float]
    """Of the last optimizer step."""
    held_out_metrics: dict[str, float] | None


def train(
    pairs: Sequence[PreferencePair],
    model: Any,
    processor: Any,
    settings: TrainSettings,
    out: Path,
    *,
    open_image: OpenImage,
    model_id: str,
    held_out: Sequence[PreferencePair] = (),
    progress: Progress | None = None,
) -> TrainResult:
    """Train `model` on `pairs`; called again after a crash, it goes on and ends with the same bytes.

    Args:
        model: a Hugging Face vision-language model without adapters; changed in place.
        out: gets adapter/ (or model/), checkpoints/, metrics.jsonl, reference.json and skipped.jsonl.
        open_image: from an entry of `images` to an RGB picture.
        model_id: name or path of the model, kept in the adapter's configuration.
        held_out: measured during training, never trained on.
        progress: called with what is done and what there is in all: first for opening the pairs, then for reference batches
            and optimizer steps together.

    Raises:
        DataError: no pair can be trained on, pairs are too long, the loss is NaN or inf, the disk is full.
        ConfigError: settings that this machine or the checkpoints do not allow.
        ModelError: no vision-language model, a forced route that is wrong for it, or out of memory.
    """
    check_environment(settings)
    try:
        return _train(pairs, held_out, model, processor, settings, out, open_image, model_id, progress)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if is_out_of_memory(error):
            raise ModelError(_memory_advice(settings, error)) from error
        raise


def _train(
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    model: Any,
    processor: Any,
    settings: TrainSettings,
    out: Path,
    open_image: OpenImage,
    model_id: str,
    progress: Progress | None,
) -> TrainResult:
    encoder = PairEncoder(processor, open_image, stop_ids(model, processor))
    check_contrasts(pairs, settings)
    pairs, held_out = with_what_is_used(pairs, settings), with_what_is_used(held_out, settings)
    pairs, held_out, renamed, trimmed = _tidied(pairs, held_out, encoder.end_tokens)
    accelerator = make_accelerator(settings, model, out)
    limit = longest_allowed(settings, model)
    training, held, skipped = _usable(pairs, held_out, encoder, settings, limit, accelerator, progress)
    if accelerator.is_main_process:
        write_jsonl(out / "skipped.jsonl", skipped)
    trained = prepare_trained(model, settings, accelerator, model_id, longest=max(training.lengths))
    pad = pad_token(processor)
    training.together = held.together = _joined_by_processor(training)
    choice, alone = _choose(trained, training, settings, pad)
    _check_answers(trained, training, pad)
    reference = ReferenceSource(trained, processor, settings, out, pad, alone=alone, together=training.together)
    run = TrainingRun(trained, settings, out, training, held, reference, pad)
    metrics, held_out_metrics = _run(run, progress)
    return TrainResult(
        folder=_write(run, processor),
        steps=run.steps,
        pairs=len(training),
        held_out=len(held),
        skipped=skipped,
        route=choice.route,
        reason=choice.reason,
        attn_implementation=trained.attention,
        renamed=renamed,
        trimmed=trimmed,
        metrics=metrics,
        held_out_metrics=held_out_metrics,
    )


def _usable(
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    encoder: PairEncoder,
    settings: TrainSettings,
    limit: int | None,
    accelerator: Any,
    progress: Progress | None,
) -> tuple[PairSet, PairSet, list[Skipped]]:
    """Pairs to train on and held-out pairs, measured, and those that are left out."""
    cache = settings.image_cache_mb * 2**20 if settings.workers == 0 else 0
    training, held = PairSet(pairs, encoder, cache), PairSet(held_out, encoder, cache // 4)
    skipped = measure_pairs(training, settings, limit, accelerator, progress)
    if len(held):
        skipped += measure_pairs(held, settings, limit, accelerator, needed=False)
    return training, held, skipped


def _run(run: TrainingRun, progress: Progress | None) -> tuple[dict[str, float], dict[str, float] | None]:
    """The reference pass and all optimizer steps; progress counts both."""

    def report(done: int) -> None:
        if progress and run.accelerator.is_main_process:
            progress(done, run.reference.batches + run.steps)

    run.reference.prepare([("reference", run.pairs), ("reference_held_out", run.held_out)], report)
    return train_epochs(run, lambda steps: report(run.reference.batches + steps))


def _write(run: TrainingRun, processor: Any) -> Path:
    """Write the adapter or the model, and close what was opened for training."""
    trained = run.trained
    folder = run.out / ("model" if run.settings.tuning == "full" else "adapter")
    state = trained.full_state()
    if run.accelerator.is_main_process:
        whole_folder(folder, lambda parts: write_trained(trained.model, processor, parts, trained.dtype, state))
    run.accelerator.wait_for_everyone()
    run.log.end()
    leave_tidily()
    return folder


def _tidied(
    pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair], end_tokens: Collection[str]
) -> tuple[list[PreferencePair], list[PreferencePair], int, int]:
    """Both with repeated ids renamed, so that every message names one pair, and without end tokens; and how many of each."""
    named, renamed = with_unique_ids([*pairs, *held_out])
    named, trimmed = without_end_tokens(named, end_tokens)
    if renamed:
        logger.warning("%d pairs repeat the id of another; they are called by it with #2, #3 .. behind it", renamed)
    if trimmed:
        logger.warning("%d pairs have an answer that ends in an end token; it is taken off, training puts its own", trimmed)
    return named[: len(pairs)], named[len(pairs) :], renamed, trimmed


def _joined_by_processor(pairs: PairSet) -> bool:
    """Whether the pictures of a batch have to go through the processor in one call."""
    problem = joining_problem(pairs)
    if problem is not None:
        logger.warning(
            "the processor counts over a batch (%s), so it is called anew for every batch of several pairs; "
            "per_device_batch_size: 1 saves that",
            problem,
        )
    return problem is not None


def _choose(trained: Trained, pairs: PairSet, settings: TrainSettings, pad: int) -> tuple[RouteChoice, bool]:
    """The start-up checks: the route, on the two shortest pairs; and whether pairs must run alone, on two that differ.

    Raises:
        ModelError: they must, and the settings or the pairs' other pictures put several side by side; or a forced route is
            wrong for the model.
    """
    device = trained.accelerator.device
    most = max(measured.answers for measured in pairs.measured)
    full = [index for index, measured in enumerate(pairs.measured) if measured.answers == most]
    shortest = length_batches([pairs.lengths[index] for index in full], 2)[-1]
    batch = pairs.batch([full[index] for index in shortest], pad).to(device)
    # The model itself, so that neither autocast nor another process takes part; sharded ones only run wrapped.
    call = trained.wrapped if trained.sharded else trained.logps.compute
    problem, bare = None, pairs.bare(different_pairs(pairs, 2))
    if len(bare) > 1:
        each = [bare.batch([index], pad).to(device) for index in range(len(bare))]
        problem = batch_problem(trained.logps, bare.batch(range(len(bare)), pad).to(device), each, call)
    if problem is not None and batch.others is not None:
        raise ModelError(
            f"{problem}: this model or its processor mixes up the pairs of a batch, and a pair that contrasts pictures needs "
            "two prompts side by side; leave image out of train.loss"
        )
    if problem is not None and settings.per_device_batch_size > 1:
        raise ModelError(
            f"{problem}: this model or its processor mixes up the pairs of a batch; set per_device_batch_size: 1 with "
            f"accumulation: {settings.accumulation * settings.per_device_batch_size} (the same training)"
        )
    choice = choose_route(trained.logps, batch, settings, call)
    if trained.frozen_copy is not None:
        trained.frozen_copy.route = choice.route
    logger.info("route %s: %s", choice.route, choice.reason)
    return choice, problem is not None


def _check_answers(trained: Trained, pairs: PairSet, pad: int) -> None:
    """The start-up check of answers, by the untrained model."""
    call = trained.wrapped if trained.sharded else trained.logps.compute
    was_training = trained.wrapped.training
    trained.wrapped.eval()
    try:
        check_own_answers(pairs.pairs, pairs.encoder, call, trained.accelerator.device, pad)
    finally:
        trained.wrapped.train(was_training)


def _memory_advice(settings: TrainSettings, error: Exception) -> str:
    advice = []
    if settings.per_device_batch_size > 1:
        half = settings.per_device_batch_size // 2
        advice.append(f"per_device_batch_size: {half} with accumulation: {settings.accumulation * 2} (the same training)")
    if not settings.gradient_checkpointing:
        advice.append("gradient_checkpointing: true")
    if not settings.offload_activations and torch.cuda.is_available():
        advice.append("offload_activations: true")
    if settings.tuning == "full":
        advice.append("tuning: lora")
    advice.append("smaller pictures (fewer image tokens), or max_length with too_long: skip")
    return (
        f"out of memory ({str(error).splitlines()[0]}); try {'; or '.join(advice)}. Training goes on from its last checkpoint"
    )
