"""One table over variants and seeds, all measured on the same samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from mia_augment import SEVERAL, SINGLE, FormatName, Record
from mia_augment.statistics import crossed_bootstrap
from numpy.typing import NDArray

from mia_select.ablation.variants import REFERENCE
from mia_select.evaluation.accuracy import MULTI, Prediction


class Outcome(Record):
    """One held-out question, right or wrong: all that a comparison needs, a line of `outcomes.jsonl`."""

    id: str
    format: FormatName
    parts: int
    before: bool
    after: dict[str, list[bool]]
    """Variant -> one for each seed, in their order."""


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
    before: float
    after: float
    """Mean over the seeds."""
    gain: Effect
    """After minus before."""
    per_seed: list[float]
    """The gain with each seed."""
    over_reference: Effect | None
    """Gain minus that of the arm it is compared with; None for the reference itself."""


class Comparison(Record):
    """The table: all variants on all groups."""

    reference: str
    seeds: int
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


def outcomes(predictions: Mapping[str, Mapping[int, Sequence[Prediction]]]) -> list[Outcome]:
    """Right or wrong, question by question, in the order of the first variant's first seed.

    Args:
        predictions: variant -> training seed -> predictions, all of the same samples.

    Raises:
        ValueError: variants were measured on different samples or seeds, or have no answer after training.
    """
    runs = next(iter(predictions.values()))
    seeds, first = sorted(runs), runs[min(runs)]
    order = [p.id for p in first]
    after = {variant: _after(variant, of_variant, order, seeds) for variant, of_variant in predictions.items()}
    return [
        Outcome(
            id=p.id,
            format=p.format,
            parts=p.parts,
            before=p.correct_before,
            after={variant: [found[p.id] for found in tables] for variant, tables in after.items()},
        )
        for p in first
    ]


def _after(name: str, runs: Mapping[int, Sequence[Prediction]], order: list[str], seeds: list[int]) -> list[dict[str, bool]]:
    """For each seed: sample -> right after training."""
    if sorted(runs) != seeds:
        raise ValueError(f"variant {name!r}: expected the seeds {seeds}, got {sorted(runs)}")
    tables = []
    for seed in seeds:
        if sorted(p.id for p in runs[seed]) != sorted(order):
            raise ValueError(f"variant {name!r}, seed {seed}: expected the same {len(order)} samples as the reference's")
        table = {p.id: p.correct_after for p in runs[seed]}
        without = [sample for sample, right in table.items() if right is None]
        if without:
            raise ValueError(f"variant {name!r}, seed {seed}: sample {without[0]!r} has no answer after training")
        tables.append({sample: bool(right) for sample, right in table.items()})
    return tables


def compare(found: Iterable[Outcome], controls: Mapping[str, str] | None = None, *, seed: int = 0) -> Comparison:
    """Compare variants, each trained with one or several seeds, on the same held-out samples.

    >>> compare(read_jsonl(Path("run/ablate/outcomes.jsonl"), Outcome))  # the table again, without a model

    Args:
        found: of every held-out question.
        controls: variant -> the arm that it is compared with, by the same seeds; those not named: with the reference.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no outcomes, or one is compared with an arm that is not there.
    """
    table = list(found)
    if not table:
        raise ValueError("expected at least one outcome, got none")
    before = np.array([line.before for line in table], dtype=float)
    gains = {name: np.array([line.after[name] for line in table], dtype=float).T - before for name in table[0].after}
    against = {name: (controls or {}).get(name, REFERENCE) for name in gains}
    for name, control in against.items():
        if control not in gains:
            raise ValueError(f"variant {name!r}: expected the arm {control!r} to compare it with, got {', '.join(gains)}")
    groups = {name: where for name in (*SEVERAL, MULTI, SINGLE) if (where := _members(table, name)).any()}
    rows = [
        VariantRow(
            variant=name,
            group=group,
            n=int(where.sum()),
            before=float(before[where].mean()),
            after=float((before + gain)[:, where].mean()),
            gain=_effect(gain[:, where], seed),
            per_seed=[float(value) for value in gain[:, where].mean(axis=1)],
            over_reference=None if against[name] == name else _effect((gain - gains[against[name]])[:, where], seed),
        )
        for name, gain in gains.items()
        for group, where in groups.items()
    ]
    return Comparison(reference=REFERENCE, seeds=len(gains[REFERENCE]), groups=list(groups), rows=rows)


def _members(table: Sequence[Outcome], group: str) -> NDArray[np.bool_]:
    return np.array([line.format in SEVERAL if group == MULTI else line.format == group for line in table], dtype=bool)


def _effect(values: NDArray[np.float64], seed: int) -> Effect:
    """The mean effect and its interval, from a (training seed, sample) table of differences."""
    found = crossed_bootstrap(values, seed=seed)
    return Effect(mean=found.value, low=found.low, high=found.high)
