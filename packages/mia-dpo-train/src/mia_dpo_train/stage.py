"""The training stage: a folder of pairs in, a folder with an adapter out. Importing this needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mia_augment import DataError, PreferencePair, model_fingerprint, seed_from
from mia_augment.contents import picture_content, pictures_digest
from mia_augment.images import picture_opener
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    check_whole,
    content_hash,
    image_folders,
    process_rank,
    read_jsonl,
    read_manifest,
    relative_folders,
    resolve_image,
    run_stage,
)

from mia_dpo_train import __version__
from mia_dpo_train.settings import TrainSettings

_PAIRS = "pairs.jsonl"


def train_stage(
    folder_in: Path, out: Path, settings: TrainSettings, model_id: str, load: Callable[[], tuple[Any, Any]]
) -> Stage:
    """Train on `folder_in`/pairs.jsonl; makes adapter/ (or model/), checkpoints/, metrics.jsonl and reference.json.

    Args:
        model_id: folder or hub id of the model: another one, or other files in its folder, make the stage run again.
        load: gives the model, which training changes, and its processor; called when there is something to train.

    Raises (planning and making it):
        DataError: there are no pairs, or not as many as their manifest counts.
        DataError, ConfigError, ModelError: see `mia_dpo_train.training.trainer.train`.
    """

    def plan() -> Manifest:
        return _planned(folder_in, out, settings, model_id)

    def make(planned: Manifest, progress: Progress) -> Manifest:
        return _train(folder_in, out, settings, model_id, load, planned, progress)

    return Stage("train", out, plan, make, clears=("checkpoints",), together=True)


def train_pairs(
    folder_in: Path,
    model: Any,
    processor: Any,
    out: Path,
    settings: TrainSettings,
    *,
    model_id: str,
    progress: Progress | None = None,
) -> Manifest:
    """Run `train_stage`; an interrupted run goes on, and a folder that is up to date is left alone.

    Several processes (`accelerate launch`) call it together; the first one writes the manifest.
    """
    stage = train_stage(folder_in, out, settings, model_id, lambda: (model, processor))
    return run_stage(stage, progress, rank=process_rank()).manifest


def _planned(folder_in: Path, out: Path, settings: TrainSettings, model_id: str) -> Manifest:
    """What the manifest will say, but for counts and seconds."""
    path = folder_in / _PAIRS
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder that `mia select` or `mia import` wrote")
    inputs = {
        "pairs": content_hash(path),
        "model": model_fingerprint(model_id),
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


def _train(
    folder_in: Path,
    out: Path,
    settings: TrainSettings,
    model_id: str,
    load: Callable[[], tuple[Any, Any]],
    planned: Manifest,
    progress: Progress,
) -> Manifest:
    from mia_dpo_train.training.trainer import train

    check_whole(folder_in)
    pairs = list(read_jsonl(folder_in / _PAIRS, PreferencePair))
    if not pairs:
        raise DataError(f"{folder_in / _PAIRS} holds no pair; the selection dropped them all (see its selection.json)")
    (out / MANIFEST).unlink(missing_ok=True)
    training, held_out = split_pairs(pairs, settings.held_out, settings.seed, contents_in(folder_in))
    result = train(
        training,
        *load(),
        settings,
        out,
        open_image=picture_opener(folder_in),
        model_id=model_id,
        held_out=held_out,
        progress=progress,
    )
    if process_rank() == 0:
        pictures_digest(folder_in, _PAIRS, out, keep=True)
    counts = {
        "pairs": result.pairs, "held_out": result.held_out, "skipped": len(result.skipped), "steps": result.steps,
        "renamed": result.renamed, "end_token_removed": result.trimmed, f"route/{result.route}": 1,
    }  # fmt: skip
    return planned.model_copy(update={"counts": counts})


def contents_in(folder: Path) -> Callable[[str], str]:
    """From the name of a picture of a stage's folder to the hash of its bytes; one that is not there goes by its name."""
    folders = image_folders(folder)

    def content(name: str) -> str:
        try:
            return picture_content(resolve_image(name, folders))
        except (DataError, OSError):
            return name  # opening it says what is wrong with it

    return content


def split_pairs(
    pairs: list[PreferencePair], held_out: float, seed: int, content: Callable[[str], str] = str
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs to train on and pairs to hold out. All pairs about the same picture fall on one side.

    Args:
        content: from the name of a picture to what tells it from others: the name itself, or with `contents_in` its bytes,
            which are the same under any name.
    """
    if not held_out:
        return list(pairs), []

    def is_held_out(pair: PreferencePair) -> bool:
        target = content(pair.images[pair.regions[pair.target].image])
        return seed_from(seed, target, algorithm="sha256", separator=b"/", order="big") < held_out * 2**64

    return [pair for pair in pairs if not is_held_out(pair)], [pair for pair in pairs if is_held_out(pair)]
