"""What a run is too small to say: told at its end and at the top of its report, before any figure is believed."""

from __future__ import annotations

from mia_augment.storage import read_manifest
from mia_select.evaluation import EVALUATION, MULTI, AccuracyRow, read_evaluation

from mia_cli.layout import Folders

FEW_PAIRS = 50
FEW_STEPS = 10
"""With fewer pairs or optimizer steps than these a model hardly changes, whatever it is trained on."""
WIDE = 0.2
"""An interval of the difference that is wider tells a gain from a loss only where they are large."""
FREE_FORM = "see “My questions have long answers” in docs/faq.md"


def too_little(folders: Folders) -> list[str]:
    """A sentence for each thing that this run cannot show; empty where it is large enough."""
    found = _learnt(folders)
    if (folders.evaluated / EVALUATION).is_file():
        evaluation = read_evaluation(folders.evaluated)
        row = next((row for row in evaluation.rows if row.name == MULTI), evaluation.rows[0] if evaluation.rows else None)
        if row is not None and row.after is not None:
            found += _measured(row, agreement=evaluation.agreement)
    return found


def _learnt(folders: Folders) -> list[str]:
    manifest = read_manifest(folders.trained)
    if manifest is None:
        return []
    pairs, steps = manifest.counts.get("pairs", 0), manifest.counts.get("steps", 0)
    if pairs >= FEW_PAIRS and steps >= FEW_STEPS:
        return []
    mend = (
        "lower `train.accumulation` or raise `train.epochs`"
        if pairs >= FEW_PAIRS
        else "more rows give more pairs; the report's funnel shows where they were lost"
    )
    told = f"{_count(pairs, 'pair')} in {_count(steps, 'optimizer step')}"
    return [f"nothing can be learnt from {told}: hundreds of pairs and tens of steps are the least that shows; {mend}"]


def _measured(row: AccuracyRow, *, agreement: bool) -> list[str]:
    before, after, n = row.before, row.after, row.before.n
    if after is None:
        return []
    if before.correct == after.correct == 0 and not agreement:
        return [
            f"nothing can be measured: 0 of {n} answers equal their ground truth, before and after; either the questions are "
            f"too hard, or the answers are free text, which equality does not judge ({FREE_FORM})"
        ]
    if before.correct == after.correct == n:
        return [f"nothing can be measured: {n} of {n} answers are right before and after, so there is nothing to mend here"]
    difference = row.difference
    if difference is not None and difference.high - difference.low > WIDE:
        low, high = 100 * difference.low, 100 * difference.high
        return [
            f"too few questions to tell: with {n} about several images the difference may be anything from {low:+.0f} to "
            f"{high:+.0f} points; raise `evaluate.per_bucket`"
        ]
    return []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
