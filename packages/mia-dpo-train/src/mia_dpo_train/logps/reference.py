"""Reference log-probs: computed once with the untrained model, by the same route and type as training, and kept.

`reference.json` holds them with all they depend on; another model, template, image processor, pair, route or type makes the
file stale, and it is computed again. An interrupted pass goes on after its last finished batch.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
from mia_augment import DataError
from mia_augment.storage import Journal, summary, write_json
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from torch import Tensor

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.data.pair_set import PairSet, batches
from mia_dpo_train.models.trainable import Trained, text_hash
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.step_plan import length_batches

logger = logging.getLogger(__name__)

Logps = dict[str, tuple[float, ...]]
"""Digest of a pair (its tokens and pictures; ids may repeat) -> log-probs of its answers, nats: chosen, rejected .., and where
the pair contrasts pictures, chosen under the other ones."""


class _Store(BaseModel):
    """What the file holds."""

    key: dict[str, str]
    logps: dict[str, Annotated[tuple[FiniteFloat, ...], Field(min_length=2)]]


class ReferenceSource:
    """Reference log-probs of a run: stored, or computed again for every batch."""

    def __init__(
        self,
        trained: Trained,
        processor: Any,
        settings: TrainSettings,
        out: Path,
        pad: int,
        *,
        alone: bool = False,
        together: bool = False,
    ) -> None:
        """`alone`: pairs must not be put side by side; `together`: their pictures go through the processor in one call."""
        self.trained, self.settings, self.out, self.pad = trained, settings, out, pad
        self.processor, self.alone, self.together = processor, alone, together
        self.stored: Logps = {}
        self.batches = 0
        """Batches of this process that preparing takes."""

    @property
    def key(self) -> dict[str, str]:
        """What the numbers depend on, besides the pairs."""
        trained = self.trained
        image_processor = getattr(self.processor, "image_processor", None)
        return {
            "model": trained.weights,
            "template": text_hash(str(self.processor.chat_template)),
            "image_processor": text_hash(image_processor.to_json_string() if image_processor is not None else ""),
            "route": trained.logps.route,
            "precision": f"{trained.dtype}/{trained.accelerator.mixed_precision}",
            "attention": trained.attention,
            **({"pictures": "together"} if self.together else {}),
        }

    def prepare(self, named: list[tuple[str, PairSet]], progress: Callable[[int], None]) -> None:
        """Read or compute the store of each set of pairs; nothing to do for an online reference."""
        if self.settings.reference == "online":
            return
        size = 1 if self.alone else 2 * self.settings.per_device_batch_size
        world = self.trained.accelerator.num_processes
        named = [(name, pairs) for name, pairs in named if len(pairs)]
        self.batches = sum(math.ceil(len(pairs) / (size * world)) for _, pairs in named)
        before = 0
        for name, pairs in named:
            self.stored |= stored_logps(
                self.out / f"{name}.json",
                {**self.key, "tokens": pairs.digest},
                pairs,
                self.compute,
                size=size,
                accelerator=self.trained.accelerator,
                pad=self.pad,
                progress=lambda done, before=before: progress(before + done),  # type: ignore[misc]
            )
            before += math.ceil(len(pairs) / (size * world))

    def compute(self, batch: PairBatch) -> Tensor:
        """By the model as it was before training: no dropout, no gradients, adapters off. (answers, pairs)"""
        trained = self.trained
        if trained.frozen_copy is not None:
            with torch.no_grad(), trained.accelerator.autocast():
                return trained.frozen_copy.compute(batch).float()
        was_training = trained.wrapped.training
        trained.wrapped.eval()
        with_adapter_off = trained.model.disable_adapter() if hasattr(trained.model, "peft_config") else nullcontext()
        try:
            with torch.no_grad(), with_adapter_off:
                logps: Tensor = trained.wrapped(batch)
                return logps
        finally:
            trained.wrapped.train(was_training)

    def of(self, batch: PairBatch) -> Tensor:
        """Reference log-probs of a batch: (answers, pairs)."""
        if self.settings.reference == "online":
            return self.compute(batch)
        there = batch.lengths > 0
        values = [self._stored(pair_id, digest) for pair_id, digest in zip(batch.ids, batch.digests, strict=True)]
        stored = torch.tensor([value for row in values for value in row], dtype=torch.float32, device=there.device)
        return torch.zeros_like(there.T, dtype=torch.float32).masked_scatter(there.T, stored).T

    def _stored(self, pair_id: str, digest: str) -> tuple[float, ...]:
        if digest not in self.stored:
            raise DataError(f"pair {pair_id}: one of its pictures was changed during the training; start it again")
        return self.stored[digest]


def stored_logps(
    path: Path,
    key: dict[str, str],
    pairs: PairSet,
    compute: Callable[[PairBatch], Tensor],
    *,
    size: int,
    accelerator: Any,
    pad: int,
    progress: Callable[[int], None],
) -> Logps:
    """Read the store, or compute what is missing and write it.

    Args:
        key: everything the numbers depend on, by name.
        compute: reference log-probs of a batch, (answers, pairs).
        size: pairs in a batch.
    """
    digests = [measured.digest for measured in pairs.measured]
    if (stored := _read(path, key, digests)) is not None:
        return stored
    order = length_batches(pairs.lengths, size)
    world, folder = accelerator.num_processes, path.with_name(f".{path.stem}.journal")
    journal: Journal[Logps] = Journal(folder, json.dumps({**key, "batch": size}), Logps, accelerator.process_index)
    wanted = [{digests[index] for index in batch} for batch in order]
    done = {n: found for n, found in journal.results().items() if n < len(order) and found.keys() == wanted[n]}
    with journal.writing() as note:
        for start in range(0, len(order), world):
            number = start + accelerator.process_index
            missing = number < len(order) and number not in done
            # All processes take part in every forward pass that any of them still needs; one without a batch gets a stand-in.
            if bool(accelerator.reduce(torch.tensor(int(missing), device=accelerator.device), "sum")):
                batch = order[number] if number < len(order) else ()
                encoded = next(batches(pairs, [batch], workers=0, pad=pad)).to(accelerator.device)
                columns = zip(compute(encoded).float().T.cpu(), (encoded.lengths > 0).T.cpu(), strict=True)
                if missing:
                    found = (tuple(values[there].tolist()) for values, there in columns)
                    done[number] = dict(zip((digests[index] for index in batch), found, strict=True))
                    note(number, done[number])
            progress(start // world + 1)
    logps = _merge(done, accelerator)
    _check_finite(logps, {digest: pair.id for digest, pair in zip(digests, pairs.pairs, strict=True)})
    if accelerator.is_main_process:
        write_json(path, {"key": key, "logps": {digest: list(logps[digest]) for digest in digests}})
        shutil.rmtree(folder)
    accelerator.wait_for_everyone()
    return logps


def _merge(done: dict[int, Logps], accelerator: Any) -> Logps:
    from accelerate.utils import gather_object

    return {digest: values for part in gather_object(list(done.values())) for digest, values in part.items()}


def _check_finite(logps: Logps, ids: dict[str, str]) -> None:
    bad = [ids[digest] for digest, values in logps.items() if not all(abs(value) < float("inf") for value in values)]
    if bad:
        raise DataError(
            f"reference log-probs of {len(bad)} pairs are not finite, first {', '.join(bad[:5])}: the untrained model gives "
            "NaN for them; try precision: fp32, or attn_implementation: eager, and look at these pictures"
        )


def _read(path: Path, key: dict[str, str], digests: list[str]) -> Logps | None:
    if not path.is_file():
        return None
    try:
        content = _Store.model_validate_json(path.read_bytes())
    except ValidationError as error:
        logger.warning("%s is damaged (%s); computing the reference log-probs again", path, summary(error))
        return None
    stored, logps = content.key, content.logps
    changed = sorted(name for name in key.keys() | stored.keys() if key.get(name) != stored.get(name))
    if not changed and any(digest not in logps for digest in digests):
        changed = ["pairs"]
    if changed:
        logger.warning("%s is stale (changed: %s); computing the reference log-probs again", path, ", ".join(changed))
        return None
    return logps
