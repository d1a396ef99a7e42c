"""What `mia run --dry-run` found, on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mia_cli.experiments.dry_run import RunPlan
from mia_cli.terminal.display import duration

STATE_STYLES = {"done": "green", "to make": "yellow", "after": "dim"}


def show_plan(plan: RunPlan, console: Console) -> None:
    """A line for each stage, their sum, and how sure that is."""
    table = Table(title=f"What `mia run` would do in {plan.run_dir}", title_justify="left", title_style="bold", box=box.SIMPLE)
    for name in ("stage", "state", "on", "time", "memory", "disk"):
        table.add_column(name, justify="right" if name in ("time", "memory", "disk") else "left")
    for stage in plan.stages:
        state = stage.state if stage.state == "done" else stage.why
        table.add_row(
            stage.name,
            Text(state, STATE_STYLES[stage.state]),
            stage.items,
            span(stage.seconds),
            size(stage.memory),
            size(stage.disk),
        )
    known = [stage.seconds for stage in plan.stages if stage.seconds is not None]
    table.add_section()
    most = max((stage.memory for stage in plan.stages if stage.memory), default=None)
    disk = sum(stage.disk or 0 for stage in plan.stages) or None
    whole = (sum(low for low, _ in known), sum(high for _, high in known)) if known else None
    table.add_row("all", "", "", span(whole), size(most), size(disk), style="bold")
    console.print(table)
    for note in plan.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    console.print(Text("nothing was made or changed; the same command without --dry-run does it", "dim"))


def span(seconds: tuple[float, float] | None) -> str:
    """``3 min 05 s to 12 min 20 s``; ``-`` where it is not known."""
    if seconds is None:
        return "-"
    low, high = (duration(each) for each in seconds)
    return "seconds" if seconds[1] < 1 else low if low == high else f"{low} to {high}"


def size(count: float | None) -> str:
    """``1.2 GB``; ``-`` where it is not known."""
    if count is None:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
