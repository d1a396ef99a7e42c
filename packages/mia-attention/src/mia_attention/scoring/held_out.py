"""The answers of one model to held-out samples, kept in a file and resumable. Importing this needs no torch."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from mia_augment import DataError, LogpAlone, Record, Sample, Skipped
from mia_augment.images import OpenImage
from mia_augment.storage import Journal, Progress, atomic_write, read_jsonl

from mia_attention.scoring.ranks import Ranks

if TYPE_CHECKING:
    from mia_attention.answering.likelihood import Likelihood
    from mia_attention.given import GivenAnswers
    from mia_attention.settings import AnswerSource

BATCHES_PER_SAVE = 8
KeptT = TypeVar("KeptT", bound=Record)


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
        source: where the answers come from instead of the model; then there are no likelihoods of options.
        delimiter_scale: the model answers within `delimiters_scaled`; not for options that are judged by likelihood.
    """

    open_image: OpenImage
    batch_size: int
    max_new_tokens: int
    options: Callable[[Sample], Options | None] = lambda _: None
    source: AnswerSource | None = None
    delimiter_scale: float | None = None


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

    Several processes that a launcher started share the samples; each returns all answers.

    Args:
        load: gives (model, processor); called only if something has to be asked.
        path: JSONL of `HeldOutAnswer`, in the samples' order; it appears when all are there. Until then a journal grows beside.
        key: hash of what the answers depend on: the samples, the model, the decoding.
        asking: how; where a sample has options and none is the likeliest, its answer is empty.
    """
    size = asking.batch_size * BATCHES_PER_SAVE
    chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
    kept = _KeptChunks(path, key, HeldOutAnswer, progress)
    with contextlib.ExitStack() as until:
        opened: list[GivenAnswers | None] = []

        def answers_to(chunk: Sequence[Sample], model: Any, processor: Any) -> list[HeldOutAnswer]:
            if not opened:
                opened.append(_source(asking, processor, samples, until))
            return _from_source(chunk, opened[0]) if opened[0] else _answers(chunk, model, processor, asking)

        return kept.made(chunks, load, answers_to)


def weigh_all(
    samples: Sequence[Sample],
    answers: Sequence[str],
    load: Callable[[], tuple[Any, Any]],
    path: Path,
    key: str,
    asking: Asking,
    *,
    progress: Progress,
) -> list[LogpAlone]:
    """How likely a model holds answers under each picture alone (`under_each_picture`), unless `path` already holds it.

    Args:
        answers: a text for each sample.
        key: hash of what that depends on: the samples, the answers, the model.
        load, path, asking, progress: as for `answer_all`.
    """
    pairs = list(zip(samples, answers, strict=True))
    size = asking.batch_size * BATCHES_PER_SAVE
    chunks = [pairs[start : start + size] for start in range(0, len(pairs), size)]

    def weigh(chunk: Sequence[tuple[Sample, str]], model: Any, processor: Any) -> list[LogpAlone]:
        from mia_attention.answering.under_each_picture import under_each_picture

        asked, said = zip(*chunk, strict=True)
        return under_each_picture(asked, said, model, processor, open_image=asking.open_image, batch_size=2 * asking.batch_size)

    return _KeptChunks(path, key, LogpAlone, progress).made(chunks, load, weigh)


@dataclass(frozen=True)
class _KeptChunks(Generic[KeptT]):
    """Results of many samples, chunk by chunk: kept in a journal until all are there, then in a file with its key beside."""

    path: Path
    key: str
    kind: type[KeptT]
    progress: Progress

    def made(
        self,
        chunks: Sequence[Sequence[Any]],
        load: Callable[[], tuple[Any, Any]],
        make: Callable[[Sequence[Any], Any, Any], list[KeptT]],
    ) -> list[KeptT]:
        """All results, in order; `load` gives (model, processor) if something is to be made.

        Several processes that a launcher started share the chunks; each returns all results.
        """
        mark, ranks = self.path.with_suffix(".key"), Ranks.from_environment()

        def finished() -> bool:
            return self.path.is_file() and mark.is_file() and mark.read_bytes().strip() == self.key.encode()

        if finished():
            return list(read_jsonl(self.path, self.kind))
        if ranks.rank == 0:
            mark.unlink(missing_ok=True)
        kept = self.path.with_suffix(".journal")
        journal = Journal[list[KeptT]](kept, self.key, list[self.kind], ranks.rank)  # type: ignore[name-defined]
        known = journal.batches()
        mine = [number for number in range(len(chunks)) if number not in known and ranks.owns(number)]
        total, done = sum(map(len, chunks)), sum(len(chunks[number]) for number in known)
        model, processor = load() if mine else (None, None)
        with journal.writing() as note:
            for number in mine:
                self.progress(done, total)
                note(number, make(chunks[number], model, processor))
                done += len(chunks[number])
        self.progress(total, total)
        ranks.wait_until(lambda: journal.count() >= len(chunks) or finished(), f"all answers of {self.path}")
        if ranks.rank == 0:
            results = journal.results()
            self._write(mark, [results[number] for number in range(len(chunks))])
            shutil.rmtree(kept, ignore_errors=True)
        ranks.wait_until(finished, f"rank 0 to write {self.path}")
        return list(read_jsonl(self.path, self.kind))

    def _write(self, mark: Path, chunks: Sequence[Sequence[KeptT]]) -> None:
        """The results, then what they depend on."""
        with atomic_write(self.path) as file:
            for results in chunks:
                file.writelines(f"{result.model_dump_json(exclude_defaults=True)}\n" for result in results)
        with atomic_write(mark) as file:
            file.write(f"{self.key}\n")


def _source(asking: Asking, processor: Any, samples: Sequence[Sample], until: contextlib.ExitStack) -> GivenAnswers | None:
    """Where the answers come from, open until the stack ends; None: the model answers."""
    from mia_attention.given import opened
    from mia_attention.settings import ScoreSettings

    settings = ScoreSettings(answers=asking.source, disturb=False, max_new_tokens=asking.max_new_tokens)
    return until.enter_context(opened(settings, processor, asking.open_image, {sample.id for sample in samples}))


def _from_source(samples: Sequence[Sample], given: GivenAnswers) -> list[HeldOutAnswer]:
    given.ahead(samples)
    answers = []
    for sample in samples:
        try:
            answers.append(HeldOutAnswer(id=sample.id, response=given.said(sample).text, perplexity=None))
        except DataError as error:
            answers.append(_not_asked(Skipped(id=sample.id, reason=str(error))))
    return answers


def _answers(samples: Sequence[Sample], model: Any, processor: Any, asking: Asking) -> list[HeldOutAnswer]:
    """The answers in the samples' order: in the model's words, or the options it chooses."""
    options = [asking.options(sample) for sample in samples]
    with_options = [(sample, found) for sample, found in zip(samples, options, strict=True) if found is not None]
    rest = [sample for sample, found in zip(samples, options, strict=True) if found is None]
    said = iter(_in_words(rest, model, processor, asking))
    chosen = iter(_by_likelihood(with_options, model, processor, asking))
    return [next(said if found is None else chosen) for found in options]


def _in_words(samples: Sequence[Sample], model: Any, processor: Any, asking: Asking) -> list[HeldOutAnswer]:
    from mia_attention.answering.responses import try_respond
    from mia_attention.causes.steering import delimiters_scaled

    scale = asking.delimiter_scale
    said = try_respond(
        samples,
        model,
        processor,
        open_image=asking.open_image,
        batch_size=asking.batch_size,
        max_new_tokens=asking.max_new_tokens,
        within=None if scale is None else functools.partial(delimiters_scaled, scale=scale),
    )
    return [
        _not_asked(response)
        if isinstance(response, Skipped)
        else HeldOutAnswer(id=sample.id, response=response.text, perplexity=response.perplexity)
        for sample, response in zip(samples, said, strict=True)
    ]


def _by_likelihood(asked: Sequence[tuple[Sample, Options]], model: Any, processor: Any, asking: Asking) -> list[HeldOutAnswer]:
    from mia_attention.answering.likelihood import try_likelihoods

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
