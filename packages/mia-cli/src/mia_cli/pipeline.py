"""`mia run`: all stages from single-image rows to the report, wired together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mia_attention import maps_stage
from mia_augment import AugmentSettings, ConfigError, FormatName, ScoredSample
from mia_augment.contents import pictures_digest
from mia_augment.storage import MANIFEST, Progress, content_hash, run_stage, write_json
from mia_dpo_train import check_environment

from mia_cli import __version__
from mia_cli.config.schema import PipelineConfig
from mia_cli.layout import CONFIG, REPORT, Folders
from mia_cli.loading.load import SharedModel
from mia_cli.runner import Key, Runner, Stage, digest, exclusive, made_from
from mia_cli.terminal.display import Display


def run_pipeline(config: PipelineConfig, display: Display, *, trust_remote_code: bool = False) -> Runner:
    """Run what is missing or out of date, in order.

    Raises:
        MiaError: a stage cannot be done; what was finished before stays.
    """
    check_runnable(config)
    check_held_out(config)
    with exclusive(config.run_dir):
        write_json(config.run_dir / CONFIG, config.model_dump(mode="json"))
        shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
        runner = Runner(config.run_dir, display)
        for stage in stages(config, shared):
            runner.run(stage)
    return runner


def check_runnable(config: PipelineConfig) -> None:
    """Raise ConfigError where there is no source, training needs what is not here, or a launcher started several processes."""
    if config.data.source is None:
        raise ConfigError(
            "data.source: expected a file of single-image rows (JSON, JSONL, CSV, parquet, ..) or a folder of such files, "
            "got nothing; set it in the YAML file"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "expected one process, got several from a launcher; start `mia score` and `mia train` with it, stage by stage, "
            "for example `accelerate launch -m mia_cli train --pairs .. --model .. --out ..`"
        )
    check_judged(config)
    check_environment(config.train)


def check_judged(config: PipelineConfig) -> None:
    """Raise ConfigError where selection needs what scoring is not set to measure."""
    score, select = config.score, config.select
    if select.chosen != "ground_truth" and not (score.own_answer or score.confusions):
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
    yield augment_stage(config, folders.samples, "train")
    if config.evaluate.per_bucket:
        yield augment_stage(config, folders.held_out, "held_out")
    yield score_stage(config, folders, shared)
    yield _select(config, folders)
    if config.report.attention and config.report.pairs:
        yield _attention(config, folders, shared)
    yield train_stage(config, folders, shared)
    if config.evaluate.per_bucket:
        yield evaluate_stage(config, folders, shared)
    yield _report(config, folders)


def held_out_settings(config: PipelineConfig) -> AugmentSettings:
    """How the held-out samples are composed: as the others, and single images besides, the same number of each."""
    shares: dict[FormatName, float] = {name: 1.0 for name, share in config.augment.formats.items() if share > 0}
    formats = dict.fromkeys(config.evaluate.formats, 1.0) if config.evaluate.formats else {**shares, "single": 1.0}
    return config.augment.model_copy(update={"formats": formats, "per_bucket": config.evaluate.per_bucket})


def augment_stage(config: PipelineConfig, out: Path, part: Literal["train", "held_out"], name: str | None = None) -> Stage:
    """Compose samples of the training rows, or of those held out."""
    data, evaluate = config.data, config.evaluate
    own_rows = evaluate.source is not None
    holdout = 0.0 if own_rows or not evaluate.per_bucket else evaluate.holdout
    source, root = (evaluate.source, evaluate.image_root) if part == "held_out" and own_rows else (data.source, data.image_root)
    settings = config.augment if part == "train" else held_out_settings(config)
    options: dict[str, Any] = {
        "seed": config.seed,
        "limit": None if part == "held_out" and own_rows else data.limit,
        "holdout": holdout,
        "part": part if holdout else "all",
    }
    if source is None:  # run_pipeline checked it
        raise ConfigError("data.source is not set")
    image_root = root or (source if source.is_dir() else source.parent)

    def make(progress: Progress) -> dict[str, int]:
        from mia_augment import augment_dataset

        return augment_dataset(source, image_root, out, settings, workers=data.workers, progress=progress, **options).counts

    def key() -> Key:
        return {"source": str(source), "image_root": str(image_root), "settings": _dump(settings), **options}

    name = name or ("augment" if part == "train" else "held_out")
    return Stage(name, out / MANIFEST, key, make, watches_its_inputs=True)


def score_stage(config: PipelineConfig, folders: Folders, shared: SharedModel, name: str = "score") -> Stage:
    """Ask the model the samples of `folders.samples`, and see where it looks."""

    def make(progress: Progress) -> dict[str, int]:
        from mia_attention import score_samples

        model, processor = shared.get()
        return score_samples(
            folders.samples, model, processor, folders.scored, config.score, model_id=shared.id, progress=progress
        ).counts

    def key() -> Key:
        return {
            "samples": made_from(folders.samples, "samples.jsonl"),
            "pictures": pictures_digest(folders.samples, "samples.jsonl", folders.scored, parts=config.score.looks_at_parts),
            "model": shared.id,
            "settings": _dump(config.score),
            "version": _version("mia_attention"),
        }

    return Stage(name, folders.scored / MANIFEST, key, make)


def _select(config: PipelineConfig, folders: Folders) -> Stage:
    def make(progress: Progress) -> dict[str, int]:
        from mia_select import select_pairs

        return select_pairs(folders.scored, folders.pairs, config.select, progress=progress).counts

    def key() -> Key:
        return {
            "scored": made_from(folders.scored, "scored.jsonl"),
            "settings": _dump(config.select),
            "version": _version("mia_select"),
        }

    return Stage("select", folders.pairs / MANIFEST, key, make)


def _attention(config: PipelineConfig, folders: Folders, shared: SharedModel) -> Stage:
    def key() -> Key:
        return {
            "scored": made_from(folders.scored, "scored.jsonl"),
            "pairs": made_from(folders.pairs, "pairs.jsonl", "dropped.jsonl"),
            "model": shared.id,
            "examples": [config.report.pairs, config.report.attention],
            "settings": _dump(config.score),
            "version": __version__,
        }

    def choose() -> list[ScoredSample]:
        from mia_cli.report.gallery import examples

        chosen = {example.sample.id: example.sample for example in examples(folders, config.report.pairs)}
        return list(chosen.values())[: config.report.attention]

    def make(progress: Progress) -> dict[str, int]:
        stage = maps_stage(folders.scored, folders.attention, config.score, shared.id, shared.get, choose)
        return run_stage(stage, progress).manifest.counts

    return Stage("attention", folders.attention / MANIFEST, key, make)


def train_stage(config: PipelineConfig, folders: Folders, shared: SharedModel, name: str = "train") -> Stage:
    """Train on the pairs of `folders.pairs`."""

    def make(progress: Progress) -> dict[str, int]:
        from mia_dpo_train import train_pairs

        model, processor = shared.get()
        try:
            manifest = train_pairs(
                folders.pairs, model, processor, folders.trained, config.train, model_id=shared.place, progress=progress
            )
        finally:
            shared.release()  # training leaves its layers in the model
        return manifest.counts

    def key() -> Key:
        return {
            "pairs": made_from(folders.pairs, "pairs.jsonl"),
            "pictures": pictures_digest(folders.pairs, "pairs.jsonl", folders.trained),
            "samples": digest(made_from(folders.samples)),
            "model": shared.id,
            "settings": _dump(config.train),
            "version": _version("mia_dpo_train"),
        }

    return Stage(name, folders.trained / MANIFEST, key, make)


def evaluate_stage(config: PipelineConfig, folders: Folders, shared: SharedModel, name: str = "evaluate") -> Stage:
    """Ask base and trained model the held-out samples."""

    def make(progress: Progress) -> dict[str, int]:
        from mia_cli.evaluate import evaluate_samples, trained_weights

        weights = trained_weights(folders.trained)
        return evaluate_samples(folders.held_out, shared, weights, folders.evaluated, config.evaluate, progress=progress).counts

    def key() -> Key:
        from mia_cli.evaluate import evaluation_key, trained_weights

        weights = trained_weights(folders.trained)
        return {**evaluation_key(folders.held_out, shared, weights, folders.evaluated, config.evaluate), "version": __version__}

    return Stage(name, folders.evaluated / MANIFEST, key, make)


def _report(config: PipelineConfig, folders: Folders) -> Stage:
    output = config.run_dir / REPORT

    def make(progress: Progress) -> dict[str, int]:
        from mia_cli.report import write_report

        return {"bytes": write_report(config.run_dir, output, config.report, progress=progress)}

    def key() -> Key:
        parts = (folders.samples, folders.scored, folders.pairs, folders.attention, folders.trained, folders.evaluated)
        made = {part.name: digest(made_from(part)) for part in parts if (part / MANIFEST).is_file()}
        manifests = {part.name: content_hash(part / MANIFEST) for part in parts if (part / MANIFEST).is_file()}
        return {"made_from": digest([made, manifests]), "settings": _dump(config.report), "version": __version__}

    return Stage("report", output, key, make)


def _dump(settings: Any) -> dict[str, Any]:
    plain: dict[str, Any] = settings.model_dump(mode="json")
    return plain


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package.replace("_", "-"))
