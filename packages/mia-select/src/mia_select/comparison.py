"""One table over variants and seeds, all measured on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mia_augment.records import Record
from numpy.typing import NDArray

from mia_select.evaluation import FORMATS, MULTI, Prediction

RESAMPLES = 2000


class Effect(Record):
    """A difference of accuracies with its 95 % interval, resampling samples and seeds."""

    mean: float
    low: float
    high: float


class VariantRow(Record):
    """One variant on one group of samples."""

    variant: str
    group: str
    """`sequence`, `grid`, `pic_in_pic`, `multi_image` or `single`."""
    n: int
    """Samples."""
    seeds: int
    before: float
    after: float
    """Mean over the seeds."""
    gain: Effect
    """After minus before."""
    over_reference: Effect | None
    """Gain minus the reference variant's gain; None for the reference itself."""


class Comparison(Record):
    """What `ablation.json` holds."""

    reference: str
    groups: list[str]
    rows: list[VariantRow]

    def row(self, variant: str, group: str) -> VariantRow:
        """One cell of the table.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.variant, row.group) == (variant, group):
                return row
        raise KeyError(f"no row for {variant!r} on {group!r}")


def compare(
    predictions: Mapping[str, Mapping[int, Sequence[Prediction]]], *, reference: str = "full", seed: int = 0
) -> Comparison:
    """Compare variants, each trained with one or several seeds, on the same held-out samples.

    Args:
        predictions: variant -> training seed -> predictions, all of the same samples.
        reference: the variant that others are compared with; the same seeds are paired.
        seed: of the bootstrap.

    Raises:
        ValueError: the reference is missing, or variants were measured on different samples or seeds.
    """
    if reference not in predictions:
        raise ValueError(f"expected the reference variant {reference!r} among {', '.join(predictions) or 'none'}")
    first = next(iter(predictions[reference].values()))
    order = [p.id for p in first]
    seeds = sorted(predictions[reference])
    gains = {name: _gains(name, runs, order, seeds) for name, runs in predictions.items()}
    before = np.array([p.correct_before for p in first], dtype=float)
    groups = {name: where for name in (*FORMATS[:-1], MULTI, "single") if (where := _members(first, name)).any()}
    rows = [
        _row(name, group, gain[:, where], gains[reference][:, where], before[where], name == reference, seed)
        for name, gain in gains.items()
        for group, where in groups.items()
    ]
    return Comparison(reference=reference, groups=list(groups), rows=rows)


def _gains(name: str, runs: Mapping[int, Sequence[Prediction]], order: list[str], seeds: list[int]) -> NDArray[np.float64]:
    """After minus before, (seed, sample), samples in the given order."""
    if sorted(runs) != seeds:
        raise ValueError(f"variant {name!r}: expected the seeds {seeds}, got {sorted(runs)}")
    table = np.empty((len(seeds), len(order)))
    for index, seed in enumerate(seeds):
        found = {p.id: p for p in runs[seed]}
        if sorted(found) != sorted(order):
            raise ValueError(f"variant {name!r}, seed {seed}: expected the same {len(order)} samples as the reference's")
        for column, sample in enumerate(order):
            prediction = found[sample]
            if prediction.correct_after is None:
                raise ValueError(f"variant {name!r}, seed {seed}: sample {sample!r} has no answer after training")
            table[index, column] = float(prediction.correct_after) - float(prediction.correct_before)
    return table


def _members(predictions: Sequence[Prediction], group: str) -> NDArray[np.bool_]:
    return np.array([p.format != "single" if group == MULTI else p.format == group for p in predictions], dtype=bool)


def _row(
    variant: str,
    group: str,
    gain: NDArray[np.float64],
    reference: NDArray[np.float64],
    before: NDArray[np.float64],
    is_reference: bool,
    seed: int,
) -> VariantRow:
    return VariantRow(
        variant=variant,
        group=group,
        n=gain.shape[1],
        seeds=gain.shape[0],
        before=float(before.mean()),
        after=float(before.mean() + gain.mean()),
        gain=effect(gain, seed=seed),
        over_reference=None if is_reference else effect(gain - reference, seed=seed),
    )


def effect(values: NDArray[np.float64], *, seed: int = 0) -> Effect:
    """Mean of a (seed, sample) table with its bootstrap interval; seeds and samples are both drawn with replacement.

    Drawing from few seeds shows too little of their spread; their variance is therefore widened by S / (S - 1).
    """
    seeds, samples = values.shape
    generator = np.random.default_rng(seed)
    centre = values.mean()
    per_seed, per_sample = values.mean(axis=1), values.mean(axis=0)
    means = np.empty(RESAMPLES)
    widened = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
    for index in range(RESAMPLES):
        columns = np.bincount(generator.integers(0, samples, samples), minlength=samples)
        drawn = generator.integers(0, seeds, seeds)
        means[index] = (per_sample @ columns) / samples + widened * (per_seed[drawn].mean() - centre)
    low, high = np.percentile(means, [2.5, 97.5])
    return Effect(mean=float(centre), low=float(low), high=float(high))
