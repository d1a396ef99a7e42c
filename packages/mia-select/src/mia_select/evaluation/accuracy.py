"""Before and after, on the same held-out samples: accuracy with intervals, paired differences, kinds of mistakes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from mia_augment import SEVERAL, SINGLE, Bucket, FormatName, Record, Sample, same_answer
from pydantic import Field

from mia_select.evaluation.mistakes import MISTAKES, Mistake, mistake
from mia_select.evaluation.multiple_choice import find_choices, same_choice
from mia_select.evaluation.speaking import Speaking, Speaks, speaking
from mia_select.statistics import Difference, paired_difference, wilson

MULTI = "multi_image"
"""Name of the row over all formats with several images."""


class Prediction(Record):
    """What the model said to one held-out sample, without and with what it learnt."""

    id: str = Field(min_length=1)
    format: FormatName
    parts: int = Field(ge=1)
    """Number of pictures the prompt speaks of."""
    answer: str
    """Ground truth."""
    others: list[str] = Field(default=[])
    """The other pictures' answers to the same question, where known."""
    before: str
    after: str | None = None
    """None: only one model was asked."""
    correct_before: bool
    correct_after: bool | None = None
    speaks_before: Speaks | None = Field(default=None, exclude_if=lambda found: found is None)
    """What the answer speaks of by its likelihood under each picture alone; None, and not written: not measured."""
    speaks_after: Speaks | None = Field(default=None, exclude_if=lambda found: found is None)


class Accuracy(Record):
    """Share of right answers with Wilson's 95 % interval."""

    n: int
    correct: int
    rate: float
    low: float
    high: float


class AccuracyRow(Record):
    """One line of the table."""

    name: str
    """`sequence/3`, `sequence` (all numbers), `grid`, `pic_in_pic`, `single` or `multi_image` (all formats but `single`)."""
    format: FormatName | None
    parts: int | None
    """None: all numbers of images together."""
    before: Accuracy
    after: Accuracy | None
    difference: Difference | None
    """After minus before."""
    mistakes_before: dict[Mistake, int]
    mistakes_after: dict[Mistake, int] | None
    speaking: Speaking | None = None
    """Which picture the answers speak of, by likelihood; None: not measured."""


