"""The answers of one model to held-out samples, kept in a file and resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mia_augment import Record, Sample, Skipped
from mia_augment.images import OpenImage
from mia_augment.storage import Progress, atomic_write, naming, read_jsonl

from mia_attention.answering.likelihood import Likelihood, try_likelihoods
from mia_attention.answering.responses import try_respond

BATCHES_PER_SAVE = 8


class HeldOutAnswer(Record):
    """What a model said to a sample."""

    id: str
    response: str
    perplexity: float | None
    skipped: str | None = None
    """Why the sample could not be asked; None: it was."""


class Options(NamedTuple):
    """The options of a multiple-choice question, and how one is chosen."""

    texts: Sequence[str]
    pick: Callable[[Sequence[Likelihood]], int | None]
    """From the options' likelihoods to the index of the answer; None: no option is the likeliest."""


@dataclass(frozen=True)
class Asking:
    """How samples are asked.

    Attributes:
        open_image: from an entry of `images` to an RGB picture.
        options: of a sample, the options whose likelihoods decide; None: the model answers in its own words.
    """

    open_image: OpenImage
    batch_size: int
    max_new_tokens: int
    options: Callable[[Sample], Options | None] = lambda _: None


def answer_all(
    samples: Sequence[Sample],
    load: Callable[[], tuple[Any, Any]],
    path: Path,
    key: str,
    asking: Asking,
    *,
    progress: Progress,
) -> list[HeldOutAnswer]:
    """Ask a model every sample, greedily, unless `path` already holds its answers.

    Args:
        load: gives (model, processor); called only if something has to be asked.
        path: JSONL of `HeldOutAnswer`, in the samples' order; it appears when all are there. Until then a journal grows beside.
        key: hash of what the answers depend on: the samples, the model, the decoding.
        asking: how; where a sample has options and none is the likeliest, its answer is empty.
    """
    mark = path.with_suffix(".key")
    if path.is_file() and mark.is_file() and mark.read_bytes().strip() == key.encode():
        return list(read_jsonl(path, HeldOutAnswer))
    path.parent.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    journal = path.with_suffix(".part")
    chunk = asking.batch_size * BATCHES_PER_SAVE
    lines = _resume(journal, key, chunk)
    model, processor = load() if len(lines) < len(samples) else (None, None)
    while len(lines) < len(samples):
        part = samples[len(lines) : len(lines) + chunk]
        lines += _appended(journal, _answers(part, model, processor, asking))
        progress(len(lines), len(samples))
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines))
    with atomic_write(mark) as file:
        file.write(f"{key}\n")
    journal.unlink(missing_ok=True)
    return list(read_jsonl(path, HeldOutAnswer))


def _answers(samples: Sequence[Sample], model: Any, processor: Any, asking: Asking) -> list[HeldOutAnswer]:
    """The answers in the samples' order: in the model's words, or the options it chooses."""
    options = [asking.options(sample) for sample in samples]
    with_options = [(sample, found) for sample, found in zip(samples, options, strict=True) if found is not None]
    rest = [sample for sample, found in zip(samples, options, strict=True) if found is None]
    said = iter(_in_words(rest, model, processor, asking))
    chosen = iter(_by_likelihood(with_options, model, processor, asking))
    return [next(said if found is None else chosen) for found in options]


def _in_words(samples: Sequence[Sample], model: Any, processor: Any, asking: Asking) -> list[HeldOutAnswer]:
    said = try_respond(
        samples,
        model,
        processor,
        open_image=asking.open_image,
        batch_size=asking.batch_size,
        max_new_tokens=asking.max_new_tokens,
    )
    return [
        _not_asked(response)
        if isinstance(response, Skipped)
        else HeldOutAnswer(id=sample.id, response=response.text, perplexity=response.perplexity)
        for sample, response in zip(samples, said, strict=True)
    ]


def _by_likelihood(asked: Sequence[tuple[Sample, Options]], model: Any, processor: Any, asking: Asking) -> list[HeldOutAnswer]:
    samples, texts = [sample for sample, _ in asked], [options.texts for _, options in asked]
    found = try_likelihoods(samples, texts, model, processor, open_image=asking.open_image, batch_size=asking.batch_size)
    answers = []
    for (sample, options), likely in zip(asked, found, strict=True):
        if isinstance(likely, Skipped):
            answers.append(_not_asked(likely))
            continue
        best = options.pick(likely)
        answers.append(HeldOutAnswer(id=sample.id, response="" if best is None else options.texts[best], perplexity=None))
    return answers


def _not_asked(skipped: Skipped) -> HeldOutAnswer:
    return HeldOutAnswer(id=skipped.id, response="", perplexity=None, skipped=skipped.reason)


def _appended(journal: Path, answers: Sequence[HeldOutAnswer]) -> list[str]:
    """The answers as lines, which are safe in the journal now."""
    lines = [answer.model_dump_json(exclude_defaults=True) for answer in answers]
    with naming(journal), journal.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    return lines


def _resume(journal: Path, key: str, chunk: int) -> list[str]:
    """Answers already given, in whole chunks (so that the batches stay the same); the journal is cut down to them."""
    head = json.dumps({"answers": key})
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
            HeldOutAnswer.model_validate_json(line)
        except ValueError:
            break
        sound.append(line.decode("utf-8"))
    return sound
