"""One command per stage, for those who want to hold the files in their own hands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mia_cli.commands.given_settings import configured, stage_settings
from mia_cli.commands.listing import Listing
from mia_cli.commands.paths import READ, READ_FILE, READ_FOLDER, WRITE_FOLDER

if TYPE_CHECKING:
    from mia_augment.storage import Stage
    from pydantic import BaseModel

    from mia_cli.loading.load import SharedModel
    from mia_cli.terminal.display import Display

DTYPES = ["auto", "float32", "bfloat16", "float16"]

_OUT = click.option("--out", type=WRITE_FOLDER, required=True, help="Folder to write; what is done there is not done again.")


def model_options(function: Any, default: str | None = None) -> Any:
    """The options that say which model, and how it is loaded; it has to be named where there is no `default`."""
    named = {"required": True} if default is None else {"default": default, "show_default": True}
    options = [
        click.option("--model", help="`embedded`, a folder, or a Hugging Face id.", **named),
        click.option(
            "--dtype",
            default="auto",
            type=click.Choice(DTYPES),
            show_default=True,
            help="Numbers that the model computes in; auto: float32 on a CPU, bfloat16 elsewhere.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


QUANTIZATION = click.option(
    "--quantization", default="none", type=click.Choice(["none", "4bit"]), show_default=True, help="4bit needs bitsandbytes."
)


def _answer_options(function: Any) -> Any:
    options = [
        click.option("--responses", type=READ_FILE, help="Take the model's answers from a file: JSONL of id and response."),
        click.option("--answers-url", help="Take them from an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."),
        click.option("--answers-model", help="The model's name on that server."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _with_answers(options: dict[str, Any]) -> dict[str, Any]:
    """The options with those of `_answer_options` as the settings' `answers`."""
    names = {"responses": "file", "answers_url": "url", "answers_model": "model"}
    source = {names[key]: str(value) for key, value in options.items() if key in names and value is not None}
    return {**{key: value for key, value in options.items() if key not in names}, "answers": source or None}


def shared_model(model: str, dtype: str, device: str, trust_remote_code: bool, quantization: str) -> SharedModel:
    """The model that the options name, not loaded yet."""
    from mia_cli.config.schema import ModelSettings, build
    from mia_cli.loading.load import SharedModel

    settings = build(ModelSettings, {"name": model, "dtype": dtype, "device": device, "quantization": quantization})
    return SharedModel(settings, trust_remote_code=trust_remote_code)


@click.command("augment")
@click.option(
    "--source", type=READ, required=True, help="Rows: JSON, JSONL, CSV, parquet or tar, a folder of these, or hf://OWNER/NAME."
)
@click.option("--image-root", type=READ_FOLDER, help="Folder that the rows' pictures are relative to.  [default: the rows']")
@_OUT
@click.option(
    "--formats", cls=Listing, table="mia_augment:FORMATS", help="Comma-separated: {names}.  [default: the paper's three]"
)
@click.option("--seed", default=0, show_default=True, help="Decides every random choice.")
@click.option("--limit", type=click.IntRange(1), help="Read at most this many rows.")
@click.option("--workers", type=click.IntRange(1), help="Processes that compose.  [default: 1; with ray one for each CPU]")
@click.option("--shard", help="Make only this part, i/n with i from 1; called without it when all are made, it joins them.")
@click.option("--engine", type=click.Choice(["processes", "ray"]), default="processes", show_default=True, help="Who composes.")
@click.option(
    "--per-bucket", type=click.IntRange(1), help="Compose exactly this many samples for each format and number of images."
)
@click.option(
    "--unlabelled",
    is_flag=True,
    default=None,
    help="Also take questions without an answer, and pictures without questions, which are asked general ones.",
)
@stage_settings("augment")
def augment_command(
    source: Path, image_root: Path | None, out: Path, formats: str | None, seed: int, limit: int | None,
    workers: int | None, shard: str | None, engine: Any, per_bucket: int | None, unlabelled: bool | None, config: Path | None,
    given: tuple[str, ...],
) -> None:  # fmt: skip
    """Compose multi-image samples from single-image rows."""
    from mia_augment import AugmentSettings, augment_stage
    from mia_augment.read import picture_folder

    names = [name.strip() for name in formats.split(",")] if formats else None
    options = {"formats": names, "per_bucket": per_bucket, "unlabelled": unlabelled}
    settings = configured(AugmentSettings, config, "augment", given, options)
    made_by = {"workers": workers, "shard": shard, "engine": engine}
    pictures = image_root or picture_folder(source, out)
    _make(augment_stage(source, pictures, out, settings, seed=seed, limit=limit, **made_by))


