"""A folder of samples before anything is made there: keep what an interrupted call left, remove what other work left."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

from pydantic_core import from_json

from mia_augment.contents.states import STATES
from mia_augment.errors import ConfigError
from mia_augment.formats import FORMATS
from mia_augment.making.shards import SHARDS
from mia_augment.rows.pictures_in_rows import EMBEDDED
from mia_augment.storage.files import Manifest, write_json
from mia_augment.storage.lock import held_parts
from mia_augment.workers.worker import IMAGES, SAMPLES, SCRATCH, SKIPPED

log = logging.getLogger(__name__)


def make_ready(out: Path, wanted: Manifest, finished: Manifest | None) -> None:
    """Make `out` ready for the wanted work; for whoever holds its lock.

    Raises:
        ConfigError: it holds images of something else, or shards of other work are being made there.
    """
    key = out / SCRATCH / "key.json"
    mine = wanted.model_dump(mode="json")
    begun = None
    if key.is_file():
        with contextlib.suppress(ValueError):
            begun = from_json(key.read_bytes())
    if begun == mine and finished is None:
        log.info("%s: going on where it was interrupted", out)
        return
    if busy := held_parts(out):
        raise ConfigError(
            f"{out}: shards of other rows or settings are being made there (number {', '.join(map(str, busy))}); wait until "
            "they have ended, or choose another folder"
        )
    if finished is None and begun is None and _holds_something(out / IMAGES):
        raise ConfigError(f"{out}: expected a new folder or one made by augment, but it holds {IMAGES}/ of something else")
    if finished is not None:
        log.info("%s: source, pictures or settings have changed, making it anew", out)
    write_json(key, {"clearing": str(out)})  # so that a run killed from here on knows that all this is its own
    for name in ("manifest.json", SAMPLES, SKIPPED, STATES):
        (out / name).unlink(missing_ok=True)
    begun_work = (f"{SCRATCH}/{name}" for name in ("index", "again", "chunks"))
    composed = (f"{IMAGES}/{name}" for name, format in FORMATS.items() if format.compose)
    for folder in (*composed, EMBEDDED, *begun_work, SHARDS):
        shutil.rmtree(out / folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # something else may lie there
        (out / IMAGES).rmdir()
    write_json(key, mine)


def _holds_something(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
