"""The training stage: a folder of pairs in, a folder with an adapter out. Importing this needs no torch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mia_augment import DataError, PreferencePair, seed_from
from mia_augment.contents import pictures_digest
from mia_augment.images import picture_opener
from mia_augment.storage import (
    Manifest,
    check_whole,
    content_hash,
    image_folders,
    only_writer,
    read_jsonl,
    read_manifest,
    relative_folders,
    what_is_missing,
    write_manifest,
)

from mia_dpo_train import __version__
from mia_dpo_train.settings import TrainSettings

logger = logging.getLogger(__name__)

_WHOLE_FILE_BYTES = 16 * 2**20


def train_pairs(
    folder_in: Path,
    model: Any,
    processor: Any,
    out: Path,
    settings: TrainSettings,
    *,
    model_id: str,
    progress: Callable[[int, int | None], None] | None = None,
) -> Manifest:
    """Train on `folder_in`/pairs.jsonl; writes adapter/ (or model/), checkpoints/, metrics.jsonl, reference.json, a manifest.

    A folder that was made from the same pairs, settings and model is returned untouched; an interrupted run goes on.

    Raises:
        ConfigError: another process is writing into `out`.
        DataError: there are no pairs, or not as many as their manifest counts.
        DataError, ConfigError, ModelError: see `mia_dpo_train.training.trainer.train`.
    """
    planned = planned_manifest(folder_in, out, settings, model_id)
    if (done := _finished(out, planned)) is not None:
        logger.info("%s is finished", out)
        return done
    check_whole(folder_in)
    with only_writer(out, part=int(os.environ.get("RANK", "0")), also=("checkpoints",)):
        return _finished(out, planned) or _train(folder_in, model, processor, out, settings, planned, model_id, progress)


def _train(
    folder_in: Path,
    model: Any,
    processor: Any,
    out: Path,
    settings: TrainSettings,
    planned: Manifest,
    model_id: str,
    progress: Callable[[int, int | None], None] | None,
) -> Manifest:
    """The work itself; the folder is this process's."""
    from mia_dpo_train.training.trainer import train

    started = time.monotonic()
    pairs = list(read_jsonl(folder_in / "pairs.jsonl", PreferencePair))
    if not pairs:
        raise DataError(f"{folder_in / 'pairs.jsonl'} holds no pair; the selection dropped them all (see its selection.json)")
    (out / "manifest.json").unlink(missing_ok=True)
    training, held_out = split(pairs, settings.held_out, settings.seed)
    result = train(
        training,
        model,
        processor,
        settings,
        out,
        open_image=picture_opener(folder_in),
        model_id=model_id,
        held_out=held_out,
        progress=progress,
    )
    counts = {
        "pairs": result.pairs, "held_out": result.held_out, "skipped": len(result.skipped), "steps": result.steps,
        "renamed": result.renamed,
        "end_token_removed": result.trimmed, f"route/{result.route}": 1,
    }  # fmt: skip
    manifest = planned.model_copy(update={"counts": counts, "seconds": round(time.monotonic() - started, 3)})
    if _is_main_process():
        pictures_digest(folder_in, "pairs.jsonl", out, keep=True)
        write_manifest(out, manifest)
    return manifest


def _finished(out: Path, planned: Manifest) -> Manifest | None:
    """The manifest of a folder that holds this very training."""
    done = read_manifest(out)
    return done if done is not None and done.same_work(planned) and what_is_missing(out) is None else None


def is_finished(folder_in: Path, out: Path, settings: TrainSettings, model_id: str) -> bool:
    """Whether `train_pairs` would have nothing to do; needs no model, so that none has to be loaded to find out."""
    return _finished(out, planned_manifest(folder_in, out, settings, model_id)) is not None


def planned_manifest(folder_in: Path, out: Path, settings: TrainSettings, model_id: str) -> Manifest:
    """What the manifest of a finished run will say, but for counts and seconds."""
    path = folder_in / "pairs.jsonl"
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder that `mia select` or `mia import` wrote")
    inputs = {
        "pairs": content_hash(path),
        "model": model_hash(model_id),
        "pictures": pictures_digest(folder_in, path.name, out),
    }
    before = read_manifest(folder_in)
    if before is not None:
        made_from = before.model_dump(include={"stage", "version", "settings", "inputs"})
        inputs["pairs_made_from"] = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return Manifest(
        stage="train",
        version=__version__,
        settings=settings.model_dump(mode="json"),
        inputs=inputs,
        image_folders=relative_folders(image_folders(folder_in), to=out),
    )


def model_hash(model_id: str) -> str:
    """Hash of a model's folder (of large files: size, first and last megabyte), or its name on a hub."""
    folder = Path(model_id)
    if not folder.is_dir():
        return f"hub:{model_id}"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_FILE_BYTES:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(file.read(2**20))
                file.seek(-(2**20), 2)
                digest.update(file.read())
    return digest.hexdigest()


def split(pairs: list[PreferencePair], held_out: float, seed: int) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs to train on and pairs to hold out. All pairs about the same picture fall on one side."""

    def is_held_out(pair: PreferencePair) -> bool:
        target = pair.images[pair.regions[pair.target].image]
        return seed_from(seed, target, algorithm="sha256", separator=b"/", order="big") < held_out * 2**64

    return [pair for pair in pairs if not is_held_out(pair)], [pair for pair in pairs if is_held_out(pair)]


def _is_main_process() -> bool:
    from accelerate.state import PartialState

    return bool(PartialState().is_main_process)
