"""From a model's answers and the attention it paid to what `mia diagnose` says about it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mia_augment import Bucket, FormatName, Readout, Rows, Sample, same_answer
from mia_select import auroc_interval
from mia_select.rules import looks_elsewhere, threshold_for
from mia_select.selection import ENOUGH, AnswerCounts, Ratios, is_inert

from mia_cli.config.schema import PipelineConfig
from mia_cli.findings import BucketFindings, Diagnosis, ReadoutScore, advice, findings


@dataclass(frozen=True)
class Reading:
    """One readout's ratio of every sample."""

    rows: Rows
    layer: Readout
    value_weighted: bool
    ratios: list[float | None]


@dataclass(frozen=True)
class Asked:
    """A sample with the model's answers to it."""

    sample: Sample
    response: str
    alone: str

    @property
    def bucket(self) -> Bucket:
        return self.sample.format, self.sample.parts

    @property
    def right(self) -> bool:
        return same_answer(self.response, self.sample.answer)


def diagnose(
    asked: Sequence[Asked], readings: Sequence[Reading], config: PipelineConfig, *, model: str, layer: Readout | None = None
) -> Diagnosis:
    """What the answers and ratios say, reading by reading, and what follows from it.

    Args:
        asked: samples with the model's answers.
        readings: their ratios, read in every way.
        config: with what `score` and `select` are set to.
        model: its name.
        layer: what `score.layer` means for the model (`mia_attention.readout_of`); None: it is `auto`.
    """
    from mia_attention.measure import score_layer

    wrong = [not entry.right for entry in asked]
    groups = [f"{format_}/{parts}" for format_, parts in (entry.bucket for entry in asked)]

    def scored(reading: Reading, part: Sequence[int]) -> ReadoutScore | None:
        found = score_layer(
            str(reading.layer), [reading.ratios[i] for i in part], [wrong[i] for i in part], [groups[i] for i in part]
        )
        if found is None:
            return None
        values = {name: getattr(found, name) for name in ("auroc", "low", "high", "samples")}
        return ReadoutScore(rows=reading.rows, layer=reading.layer, value_weighted=reading.value_weighted, **values)

    every = range(len(asked))
    readouts = [score for reading in readings if (score := scored(reading, every)) is not None]
    best = _best(readings, scored, len(asked))
    current = configured_reading(readings, config, layer)
    buckets = [_bucket(bucket, asked, current, config) for bucket in sorted({entry.bucket for entry in asked})]
    configured = None if current is None else scored(current, every)
    one_sided = _one_sided(asked)
    return Diagnosis(
        model=model,
        samples=len(asked),
        buckets=buckets,
        configured=configured,
        best=best,
        readouts=sorted(readouts, key=lambda score: -score.auroc),
        findings=findings(buckets, configured, best, one_sided),
        advice=advice(buckets, configured, best, one_sided),
    )


def _one_sided(asked: Sequence[Asked]) -> str | None:
    """Answers that are wrong far more often than they are the right one missed."""
    counts = AnswerCounts()
    for entry in asked:
        if not entry.right:
            counts.add(entry.sample.answer, entry.response)
    return counts.one_sided()


def _best(
    readings: Sequence[Reading], scored: Callable[[Reading, Sequence[int]], ReadoutScore | None], count: int
) -> ReadoutScore | None:
    """Chosen on the samples of even index, measured on the others: the best of thirty is good by luck, too."""
    first = [(score.auroc, index) for index, reading in enumerate(readings) if (score := scored(reading, range(0, count, 2)))]
    return scored(readings[max(first)[1]], range(1, count, 2)) if first else None


def configured_reading(readings: Sequence[Reading], config: PipelineConfig, layer: Readout | None) -> Reading | None:
    """The readout that `score` is set to; None where its layer is yet to be chosen or could not be read."""
    for reading in readings:
        here = (reading.layer, reading.rows, reading.value_weighted)
        if here == (layer, config.score.rows, config.score.value_weighted):
            return reading
    return None


def _bucket(bucket: Bucket, asked: Sequence[Asked], reading: Reading | None, config: PipelineConfig) -> BucketFindings:
    format_, parts = bucket
    mine = [(index, entry) for index, entry in enumerate(asked) if entry.bucket == bucket]
    ratios = Ratios()
    for index, entry in mine:
        ratio = reading.ratios[index] if reading else None
        if ratio is not None:
            ratios.add(ratio, entry.right)
    threshold = threshold_for(format_, parts, config.select.thresholds)
    values = [*ratios.wrong, *ratios.right]
    return BucketFindings(
        format=format_,
        parts=parts,
        n=len(mine),
        right=sum(entry.right for _, entry in mine),
        right_alone=sum(same_answer(entry.alone, entry.sample.answer) for _, entry in mine),
        told_another=_told_another([entry for _, entry in mine]),
        mean_ratio_right=_mean(ratios.right),
        mean_ratio_wrong=_mean(ratios.wrong),
        auroc=auroc_interval([-value for value in values], [i < len(ratios.wrong) for i in range(len(values))]),
        threshold=threshold,
        right_passed=_passed(format_, ratios.right, threshold),
        wrong_passed=_passed(format_, ratios.wrong, threshold),
        inert=threshold is not None and is_inert(format_, ratios, threshold),
        judged=min(len(ratios.right), len(ratios.wrong)) >= ENOUGH,
    )


def _told_another(asked: Sequence[Asked]) -> int | None:
    others = [[a for i, a in enumerate(entry.sample.source.answers) if i != entry.sample.target and a] for entry in asked]
    if not any(others):
        return None
    return sum(
        not entry.right and any(same_answer(entry.response, other) for other in theirs)
        for entry, theirs in zip(asked, others, strict=True)
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _passed(format_: FormatName, ratios: Sequence[float], threshold: float | None) -> float | None:
    if threshold is None or not ratios:
        return None
    return sum(bool(looks_elsewhere(format_, ratio, threshold)) for ratio in ratios) / len(ratios)
