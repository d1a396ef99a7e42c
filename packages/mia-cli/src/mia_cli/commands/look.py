"""Commands that only look."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import click

from mia_cli.commands.paths import READ, READ_FILE, WRITE_FILE, replacement_note
from mia_cli.commands.single_stages import QUANTIZATION, model_options, shared_model

SHELLS = ["bash", "zsh", "fish"]


@click.command("look")
@click.argument("pictures", type=READ_FILE, nargs=-1, required=True)
@click.option(
    "--question", required=True, help="What to ask; the prompt calls the pictures Image1, Image2 .. in the order given."
)
@functools.partial(model_options, default="embedded")
@QUANTIZATION
@click.option("--answer", help="Look at this answer instead of the model's own.")
@click.option("--out", type=WRITE_FILE, default="where.html", show_default=True, help="Page to write.")
@click.option("--layer", default="middle", show_default=True, help="Whose attention is read: middle, or layers from 0: 8,12.")
@click.option("--gradient/--no-gradient", default=True, show_default=True, help="Also what the words came from, one pass more.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer, in tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def look_command(
    pictures: tuple[Path, ...], question: str, model: str, dtype: str, device: str, trust_remote_code: bool, quantization: str,
    answer: str | None, out: Path, layer: str, gradient: bool, max_new_tokens: int, as_json: bool,
) -> None:  # fmt: skip
    """See where each word of an answer came from.

    Asks a model a question about PICTURES and writes a page: step through the words, see the heat of each over the pictures.
    """
    from mia_attention import ask_about

    from mia_cli.terminal.display import print_json

    layers = _layers(layer)
    asked = ask_about(pictures, question)
    shared = shared_model(model, dtype, device, trust_remote_code, quantization)
    shared.check()
    from mia_attention import look

    view = look(
        *shared.get(), asked.pictures, question, answer=answer, layer=layers, gradient=gradient, max_new_tokens=max_new_tokens,
        names=asked.names,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    before = replacement_note(out)
    view.save(out)
    if as_json:
        print_json(view.summary())
    else:
        click.echo(f"{view}\n-> {out}{before}")


def _layers(text: str) -> Any:
    """`middle`, or numbers from 0."""
    if text == "middle":
        return text
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise click.UsageError(f"--layer: expected middle, or layers counted from 0 such as 8 or 8,12, got {text!r}")
    return [int(part) for part in parts]


@click.command("inspect")
@click.argument("run_dir", type=READ)
@click.argument("record_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def inspect_command(run_dir: Path, record_id: str, as_json: bool) -> None:
    """Show one record in all stages.

    RECORD_ID is the id of a source row, a sample or a pair.
    """
    from mia_cli.commands.run import run_folder
    from mia_cli.inspection.one_record import inspect_record
    from mia_cli.terminal.display import print_json, stdout
    from mia_cli.terminal.result_tables import show_record

    found = inspect_record(run_folder(run_dir), record_id)
    if as_json:
        print_json(found)
    else:
        show_record(found, stdout())


@click.command("doctor")
@click.argument("directory", type=READ, default=Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_context
def doctor_command(context: click.Context, directory: Path, as_json: bool) -> None:
    """Check packages, devices and disk, and say what `mia run` would use.

    DIRECTORY is where results would go, or a pipeline.yaml; one that lies in the directory is taken. The exit code is 1 if
    something needed is missing.
    """
    from mia_cli.config.schema import PipelineConfig, load_config
    from mia_cli.inspection.doctor import examine
    from mia_cli.inspection.planned_run import planned_run
    from mia_cli.terminal.display import print_json, stdout
    from mia_cli.terminal.result_tables import checks_table

    file = directory if directory.is_file() else directory / "pipeline.yaml"
    config = load_config(file) if file.is_file() else PipelineConfig()
    checks = [*examine(directory.parent if directory.is_file() else directory), *planned_run(config)]
    if as_json:
        print_json([check.model_dump() for check in checks])
    else:
        stdout().print(checks_table(checks))
    if any(check.state == "missing" for check in checks):
        context.exit(1)


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion_command(context: click.Context, shell: str | None) -> None:
    """Print the shell's completion script.

    Use it with `eval "$(mia completion bash)"`.
    """
    from click.shell_completion import get_completion_class

    name = shell or Path(os.environ.get("SHELL", "bash")).name
    kind = get_completion_class(name if name in SHELLS else "bash")
    if kind is None:  # click knows all three
        raise click.UsageError(f"no completion for {name}")
    click.echo(kind(context.find_root().command, {}, "mia", "_MIA_COMPLETE").source())