@click.command("score")
@click.option("--samples", type=READ_FOLDER, required=True, help="Folder of `mia augment`.")
@model_options
@QUANTIZATION
@_OUT
@click.option("--layer", cls=Listing, table="mia_attention:READOUTS", help="A number or one of {names}.  [default: middle]")
@click.option("--rows", type=click.Choice(["generated", "predicting", "question"]), help="Query rows to read attention from.")
@click.option("--batch-size", type=click.IntRange(1), help="Samples answered in one batch.")
@click.option(
    "--disturb/--no-disturb", default=None, help="Add noise to the composed pictures that the model sees.  [default: yes]"
)
@click.option("--confusions", is_flag=True, default=None, help="Also ask about each part alone.")
@click.option("--own-answer", is_flag=True, default=None, help="Also ask about the target alone (for `select.chosen: own`).")
@_answer_options
@stage_settings("score")
def score_command(
    samples: Path, model: str, dtype: str, device: str, trust_remote_code: bool, quantization: str, out: Path,
    layer: str | None, config: Path | None, given: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Ask a model the samples and measure its attention."""
    from mia_attention import ScoreSettings, score_stage
    from mia_attention.given import check_source
    from mia_augment import Sample

    chosen = int(layer) if layer is not None and layer.isdecimal() else layer
    settings = configured(ScoreSettings, config, "score", given, {"layer": chosen, **_with_answers(options)})
    check_source(settings.answers)
    shared = shared_model(model, dtype, device, trust_remote_code, quantization)
    need_stage(samples, "samples.jsonl", "mia augment", Sample, out)
    shared.check()
    _make(score_stage(samples, out, settings, shared.id, shared.get))


@click.command("select")
@click.option("--scored", type=READ_FOLDER, required=True, help="Folder of `mia score`.")
@_OUT
@click.option("--max-pairs", type=click.IntRange(1), help="At most so many pairs, drawn at random.")
@click.option("--chosen", help="Chosen answer: ground_truth, own, own_if_right, ..  [default: ground_truth]")
@click.option("--rejected", help="Rejected answer: own, confusion, both, built, ..  [default: own]")
@click.option("--attention/--no-attention", default=None, help="Only answers given while looking elsewhere.  [default: yes]")
@stage_settings("select")
def select_command(scored: Path, out: Path, config: Path | None, given: tuple[str, ...], **options: Any) -> None:
    """Choose preference pairs from scored samples.

    dropped.jsonl names the rule that dropped each other sample.
    """
    from mia_select import SelectSettings, select_stage

    settings = configured(SelectSettings, config, "select", given, options)
    need_stage(scored, "scored.jsonl", "mia score")
    _make(select_stage(scored, out, settings))


@click.command("train")
@click.option("--pairs", type=READ_FOLDER, required=True, help="Folder of `mia select` or `mia import`.")
@model_options
@_OUT
@click.option("--epochs", type=click.IntRange(1), help="Passes over the pairs.  [default: 1]")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after so many optimizer steps.")
@click.option("--learning-rate", type=float, help="Highest learning rate.  [default: 5e-5]")
@click.option("--beta", type=float, help="Strength of the tie to the reference model.  [default: 0.1]")
@click.option("--loss", help="sigmoid (DPO), ipo, hinge, ..  [default: sigmoid]")
@click.option(
    "--batch-size", "per_device_batch_size", type=click.IntRange(1), help="Pairs in one pass of one process.  [default: 1]"
)
@click.option("--accumulation", type=click.IntRange(1), help="Passes per process in one optimizer step.  [default: 8]")
@click.option("--tuning", type=click.Choice(["lora", "qlora", "full"]), help="What is trained.  [default: lora]")
@click.option("--lora-rank", type=click.IntRange(1), help="Rank of the adapters.  [default: 128]")
@stage_settings("train")
def train_command(
    pairs: Path, model: str, dtype: str, device: str, trust_remote_code: bool, out: Path, config: Path | None,
    given: tuple[str, ...], lora_rank: int | None, **options: Any,
) -> None:  # fmt: skip
    """Train a PEFT adapter on the pairs with DPO."""
    from mia_augment import PreferencePair
    from mia_dpo_train import TrainSettings, check_environment, train_stage

    from mia_cli.runner import depending_on

    settings = configured(TrainSettings, config, "train", given, {**options, "lora.r": lora_rank})
    shared = shared_model(model, dtype, device, trust_remote_code, "4bit" if settings.tuning == "qlora" else "none")
    check_environment(settings)
    need_stage(pairs, "pairs.jsonl", "mia select", PreferencePair, out)
    shared.check()
    _make(depending_on(train_stage(pairs, out, settings, shared.place, shared.take), dtype=dtype))


@click.command("evaluate")
@click.option(
    "--samples", type=READ_FOLDER, required=True, help="Folder of `mia augment` with samples that training never saw."
)
@model_options
@QUANTIZATION
@click.option("--adapter", type=READ_FOLDER, help="What `mia train` wrote: a folder with adapter/, or the adapter itself.")
@_OUT
@click.option("--batch-size", type=click.IntRange(1), help="Samples answered in one batch.  [default: 8]")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer, in tokens.  [default: 512]")
@click.option(
    "--choices",
    type=click.Choice(["likelihood", "answer"]),
    help="Answer to a question with options: the likeliest one, or the one that the model's text names.  [default: likelihood]",
)
@click.option(
    "--delimiter-scale",
    type=click.FloatRange(0, min_open=True),
    help="Mend without training: scale the tokens around each picture by this the second time; 8 is published.",
)
@_answer_options
@stage_settings("evaluate")
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON.")
def evaluate_command(
    samples: Path, model: str, dtype: str, device: str, trust_remote_code: bool, quantization: str, adapter: Path | None,
    out: Path, as_json: bool, config: Path | None, given: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Measure a model with and without its adapter.

    Both answer the same questions; the accuracies have 95 % intervals.
    """
    from mia_attention.given import check_source
    from mia_augment import Sample
    from mia_dpo_train import trained_weights
    from mia_select.evaluation import read_evaluation

    from mia_cli.config.schema import EvaluateSettings
    from mia_cli.evaluate import evaluate_stage
    from mia_cli.terminal.display import print_json, stdout
    from mia_cli.terminal.result_tables import show_evaluation

    settings = configured(EvaluateSettings, config, "evaluate", given, _with_answers(options))
    check_source(settings.answers)
    shared = shared_model(model, dtype, device, trust_remote_code, quantization)
    weights = trained_weights(adapter) if adapter else None
    need_stage(samples, "samples.jsonl", "mia augment", Sample, out)
    _make(evaluate_stage(samples, out, settings, shared, lambda: weights))
    evaluation = read_evaluation(out)
    if as_json:
        print_json(evaluation.model_dump(mode="json"))
    else:
        show_evaluation(evaluation, stdout())


def need_stage(folder: Path, file: str, command: str, kind: type[BaseModel] | None = None, out: Path | None = None) -> None:
    """Raise DataError unless a stage's folder holds its file; with `kind`, look at all of it before a model is looked for."""
    from mia_augment import DataError
    from mia_augment.storage import read_jsonl, read_manifest

    if not (folder / file).is_file():
        shards = "; its shards are to be joined: the same `mia augment` without --shard" if (folder / "shards").is_dir() else ""
        raise DataError(f"{folder}: no {file} there; expected the folder that `{command}` wrote{shards}")
    for place in (folder, out):
        if place is not None:
            read_manifest(place)
    if kind is not None and not sum(1 for _ in read_jsonl(folder / file, kind)):
        raise DataError(f"{folder / file}: expected at least one {kind.__name__}, it is empty")


def _make(stage: Stage) -> None:
    """Make a stage, with the other processes that a launcher started; say what is left alone, and what is written over."""
    from mia_augment.storage import process_rank, run_stage, standing, with_plan

    from mia_cli.runner import replacing
    from mia_cli.terminal.counts_text import stage_counts
    from mia_cli.terminal.display import Display

    display = Display()
    planned, finished, reason = standing(stage)
    if finished is not None:
        display.say(
            stage.name, f"unchanged, nothing to do ({stage_counts(stage.name, finished.counts)}) -> {stage.folder}", "dim"
        )
    elif reason != "started":
        display.say(stage.name, reason + replacing(stage))
    with display.progress(stage.name) as progress:
        manifest, made = run_stage(with_plan(stage, planned), progress, rank=process_rank())
    if made or finished is None:
        done(display, stage.name, manifest.counts, stage.folder)


def done(display: Display, name: str, counts: dict[str, int], out: Path) -> None:
    """Say what a command made."""
    from mia_cli.terminal.counts_text import stage_counts

    display.say(name, f"{stage_counts(name, counts)} -> {out}", "green")
