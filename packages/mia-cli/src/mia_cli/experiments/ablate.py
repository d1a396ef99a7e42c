"""`mia ablate`: does each part of the method help this model? Variants with equal pairs and steps on the same samples."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mia_attention import DELIMITER_SCALE, remeasure_stage
from mia_augment import ConfigError, DataError, ModelError
from mia_augment.storage import Stage, clear_left_overs, only_writer, read_manifest, write_json, write_jsonl
from mia_select.ablation import (
    Ablation,
    ArmSummary,
    Pool,
    Variant,
    chosen_variants,
    common_size,
    compare_arms,
    more_samples,
    read_pool,
    write_arms,
)
from mia_select.evaluation import BASE_ANSWERS
from rich.console import Console

from mia_cli.config.schema import PipelineConfig
from mia_cli.evaluate import evaluate_stage
from mia_cli.experiments.recipe_arms import ALL, UNTRAINED, recipe_configs, recipe_pools, recipe_samples
from mia_cli.layout import ABLATION, OUTCOMES, REPORT, RESULT, Folders
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import check_held_out, check_runnable, evaluated_stage, samples_stage, scored_stage, stages, trained_stage
from mia_cli.runner import Runner
from mia_cli.terminal.display import Display

SCORED_STAGES = ("augment", "held_out", "score")


@dataclass(frozen=True)
class MoreFolders(Folders):
    """Samples for one variant alone, whose format is rare in the run."""

    variant: str

    @property
    def samples(self) -> Path:
        return ablation_folder(self.run_dir) / "more" / self.variant / "augment"

    @property
    def scored(self) -> Path:
        return ablation_folder(self.run_dir) / "more" / self.variant / "score"


@dataclass(frozen=True)
class ArmFolders(Folders):
    """The folders of one variant and seed; held-out samples are the run's."""

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
    return run_dir / ABLATION


def run_ablation(
    config: PipelineConfig,
    display: Display,
    *,
    seeds: int,
    pairs: int | None,
    more: int | None = None,
    names: Sequence[str] = (),
    recipes: Sequence[str] = (),
    jobs: int = 1,
) -> Ablation:
    """Score once, then train and evaluate every variant with every seed; resumable like a run.

    Besides `ablation.json`, `outcomes.jsonl` keeps what came of every held-out question (see `compare`); the run's report is
    written anew.

    Args:
        seeds: trainings per variant, each in another order and with pairs drawn anew.
        pairs: of each arm; None: see `common_size`.
        more: samples that may be scored in addition for each variant whose format is too rare in the run; None: three times as
            many as the run has.
        names: variants to compare, besides the whole method; empty: all.
        recipes: recipes to compare instead of variants (`recipe_configs`), besides the file without one and NLL alone.
        jobs: arms trained at the same time, each in a process of its own with its share of the cores.

    Raises:
        ConfigError: an unknown variant or recipe, or `evaluate.per_bucket` is 0.
        DataError: the data cannot serve a recipe that is named.
        MiaError: from a stage.
    """
    from mia_cli.report import write_report

    configs, wanted = recipe_configs(config, recipes), chosen_variants(names)  # names first: they need no file
    check_runnable(config)
    check_held_out(config)
    if not config.evaluate.per_bucket:
        raise ConfigError("evaluate.per_bucket: expected held-out samples to compare on, got 0")
    variants = [] if recipes else _measurable(wanted, config, display)
    out = ablation_folder(config.run_dir)
    with only_writer(config.run_dir):
        shared = SharedModel(config.model)
        if read_manifest(Folders(config.run_dir).scored) is None:
            shared.check_loadable()
        clear_left_overs(out, *(f"seed-{seed}" for seed in range(seeds)))
        samples = recipe_samples(config, configs, Runner(out, display), display, lenient=ALL in recipes)
        _score(config, shared, display)
        if recipes:
            pools, sources = recipe_pools(config, configs, samples, shared, Runner(out, display))
            size = _size(list(pools.values()), pairs)
        else:
            pools, sources, size = _pools(config, shared, Runner(out, display), variants, pairs, more)
        untrained = _untrained_arm(config, shared, display) if recipes else []
        summaries = {
            seed: [*write_arms(pools, sources, out / f"seed-{seed}", config.select, size, seed=seed), *untrained]
            for seed in range(seeds)
        }
        _make_arms(config, shared, display, summaries, jobs)
        questions, result = compare_arms(summaries, lambda name, seed: _folders(config, name, seed).evaluated)
        write_jsonl(out / OUTCOMES, questions)
        write_json(out / RESULT, result.model_dump(mode="json"))
        write_report(config.run_dir, config.run_dir / REPORT, config.report)
    return result


