"""`mia ablate`: does each part of the method help this model? Variants with equal pairs and steps on the same samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mia_augment.errors import ConfigError
from mia_augment.files import read_jsonl, write_json
from mia_select.ablation import VARIANTS, Variant
from mia_select.ablation_stage import ArmSummary, write_arms
from mia_select.comparison import Comparison, compare
from mia_select.evaluation import Prediction

from mia_cli.config import PipelineConfig
from mia_cli.console import Display
from mia_cli.evaluate import BASE_ANSWERS, PREDICTIONS
from mia_cli.layout import Folders
from mia_cli.models import SharedModel
from mia_cli.pipeline import check_runnable, evaluate_stage, stages, train_stage
from mia_cli.runner import Runner, Stage, exclusive

RESULT = "ablation.json"
NEEDED = ("augment", "held_out", "score")
REFERENCE = "full"


@dataclass(frozen=True)
class ArmFolders(Folders):
    """The folders of one variant and seed; samples and scores are the run's."""

    variant: str
    seed: int

    @property
    def pairs(self) -> Path:
        return ablation_folder(self.run_dir) / f"seed-{self.seed}" / self.variant

    @property
    def trained(self) -> Path:
        return self.pairs / "train"

    @property
    def evaluated(self) -> Path:
        return self.pairs / "evaluate"


def ablation_folder(run_dir: Path) -> Path:
    """Where the arms of a run lie."""
    return run_dir / "ablate"


def run_ablation(
    config: PipelineConfig, display: Display, *, seeds: int, pairs: int | None, names: Sequence[str]
) -> tuple[Comparison, list[ArmSummary]]:
    """Score once, then train and evaluate every variant with every seed; resumable like a run.

    Args:
        seeds: trainings per variant, each with pairs drawn anew.
        pairs: of each arm; None: as many as the smallest arm has.
        names: variants to compare, besides the whole method; empty: all.

    Raises:
        ConfigError: an unknown variant, or `evaluate.per_bucket` is 0.
        MiaError: from a stage.
    """
    check_runnable(config)
    variants = _chosen(names)
    if not config.evaluate.per_bucket:
        raise ConfigError("evaluate.per_bucket: expected held-out samples to compare on, got 0")
    out = ablation_folder(config.run_dir)
    with exclusive(config.run_dir):
        shared = SharedModel(config.model)
        runner = Runner(config.run_dir, display)
        for stage in stages(config, shared):
            if stage.name in NEEDED:
                runner.run(stage)
        summaries: dict[int, list[ArmSummary]] = {}
        for seed in range(seeds):
            folder = out / f"seed-{seed}"
            size = pairs if pairs is not None or not summaries else _size(summaries[0])
            summaries[seed] = write_arms(
                Folders(config.run_dir).scored, folder, config.select, variants=variants, pairs=size, seed=seed
            )
        arms_runner = Runner(out, display)
        for stage in _arm_stages(config, shared, summaries):
            arms_runner.run(stage)
    comparison = _compared(config.run_dir, summaries)
    write_json(out / RESULT, {**comparison.model_dump(), "arms": [line.model_dump() for line in summaries[0]]})
    return comparison, summaries[0]


def _chosen(names: Sequence[str]) -> list[Variant]:
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"variant {unknown[0]!r}: expected one of {', '.join(known)}")
    return [variant for variant in VARIANTS if not names or variant.name in {REFERENCE, *names}]


def _size(summaries: Sequence[ArmSummary]) -> int:
    return max(line.pairs for line in summaries)


def _arm_stages(config: PipelineConfig, shared: SharedModel, summaries: dict[int, list[ArmSummary]]) -> Iterator[Stage]:
    """Training and evaluation of every arm; the base model is asked only once."""
    answered = Folders(config.run_dir).evaluated
    for seed, lines in summaries.items():
        for line in lines:
            if line.left_out is not None:
                continue
            folders = ArmFolders(config.run_dir, line.variant, seed)
            changed = config.train.model_validate({**config.train.model_dump(), **line.train, "seed": seed})
            arm = config.model_copy(update={"train": changed})
            yield train_stage(arm, folders, shared, name=f"{line.variant}/{seed}")
            _copy_base_answers(answered, folders.evaluated)
            yield evaluate_stage(arm, folders, shared, name=f"{line.variant}/{seed} asked")
            answered = folders.evaluated


def _copy_base_answers(source: Path, target: Path) -> None:
    """So that the evaluation finds them; it checks itself that they are answers to the same samples."""
    target.mkdir(parents=True, exist_ok=True)
    for name in BASE_ANSWERS:
        if (source / name).is_file() and not (target / name).is_file():
            shutil.copyfile(source / name, target / name)


def _compared(run_dir: Path, summaries: dict[int, list[ArmSummary]]) -> Comparison:
    found: dict[str, dict[int, list[Prediction]]] = {}
    complete = [line.variant for line in summaries[0] if all(_used(lines, line.variant) for lines in summaries.values())]
    for name in complete:
        for seed in summaries:
            path = ArmFolders(run_dir, name, seed).evaluated / PREDICTIONS
            found.setdefault(name, {})[seed] = list(read_jsonl(path, Prediction))
    return compare(found, reference=REFERENCE if REFERENCE in found else complete[0])


def _used(lines: Sequence[ArmSummary], variant: str) -> bool:
    return any(line.variant == variant and line.left_out is None for line in lines)
