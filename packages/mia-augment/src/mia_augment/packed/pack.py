"""Packing a folder of samples: files of many samples each, numbered, each written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from mia_augment.errors import ConfigError, DataError
from mia_augment.packed.parquet_samples import write_parquet_samples
from mia_augment.packed.webdataset import write_webdataset
from mia_augment.records import Sample
from mia_augment.storage.complete import check_whole
from mia_augment.storage.files import (
    Manifest,
    atomic_write,
    content_hash,
    image_folders,
    read_jsonl,
    read_manifest,
    resolve_image,
    write_json,
)
from mia_augment.storage.lock import only_writer
from mia_augment.storage.reading import read_json
from mia_augment.storage.stages import Progress
from mia_augment.workers.worker import SAMPLES

Located = Sequence[tuple[Sample, list[Path]]]
"""Samples, each with the files of its pictures."""


class PackedKind(NamedTuple):
    """How many samples are written into one file."""

    suffix: str
    write: Callable[[IO[bytes], Located], None]
    says: str


def _write_lines(file: IO[bytes], samples: Located) -> None:
    """A sample a line, its pictures named by their absolute paths."""
    for sample, paths in samples:
        named = sample.model_copy(update={"images": [path.as_posix() for path in paths]})
        file.write(named.model_dump_json().encode() + b"\n")


PACKED_KINDS: dict[str, PackedKind] = {
    "webdataset": PackedKind("tar", write_webdataset, "tar files with the pictures inside, which WebDataset streams"),
    "parquet": PackedKind(
        "parquet", write_parquet_samples, "with the pictures inside, which `datasets` opens (extra `parquet`)"
    ),
    "jsonl": PackedKind("jsonl", _write_lines, "a sample a line, the pictures beside where they lie"),
}
"""Name -> how it is written."""


def pack_samples(folder: Path, kind: str, out: Path, *, per_file: int = 1000, progress: Progress | None = None) -> list[Path]:
    """Pack a folder's samples into files of `per_file` samples; returns them in the samples' order.

    Killed and called again it goes on with the files that are missing. A shard's files have its name, so that all shards can be
    packed into one folder, at the same time.

    Args:
        folder: a folder of `augment`, or of one of its shards.
        kind: one of `PACKED_KINDS`.
        out: folder to write; besides the files it gets one JSON that tells how many samples each holds.

    Raises:
        ConfigError: no such kind, another process is packing the same, or pyarrow is missing for parquet.
        DataError: there are no samples, or a picture is missing.
    """
    if kind not in PACKED_KINDS or per_file < 1:
        raise ConfigError(
            f"expected one of {', '.join(PACKED_KINDS)} and at least 1 sample a file, got {kind!r} and {per_file}"
        )
    check_whole(folder)
    manifest = read_manifest(folder)
    name = _name_of(manifest)
    work = {"samples": content_hash(folder / SAMPLES), "kind": kind, "per_file": per_file}
    total = manifest.counts.get("samples") if manifest else None
    with only_writer(out / f".{name}"):
        _begin(out, name, work)
        counts, done = dict[str, int](), 0
        for number, samples in enumerate(_batches(folder, per_file)):
            path = out / f"{name}-{number:05d}.{PACKED_KINDS[kind].suffix}"
            if not path.is_file():
                with atomic_write(path, "wb") as file:
                    PACKED_KINDS[kind].write(file, samples)
            counts[path.name] = len(samples)
            done += len(samples)
            if progress:
                progress(done, total)
        if not counts:
            raise DataError(f"{folder / SAMPLES}: expected at least one sample, found none")
        write_json(out / f"{name}.json", {**work, "files": counts})
    shutil.rmtree(out / f".{name}", ignore_errors=True)
    return [out / file for file in counts]


def _batches(folder: Path, size: int) -> Iterator[list[tuple[Sample, list[Path]]]]:
    """The samples, so many at a time, with where their pictures lie."""
    folders, samples = image_folders(folder), read_jsonl(folder / SAMPLES, Sample)
    while batch := list(islice(samples, size)):
        yield [(sample, [resolve_image(name, folders) for name in sample.images]) for sample in batch]


def _name_of(manifest: Manifest | None) -> str:
    """How the files' names begin: a shard's have its number."""
    shard = manifest.settings.get("shard") if manifest else None
    if not isinstance(shard, str):
        return SAMPLES.removesuffix(".jsonl")
    number, of = map(int, shard.split("/"))
    return f"samples-{number:05d}-of-{of:05d}"


def _begin(out: Path, name: str, work: dict[str, Any]) -> None:
    """Remove the files of other samples, or of another kind, and note what is being written."""
    note = out / f"{name}.json"
    before = read_json(note, "delete it, it is written anew") if note.is_file() else {}
    if isinstance(before, dict) and {key: before.get(key) for key in work} == work:
        return
    for kind in PACKED_KINDS.values():
        for path in out.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].{kind.suffix}"):
            path.unlink()
    write_json(note, {**work, "files": {}})
