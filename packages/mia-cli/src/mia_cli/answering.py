"""The answers of one model to all samples, kept in a file and resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mia_augment import Record, Sample, Skipped
from mia_augment.storage import atomic_write, naming, read_jsonl
from mia_select.evaluation import Alternatives, alternatives, most_likely
from PIL import Image

from mia_cli.runner import digest
from mia_cli.terminal.display import Report

BATCHES_PER_SAVE = 8

OpenImage = Callable[[str], Image.Image]


class Answer(Record):
    """What a model said to a sample."""

    id: str
    response: str
    perplexity: float | None
    skipped: str | None = None
    """Why the sample could not be asked; None: it was."""


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
    by_likelihood: bool = False,
) -> list[Answer]:
    """Ask a model every sample, greedily, unless `path` already holds its answers.

    Args:
        load: gives (model, processor); called only if something has to be asked.
        path: JSONL of `Answer`, in the samples' order; it appears when all are there. Until then a journal beside it grows.
        key: what the answers depend on: the samples, the model, the decoding.
        by_likelihood: of a question with options, take as the answer the one that the model holds most likely (an empty answer
            where two are equally likely).
    """
    mark = path.with_suffix(".key")
    name = digest(key)
    if path.is_file() and mark.is_file() and mark.read_bytes().strip() == name.encode():
        return list(read_jsonl(path, Answer))
    path.parent.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    journal = path.with_suffix(".part")
    chunk = batch_size * BATCHES_PER_SAVE
    lines = _resume(journal, name, chunk)
    model, processor = load() if len(lines) < len(samples) else (None, None)
    while len(lines) < len(samples):
        part = samples[len(lines) : len(lines) + chunk]
        fresh = _answers(part, model, processor, open_image, batch_size, max_new_tokens, by_likelihood)
        lines += _appended(journal, fresh)
        progress(len(lines), len(samples))
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines))
    with atomic_write(mark) as file:
        file.write(f"{name}\n")
    journal.unlink(missing_ok=True)
    return list(read_jsonl(path, Answer))


def _in_words(
    samples: Sequence[Sample], model: Any, processor: Any, open_image: OpenImage, batch_size: int, max_new_tokens: int
) -> list[Answer]:
    """What the model says by itself."""
    from mia_attention import try_respond

    said = try_respond(samples, model, processor, open_image=open_image, batch_size=batch_size, max_new_tokens=max_new_tokens)
    return [
        _not_asked(response)
        if isinstance(response, Skipped)
        else Answer(id=sample.id, response=response.text, perplexity=response.perplexity)
        for sample, response in zip(samples, said, strict=True)
    ]


def _by_likelihood(
    asked: Sequence[tuple[Sample, Alternatives]], model: Any, processor: Any, open_image: OpenImage, batch_size: int
) -> list[Answer]:
    """The most likely option of each question."""
    from mia_attention import try_likelihoods

    samples, options = [sample for sample, _ in asked], [found for _, found in asked]
    found = try_likelihoods(
        samples, [option.texts for option in options], model, processor, open_image=open_image, batch_size=batch_size
    )
    answers = []
    for sample, option, likely in zip(samples, options, found, strict=True):
        if isinstance(likely, Skipped):
            answers.append(_not_asked(likely))
            continue
        best = most_likely([each.logp for each in likely], [each.tokens for each in likely], by=option.by)
        answers.append(Answer(id=sample.id, response="" if best is None else option.texts[best], perplexity=None))
    return answers


def _not_asked(skipped: Skipped) -> Answer:
    return Answer(id=skipped.id, response="", perplexity=None, skipped=skipped.reason)


def _answers(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    open_image: OpenImage,
    batch_size: int,
    max_new_tokens: int,
    by_likelihood: bool,
) -> list[Answer]:
    found = [alternatives(sample.prompt, sample.answer) if by_likelihood else None for sample in samples]
    rest = [sample for sample, options in zip(samples, found, strict=True) if options is None]
    asked = [(sample, options) for sample, options in zip(samples, found, strict=True) if options is not None]
    said = iter(_in_words(rest, model, processor, open_image, batch_size, max_new_tokens))
    chosen = iter(_by_likelihood(asked, model, processor, open_image, batch_size))
    return [next(said if options is None else chosen) for options in found]


def _appended(journal: Path, answers: Sequence[Answer]) -> list[str]:
    """The answers as lines, which are safe in the journal now."""
    lines = [answer.model_dump_json(exclude_defaults=True) for answer in answers]
    with naming(journal), journal.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    return lines


def _resume(journal: Path, name: str, chunk: int) -> list[str]:
    """Answers already given, in whole chunks (so that the batches stay the same); the journal is cut down to them."""
    head = json.dumps({"answers": name})
    lines: list[str] = []
    if journal.is_file():
        first, *rest = journal.read_bytes().split(b"\n")
        if first == head.encode():
            lines = _sound(rest[:-1])  # what follows the last line break is torn
    lines = lines[: len(lines) // chunk * chunk]
    with atomic_write(journal) as file:
        file.write("".join(f"{line}\n" for line in [head, *lines]))
    return lines


def _sound(lines: Sequence[bytes]) -> list[str]:
    """The lines before the first that is no answer."""
    sound: list[str] = []
    for line in lines:
        try:
            Answer.model_validate_json(line)
        except ValueError:
            break
        sound.append(line.decode("utf-8"))
    return sound
