"""Held-out samples whose pictures training saw too, under whatever name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mia_augment.contents.record_pictures import Pictured, hash_of
from mia_augment.errors import DataError
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image

_RECORD_FILES = ("samples.jsonl", "pairs.jsonl")


def training_folders(trained: Path) -> list[Path]:
    """The folders of samples and pairs that a training folder was made from, those that are still there."""
    return [folder for folder in image_folders(trained) if any((folder / name).is_file() for name in _RECORD_FILES)]


def seen_in_training(held_out: Path, training: Iterable[Path]) -> list[str]:
    """Ids of the held-out samples of which a picture, the asked one or a companion, is among the training data.

    Pictures are compared byte for byte, under any name, in original: composed ones by their parts. Only those are read that
    are as large as one of the others, so that many cost little.

    Args:
        held_out: a folder with `samples.jsonl`.
        training: folders with `samples.jsonl` or `pairs.jsonl`.
    """
    asked = list(_pictured(held_out))
    places = {path for _, paths in asked for path in paths}
    sizes = {path.stat().st_size for path in places}
    seen = {content for folder in training for content in _contents(folder, sizes)}
    by_path = {path: picture_content(path) for path in places} if seen else {}
    return [name for name, paths in asked if any(by_path.get(path) in seen for path in paths)]


def _contents(folder: Path, sizes: set[int]) -> Iterator[str]:
    for path in {path for _, paths in _pictured(folder) for path in paths}:
        if path.stat().st_size in sizes:
            yield picture_content(path)


def _pictured(folder: Path) -> Iterator[tuple[str, Sequence[Path]]]:
    """Id and original pictures of every sample or pair of a folder; pictures that are gone are left out."""
    folders = image_folders(folder)
    for file in _RECORD_FILES:
        if (folder / file).is_file():
            for record in read_jsonl(folder / file, Pictured):
                yield (
                    record.id,
                    list(_found(record.source.paths or record.all_images, lambda name: resolve_image(name, folders))),
                )


def _found(names: Iterable[str], resolve: Callable[[str], Path]) -> Iterator[Path]:
    for name in names:
        try:
            yield resolve(name)
        except DataError:
            continue


def picture_content(path: Path) -> str:
    """Hash of a picture's bytes; remembered for as long as its size and time of change stay."""
    state = path.stat()
    return hash_of(path, state.st_size, state.st_mtime_ns)
