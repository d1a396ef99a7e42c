"""The results of a run as tables on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mia_augment import SINGLE
from mia_select import read_selection
from mia_select.ablation import Ablation
from mia_select.evaluation import EVALUATION, MULTI, Accuracy, AccuracyRow, Evaluation, VariantRow, read_evaluation
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mia_cli.inspection.doctor import Check
from mia_cli.inspection.status import StageStatus
from mia_cli.layout import REPORT, Folders
from mia_cli.report.ablation_section import arm_note, differs, titles_of
from mia_cli.report.accuracy_section import SPEAKING_TITLE, difference_text, direction, row_label, shown_rows, speaking_content
from mia_cli.report.collect import DROP_WORDS
from mia_cli.report.notes import short_notes
from mia_cli.report.too_little import too_little
from mia_cli.runner import read_states
from mia_cli.terminal.counts_text import stage_counts
from mia_cli.terminal.display import duration, position_text

STYLES = {"up": "green", "down": "red", "": ""}


def show_results(run_dir: Path, made: set[str], console: Console) -> None:
    """The tables at the end of a run.

    Args:
        made: stages that did work in this call.
    """
    folders = Folders(run_dir)
    if (folders.pairs / "selection.json").is_file():
        console.print(rules_table(folders.pairs))
        notes = short_notes(read_selection(folders.pairs))
        for note in notes:
            console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
        if notes:
            console.print(Text("      more on this in the report, under its histograms", "dim"))
    console.print(times_table(run_dir, made))
    if (folders.evaluated / EVALUATION).is_file():
        show_evaluation(read_evaluation(folders.evaluated), console)
    for note in too_little(folders):
        console.print(Text(note, "bold red"), soft_wrap=True)
    console.print(Text(f"report: {run_dir / REPORT}"), soft_wrap=True)


def results(run_dir: Path) -> dict[str, Any]:
    """The same for scripts."""
    folders = Folders(run_dir)
    evaluated = (folders.evaluated / EVALUATION).is_file()
    selected = (folders.pairs / "selection.json").is_file()
    return {
        "run_dir": str(run_dir),
        "too_little": too_little(folders),
        "report": str(run_dir / REPORT),
        "stages": {name: {"seconds": s.seconds, "counts": s.counts} for name, s in read_states(run_dir).items()},
        "selection": read_selection(folders.pairs).model_dump(mode="json") if selected else None,
        "evaluation": read_evaluation(folders.evaluated).model_dump(mode="json") if evaluated else None,
    }


def show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """What was answered rightly, and where it was measured, which picture answers speak of."""
    console.print(accuracy_table(evaluation))
    table = speaking_table(evaluation)
    if table is not None:
        console.print(table)


def accuracy_table(evaluation: Evaluation) -> Table:
    """Accuracy per format and number of images, before and after, with 95 % intervals."""
    warning = evaluation.flattered
    judged = "answers that agree with the model's own about the target alone" if evaluation.agreement else "right answers"
    table = Table(
        title=f"{'Samples' if evaluation.seen_in_training else 'Held-out samples'}: {judged} in %, difference in points "
        "[95 % interval], McNemar's p",
        title_justify="left",
        title_style="bold",
        caption=f"note: {warning}" if warning else None,
        caption_justify="left",
        caption_style="bold red",
        box=box.SIMPLE,
    )
    table.add_column("format")
    for name in ("samples", "before", "after", "difference", "p"):
        table.add_column(name, justify="right")
    for row in shown_rows(evaluation):
        difference = row.difference
        table.add_row(
            row_label(row),
            str(row.before.n),
            Text(accuracy_text(row.before)),
            Text(accuracy_text(row.after) if row.after else "-"),
            Text(difference_text(difference), style=STYLES[direction(difference)]) if difference else "-",
            f"{difference.mcnemar_p:.2g}" if difference else "-",
            style="bold" if _pooled(row, evaluation.rows) else "",
        )
    return table


def speaking_table(evaluation: Evaluation) -> Table | None:
    """Which picture answers speak of, by likelihood; None where it was not measured."""
    content = speaking_content(shown_rows(evaluation))
    if content is None:
        return None
    table = Table(title=SPEAKING_TITLE, title_justify="left", title_style="bold", box=box.SIMPLE)
    for index, name in enumerate(content["columns"]):
        table.add_column(name, justify="right" if index else "left")
    for line in content["rows"]:
        table.add_row(*map(Text, line))
    return table


def _pooled(row: AccuracyRow, rows: Sequence[AccuracyRow]) -> bool:
    return row.name in (MULTI, SINGLE) or any(other.name.startswith(f"{row.name}/") for other in rows)


def accuracy_text(accuracy: Accuracy) -> str:
    """In percent, with Wilson's interval: ``84.3 [80.1, 87.8]``."""
    return f"{100 * accuracy.rate:.1f} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"


