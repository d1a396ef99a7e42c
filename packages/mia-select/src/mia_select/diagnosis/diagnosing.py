"""What `mia diagnose` says about a model, computed from its answers and its attention. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mia_augment import Bucket, Readout, Rows, Sample, same_answer
from mia_augment.statistics import grouped_auroc_interval, held_out_probabilities, scored_groups
from numpy.typing import NDArray

from mia_select.diagnosis.findings import (
    ALONE,
    SURENESS,
    BucketFindings,
    Diagnosis,
    ReadoutScore,
    Unequal,
    advice,
    findings,
    heads_of,
)
from mia_select.rules.attention import threshold_for
from mia_select.selection.calibration import ENOUGH, Ratios, is_inert, ratio_auroc, share_passed
from mia_select.selection.one_sided import AnswerCounts
from mia_select.settings import Thresholds

PENALTY = 10.0
"""Of the probes of hidden states: with thousands of dimensions and hundreds of answers, little is left free."""


@dataclass(frozen=True)
class ReadoutRatios:
    """One readout's ratio of every sample."""

    rows: Rows
    layer: Readout
    value_weighted: bool
    ratios: list[float | None]
    probe: bool = False
    """Of hidden states, by labels (`with_references`)."""

    @property
    def kind(self) -> str:
        """What its members are compared within: layers, heads, probes of layers, or one name."""
        if isinstance(self.layer, str):
            return self.layer
        if heads_of(self.layer):
            return "heads"
        return "probe" if self.probe else "layers"

    @property
    def settable(self) -> bool:
        """Whether `score.layer` can be set to it, which needs no label."""
        return not self.probe and self.layer != SURENESS


@dataclass(frozen=True)
class AnsweredSample:
    """A sample with the model's answers to it."""

    sample: Sample
    response: str
    alone: str
    """Its answer to the same question about the target's own picture alone."""

    @property
    def bucket(self) -> Bucket:
        return self.sample.format, self.sample.parts

    @property
    def right(self) -> bool:
        return same_answer(self.response, self.sample.answer)


def diagnose(
    answered: Sequence[AnsweredSample],
    readouts: Sequence[ReadoutRatios],
    thresholds: Thresholds,
    *,
    model: str,
    configured: ReadoutRatios | None = None,
) -> Diagnosis:
    """What the answers and ratios say, readout by readout, and what follows from it.

    Args:
        answered: samples with the model's answers.
        readouts: their ratios, read in every way.
        thresholds: those that selection is set to.
        model: its name.
        configured: the readout that scoring is set to; None: it is yet to be chosen, or could not be read.
    """
    count = len(answered)
    every = [score for readout in readouts if (score := _score(readout, answered, range(count))) is not None]
    best = _best([each for each in readouts if each.settable], answered)
    kinds = dict.fromkeys(each.kind for each in readouts)
    by_kind = [_best([each for each in readouts if each.kind == kind], answered) for kind in kinds]
    buckets = [_bucket(bucket, answered, configured, thresholds) for bucket in sorted({entry.bucket for entry in answered})]
    score = None if configured is None else _score(configured, answered, range(count))
    one_sided, unequal = _one_sided(answered), _unequal(answered, readouts)
    return Diagnosis(
        model=model,
        samples=count,
        buckets=buckets,
        configured=score,
        best=best,
        readouts=sorted(every, key=lambda score: -score.auroc),
        by_kind=sorted((score for score in by_kind if score is not None), key=lambda score: -score.auroc),
        findings=findings(buckets, score, best, one_sided, unequal),
        advice=advice(buckets, score, best, one_sided, label_free=_label_free(readouts), unequal=unequal),
    )


def with_references(
    readouts: Sequence[ReadoutRatios],
    answered: Sequence[AnsweredSample],
    sureness: Sequence[float | None],
    states: NDArray[np.float32] | None,
) -> list[ReadoutRatios]:
    """The readouts, with what they are compared with: how sure the model is, and a probe of each layer's states.

    A probe's number of an answer is the chance that it is right, by a probe that was fitted on the other half of the answers.

    Args:
        sureness: 1 / perplexity of each answer; empty: not known.
        states: hidden states at each prompt's last token, (samples, layers, width); None: the model gives none.
    """
    found = list(readouts)
    if len(sureness) == len(answered) > 0:
        found.append(ReadoutRatios("generated", SURENESS, False, list(sureness)))
    right = [entry.right for entry in answered]
    if states is None or len(states) != len(answered) or min(sum(right), len(right) - sum(right)) < 2:
        return found
    for layer in range(states.shape[1]):
        told = held_out_probabilities(states[:, layer], right, folds=2, penalty=PENALTY)
        found.append(ReadoutRatios("generated", layer, False, told.tolist(), probe=True))
    return found


