"""Before and after: how the report and the terminal put an evaluation into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mia_augment import FORMATS, SINGLE
from mia_augment.statistics import MeanDifference
from mia_select import Difference
from mia_select.evaluation import EVALUATION, MULTI, Accuracy, AccuracyRow, Evaluation, Mistake, Speaking, read_evaluation

from mia_cli.report import svg as figures

MISTAKE_WORDS: dict[Mistake, str] = {
    "other_image": "another picture's answer",
    "mixed": "mixed from several",
    "malformed": "malformed",
    "neither": "about none of the pictures",
    "else": "other",
}


def row_label(row: AccuracyRow) -> str:
    """Name of a line: ``sequence 3``, ``sequence, all``, ``several images``, ``single``.

    >>> row_label(AccuracyRow.model_construct(name="multi_image", format=None, parts=None))
    'several images, all'
    """
    if row.name == MULTI:
        return "several images, all"
    format = FORMATS[row.name.split("/")[0]]
    return f"{format.title}, all" if row.parts is None and not format.parts else format.title_of(row.parts or 0)


def difference_text(difference: Difference | MeanDifference) -> str:
    """In points, with the paired interval: ``+4.3 [+1.7, +6.9]``."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def direction(difference: Difference | None) -> Literal["up", "down", ""]:
    """Whether the interval lies above or below 0."""
    if difference is None:
        return ""
    return "up" if difference.low > 0 else "down" if difference.high < 0 else ""


def shown_rows(evaluation: Evaluation) -> list[AccuracyRow]:
    """All lines, but not a pool and its only member both."""
    members = {row.name: sum(other.name.startswith(f"{row.name}/") for other in evaluation.rows) for row in evaluation.rows}
    return [row for row in evaluation.rows if "/" not in row.name or members.get(row.name.split("/")[0], 0) > 1]


def accuracy_content(folder: Path) -> dict[str, Any]:
    """What the page shows of an evaluation; nothing where there is none."""
    if not (folder / EVALUATION).is_file():
        return {"accuracy": [], "anatomy": None, "flattered": None, "speaking": None}
    evaluation = read_evaluation(folder)
    rows = shown_rows(evaluation)
    bound = max((abs(edge) for row in rows if row.difference for edge in (row.difference.low, row.difference.high)), default=0)
    return {
        "accuracy": [accuracy_line(row, 100 * bound) for row in rows],
        "anatomy": anatomy(rows),
        "flattered": evaluation.flattered,
        "speaking": speaking_content(rows),
    }


SPEAKING_COLUMNS = ("format", "samples", "speak of it", "difference", "share of it", "difference")
SPEAKING_TITLE = (
    "Agreement by likelihood, no accuracy: answers that speak of the picture asked about, and its mean share of their "
    "likelihood under each picture alone, in %"
)


def speaking_content(rows: Sequence[AccuracyRow]) -> dict[str, Any] | None:
    """Agreement by likelihood, which is neither equality nor accuracy, as a table; None where it was not measured."""
    lines = [[row_label(row), str(row.speaking.n), *_before_after(row.speaking)] for row in rows if row.speaking is not None]
    return {"columns": list(SPEAKING_COLUMNS), "rows": lines} if lines else None


def _before_after(found: Speaking) -> list[str]:
    """Answers that speak of the target and its mean share, before and after, with the paired differences."""
    spoken, share = f"{100 * found.before / found.n:.1f}", f"{100 * found.share_before:.1f}"
    if found.after is None or found.share_after is None or found.difference is None or found.share_difference is None:
        return [spoken, "-", share, "-"]
    return [
        f"{spoken} → {100 * found.after / found.n:.1f}",
        difference_text(found.difference),
        f"{share} → {100 * found.share_after:.1f}",
        difference_text(found.share_difference),
    ]


def facts(folder: Path) -> list[dict[str, str]]:
    """The outcome in a line or two: several images together, and single ones."""
    if not (folder / EVALUATION).is_file():
        return []
    evaluation = read_evaluation(folder)
    rows = {row.name: row for row in evaluation.rows}
    shown = ((MULTI, "Several images"), (SINGLE, f"{FORMATS[SINGLE].title.capitalize()} image"))
    return [_fact(rows[name], words, evaluation) for name, words in shown if name in rows]


def _fact(row: AccuracyRow, words: str, evaluation: Evaluation) -> dict[str, str]:
    before, after = f"{100 * row.before.rate:.1f}", f"{100 * row.after.rate:.1f}" if row.after else None
    warning = ", not held out" if evaluation.seen_in_training else ""
    return {
        "name": f"{words}, {'answers that agree' if evaluation.agreement else 'right answers'}",
        "value": f"{before} → {after} %" if after else f"{before} %",
        "more": (f"{difference_text(row.difference)} points" if row.difference else f"of {row.before.n} samples") + warning,
        "direction": direction(row.difference),
    }


def accuracy_line(row: AccuracyRow, bound: float) -> dict[str, Any]:
    difference = row.difference
    return {
        "label": row_label(row),
        "pooled": row.parts is None or row.name == SINGLE,
        "n": row.before.n,
        "before": _parts(row.before),
        "after": _parts(row.after),
        "difference": _split(difference_text(difference) if difference else "-"),
        "direction": direction(difference),
        "figure": figures.interval(100 * difference.mean, 100 * difference.low, 100 * difference.high, bound)
        if difference
        else "",
    }


def _parts(accuracy: Accuracy | None) -> dict[str, str]:
    """Rate and interval in percent, apart."""
    if accuracy is None:
        return {"rate": "-", "interval": ""}
    return {"rate": f"{100 * accuracy.rate:.1f} %", "interval": f"[{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"}


def _split(text: str) -> dict[str, str]:
    """``+4.3 [+1.7, +6.9]`` as its number and its interval."""
    number, _, interval = text.partition(" ")
    return {"rate": number, "interval": interval}


def anatomy(rows: list[AccuracyRow]) -> dict[str, Any]:
    """Kinds of mistakes that occurred, before and after."""
    counts = [(row, Counter(row.mistakes_before), Counter(row.mistakes_after or {})) for row in rows]
    kinds = [kind for kind in MISTAKE_WORDS if any(before[kind] or after[kind] for _, before, after in counts)]
    lines = [
        [row_label(row), *(f"{before[kind]} → {after[kind]}" if row.mistakes_after else str(before[kind]) for kind in kinds)]
        for row, before, after in counts
    ]
    return {
        "columns": ["format", *(MISTAKE_WORDS[kind] for kind in kinds)],
        "rows": lines if kinds else [],
        "after": any(row.mistakes_after for row in rows),
    }
