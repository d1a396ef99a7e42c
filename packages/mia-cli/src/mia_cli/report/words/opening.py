"""The report's first paragraph, written from the figures: what went up, what did not, how sure that is, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mia_augment import FORMATS, SEVERAL, SINGLE
from mia_select.evaluation import MULTI, AccuracyRow, Evaluation

from mia_cli.report.accuracy_section import direction

NEARLY_ALL = 0.95
"""Share of right answers from which there is little to mend."""


@dataclass(frozen=True)
class RunFigures:
    """What the paragraph is written from; None: that stage was not run.

    Attributes:
        pairs: that the selection made.
        steps: of training.
        evaluation: before and after.
        too_little: what the run is too small to say, as `too_little` tells it.
    """

    pairs: int | None = None
    steps: int | None = None
    evaluation: Evaluation | None = None
    too_little: Sequence[str] = ()


def opening(found: RunFigures) -> list[str]:
    """The paragraph's sentences; the first is the outcome, or that there is none to be had.

    >>> opening(RunFigures(too_little=["nothing can be learnt from 4 pairs in 1 optimizer step: more rows give more pairs"]))
    ['Nothing can be learnt from 4 pairs in 1 optimizer step: more rows give more pairs.']
    """
    if found.too_little:
        return [*(f"{note[:1].upper()}{note[1:]}." for note in found.too_little), *_flattered(found.evaluation)]
    rows = {} if found.evaluation is None else {row.name: row for row in found.evaluation.rows}
    if found.evaluation is None or not rows:
        made = "" if found.pairs is None else f"{_count(found.pairs, 'preference pair')} made. "
        return [f"{made}Nothing is measured yet: the same held-out questions before and after training tell whether it helps."]
    if all(row.after is None for row in rows.values()):
        return [*_untrained(rows), *_flattered(found.evaluation)]
    told = [line for line in (_change(rows.get(MULTI), found), _by_format(rows), _single(rows.get(SINGLE))) if line]
    return [*told, _how_sure(found.evaluation), *_flattered(found.evaluation), _next(rows)]


def _change(row: AccuracyRow | None, found: RunFigures) -> str:
    """The outcome about several images."""
    if row is None or row.after is None or row.difference is None:
        return ""
    trained = [_count(found.pairs, "pair")] if found.pairs is not None else []
    trained += [_count(found.steps, "step")] if found.steps is not None else []
    after = f" after training on {', '.join(trained)}" if trained else " after training"
    judged = "agreeing answers" if found.evaluation is not None and found.evaluation.agreement else "right answers"
    went = {"up": "went up", "down": "went down", "": "did not change measurably"}[direction(row.difference)]
    low, high = (f"{100 * edge:+.1f}" for edge in (row.difference.low, row.difference.high))
    certain = f"with 95 % certainty {low} to {high}" if direction(row.difference) else f"anything from {low} to {high} fits"
    return (
        f"About several images {judged} {went}{after}: from {_rate(row.before.rate)} to {_rate(row.after.rate)} %, by "
        f"{100 * row.difference.mean:+.1f} points ({certain})."
    )


def _by_format(rows: dict[str, AccuracyRow]) -> str:
    """Which formats went up and which did not; nothing where there is one only."""
    pooled = [rows[name] for name in SEVERAL if name in rows and rows[name].difference]
    if len(pooled) < 2:
        return ""
    groups = {"went up": "up", "went down": "down", "did not change measurably": ""}
    clauses = []
    for words, wanted in groups.items():
        names = [
            f"{FORMATS[row.name].plural} ({100 * row.difference.mean:+.1f})"
            for row in pooled
            if row.difference and direction(row.difference) == wanted
        ]
        clauses += [f"{_listed(names)} {words}"] if names else []
    return f"Of these, {'; '.join(clauses)}."


def _single(row: AccuracyRow | None) -> str:
    if row is None or row.after is None or row.difference is None:
        return ""
    went = {"up": "went up too", "down": "fell", "": "did not change measurably"}[direction(row.difference)]
    if row.difference.low == row.difference.high == 0:
        return f"About single images nothing changed ({_rate(row.before.rate)} % of {row.before.n})."
    rates = f"from {_rate(row.before.rate)} to {_rate(row.after.rate)} %"
    edges = f"{100 * row.difference.low:+.1f} to {100 * row.difference.high:+.1f}"
    return f"About single images they {went}: {rates}, {100 * row.difference.mean:+.1f} ({edges})."


def _how_sure(evaluation: Evaluation) -> str:
    held_out = "" if evaluation.seen_in_training else " about pictures that training never saw"
    return (
        f"That is from {evaluation.n} questions{held_out}, each asked before and after, and from one training: another seed "
        "will differ a little."
    )


def _flattered(evaluation: Evaluation | None) -> list[str]:
    return [f"Mind: {evaluation.flattered}."] if evaluation is not None and evaluation.flattered else []


def _untrained(rows: dict[str, AccuracyRow]) -> list[str]:
    """What the untrained model does, and whether there is something to win back."""
    told = [f"{_rate(rows[name].before.rate)} % about {words}" for name, words in _GROUPS.items() if name in rows]
    first = f"The untrained model answers rightly: {_listed(told)}. Nothing was trained."
    if MULTI not in rows or SINGLE not in rows:
        return [first]
    gap = 100 * (rows[SINGLE].before.rate - rows[MULTI].before.rate)
    if gap < 5:
        return [first, "It is about as good with several images as with one: there is little to mend."]
    return [first, f"The {gap:.0f} points between them are what training could win back. Next: `mia run`."]


_GROUPS = {MULTI: "several images", SINGLE: "single images"}


def _next(rows: dict[str, AccuracyRow]) -> str:
    several, single = (direction(rows[name].difference) if name in rows else "" for name in (MULTI, SINGLE))
    if single == "down":
        return (
            "Next: keep single images with `score.confusions: true` and `select.rejected: both`, with `train.beta: 1` where "
            "answers are short, or with a lower `train.learning_rate`."
        )
    if several == "down":
        return "Next: look in the examples whether rejected answers are wrong at all, and lower `train.learning_rate`."
    if several == "up":
        return (
            "Next: read some examples, ask `mia ablate` which part of the method did it, and take the model away with "
            "`mia export --merged`."
        )
    if MULTI in rows and rows[MULTI].before.rate >= NEARLY_ALL:
        return "Next: nothing, perhaps: nearly all questions were answered rightly before training."
    return (
        "Next: more pairs or a higher `train.learning_rate`; `mia diagnose` tells whether there is anything to mend and what "
        "finds it."
    )


def _rate(share: float) -> str:
    return f"{100 * share:.1f}"


def _count(number: int | None, noun: str) -> str:
    """`1 pair`, `4 pairs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(words: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