class Evaluation(Record):
    """What `evaluation.json` holds."""

    n: int
    agreement: bool = False
    """No accuracies, but how often an answer equals the untrained model's own answer about the target alone: the rows have no
    ground truth, or not all of them."""
    seen_in_training: int | None = None
    """Samples of which a picture is among the training data too; None: it is not known what training saw."""
    rows: list[AccuracyRow]
    """Per format: all numbers together, then each number; then `multi_image`; then `single`."""

    @property
    def flattered(self) -> str | None:
        """What to know before believing the figures, where not all samples are truly held out."""
        notes = []
        if self.agreement:
            notes.append(
                "agreement, not accuracy: rows without ground truths, so an answer counts that equals the untrained model's "
                "own answer about the target alone"
            )
        if self.seen_in_training:
            notes.append(
                f"not held out: {self.seen_in_training} of {self.n} samples show pictures that are among the training data, so "
                "these figures say little about pictures the model has not seen"
            )
        return "; ".join(notes) or None

    def row(self, name: str) -> AccuracyRow:
        """The line of that name.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} is no row; there are {', '.join(row.name for row in self.rows)}")


Match = Callable[[str, str], bool]


def predict(sample: Sample, before: str, after: str | None = None, *, match: Match | None = None) -> Prediction:
    """A prediction for a held-out sample, judged by `match`; no judge model.

    By default an answer is right if it equals the ground truth after normalising, or, where the prompt has lettered options, if
    it names the same option by letter or text.

    The other pictures' answers are taken from `sample.source.answers`.
    """
    match = match or _match(sample.prompt)
    answers = sample.source.answers
    others = [other for index, other in enumerate(answers) if other is not None and index != sample.target]
    return Prediction(
        id=sample.id,
        format=sample.format,
        parts=sample.parts,
        answer=sample.answer,
        others=others,
        before=before,
        after=after,
        correct_before=match(before, sample.answer),
        correct_after=None if after is None else match(after, sample.answer),
    )


def _match(prompt: str) -> Match:
    choices = find_choices(prompt)
    if choices is None:
        return same_answer
    return lambda response, answer: same_answer(response, answer) or same_choice(response, answer, choices)


def summarize(
    predictions: Iterable[Prediction], *, seed: int = 0, seen_in_training: int | None = None, agreement: bool = False
) -> Evaluation:
    """Accuracy, paired differences and kinds of mistakes, per format and number of images and pooled.

    Args:
        predictions: of all samples.
        seed: of the intervals' resampling.
        seen_in_training: samples with a picture that training saw, as `Evaluation` has it.
        agreement: the answers they were compared with are the model's own, as `Evaluation` has it.

    Raises:
        ValueError: only some of the predictions have an `after`, or an id stands twice.
    """
    everything = list(predictions)
    _check(everything)
    groups: dict[Bucket, list[Prediction]] = defaultdict(list)
    for prediction in everything:
        groups[prediction.format, prediction.parts].append(prediction)
    rows = []
    for format_ in SEVERAL:
        numbers = sorted(parts for name, parts in groups if name == format_)
        if numbers:
            rows.append(_row(format_, format_, None, [p for n in numbers for p in groups[format_, n]], seed))
        rows += [_row(f"{format_}/{n}", format_, n, groups[format_, n], seed) for n in numbers]
    several = [p for p in everything if p.format in SEVERAL]
    alone = [p for p in everything if p.format not in SEVERAL]
    if several:
        rows.append(_row(MULTI, None, None, several, seed))
    if alone:
        rows.append(_row(SINGLE, SINGLE, 1, alone, seed))
    return Evaluation(n=len(everything), agreement=agreement, seen_in_training=seen_in_training, rows=rows)


def _check(predictions: list[Prediction]) -> None:
    repeated = [name for name, count in Counter(p.id for p in predictions).items() if count > 1]
    if repeated:
        raise ValueError(f"expected every sample once, got {repeated[0]!r} several times ({len(repeated)} such ids)")
    without = [p.id for p in predictions if p.after is None or p.correct_after is None]
    if without and len(without) < len(predictions):
        raise ValueError(
            f"expected the same samples before and after, but {len(without)} of {len(predictions)} have no answer after, "
            f"e.g. {without[0]!r}"
        )


def _row(name: str, format_: FormatName | None, parts: int | None, predictions: list[Prediction], seed: int) -> AccuracyRow:
    before = [p.correct_before for p in predictions]
    after = [p.correct_after for p in predictions if p.correct_after is not None]
    paired = len(after) == len(before)
    return AccuracyRow(
        name=name,
        format=format_,
        parts=parts,
        before=_accuracy(before),
        after=_accuracy(after) if paired else None,
        difference=paired_difference(before, after, seed=seed) if paired else None,
        mistakes_before=_mistakes((p, p.before, p.correct_before, p.speaks_before) for p in predictions),
        mistakes_after=_mistakes((p, p.after or "", bool(p.correct_after), p.speaks_after) for p in predictions)
        if paired
        else None,
        speaking=speaking(
            [p.speaks_before for p in predictions], [p.speaks_after for p in predictions] if paired else None, seed=seed
        ),
    )


def _accuracy(correct: list[bool]) -> Accuracy:
    n, right = len(correct), sum(correct)
    low, high = wilson(right, n)
    return Accuracy(n=n, correct=right, rate=right / n, low=low, high=high)


def _mistakes(answers: Iterable[tuple[Prediction, str, bool, Speaks | None]]) -> dict[Mistake, int]:
    """Kinds of mistakes among the wrong answers; their sum is the number of wrong answers."""
    counts: Counter[Mistake] = Counter()
    measured = False
    for prediction, text, correct, says in answers:
        measured |= says is not None
        if not correct:
            about = None if says is None else says.about
            counts[mistake(text, prediction.answer, prediction.others, about) or "else"] += 1
    return {kind: counts[kind] for kind in MISTAKES if measured or kind != "neither"}