def _score(config: PipelineConfig, shared: SharedModel, display: Display) -> None:
    """The stages of the run itself that all arms start from."""
    runner = Runner(config.run_dir, display)
    for stage in stages(config, shared):
        if stage.name in SCORED_STAGES:
            runner.run(stage)


def _measurable(variants: Sequence[Variant], config: PipelineConfig, display: Display) -> list[Variant]:
    """The variants for which the run's scores hold what they need; the others are named."""
    kept = []
    for variant in variants:
        if (needs := _missing_scores(variant, config)) is None:
            kept.append(variant)
        else:
            display.say("ablate", f"the variant {variant.name!r} is left out: it needs {needs} in the YAML file", "yellow")
    return kept


def _missing_scores(variant: Variant, config: PipelineConfig) -> str | None:
    """What the run would have to be set to for a variant; None: nothing."""
    score, select = config.score, variant.select
    if select.get("rejected") in ("confusion", "both") and not score.confusions:
        return "`score.confusions: true`"
    if select.get("chosen") == "own" and not (score.confusions or score.own_answer):
        return "`score.own_answer: true`"
    if variant.name == "label_free_attention" and score.layer == "alone":
        return "another `score.layer` than alone, such as gradient,"
    return None


def _measured(config: PipelineConfig, shared: SharedModel, runner: Runner, variant: Variant) -> Path:
    """The scored samples that a variant chooses from: the run's, or the same answers measured by the variant's readout."""
    scored, readout = Folders(config.run_dir).scored, variant.readout
    if readout is None or readout == config.score.layer:
        return scored
    settings = config.score.model_copy(update={"layer": readout})
    folder = ablation_folder(config.run_dir) / "measured" / str(readout)
    runner.run(replace(remeasure_stage(scored, folder, settings, shared.id, shared.get), name=f"measure: {readout}"))
    return folder


def _pools(
    config: PipelineConfig,
    shared: SharedModel,
    runner: Runner,
    variants: Sequence[Variant],
    pairs: int | None,
    more: int | None,
) -> tuple[dict[str, Pool], dict[str, Path], int]:
    """Variant -> its pairs, variant -> the folder of their scored samples, and how many pairs an arm gets.

    For a variant whose format is rare in the run more samples are made and scored; one with a readout of its own has the run's
    answers measured by it.
    """
    scored = Folders(config.run_dir).scored
    sources = {variant.name: _measured(config, shared, runner, variant) for variant in variants}
    pools = {variant.name: read_pool(sources[variant.name], config.select, variant) for variant in variants}
    size = _size(list(pools.values()), pairs)
    for variant in variants:
        short = len(pools[variant.name].pairs) < size
        number = more_samples(pools[variant.name], scored, size, more) if short and "formats" in variant.select else 0
        if number:
            folders = MoreFolders(config.run_dir, variant.name)
            for stage in _more_stages(config, folders, shared, variant, number):
                runner.run(stage)
            sources[variant.name] = folders.scored
            pools[variant.name] = read_pool(folders.scored, config.select, variant)
    return pools, sources, size


def _size(pools: Sequence[Pool], pairs: int | None) -> int:
    try:
        return common_size(pools, pairs)
    except ValueError as error:
        raise DataError(f"{error}; score more samples, or take fewer with --pairs") from error