def find_readout(
    readouts: Sequence[ReadoutRatios], layer: Readout | None, rows: Rows, value_weighted: bool
) -> ReadoutRatios | None:
    """The readout of these settings; None where its layer is yet to be chosen or could not be read."""
    wanted = (layer, rows, value_weighted)
    alike = (each for each in readouts if (each.layer, each.rows, each.value_weighted) == wanted)
    return next((each for each in alike if each.settable), None)


def _score(readout: ReadoutRatios, answered: Sequence[AnsweredSample], part: range) -> ReadoutScore | None:
    """How well a low ratio tells the wrong answers among a part of the samples."""
    low = [None if ratio is None else -ratio for ratio in (readout.ratios[i] for i in part)]
    groups = scored_groups(low, [not answered[i].right for i in part], [answered[i].bucket for i in part])
    found = grouped_auroc_interval(groups)
    if found is None:
        return None
    return ReadoutScore(
        rows=readout.rows,
        layer=readout.layer,
        value_weighted=readout.value_weighted,
        auroc=found.value,
        low=found.low,
        high=found.high,
        samples=sum(len(scores) for scores, _ in groups),
        probe=readout.probe,
    )


def _best(readouts: Sequence[ReadoutRatios], answered: Sequence[AnsweredSample]) -> ReadoutScore | None:
    """The readout that is best on samples of even index, measured on the others: the best of thirty is good by luck, too."""
    even, odd = range(0, len(answered), 2), range(1, len(answered), 2)
    chosen = [(score.auroc, index) for index, each in enumerate(readouts) if (score := _score(each, answered, even))]
    return _score(readouts[max(chosen)[1]], answered, odd) if chosen else None


def _label_free(readouts: Sequence[ReadoutRatios]) -> bool:
    """Whether the model's likelihoods under each picture alone could be measured: they need no ground truth."""
    return any(readout.layer == ALONE and any(ratio is not None for ratio in readout.ratios) for readout in readouts)


def _unequal(answered: Sequence[AnsweredSample], readouts: Sequence[ReadoutRatios]) -> Unequal:
    """How many answers that differ from the ground truth are of the target by their likelihoods under each picture alone."""
    shares = next((readout.ratios for readout in readouts if readout.layer == ALONE), [])
    known = [share for entry, share in zip(answered, shares, strict=False) if share is not None and not entry.right]
    return Unequal(len(known), sum(share > 0.5 for share in known))


def _one_sided(answered: Sequence[AnsweredSample]) -> str | None:
    """Answers that are wrong far more often than they are the right one missed."""
    counts = AnswerCounts()
    for entry in answered:
        if not entry.right:
            counts.add(entry.sample.answer, entry.response)
    return counts.one_sided()


def _bucket(
    bucket: Bucket, answered: Sequence[AnsweredSample], readout: ReadoutRatios | None, thresholds: Thresholds
) -> BucketFindings:
    format_, parts = bucket
    mine = [(index, entry) for index, entry in enumerate(answered) if entry.bucket == bucket]
    ratios = Ratios()
    for index, entry in mine:
        ratio = readout.ratios[index] if readout else None
        if ratio is not None:
            ratios.add(ratio, entry.right)
    threshold = threshold_for(format_, parts, thresholds)
    return BucketFindings(
        format=format_,
        parts=parts,
        n=len(mine),
        right=sum(entry.right for _, entry in mine),
        right_alone=sum(same_answer(entry.alone, entry.sample.answer) for _, entry in mine),
        told_another=_told_another([entry for _, entry in mine]),
        mean_ratio_right=_mean(ratios.right),
        mean_ratio_wrong=_mean(ratios.wrong),
        auroc=ratio_auroc(ratios),
        threshold=threshold,
        right_passed=None if threshold is None else share_passed(format_, ratios.right, threshold),
        wrong_passed=None if threshold is None else share_passed(format_, ratios.wrong, threshold),
        inert=threshold is not None and is_inert(format_, ratios, threshold),
        judged=min(len(ratios.right), len(ratios.wrong)) >= ENOUGH,
    )


def _told_another(answered: Sequence[AnsweredSample]) -> int | None:
    others = [[a for i, a in enumerate(entry.sample.source.answers) if i != entry.sample.target and a] for entry in answered]
    if not any(others):
        return None
    return sum(
        not entry.right and any(same_answer(entry.response, other) for other in theirs)
        for entry, theirs in zip(answered, others, strict=True)
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
