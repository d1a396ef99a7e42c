"""Pairs ready for batches: measured once before training, opened again when needed, kept in memory while they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment import DataError, PreferencePair, Skipped, pair_problem
from mia_augment.storage import Progress
from torch.utils.data import DataLoader, Dataset

from mia_dpo_train.data.contrasts import contrast_problem
from mia_dpo_train.data.encode import EncodedPair, PairBatch, PairEncoder, collate
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.step_plan import Batch


@dataclass(frozen=True)
class Measured:
    """What must be known of a pair before training."""

    length: int
    chosen_tokens: int
    digest: str
    answers: int = 2
    """Chosen and rejected ones, and the chosen one under other pictures."""


class PairSet(Dataset[EncodedPair]):
    """Encoded pairs by index."""

    def __init__(self, pairs: Sequence[PreferencePair], encoder: PairEncoder, cache_bytes: int = 0) -> None:
        self.pairs, self.encoder = list(pairs), encoder
        self._room = cache_bytes
        self._cache: dict[int, EncodedPair] = {}
        self.measured: list[Measured] = []
        self.together = False
        """Whether the pictures of a batch go through the processor in one call (see `mia_dpo_train.joining`)."""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> EncodedPair:
        if index in self._cache:
            return self._cache[index]
        encoded = self.encoder(self.pairs[index])
        if encoded.vision_bytes <= self._room:
            self._room -= encoded.vision_bytes
            self._cache[index] = encoded
        return encoded

    def batch(self, indices: Sequence[int], pad: int) -> PairBatch:
        """Pairs side by side."""
        vision = self.encoder.vision([self.pairs[index] for index in indices]) if self.together and len(indices) > 1 else None
        return collate([self[index] for index in indices], pad, vision)

    def bare(self, indices: Sequence[int]) -> PairSet:
        """Some of the pairs with one rejected answer and their own pictures only."""
        alone: dict[str, Any] = {"more_rejected": [], "rejected_images": None}
        found = PairSet([self.pairs[index].model_copy(update=alone) for index in indices], self.encoder)
        found.together = self.together
        return found

    @property
    def lengths(self) -> list[int]:
        return [measured.length for measured in self.measured]

    @property
    def digest(self) -> str:
        """Hash of all pairs, in order."""
        return hashlib.sha256("".join(measured.digest for measured in self.measured).encode()).hexdigest()

    def keep(self, kept: Sequence[int], measured: Sequence[Measured]) -> None:
        """Leave only these, in this order."""
        self.pairs = [self.pairs[index] for index in kept]
        self.measured = list(measured)
        found = {new: self._cache.pop(old) for new, old in enumerate(kept) if old in self._cache}
        self._room += sum(encoded.vision_bytes for encoded in self._cache.values())
        self._cache = found


def measure_pairs(
    pairs: PairSet,
    settings: TrainSettings,
    max_length: int | None,
    accelerator: Any,
    progress: Progress | None = None,
    *,
    needed: bool = True,
) -> list[Skipped]:
    """Encode every pair once: note lengths and digests, set aside what can't be trained on, and say why.

    Every process encodes its share and is told of the rest.

    Args:
        needed: whether at least one pair must be left.

    Raises:
        DataError: pairs are too long and `too_long` is refuse; or none is left.
    """
    measured: dict[int, Measured] = {}
    skipped: list[Skipped] = []
    too_long_ids: list[str] = []
    for index, found in enumerate(_measure_all(pairs, settings, accelerator, progress)):
        pair_id = pairs.pairs[index].id
        if isinstance(found, str):
            skipped.append(Skipped(id=pair_id, reason=found))
        elif max_length is not None and found.length > max_length:
            too_long_ids.append(f"{pair_id} ({found.length})")
            skipped.append(Skipped(id=pair_id, reason=f"{found.length} tokens, more than {max_length}"))
        else:
            measured[index] = found
    if too_long_ids and settings.too_long == "refuse":
        shown = ", ".join(too_long_ids[:5]) + (" ..." if len(too_long_ids) > 5 else "")
        raise DataError(
            f"{len(too_long_ids)} of {len(pairs)} pairs are longer than {max_length} tokens (image tokens are never cut off): "
            f"{shown}; raise max_length, use smaller pictures, or set too_long: skip"
        )
    if not measured and needed:
        reason = skipped[0].reason if skipped else "there were none"
        raise DataError(f"no pair left to train on, of {len(pairs)}; the first was left out because: {reason}")
    pairs.keep(sorted(measured), [measured[index] for index in sorted(measured)])
    return skipped


class _Measuring(Dataset["Measured | str"]):
    """Some of the pairs, measured; a text says why one can't be opened."""

    def __init__(self, pairs: PairSet, indices: Sequence[int], settings: TrainSettings) -> None:
        self.pairs, self.indices, self.settings = pairs, indices, settings

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Measured | str:
        index = self.indices[number]
        pair = self.pairs.pairs[index]
        problem = pair_problem(pair, self.pairs.encoder.end_tokens) or contrast_problem(pair, self.settings)
        if problem is not None:
            return problem
        try:
            encoded = self.pairs[index]
        except DataError as error:
            return str(error)
        if any(torch.equal(encoded.chosen, answer) for answer in encoded.answers[1:]):
            return f"same answers: chosen and rejected are the same {len(encoded.chosen)} tokens, so neither can be preferred"
        answers = 1 + len(pair.rejected_answers) + bool(encoded.other)
        return Measured(encoded.length, len(encoded.chosen), encoded.digest, answers)


def _measure_all(pairs: PairSet, settings: TrainSettings, accelerator: Any, progress: Progress | None) -> list[Measured | str]:
    from accelerate.utils import gather_object

    mine = range(accelerator.process_index, len(pairs), accelerator.num_processes)
    measuring = _Measuring(pairs, mine, settings)
    loader: Any = DataLoader(measuring, batch_size=None, num_workers=settings.workers, generator=torch.Generator())
    found: list[tuple[int, Measured | str]] = []
    for index, measured in zip(mine, loader, strict=True):
        found.append((index, measured))
        if progress and accelerator.is_main_process:
            progress(index + 1, len(pairs))
    return [measured for _, measured in sorted(gather_object(found), key=lambda item: item[0])]


def batches(pairs: PairSet, order: Sequence[Batch], *, workers: int, pad: int) -> Iterator[PairBatch]:
    """The pairs of each batch side by side. Draws nothing from the global random generator.

    An empty batch gives the shortest pair: its process has to take part in the step, with weight 0.
    """
    shortest = min(range(len(pairs)), key=lambda index: (pairs.lengths[index], index))
    made = _Batches(pairs, [list(batch) or [shortest] for batch in order], pad)
    loader: Any = DataLoader(made, batch_size=None, num_workers=workers, generator=torch.Generator())
    yield from loader


class _Batches(Dataset[PairBatch]):
    """Batches by their number; picklable, for worker processes."""

    def __init__(self, pairs: PairSet, order: Sequence[Sequence[int]], pad: int) -> None:
        self.pairs, self.order, self.pad = pairs, order, pad

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> PairBatch:
        return self.pairs.batch(self.order[number], self.pad)