def _more_stages(
    config: PipelineConfig, folders: MoreFolders, shared: SharedModel, variant: Variant, number: int
) -> Iterator[Stage]:
    """Samples of the variant's formats alone, from the same rows; never of those held out."""
    manifest = read_manifest(Folders(config.run_dir).samples)
    rows = manifest.counts["rows"] if manifest else 1
    formats = {name: share for name, share in config.augment.formats.items() if name in variant.select["formats"]}
    augment = config.augment.model_copy(update={"formats": formats, "per_bucket": None, "samples_per_row": 1})
    if number <= rows:
        how = {"per_bucket": math.ceil(number / len(augment.shares()))}
    else:
        how = {"samples_per_row": math.ceil(number / rows)}
    score = config.score.model_copy(update={"confusions": False})
    wanted = config.model_copy(update={"augment": augment.model_copy(update=how), "score": score})
    yield replace(samples_stage(wanted, folders.samples), name=f"{variant.name}: more samples")
    yield replace(scored_stage(wanted, folders, shared), name=f"{variant.name}: score")


def _folders(config: PipelineConfig, variant: str, seed: int) -> ArmFolders:
    """The folders of an arm; what is not trained is the same with every seed."""
    return ArmFolders(config.run_dir, variant, 0 if variant == UNTRAINED.variant else seed)


def _untrained_arm(config: PipelineConfig, shared: SharedModel, display: Display) -> list[ArmSummary]:
    """The model as it is with its delimiters scaled, asked the held-out questions; nothing where that cannot be done."""
    folders = _folders(config, UNTRAINED.variant, 0)
    settings = config.evaluate.model_copy(update={"delimiter_scale": DELIMITER_SCALE})
    _copy_base_answers(Folders(config.run_dir).evaluated, folders.evaluated)
    stage = evaluate_stage(folders.held_out, folders.evaluated, settings, shared, lambda: None)
    try:
        Runner(folders.pairs, display).run(replace(stage, name=f"{UNTRAINED.variant} asked"))
    except ModelError as error:
        display.say("ablate", f"{UNTRAINED.title}: left out: {error}", "yellow")
        return []
    return [UNTRAINED]


def _make_arms(
    config: PipelineConfig, shared: SharedModel, display: Display, summaries: dict[int, list[ArmSummary]], jobs: int
) -> None:
    """Train and evaluate every arm. The first one asks the base model too, all others take its answers from there."""
    todo = [
        (line, seed)
        for seed, lines in summaries.items()
        for line in lines
        if line.left_out is None and not line.same_as and line is not UNTRAINED
    ]
    first = ArmFolders(config.run_dir, todo[0][0].variant, todo[0][1]).evaluated
    answered = Folders(config.run_dir).evaluated
    alone = 1 if jobs > 1 else len(todo)
    for line, seed in todo[:alone]:
        _make_arm(config, shared, display, line, seed, answered)
        answered = first
    if todo[alone:]:
        shared.release()
        threads = max(1, (os.cpu_count() or 1) // jobs)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(config, threads)) as pool:
            arms = [pool.submit(_make_arm_in_worker, line, seed, first) for line, seed in todo[alone:]]
            try:
                for arm in arms:
                    arm.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _make_arm(
    config: PipelineConfig, shared: SharedModel, display: Display, line: ArmSummary, seed: int, answered: Path
) -> None:
    folders = ArmFolders(config.run_dir, line.variant, seed)
    changed = config.train.model_validate({**config.train.model_dump(), **line.train, "seed": seed})
    arm = config.model_copy(update={"train": changed})
    runner = Runner(folders.pairs, display)
    runner.run(replace(trained_stage(arm, folders, shared), name=f"{line.variant}/{seed}"))
    _copy_base_answers(answered, folders.evaluated)
    runner.run(replace(evaluated_stage(arm, folders, shared), name=f"{line.variant}/{seed} asked"))


_worker: tuple[PipelineConfig, SharedModel, Display]
"""What a worker process keeps from one arm to the next."""


def _start_worker(config: PipelineConfig, threads: int) -> None:
    import torch

    global _worker
    torch.set_num_threads(threads)
    _worker = config, SharedModel(config.model), Display(Console(stderr=True, highlight=False, force_terminal=False))


def _make_arm_in_worker(line: ArmSummary, seed: int, answered: Path) -> None:
    _make_arm(*_worker, line, seed, answered)


def _copy_base_answers(source: Path, target: Path) -> None:
    """So that the evaluation finds them; it checks itself that they are answers to the same samples."""
    target.mkdir(parents=True, exist_ok=True)
    for name in BASE_ANSWERS:
        if (source / name).is_file() and not (target / name).is_file():
            shutil.copyfile(source / name, target / name)
