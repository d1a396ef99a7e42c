"""What a folder of samples is to be made from: its manifest before anything is counted. No picture is looked at."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from mia_augment.errors import ConfigError
from mia_augment.indexing.build import Choice
from mia_augment.read.dataset import data_files, holds_pictures_only
from mia_augment.read.hub_rows import hub_identity, on_hub
from mia_augment.rows.bare_pictures import picture_names
from mia_augment.storage.files import Manifest, content_hash, relative_folders
from mia_augment.workers.worker import Job

AUGMENT = "augment"
"""Name of the stage."""
PICTURES = "pictures"
"""The manifest's input that stands for what the pictures hold."""


def planned_manifest(source: Path, job: Job, choice: Choice) -> Manifest:
    """The manifest before pictures are looked at and anything is counted.

    Raises:
        DataError: there are no rows.
        ConfigError: pictures without rows are looked for in one folder and opened from another.
    """
    digest = hashlib.sha256()
    if job.settings.asked_of_pictures and holds_pictures_only(source):  # what they hold is looked at beside the rows
        _check_same_folder(source, job.image_root)
        digest.update("\0".join(picture_names(source)).encode())
    elif on_hub(source):
        digest.update(hub_identity(source).encode())
    else:
        for path in data_files(source):
            digest.update(path.name.encode() + b"\0" + content_hash(path).encode())
    folders = relative_folders([job.image_root], to=job.out)
    return Manifest(
        stage=AUGMENT,
        version=importlib.metadata.version("mia-augment"),
        settings={
            **job.settings.model_dump(mode="json"),
            "seed": job.seed,
            "limit": choice.limit,
            "holdout": choice.holdout,
            "part": choice.part,
        },
        inputs={"source": digest.hexdigest(), "image_root": folders[0]},
        image_folders=folders,
    )


def with_pictures(manifest: Manifest, digest: str) -> Manifest:
    """The manifest with what the pictures hold, as `contents_digest` tells it."""
    return manifest.model_copy(update={"inputs": {**manifest.inputs, PICTURES: digest}})


def _check_same_folder(source: Path, image_root: Path) -> None:
    if source.resolve() != image_root.resolve():
        raise ConfigError(
            f"{source} holds pictures without rows: expected it to be the image root too, got {image_root}; leave the image "
            "root out, or name this folder"
        )
