"""`mia run`: all stages from single-image rows to the report, wired together."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mia_attention import maps_stage, score_stage
from mia_attention.given import check_source
from mia_augment import SINGLE, AugmentSettings, ConfigError, DataError, FormatName, ScoredSample, augment_stage
from mia_augment.read import picture_folder
from mia_augment.storage import Progress, Stage, content_hash, only_writer, read_manifest, write_json
from mia_dpo_train import check_environment, train_stage, trained_weights
from mia_select import select_stage

from mia_cli.config.schema import DataSettings, EvaluateSettings, PipelineConfig
from mia_cli.evaluate import evaluate_stage
from mia_cli.launch import launch_stage
from mia_cli.layout import CONFIG, Folders
from mia_cli.loading.load import SharedModel
from mia_cli.machines import processes_of
from mia_cli.report.gallery import example_files, examples
from mia_cli.report.stage import report_stage
from mia_cli.runner import MakeTogether, Runner, depending_on
from mia_cli.terminal.display import Display


def run_pipeline(config: PipelineConfig, display: Display, *, trust_remote_code: bool = False) -> Runner:
    """Run what is missing or out of date, in order.

    Raises:
        MiaError: a stage cannot be done; what was finished before stays.
    """
    check_runnable(config)
    check_held_out(config)
    shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
    with only_writer(config.run_dir):
        if read_manifest(Folders(config.run_dir).scored) is None:  # else the model was loaded once, or the next stage loads it
            shared.check_loadable()
        write_json(config.run_dir / CONFIG, config.model_dump(mode="json"))
        planned = list(stages(config, shared))
        names = [stage.name for stage in planned]
        display.say("run", f"{len(names)} stages in {config.run_dir}: {', '.join(names)}", "dim")
        runner = Runner(config.run_dir, display, several(config, shared, trust_remote_code), names)
        for stage in planned:
            runner.run(stage)
    return runner


def several(config: PipelineConfig, shared: SharedModel, trust_remote_code: bool) -> MakeTogether:
    """Makes stages with several processes, where there are to be several."""

    def make(name: str, progress: Progress) -> None:
        if (processes := processes_of(config)) * config.launch.nodes > 1:
            shared.release()  # its memory is wanted
            launch_stage(config, name, processes, progress, trust_remote_code=trust_remote_code)

    return make


def check_runnable(config: PipelineConfig) -> None:
    """Raise ConfigError where there is no source, training needs what is not here, or a launcher started several processes."""
    if config.data.source is None:
        raise ConfigError(
            "data.source: expected a file of single-image rows (JSON, JSONL, CSV, parquet, ..) or a folder of such files, "
            "got nothing; set it in the YAML file"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "expected one process, got several from a launcher: `mia run` starts the others by itself (launch.processes in the "
            "YAML file). Single stages can be started with a launcher: "
            "`accelerate launch -m mia_cli train --pairs .. --model .. --out ..`"
        )
    for section, rows in (("data", config.data), ("evaluate", config.evaluate)):
        check_rows(section, rows)
    for source in (config.score.answers, config.evaluate.answers, config.evaluate.trained_answers):
        check_source(source)
    check_judged(config)
    check_environment(config.train)


def check_rows(section: str, rows: DataSettings | EvaluateSettings) -> None:
    """Raise DataError where there is no file of rows, or no folder of pictures, before anything heavy is imported."""
    if rows.source is not None and not rows.source.exists():
        raise DataError(
            f"{rows.source}: no such file ({section}.source); expected JSON, JSONL, CSV, TSV, parquet or WebDataset tar, or a "
            "folder of such files"
        )
    if rows.image_root is not None and not rows.image_root.is_dir():
        raise DataError(f"{rows.image_root}: no such folder ({section}.image_root); expected the one with the rows' pictures")


def check_judged(config: PipelineConfig) -> None:
    """Raise ConfigError where selection needs what scoring is not set to measure."""
    score, select = config.score, config.select
    if not score.ask and (select.rejected != "built" or select.chosen != "ground_truth"):
        raise ConfigError(
            f"select.rejected: {select.rejected} and select.chosen: {select.chosen} need the model's answers; set "
            "score.ask: true, or select.rejected: built and select.chosen: ground_truth"
        )
    if select.rejected == "blocked" and not score.blocked_answer:
        raise ConfigError(
            "select.rejected: blocked needs the model's answers with attention between pictures blocked; set "
            "score.blocked_answer: true"
        )
    if select.chosen.startswith("own") and not (score.own_answer or score.confusions):
        raise ConfigError(
            f"select.chosen: {select.chosen} needs the model's answers about the targets alone; set score.own_answer: true"
        )
    if select.correct == "likely" and score.layer != "alone":
        raise ConfigError(
            f"select.correct: likely needs likelihoods under pictures alone, got layer {score.layer}; set score.layer: alone"
        )


def check_held_out(config: PipelineConfig) -> None:
    """Raise ConfigError where the evaluation would ask about the very pictures of training."""
    evaluate = config.evaluate
    if evaluate.per_bucket and evaluate.holdout == 0 and evaluate.source is None:
        raise ConfigError(
            "evaluate.holdout: expected a share of the pictures above 0, got 0: the evaluation would ask about pictures that "
            "training sees; set a share (0.1), give rows of their own (evaluate.source), or turn evaluation off "
            "(evaluate.per_bucket: 0)"
        )


def stages(config: PipelineConfig, shared: SharedModel) -> Iterator[Stage]:
    """The stages of a run, in order."""
    folders = Folders(config.run_dir)
    yield samples_stage(config, folders.samples)
    if config.evaluate.per_bucket:
        yield held_out_stage(config, folders.held_out)
    yield scored_stage(config, folders, shared)
    yield select_stage(folders.scored, folders.pairs, config.select)
    if config.report.attention and config.report.pairs:
        yield attention_stage(config, folders, shared)
    yield trained_stage(config, folders, shared)
    if config.evaluate.per_bucket:
        yield evaluated_stage(config, folders, shared)
    yield report_stage(config.run_dir, config.report)


def samples_stage(config: PipelineConfig, out: Path) -> Stage:
    """Samples of the rows, but for the pictures that are held out."""
    data, evaluate = config.data, config.evaluate
    holdout = evaluate.holdout if evaluate.per_bucket and evaluate.source is None else 0.0
    return augment_stage(
        *_rows(data, out),
        out,
        config.augment,
        seed=config.seed,
        limit=data.limit,
        workers=data.workers,
        holdout=holdout,
        part="train" if holdout else "all",
    )


def held_out_stage(config: PipelineConfig, out: Path) -> Stage:
    """Samples of the pictures that are held out, or of rows of their own."""
    data, evaluate = config.data, config.evaluate
    own = evaluate.source is not None
    stage = augment_stage(
        *_rows(evaluate if own else data, out),
        out,
        held_out_settings(config),
        seed=config.seed,
        limit=None if own else data.limit,
        workers=data.workers,
        holdout=0.0 if own else evaluate.holdout,
        part="all" if own else "held_out",
    )
    return replace(stage, name="held_out")


def _rows(settings: DataSettings | EvaluateSettings, out: Path) -> tuple[Path, Path]:
    """(rows, folder that their pictures are relative to)"""
    source = settings.source
    if source is None:  # run_pipeline checked it
        raise ConfigError("data.source is not set")
    return source, settings.image_root or picture_folder(source, out)


def held_out_settings(config: PipelineConfig) -> AugmentSettings:
    """How the held-out samples are composed: as the others, and single images besides, the same number of each."""
    shares: dict[FormatName, float] = {name: 1.0 for name, share in config.augment.formats.items() if share > 0}
    formats = dict.fromkeys(config.evaluate.formats, 1.0) if config.evaluate.formats else {**shares, SINGLE: 1.0}
    return config.augment.model_copy(update={"formats": formats, "per_bucket": config.evaluate.per_bucket})


def scored_stage(config: PipelineConfig, folders: Folders, shared: SharedModel) -> Stage:
    """The model's answers to `folders.samples`, and where it looked."""
    return score_stage(folders.samples, folders.scored, config.score, shared.id, shared.get)


