"""`mia run --dry-run`: what would run, on how many samples, and what that takes, estimated from one small batch."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from mia_augment import DataError, read_rows
from mia_augment.statistics import wilson
from mia_augment.storage import Stage, read_manifest, standing
from pydantic import BaseModel

from mia_cli.config.schema import PipelineConfig
from mia_cli.experiments.probe import ProbeCosts, probe_costs
from mia_cli.layout import Folders
from mia_cli.loading.load import SharedModel
from mia_cli.machines import processes_of
from mia_cli.pipeline import check_held_out, check_runnable, held_out_settings, stages
from mia_cli.terminal.counts_text import stage_counts
from mia_cli.terminal.display import Display

MAPS_COST = 3.0
"""Time of a sample's attention map, with what the answer loses without each picture, over that of its scoring: roughly."""
DONE = "everything is done: nothing was measured"


class PlannedStage(BaseModel):
    """One stage, as it would be run."""

    name: str
    state: Literal["done", "to make", "after"]
    """`after`: it depends on a stage before it that is to be made."""
    why: str
    items: str = ""
    """What it works on: ``3000 samples``."""
    seconds: tuple[float, float] | None = None
    """Shortest and longest that is likely; None: not estimated."""
    memory: float | None = None
    """Bytes."""
    disk: float | None = None
    """Bytes."""


class RunPlan(BaseModel):
    """All of it."""

    run_dir: str
    processes: int
    stages: list[PlannedStage]
    notes: list[str]


def plan_run(config: PipelineConfig, display: Display, *, trust_remote_code: bool = False) -> RunPlan:
    """What `mia run` would do now; makes nothing in the run directory.

    Raises:
        MiaError: what `mia run` would refuse at its start.
    """
    check_runnable(config)
    check_held_out(config)
    shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
    planned = _states(list(stages(config, shared)))
    if all(stage.state == "done" or stage.name == "report" for stage in planned):
        return RunPlan(
            run_dir=str(config.run_dir), processes=1, stages=planned, notes=["everything is done: nothing is measured"]
        )
    shared.check_loadable()
    samples = Folders(config.run_dir).samples if planned[0].state == "done" else None
    with display.progress("dry run") as progress, tempfile.TemporaryDirectory(prefix="mia-dry-run-") as folder:
        found = probe_costs(config, shared, Path(folder), samples, progress)
    processes = processes_of(config) * config.launch.nodes
    _estimate(config, planned, found, samples, processes)
    return RunPlan(run_dir=str(config.run_dir), processes=processes, stages=planned, notes=_notes(found, processes))


def _states(listed: list[Stage]) -> list[PlannedStage]:
    """How every stage stands; of those after one that is to be made that cannot be known."""
    planned: list[PlannedStage] = []
    waits = ""
    for stage in listed:
        try:
            _, finished, reason = standing(stage)
        except DataError:  # a stage before it is not finished
            finished, reason = None, f"after {waits}"
        on_samples = waits and stage.name != "held_out"
        if finished is not None and not on_samples:
            planned.append(
                PlannedStage(name=stage.name, state="done", why="unchanged", items=stage_counts(stage.name, finished.counts))
            )
            continue
        state: Literal["to make", "after"] = "after" if on_samples else "to make"
        planned.append(PlannedStage(name=stage.name, state=state, why=f"after {waits}" if on_samples else reason))
        waits = waits or (stage.name if stage.name != "held_out" else "")
    return planned


class _Cost(NamedTuple):
    """What a stage works on, and what each of these takes; None: not known."""

    items: str
    few: float
    many: float
    seconds: float | None = 0.0
    memory: float | None = None
    disk: float | None = None
    """Bytes in all."""
    spread: float = 2.0
    """The time may be so many times longer or shorter."""


def _estimate(
    config: PipelineConfig, planned: list[PlannedStage], found: ProbeCosts, samples: Path | None, processes: int
) -> None:
    """Fill in numbers of samples, time, memory and disk of what is to be made."""
    costs = _costs(config, found, _expected(config, found) if samples is None else _made(samples), processes)
    for stage in planned:
        if stage.state != "done" and stage.name in costs:
            cost = costs[stage.name]
            stage.items, stage.memory, stage.disk = cost.items, cost.memory, cost.disk
            if cost.seconds is not None:
                stage.seconds = cost.few * cost.seconds / cost.spread, cost.many * cost.seconds * cost.spread


def _costs(config: PipelineConfig, found: ProbeCosts, count: int, processes: int) -> dict[str, _Cost]:
    """Stage -> what it costs, for so many samples."""
    asked = len(held_out_settings(config).shares()) * config.evaluate.per_bucket
    few, many = _pairs(config, found, count)
    pairs, score, maps = f"{few} to {many} pairs", _over(found.score_seconds, processes), config.report.attention
    compose = _over(found.compose_seconds, config.data.workers)
    pair = None if found.train_seconds is None else (found.reference_seconds or 0) + found.train_seconds * config.train.epochs
    return {
        "augment": _Cost(f"{count} samples", count, count, compose, disk=_all(found.compose_bytes, count)),
        "held_out": _Cost(f"{asked} samples", asked, asked, found.compose_seconds, disk=_all(found.compose_bytes, asked)),
        "score": _Cost(f"{count} samples", count, count, score, found.score_memory, _all(found.score_bytes, count)),
        "select": _Cost(pairs, 0, 0),
        "attention": _Cost(f"up to {maps} maps", 0, maps, _all(found.score_seconds, MAPS_COST)),
        "train": _Cost(pairs, few, many, _over(pair, processes), found.train_memory, found.train_bytes, spread=1.3),
        "evaluate": _Cost(f"2 x {asked} samples", 2 * asked, 2 * asked, score, found.score_memory),
        "report": _Cost("", 0, 0),
    }


def _pairs(config: PipelineConfig, found: ProbeCosts, count: int) -> tuple[int, int]:
    """Fewest and most pairs that are likely, by the samples of the batch that became pairs."""
    low, high = wilson(found.kept, found.batch) if found.batch else (0.0, 1.0)
    most = config.select.max_pairs or count
    return min(round(low * count), most), min(round(high * count), most)


def _made(samples: Path) -> int:
    manifest = read_manifest(samples)
    return manifest.counts["samples"] if manifest else 0


def _expected(config: PipelineConfig, found: ProbeCosts) -> int:
    """Samples that the rows will give, as far as the first of them tell."""
    data, augment = config.data, config.augment
    if data.source is None:  # checked before
        return 0
    rows = read_rows(data.source, unlabelled=augment.unlabelled, questions=augment.asked_of_pictures)
    count = sum(1 for _ in itertools.islice(rows, data.limit))
    expected = round(count * (found.samples_per_row or augment.samples_per_row))
    return min(expected, len(augment.shares()) * augment.per_bucket) if augment.per_bucket else expected


def _over(seconds: float | None, processes: int) -> float | None:
    return None if seconds is None else seconds / processes


def _all(each: float | None, count: float) -> float | None:
    return None if each is None else each * count


def _notes(found: ProbeCosts, processes: int) -> list[str]:
    notes = list(found.notes)
    if found.batch:
        notes.append(
            f"measured on {found.batch} samples, of which {found.kept} became pairs: answering may take half or twice as long, "
            "as answers differ in length; pairs are a 95 % interval from these few, and training's time goes with them"
        )
    if processes > 1:
        notes.append(f"measured in one process, divided by {processes}")
    return notes
