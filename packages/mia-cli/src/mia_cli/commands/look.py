"""Commands that only look."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mia_cli.commands.paths import READ

SHELLS = ["bash", "zsh", "fish"]


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
    """Check packages, devices and disk.

    The exit code is 1 if something needed is missing.
    """
    from mia_cli.inspection.doctor import examine
    from mia_cli.terminal.display import print_json, stdout
    from mia_cli.terminal.result_tables import checks_table

    checks = examine(directory)
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
