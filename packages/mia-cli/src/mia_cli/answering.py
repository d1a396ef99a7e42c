"""The answers of one model to all samples, kept in a file and resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mia_augment.files import atomic_write, read_jsonl
from mia_augment.records import Record, Sample
from PIL import Image

from mia_cli.console import Report
from mia_cli.runner import digest

BATCHES_PER_SAVE = 8

OpenImage = Callable[[str], Image.Image]


class Answer(Record):
    """What a model said to a sample."""

    id: str
    response: str
    perplexity: float | None


def answer_all(
    samples: Sequence[Sample],
    load: Callable[[], tuple[Any, Any]],
    path: Path,
    key: dict[str, Any],
    *,
    open_image: OpenImage,
    batch_size: int,
    max_new_tokens: int,
    progress: Report,
) -> list[Answer]:
    """Ask a model every sample, greedily, unless `path` already holds its answers.

    Args:
        load: gives (model, processor); called only if something has to be asked.
        path: JSONL of `Answer`, in the samples' order; it appears when all are there. Until then a journal beside it grows.
        key: what the answers depend on: the samples, the model, the decoding.
    """
    mark = path.with_suffix(".key")
    name = digest(key)
    if path.is_file() and mark.is_file() and mark.read_text("utf-8").strip() == name:
        return list(read_jsonl(path, Answer))
    path.parent.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    journal = path.with_suffix(".part")
    chunk = batch_size * BATCHES_PER_SAVE
    lines = _resume(journal, name, chunk)
    if len(lines) < len(samples):
        _ask(samples, lines, load, journal, chunk, open_image, batch_size, max_new_tokens, progress)
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines))
    with atomic_write(mark) as file:
        file.write(f"{name}\n")
    journal.unlink(missing_ok=True)
    return list(read_jsonl(path, Answer))


def _ask(
    samples: Sequence[Sample],
    lines: list[str],
    load: Callable[[], tuple[Any, Any]],
    journal: Path,
    chunk: int,
    open_image: OpenImage,
    batch_size: int,
    max_new_tokens: int,
    progress: Report,
) -> None:
    """Append the missing answers to `lines` and, chunk by chunk, to the journal."""
    from mia_attention import respond

    model, processor = load()
    while len(lines) < len(samples):
        part = samples[len(lines) : len(lines) + chunk]
        said = respond(part, model, processor, open_image=open_image, batch_size=batch_size, max_new_tokens=max_new_tokens)
        fresh = [
            Answer(id=sample.id, response=response.text, perplexity=response.perplexity).model_dump_json()
            for sample, response in zip(part, said, strict=True)
        ]
        with journal.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(f"{line}\n" for line in fresh))
            file.flush()
            os.fsync(file.fileno())
        lines += fresh
        progress(len(lines), len(samples))


def _resume(journal: Path, name: str, chunk: int) -> list[str]:
    """Answers already given, in whole chunks (so that the batches stay the same); the journal is cut down to them."""
    head = json.dumps({"answers": name})
    lines: list[str] = []
    if journal.is_file():
        first, *rest = journal.read_text("utf-8").split("\n")
        if first == head:
            lines = rest[:-1]  # what follows the last line break is torn
    lines = lines[: len(lines) // chunk * chunk]
    with atomic_write(journal) as file:
        file.write("".join(f"{line}\n" for line in [head, *lines]))
    return lines
