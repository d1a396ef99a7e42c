"""Fills the page of two runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os.path import commonpath
from pathlib import Path
from typing import Any

from mia_augment import SINGLE
from mia_select.evaluation import MULTI, AccuracyRow, Prediction

from mia_cli.layout import saved_settings
from mia_cli.report import accuracy_section as accuracy
from mia_cli.report.page import write_page
from mia_cli.report.two_runs.same_questions import TwoRuns, same_questions

FEWEST = 20
"""Questions in common: fewer tell nothing."""
ANSWERS_SHOWN = 20
"""Of the questions that one run alone answers rightly, of each."""
NOT_COMPARED = ("run_dir", "report", "launch")
"""Settings that change no answer."""


def write_two_runs(first: Path, second: Path, out: Path) -> int:
    """Write the page that compares two run directories; returns its size in bytes.

    Raises:
        DataError: a run has no evaluation, or they have no held-out question in common.
    """
    found, names = same_questions(first, second), run_names(first, second)
    rows = accuracy.shown_rows(found.evaluation)
    bound = max((abs(edge) for row in rows if row.difference for edge in (row.difference.low, row.difference.high)), default=0)
    content = {
        "title": f"{names[0]} and {names[1]}",
        "names": names,
        "opening": two_runs_opening(found, names),
        "nothing": False,
        "flattered": found.evaluation.flattered,
        "accuracy": [accuracy.accuracy_line(row, 100 * bound) for row in rows],
        "anatomy": accuracy.anatomy(rows),
        "settings": {"columns": ["setting", *names], "rows": _differing(saved_settings(first), saved_settings(second))},
        "answers": [_answers(found, names, right) for right in (0, 1)],
    }
    return write_page("two_runs/two_runs.html.j2", out, content)


def run_names(first: Path, second: Path) -> tuple[str, str]:
    """The paths without what they begin with in common.

    >>> run_names(Path("/a/try/run"), Path("/a/again/run"))
    ('try/run', 'again/run')
    """
    one, two = first.resolve(), second.resolve()
    above = Path(commonpath([one.parent, two.parent]))
    return one.relative_to(above).as_posix(), two.relative_to(above).as_posix()


def two_runs_opening(found: TwoRuns, names: tuple[str, str]) -> list[str]:
    """The outcome in words; what was left out; whether both began alike."""
    rows = {row.name: row for row in found.evaluation.rows}
    told = [
        _compared(rows[name], words, names)
        for name, words in ((MULTI, "several images"), (SINGLE, "single images"))
        if name in rows
    ]
    told.append(
        f"Both were asked the same {found.evaluation.n} questions, so the difference is paired; each is one training, and "
        "another seed of either differs a little."
    )
    left_out = [
        f"{count} {words}"
        for count, words in (
            (found.other, "of the same id with another prompt, answer or picture"),
            (found.lone[0], f"of {names[0]} only"),
            (found.lone[1], f"of {names[1]} only"),
        )
        if count
    ]
    told += [f"Questions left out: {', '.join(left_out)}."] if left_out else []
    return told + _began(found, names)


def _compared(row: AccuracyRow, words: str, names: tuple[str, str]) -> str:
    if row.difference is None or row.after is None:
        return ""
    if row.before.n < FEWEST:
        return f"About {words} nothing can be told from {row.before.n} questions in common."
    if row.difference.low == row.difference.high == 0:
        return f"About {words} both are alike: {100 * row.before.rate:.1f} % right."
    side = accuracy.direction(row.difference)
    low, high, mean = (f"{100 * value:+.1f}" for value in (row.difference.low, row.difference.high, row.difference.mean))
    better = {
        "up": f"{names[1]} is better than {names[0]}",
        "down": f"{names[1]} is worse than {names[0]}",
        "": "they do not differ measurably",
    }
    rates = f"{100 * row.before.rate:.1f} and {100 * row.after.rate:.1f} % right"
    return f"About {words} {better[side]}: {rates}, {mean} points for {names[1]} (95 %: {low} to {high})."


def _began(found: TwoRuns, names: tuple[str, str]) -> list[str]:
    """A word where the untrained models differ: then it is not training alone that is compared."""
    if found.other or any(found.lone):
        return []
    starts = [{row.name: row.before.correct for row in own.rows} for own in found.own]
    if starts[0] == starts[1]:
        return []
    return [f"Before training {names[0]} and {names[1]} already answered differently, so more than training is compared."]


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[list[str]]:
    """Settings that differ, by their dotted names; `-` where a run has none."""
    one, two = dict(_flat(first)), dict(_flat(second))
    keys = [key for key in {**one, **two} if key.split(".")[0] not in NOT_COMPARED]
    return [[key, _shown(one, key), _shown(two, key)] for key in keys if one.get(key) != two.get(key)]


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{above}{key}.")
        else:
            yield f"{above}{key}", inner


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "-"


def _answers(found: TwoRuns, names: tuple[str, str], right: int) -> dict[str, Any]:
    """Questions that one run alone answers rightly."""
    wanted = [p for p in found.answers if (p.correct_before, p.correct_after) == ((True, False), (False, True))[right]]
    shown = wanted[:: max(1, len(wanted) // ANSWERS_SHOWN)][:ANSWERS_SHOWN]
    return {
        "title": f"Right in {names[right]} only: {len(wanted)}",
        "columns": ["question", "truth", *names, "id"],
        "rows": [[_question(p, found.prompts), p.answer, p.before, p.after or "", p.id] for p in shown],
        "more": len(wanted) - len(shown),
    }


def _question(prediction: Prediction, prompts: Mapping[str, str]) -> str:
    return prompts.get(prediction.id, "").rpartition("<image>")[2].strip()
