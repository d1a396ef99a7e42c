"""What `mia diagnose` found, on the terminal."""

from __future__ import annotations

import yaml
from mia_select.diagnosis import Diagnosis, ReadoutScore
from mia_select.selection import ENOUGH
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MARKS = {True: ("good", "green"), False: ("mind", "yellow"), None: ("note", "")}


def show_diagnosis(found: Diagnosis, console: Console) -> None:
    """Tables first, then one sentence for each finding and the settings that follow."""
    console.print(buckets_table(found))
    if found.readouts:
        console.print(readouts_table(found))
    for finding in found.findings:
        mark, style = MARKS[finding.good]
        console.print(Text.assemble((f"{mark:<6}", style), finding.text), soft_wrap=True)
    if found.advice:
        console.print(Text("\nto try in the pipeline.yaml:"))
        console.print(Text(yaml.safe_dump(found.advice, sort_keys=False).rstrip()))


def buckets_table(found: Diagnosis) -> Table:
    """Answers and attention per format and number of images."""
    table = _table(f"{found.samples} samples of {found.model}: right answers, and the ratio of attention on the asked picture")
    table.add_column("format")
    for name in ("n", "right", "alone", "told another", "ratio right", "wrong", "AUROC", "threshold passes wrong", "right"):
        table.add_column(name, justify="right")
    for line in found.buckets:
        auroc = "-" if line.auroc is None else f"{line.auroc.value:.2f} [{line.auroc.low:.2f}, {line.auroc.high:.2f}]"
        table.add_row(
            f"{line.format} of {line.parts}",
            str(line.n),
            f"{line.right / line.n:.0%}",
            f"{line.right_alone / line.n:.0%}",
            "-" if line.told_another is None else str(line.told_another),
            _number(line.mean_ratio_right),
            _number(line.mean_ratio_wrong),
            auroc,
            _passed(line.wrong_passed, line.n - line.right),
            _passed(line.right_passed, line.right),
        )
    return table


def readouts_table(found: Diagnosis) -> Table:
    """The ways of reading attention that tell most, and the one that is set."""
    table = _table(
        "Ways to tell wrong answers: chance that a wrong one has the lower number (AUROC within format and number); of each "
        "kind the best on one half of the samples, measured on the other"
    )
    table.add_column("readout")
    table.add_column("AUROC", justify="right")
    for score in found.by_kind:
        table.add_row(score.name, _interval(score))
    if found.configured is not None:
        table.add_section()
        table.add_row(f"set: {found.configured.name}", _interval(found.configured))
    if found.best is not None:
        table.add_row(f"best that `score` can be set to: {found.best.name}", _interval(found.best))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE)


def _interval(score: ReadoutScore) -> str:
    return f"{score.auroc:.2f} [{score.low:.2f}, {score.high:.2f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _passed(share: float | None, count: int) -> str:
    """In percent, or as a count where there are too few answers for a percentage."""
    if share is None:
        return "-"
    return f"{share:.0%}" if count >= ENOUGH else f"{round(share * count)} of {count}"
