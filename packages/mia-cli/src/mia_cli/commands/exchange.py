"""Pairs from and for other trainers, and the aligned model for everyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_cli.commands.listing import RowChoice
from mia_cli.commands.paths import READ, READ_FOLDER, WRITE, WRITE_FOLDER, check_free, replacement_note
from mia_cli.commands.single_stages import done, need_stage

REASONS_SHOWN = 12
"""Kinds of reasons on the screen; `skipped.jsonl` has every row."""


@click.command("import")
@click.argument("file", type=READ)
@click.option(
    "--format",
    "layout",
    default="auto",
    show_default=True,
    type=RowChoice("mia_select.importing:IMPORT_FORMATS"),
    help="auto decides by each row's columns.",
)
@click.option("--image-root", type=READ_FOLDER, help="Folder that the pictures' paths are relative to.  [default: the file's]")
@click.option("--drop-system", is_flag=True, help="Leave out system messages instead of the rows that have one.")
@click.option("--out", type=WRITE_FOLDER, required=True, help="Folder to make; `mia train --pairs` takes it.")
def import_command(file: Path, layout: str, image_root: Path | None, drop_system: bool, out: Path) -> None:
    """Read preference pairs of other tools.

    Makes a folder for `mia train`; skipped.jsonl says why each other row was left out.
    """
    from mia_select.importing import import_folder

    from mia_cli.terminal.display import Display

    display = Display()
    if before := replacement_note(out):
        display.say("import", f"{out}{before}")
    with display.progress("import") as progress:
        manifest = import_folder(file, out, layout, image_root=image_root, drop_system=drop_system, progress=progress)
    done(display, "import", manifest.counts, out)
    reasons = {name.removeprefix("skipped/"): n for name, n in manifest.counts.items() if name.startswith("skipped/")}
    for reason, count in list(reasons.items())[:REASONS_SHOWN]:
        display.say("import", f"{count} rows left out: {reason}", "yellow")
    if reasons:
        display.say("import", f"which and why: {out / 'skipped.jsonl'}")


@click.command("pack")
@click.option("--samples", type=READ_FOLDER, required=True, help="Folder of `mia augment`, or of one of its shards.")
@click.option("--format", "kind", type=RowChoice("mia_augment.packed:PACKED_KINDS"), required=True, help="Kind of files.")
@click.option("--per-file", type=click.IntRange(1), default=1000, show_default=True, help="Samples in one file.")
@click.option("--out", type=WRITE_FOLDER, required=True, help="Folder for the files; all shards may share it.")
def pack_command(samples: Path, kind: str, per_file: int, out: Path) -> None:
    """Write samples with their pictures into files of many.

    WebDataset tar and parquet hold the pictures, jsonl names them. Killed, it goes on with the files that are missing.
    """
    from mia_augment.packed import pack_samples

    from mia_cli.terminal.display import Display

    need_stage(samples, "samples.jsonl", "mia augment")
    display = Display()
    with display.progress("pack") as progress:
        files = pack_samples(samples, kind, out, per_file=per_file, progress=progress)
    display.say("pack", f"{len(files)} files -> {out}", "green")


@click.command("export")
@click.option("--pairs", type=READ_FOLDER, help="Folder of `mia select` or `mia import`.")
@click.option("--format", "layout", type=RowChoice("mia_select:EXPORTED"), help="Format to write.")
@click.option("--model", help="With --merged: the model that was trained.")
@click.option("--adapter", type=READ_FOLDER, help="With --merged: its adapter.")
@click.option("--merged", is_flag=True, help="Write model and adapter as one plain Hugging Face folder.")
@click.option(
    "--images",
    default="absolute",
    show_default=True,
    type=click.Choice(["absolute", "copy"]),
    help="Name the pictures where they lie, or copy them beside the file (parquet holds them anyway).",
)
@click.option("--out", type=WRITE, required=True, help="File or folder to write.")
@click.option("--overwrite", is_flag=True, help="With --merged: replace a folder that holds files, with all that is in it.")
def export_command(
    pairs: Path | None, layout: str | None, model: str | None, adapter: Path | None, merged: bool, images: Any, out: Path,
    overwrite: bool,
) -> None:  # fmt: skip
    """Write pairs for other trainers, or a merged model."""
    from mia_cli.terminal.display import Display

    display = Display()
    if merged:
        if model is None or adapter is None:
            raise click.UsageError("--merged needs --model and --adapter")
        from mia_augment import check_model_folder
        from mia_dpo_train import trained_weights

        from mia_cli.loading.load import model_folder

        check_free(out, overwrite)
        folder, weights = model_folder(model), trained_weights(adapter)
        if folder is not None:
            check_model_folder(folder, model)
        from mia_dpo_train import export_merged  # needs torch, the checks before do not

        made = export_merged(str(folder or model), weights, out)
        display.say(
            "export",
            f"log-prob of an answer of {made.tokens} tokens: {made.base_logp:.4f} by the model alone, {made.adapter_logp:.4f} "
            f"with the adapter beside it, {made.merged_logp:.4f} merged",
            "dim",
        )
        display.say("export", f"merged model -> {out}")
        display.say("export", made.verdict, "green" if made.verdict.startswith("sound") else "yellow")
        return
    if pairs is None or layout is None:
        raise click.UsageError("needs --pairs and --format, or --merged with --model and --adapter")
    from mia_select.export import export_pairs

    need_stage(pairs, "pairs.jsonl", "mia select")
    before = replacement_note(out)
    file = export_pairs(pairs, layout, out, images=images)
    display.say("export", f"{layout} -> {file}{before if file == out else ''}", "green")


@click.command("convert")
@click.argument("checkpoint", type=READ_FOLDER)
@click.option(
    "--vision-tower", type=READ_FOLDER, help="Folder of the CLIP model that the checkpoint names, if it is no folder."
)
@click.option("--overwrite", is_flag=True, help="Replace the folder with all that is in it.")
@click.option("--out", type=WRITE_FOLDER, required=True, help="Folder to make; every --model takes it.")
def convert_command(checkpoint: Path, vision_tower: Path | None, overwrite: bool, out: Path) -> None:
    """Write a LLaVA-1.5 of the original code for transformers.

    Takes a folder as liuhaotian/llava-v1.5-7b and writes one with tokenizer, processor and the original's own prompt.
    """
    from mia_dpo_train import read_original

    read_original(checkpoint, vision_tower)
    check_free(out, overwrite)
    from mia_dpo_train import convert_llava  # needs torch, the checks before do not

    from mia_cli.terminal.display import Display

    before = replacement_note(out)
    made = convert_llava(checkpoint, out, vision_tower)
    display = Display()
    display.say("convert", f"{made.weights} weights, {made.parameters:,} parameters, {made.image_tokens} tokens a picture")
    display.say("convert", f"model -> {out}{before}", "green")
