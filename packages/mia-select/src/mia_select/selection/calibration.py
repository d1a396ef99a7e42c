"""What the attention ratio tells about right and wrong answers, and thresholds that follow from it."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from mia_augment import Bucket, FormatName, Record
from mia_augment.statistics import Auroc, auroc_interval, best_cut
from numpy.typing import NDArray

from mia_select.rules.attention import looks_elsewhere, threshold_for
from mia_select.selection.agreement import agreement_cut
from mia_select.settings import Calibrate, SelectSettings

INERT = 0.05
"""A threshold that lets through less than this share of the answers, or all but this share, decides nothing."""
ENOUGH = 20
"""Answers of a kind needed before a share of them says anything."""

Origin = Literal["table", "keep", "auroc", "groups"]


class BucketThreshold(Record):
    """The attention rule in one format and number of images, and what the ratio tells there."""

    format: FormatName
    parts: int
    threshold: float
    origin: Origin
    """`table` (the paper's unless set otherwise), or calibrated: `keep`, `auroc` or `groups`."""
    right: int
    """Right answers with a ratio."""
    wrong: int
    right_passed: float | None
    """Share of the right answers whose ratio the rule would let through; a rule that tells something lets few."""
    wrong_passed: float | None
    auroc: Auroc | None
    """How well a low ratio tells wrong answers from right ones: 0.5 not at all."""


@dataclass
class Ratios:
    """Ratios of one bucket's right and wrong answers: 8 bytes a sample."""

    right: array[float] = field(default_factory=lambda: array("d"))
    wrong: array[float] = field(default_factory=lambda: array("d"))

    def add(self, ratio: float, right: bool) -> None:
        (self.right if right else self.wrong).append(ratio)


class Tally:
    """Collects the ratios of all buckets, for thresholds and for what `selection.json` says about them."""

    def __init__(self) -> None:
        self.buckets: defaultdict[Bucket, Ratios] = defaultdict(Ratios)

    def add(self, bucket: Bucket, ratio: float, right: bool) -> None:
        self.buckets[bucket].add(ratio, right)


def calibrated(tally: Tally, settings: SelectSettings) -> dict[Bucket, tuple[float, Origin]]:
    """Thresholds of all buckets whose table value is to be replaced, with how they were found."""
    replaced: dict[Bucket, tuple[float, Origin]] = {}
    for bucket, ratios in tally.buckets.items():
        table = threshold_for(*bucket, settings.thresholds)
        if table is None or settings.calibrate is None:
            continue
        how = settings.calibrate
        found = _auto(bucket, ratios, table) if how == "auto" else _by(ratios, how, bucket[1])
        if found is not None:
            replaced[bucket] = found
    return replaced


def _auto(bucket: Bucket, ratios: Ratios, table: float) -> tuple[float, Origin] | None:
    if not is_inert(bucket[0], ratios, table):
        return None
    told = ratio_auroc(ratios)
    best = Calibrate(by="auroc")
    informative = told is not None and told.low > 0.5 and min(len(ratios.right), len(ratios.wrong)) >= best.min_samples
    return _by(ratios, best if informative else Calibrate(), bucket[1])


def _by(ratios: Ratios, how: Calibrate, parts: int) -> tuple[float, Origin] | None:
    if how.by == "groups":
        shares = np.concatenate([_values(ratios.wrong), _values(ratios.right)])
        return (agreement_cut(shares, parts), "groups") if len(shares) >= how.min_samples else None
    if how.by == "keep":
        return (lowest_share(_values(ratios.wrong), how.keep), "keep") if len(ratios.wrong) >= how.min_samples else None
    if min(len(ratios.right), len(ratios.wrong)) < how.min_samples:
        return None
    cut = best_cut(*_scores_and_labels(ratios))
    return None if cut is None else (cut, "auroc")


def lowest_share(values: NDArray[np.float64], share: float) -> float:
    """A cut with `share` of the values under it: midway between two neighbours, so that `<` and `<=` agree.

    Equal values stay together: among the possible cuts, the one that comes nearest.
    """
    if share >= 1:
        return float(np.nextafter(values.max(), 2))
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return float(np.nextafter(distinct[0], 2))
    under = np.cumsum(counts)[:-1] / len(values)
    nearest = int(np.argmin(np.abs(under - share)))
    return float((distinct[nearest] + distinct[nearest + 1]) / 2)


def is_inert(format_: FormatName, ratios: Ratios, threshold: float) -> bool:
    """Whether the threshold treats nearly all right and nearly all wrong answers alike.

    Where nearly no answer is right (long free answers never match word for word), the wrong ones alone have to tell.
    """
    shares = [share_passed(format_, kind, threshold) for kind in (ratios.right, ratios.wrong) if len(kind) >= ENOUGH]
    known = [share for share in shares if share is not None]
    return bool(known) and (min(known) >= 1 - INERT or max(known) <= INERT)


def describe(tally: Tally, thresholds: dict[Bucket, float | None], origins: dict[Bucket, Origin]) -> list[BucketThreshold]:
    """One line per bucket for `selection.json`, in the order of formats and numbers."""
    lines = []
    for bucket in sorted(tally.buckets):
        threshold = thresholds[bucket]
        if threshold is None:
            continue
        ratios = tally.buckets[bucket]
        lines.append(
            BucketThreshold(
                format=bucket[0],
                parts=bucket[1],
                threshold=threshold,
                origin=origins.get(bucket, "table"),
                right=len(ratios.right),
                wrong=len(ratios.wrong),
                right_passed=share_passed(bucket[0], ratios.right, threshold),
                wrong_passed=share_passed(bucket[0], ratios.wrong, threshold),
                auroc=ratio_auroc(ratios),
            )
        )
    return lines


def attention_warnings(tally: Tally, lines: list[BucketThreshold], settings: SelectSettings) -> list[str]:
    """What a user should know about the thresholds before trusting the pairs."""
    warnings = []
    for line in lines:
        bucket, ratios = (line.format, line.parts), tally.buckets[line.format, line.parts]
        name, table = f"{line.format} of {line.parts}", threshold_for(*bucket, settings.thresholds)
        if table is not None and is_inert(line.format, ratios, table):
            warnings.append(_inert(name, ratios, table, line, settings))
        told = line.auroc
        if line.origin != "table" and told is not None and told.low <= 0.5 and min(line.right, line.wrong) >= ENOUGH:
            warnings.append(
                f"{name}: the ratio does not tell right from wrong (AUROC {told.value:.2f}, 95 % {told.low:.2f} to "
                f"{told.high:.2f}), so its threshold {line.threshold:.3f} is no better than chance; another layer may tell more"
            )
    return warnings


def _inert(name: str, ratios: Ratios, table: float, line: BucketThreshold, settings: SelectSettings) -> str:
    format_ = line.format
    shares = [
        f"{share_passed(format_, kind, table):.0%} of {len(kind)} {label} answers"
        for kind, label in ((ratios.wrong, "wrong"), (ratios.right, "right"))
        if len(kind)
    ]
    if line.origin != "table":
        done = f"so {line.threshold:.3f} was set from the data instead ({line.origin})"
    elif settings.calibrate is None:
        done = "so the attention rule decides nothing here; `calibrate: auto` sets the threshold from the data"
    else:
        done = "so the attention rule decides nothing here; these are too few answers to set another"
    return f"{name}: the threshold {table:.3g} is inert, it lets through {' and '.join(shares)}, {done}"


def share_passed(format_: FormatName, ratios: array[float], threshold: float) -> float | None:
    """Share that the attention rule would let through."""
    values = _values(ratios)
    if not len(values):
        return None
    return float(np.mean(looks_elsewhere(format_, values, threshold)))


def ratio_auroc(ratios: Ratios) -> Auroc | None:
    """How well a low ratio tells wrong answers from right ones."""
    scores, wrong = _scores_and_labels(ratios)
    return auroc_interval(-scores, wrong)


def _scores_and_labels(ratios: Ratios) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.concatenate([_values(ratios.wrong), _values(ratios.right)])
    return scores, np.arange(len(scores)) < len(ratios.wrong)


def _values(values: array[float]) -> NDArray[np.float64]:
    return np.frombuffer(values, dtype=np.float64) if len(values) else np.empty(0)
