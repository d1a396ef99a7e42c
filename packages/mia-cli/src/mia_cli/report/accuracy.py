"""Before and after: how the report and the terminal put an evaluation into words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mia_select.anatomy import Mistake
from mia_select.evaluation import MULTI, Accuracy, Evaluation, Row
from mia_select.metrics import Difference

from mia_cli.evaluate import EVALUATION, read_evaluation
from mia_cli.report import figures

MISTAKES: dict[Mistake, str] = {
    "other_image": "another picture's answer",
    "mixed": "mixed from several",
    "malformed": "malformed",
    "else": "other",
}


def label(row: Row) -> str:
    """Name of a line: ``sequence 3``, ``sequence, all``, ``several images``, ``single``.

    >>> label(Row.model_construct(name="multi_image", format=None, parts=None))
    'several images, all'
    """
    if row.name == MULTI:
        return "several images, all"
    name = row.name.split("/")[0].replace("_", "-")
    if row.format in ("single", "pic_in_pic"):
        return name
    return f"{name} {row.parts}" if row.parts is not None else f"{name}, all"


def difference_text(difference: Difference) -> str:
    """In points, with the paired interval: ``+4.3 [+1.7, +6.9]``."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def direction(difference: Difference | None) -> Literal["up", "down", ""]:
    """Whether the interval lies above or below 0."""
    if difference is None:
        return ""
    return "up" if difference.low > 0 else "down" if difference.high < 0 else ""


def shown_rows(evaluation: Evaluation) -> list[Row]:
    """All lines, but not a pool and its only member both."""
    members = {row.name: sum(other.name.startswith(f"{row.name}/") for other in evaluation.rows) for row in evaluation.rows}
    return [row for row in evaluation.rows if "/" not in row.name or members.get(row.name.split("/")[0], 0) > 1]


def section(folder: Path) -> dict[str, Any]:
    """What the page shows of an evaluation; nothing where there is none."""
    if not (folder / EVALUATION).is_file():
        return {"accuracy": [], "accuracy_figure": "", "anatomy": None}
    evaluation = read_evaluation(folder)
    rows = shown_rows(evaluation)
    return {
        "accuracy": [_line(row) for row in rows],
        "accuracy_figure": figures.intervals([_interval(row) for row in rows if row.difference], "points"),
        "anatomy": _anatomy(rows),
    }


def _line(row: Row) -> dict[str, Any]:
    return {
        "label": label(row),
        "pooled": row.parts is None or row.name == "single",
        "n": row.before.n,
        "before": _text(row.before),
        "after": _text(row.after) if row.after else "-",
        "difference": difference_text(row.difference) if row.difference else "-",
        "direction": direction(row.difference),
    }


def _text(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.rate:.1f} % [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"


def _interval(row: Row) -> figures.Interval:
    if row.difference is None:
        raise ValueError(f"{row.name} has no difference")
    return figures.Interval(label(row), 100 * row.difference.mean, 100 * row.difference.low, 100 * row.difference.high)


def _anatomy(rows: list[Row]) -> dict[str, Any]:
    """Kinds of mistakes that occurred, before and after."""
    kinds = [
        kind for kind in MISTAKES if any(row.mistakes_before[kind] or (row.mistakes_after or {}).get(kind) for row in rows)
    ]
    columns = ["format", *(f"{MISTAKES[kind]}, {when}" for kind in kinds for when in ("before", "after"))]
    lines = []
    for row in rows:
        after = row.mistakes_after
        cells = [value for kind in kinds for value in (str(row.mistakes_before[kind]), str(after[kind]) if after else "-")]
        lines.append([label(row), *cells])
    return {"columns": columns, "rows": lines}