def show_ablation(ablation: Ablation, console: Console) -> None:
    """Gain of every variant per group of samples; below, what each is, what was reused and what left out."""
    comparison, arms = ablation.comparison, ablation.arms
    warning = ablation.flattered
    table = Table(
        caption=f"note: {warning}" if warning else None,
        caption_justify="left",
        caption_style="bold red",
        title=f"Gain on {'' if warning else 'held-out '}samples in points, mean of {comparison.seeds} seeds, with half "
        "its 95 % interval over samples and seeds; * differs from the arm it is compared with",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
    )
    table.add_column("variant")
    for name in ("pairs", *comparison.groups):
        table.add_column(name, justify="right")
    compared = {row.variant for row in comparison.rows}
    for arm in arms:
        if arm.variant in compared:
            cells = [_effect_text(comparison.row(arm.variant, group)) for group in comparison.groups]
            table.add_row(arm.variant, str(arm.pairs), *cells)
    console.print(table)
    for arm in arms:
        note = arm_note(arm, titles_of(arms))
        console.print(Text(f"{arm.variant}: {note}", "yellow" if arm.left_out else "dim"), soft_wrap=True)


def _effect_text(row: VariantRow) -> Text:
    return Text(f"{100 * row.gain.mean:+.1f} ±{50 * (row.gain.high - row.gain.low):.1f}{'*' if differs(row) else ' '}")


def rules_table(pairs: Path) -> Table:
    """What each rule of the selection kept and dropped."""
    selection = read_selection(pairs)
    title = f"From {selection.samples} scored samples to {selection.pairs} pairs"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE)
    table.add_column("dropped because")
    for name in ("of", "dropped", "kept"):
        table.add_column(name, justify="right")
    for rule in selection.rules:
        if rule.dropped:
            words = Text.assemble(DROP_WORDS.get(rule.rule, rule.rule), (f"  {rule.rule}", "dim"))
            table.add_row(words, str(rule.entered), str(rule.dropped), str(rule.kept))
    table.add_section()
    for bucket in selection.buckets:
        table.add_row(
            f"{bucket.format} {bucket.parts}", str(bucket.entered), str(bucket.entered - bucket.kept), str(bucket.kept)
        )
    table.add_section()
    table.add_row(
        "pairs", str(selection.candidates), str(selection.candidates - selection.pairs), str(selection.pairs), style="bold"
    )
    return table


def times_table(run_dir: Path, made: set[str]) -> Table:
    """Time per stage, of this call or of an earlier one."""
    table = Table(title="Time", title_justify="left", title_style="bold", box=box.SIMPLE)
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("")
    total = 0.0
    for name, state in read_states(run_dir).items():
        total += state.seconds
        table.add_row(name, f"{state.seconds:.1f}", "" if name in made else "from an earlier call")
    table.add_section()
    table.add_row("all", f"{total:.1f}", duration(total))
    return table


def result_of(stage: StageStatus) -> str:
    """What a stage made, or how far it is."""
    return stage_counts(stage.name, stage.counts) if stage.position is None else position_text(stage.position)


def status_table(stages: Sequence[StageStatus]) -> Table:
    """How far a run is."""
    styles = {"done": "green", "running": "cyan", "unfinished": "yellow", "not started": "dim"}
    table = Table(box=box.SIMPLE)
    for name in ("stage", "state", "time", "result"):
        table.add_column(name, justify="right" if name == "time" else "left")
    for stage in stages:
        table.add_row(stage.name, Text(stage.state, styles[stage.state]), duration(stage.seconds), result_of(stage))
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """What `mia doctor` found."""
    styles = {"ok": "green", "missing": "red", "note": "yellow"}
    table = Table(box=box.SIMPLE)
    for name in ("what", "state", ""):
        table.add_column(name)
    for check in checks:
        table.add_row(check.what, Text(check.state, styles[check.state]), Text(check.text))
    return table


def show_record(found: Sequence[dict[str, Any]], console: Console) -> None:
    """A record stage by stage, one line per field; what an earlier stage said is not repeated."""
    said: dict[str, Any] = {}
    for entry in found:
        console.print(Text.assemble((entry["stage"], "bold"), f"  {entry['file']}"), soft_wrap=True)
        for part in ("record", "analysis"):
            for name, value in entry.get(part, {}).items():
                label = name if part == "record" else f"analysis.{name}"
                known = said.get(label) == value or (part == "analysis" and said.get(name) == value)
                if value in (None, [], {}) or (known and label != "id"):
                    continue
                said[label] = value
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                console.print(Text.assemble((f"  {label}: ", "dim"), shown.replace("\n", "\\n")), soft_wrap=True)
        console.print()
