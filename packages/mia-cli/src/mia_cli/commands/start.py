"""What one starts from: a file of settings, the embedded model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mia_cli.commands.listing import Listing
from mia_cli.commands.paths import WRITE_FILE, WRITE_FOLDER

RECIPES_TABLE = "mia_cli.config.recipe_files:RECIPES"
RECIPE = click.option("--recipe", cls=Listing, table=RECIPES_TABLE, help="How to build pairs and learn from them: {names}.")


@click.command("init")
@click.argument("file", type=WRITE_FILE, default=Path("pipeline.yaml"))
@click.option("--source", help="Rows: JSON, JSONL, CSV, parquet or tar, or a folder of these.")
@click.option("--image-root", help="Folder that the rows' pictures are relative to.")
@click.option(
    "--model",
    help="`embedded`, a folder, or a Hugging Face id: writes the values that suit it, and checks that it can be loaded.",
)
@click.option("--processes", type=click.IntRange(1), help="Processes (GPUs) that train together.  [default: as many as GPUs]")
@RECIPE
@click.option("--all", "every", is_flag=True, help="Write every setting, not only those that people change.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init_command(
    file: Path, source: str | None, image_root: str | None, model: str | None, processes: int | None, recipe: str | None,
    every: bool, trust_remote_code: bool, force: bool,
) -> None:  # fmt: skip
    """Write a pipeline.yaml to start from.

    It holds the settings that people change, each with its meaning; --model sets those that depend on the model.
    """
    from mia_augment import ConfigError
    from mia_augment.storage import atomic_write, clear_left_overs_of

    from mia_cli.config.commented_yaml import CHANGED_MOST, commented_yaml
    from mia_cli.config.recipe_files import KEY, check_recipe, set_by

    named = {} if recipe is None else {KEY: check_recipe(recipe)}
    if file.exists() and not force:
        raise ConfigError(f"{file}: is there already; --force overwrites it")
    values, about, problem = _for_model(model, file, processes, recipe, trust_remote_code)
    data = {"source": _beside(source or "rows.json", file), **({"image_root": _beside(image_root, file)} if image_root else {})}
    clear_left_overs_of(file)
    with atomic_write(file) as stream:
        only = None if every else CHANGED_MOST | set_by(recipe)
        stream.write(commented_yaml({"run_dir": "run", **named, **values, "data": data}, only, about))
    _say_written(file, source, data["source"], model, about, problem)


def _for_model(
    model: str | None, file: Path, processes: int | None, recipe: str | None, trust_remote_code: bool
) -> tuple[dict[str, Any], str, str | None]:
    """(settings, what they are about, why the model cannot be had now, if so); raises ModelError where it is no such model."""
    from mia_cli.config.recipe_files import recipe_settings, without
    from mia_cli.config.schema import EMBEDDED_MODEL, PipelineConfig
    from mia_cli.config.suited import suited_settings

    if model is None:
        return {"model": {"name": EMBEDDED_MODEL}}, "", None
    problem = _check(model, trust_remote_code)
    found = suited_settings(model, lambda: processes or _gpus(), recipe)
    values = found.values if recipe is None else without(found.values, recipe_settings(recipe), PipelineConfig)
    launch = {} if processes is None else {"launch": {"processes": processes}}
    name = model if model == EMBEDDED_MODEL else _beside(model, file)
    return {**values, **launch, "model": {"name": name}}, found.about, problem


def _check(model: str, trust_remote_code: bool) -> str | None:
    """Why the model cannot be had now, which another day may change; raises ModelError for what no day changes."""
    from mia_cli.loading.load import check_loads

    try:
        check_loads(model, trust_remote_code=trust_remote_code)
    except Exception as error:
        from mia_attention import NotReachable

        if not isinstance(error, NotReachable):
            raise
        return str(error)
    return None


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _beside(given: str, file: Path) -> str:
    """A path given on the command line, as the file has to say it: paths in there are relative to the file's folder."""
    path = Path(given)
    if path.is_absolute() or not path.exists() or file.absolute().parent == Path.cwd():
        return given
    return Path(os.path.relpath(path, file.absolute().parent)).as_posix()


def _say_written(file: Path, given: str | None, source: str, model: str | None, about: str, problem: str | None) -> None:
    click.echo(f"{file} written" + (f": {about[:1].lower()}{about[1:]}" if about else ""))
    if problem is not None:
        click.secho(f"note: the model cannot be loaded yet: {problem}", fg="yellow", err=True)
    if given is not None and not (file.absolute().parent / Path(source).expanduser()).exists():
        click.secho(f"note: data.source: {source} is not there yet", fg="yellow", err=True)
    first = "" if given is not None else "set data.source, then "
    click.echo(f"next: {first}`mia run {file} --dry-run` says what it will take, `mia run {file}` does it")
    if model is None:
        click.echo("      `--model NAME` writes values that suit a model; here they are the defaults, the paper's")


@click.command("embedded")
@click.argument("directory", type=WRITE_FOLDER)
def embedded_command(directory: Path) -> None:
    """Write the embedded model as a plain Hugging Face folder."""
    import shutil

    from mia_augment import ConfigError
    from mia_augment.storage import naming

    from mia_cli.config.schema import EMBEDDED_MODEL
    from mia_cli.loading.load import model_folder

    source = model_folder(EMBEDDED_MODEL)
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory}: expected a new or empty folder, there are files in it")
    if source is None:  # `embedded` always has a folder
        raise ConfigError("the embedded model is missing")
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for file in source.iterdir():  # not copytree, which tells a full disk once for each file
            with naming(directory / file.name):
                shutil.copyfile(file, temporary / file.name)
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    click.echo(f"{directory}: {sum(file.stat().st_size for file in directory.iterdir()) / 1e6:.1f} MB, "
               "for AutoModelForImageTextToText and AutoProcessor")  # fmt: skip