def attention_stage(config: PipelineConfig, folders: Folders, shared: SharedModel) -> Stage:
    """Attention maps of the report's first examples, while the model is loaded anyway."""

    def choose() -> list[ScoredSample]:
        chosen = {example.sample.id: example.sample for example in examples(folders, config.report.pairs)}
        return list(chosen.values())[: config.report.attention]

    def choice() -> str:
        made = [content_hash(file) for file in example_files(folders)]
        return " ".join([*made, str(config.report.pairs), str(config.report.attention)])

    besides = {"knockouts": config.report.knockouts, "alone": config.report.alone}
    return maps_stage(folders.scored, folders.attention, config.score, shared.id, shared.get, choose, choice, **besides)


def trained_stage(config: PipelineConfig, folders: Folders, shared: SharedModel) -> Stage:
    """Training on `folders.pairs`, which starts again where the model is loaded in other numbers."""
    stage = train_stage(folders.pairs, folders.trained, config.train, shared.place, shared.take)
    return depending_on(stage, dtype=config.model.dtype)


def evaluated_stage(config: PipelineConfig, folders: Folders, shared: SharedModel) -> Stage:
    """Base and trained model, asked the held-out samples."""
    weights = functools.partial(trained_weights, folders.trained)
    return evaluate_stage(folders.held_out, folders.evaluated, config.evaluate, shared, weights)
