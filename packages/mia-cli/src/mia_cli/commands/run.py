"""Commands that do everything at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mia_cli.commands.given_settings import SET
from mia_cli.commands.listing import Listing
from mia_cli.commands.paths import READ, READ_FILE, READ_FOLDER, WRITE_FILE, WRITE_FOLDER
from mia_cli.commands.start import RECIPE, RECIPES_TABLE

if TYPE_CHECKING:
    from mia_cli.config.schema import PipelineConfig


@click.command("quickstart")
@click.argument("directory", type=WRITE_FOLDER, default=Path("mia-quickstart"))
@click.option(
    "--pictures",
    type=click.IntRange(10),
    help="Pictures to draw for training.  [default: 400, with --recipe 800: a recipe may make fewer pairs of them]",
)
@click.option(
    "--test-pictures", type=click.IntRange(10), default=300, show_default=True, help="Pictures to draw for evaluation."
)
@click.option(
    "--per-bucket", type=click.IntRange(1), default=300, show_default=True, help="Test samples per format and number of images."
)
@click.option("--seed", default=0, show_default=True, help="Decides every random choice.")
@click.option("--model", default="embedded", show_default=True, help="`embedded`, a folder, or a Hugging Face id.")
@RECIPE
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def quickstart_command(directory: Path, as_json: bool, **options: Any) -> None:
    """Run everything on the embedded model.

    Draws data, then augments, scores, selects, trains, evaluates and reports. It takes a few minutes on two CPU cores and
    needs no network. A second call finds everything done.
    """
    from mia_augment import check_model_folder

    from mia_cli.config.recipe_files import check_recipe
    from mia_cli.config.schema import load_config
    from mia_cli.drawn.quickstart import prepare
    from mia_cli.loading.load import model_folder
    from mia_cli.pipeline import run_pipeline
    from mia_cli.terminal.display import Display

    if (folder := model_folder(options["model"])) is not None:
        check_model_folder(folder, options["model"])
    if options["recipe"] is not None:
        check_recipe(options["recipe"])
    display = Display()
    config = load_config(prepare(directory, display, **options))
    runner = run_pipeline(config, display)
    _show_results(config.run_dir, set(runner.made), as_json)


@click.command("run")
@click.argument("file", type=READ_FILE, default=Path("pipeline.yaml"))
@SET
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would run, on how many samples, and what it would take, by one small batch in a temporary folder.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def run_command(file: Path, given: tuple[str, ...], dry_run: bool, trust_remote_code: bool, as_json: bool) -> None:
    """Run a pipeline.yaml, or continue it.

    Stages that are done and unchanged are skipped; an interrupted stage continues.
    """
    from mia_cli.config.schema import load_config
    from mia_cli.pipeline import run_pipeline
    from mia_cli.terminal.display import Display

    config = load_config(file, given=given)
    if dry_run:
        _show_plan(config, trust_remote_code, as_json)
        return
    runner = run_pipeline(config, Display(), trust_remote_code=trust_remote_code)
    _show_results(config.run_dir, set(runner.made), as_json)


@click.command("share", hidden=True)
@click.argument("run_dir", type=READ_FOLDER)
@click.argument("stage")
@click.option("--trust-remote-code", is_flag=True)
def share_command(run_dir: Path, stage: str, trust_remote_code: bool) -> None:
    """One of several processes that make a stage of a run; `mia run` starts them."""
    from mia_cli.config.schema import PipelineConfig
    from mia_cli.launch import share_stage
    from mia_cli.layout import LAUNCHED, saved_settings
    from mia_cli.machines import check_shared

    check_shared(run_dir / LAUNCHED)
    share_stage(PipelineConfig.model_validate(saved_settings(run_dir)), stage, trust_remote_code=trust_remote_code)


@click.command("slurm")
@click.argument("file", type=READ_FILE, default=Path("pipeline.yaml"))
@click.option("--out", type=WRITE_FILE, help="Script to write.  [default: beside FILE, as NAME.sbatch]")
@click.option("--gpus-per-node", type=click.IntRange(0), help="GPUs of each machine.  [default: launch.processes, or 8]")
@click.option("--cpus-per-node", type=click.IntRange(1), help="CPU cores of each machine.  [default: what Slurm gives]")
@click.option("--time", "hours", default="24:00:00", show_default=True, help="Longest run, as Slurm writes times.")
@click.option("--partition", help="Slurm's partition.")
@click.option("--account", help="Slurm's account.")
def slurm_command(file: Path, out: Path | None, **options: Any) -> None:
    """Write a Slurm script that runs a pipeline.yaml.

    `launch.nodes` in the file says on how many machines; `sbatch SCRIPT` submits it, again to continue.
    """
    from mia_cli.slurm import write_script

    script = write_script(file, out or file.with_suffix(".sbatch"), **options)
    click.echo(f"{script} written: look at it, then `sbatch {script}`")


@click.command("ablate")
@click.argument("file", type=READ_FILE, default=Path("pipeline.yaml"))
@SET
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings of each variant.")
@click.option("--pairs", type=click.IntRange(1), help="Pairs of each variant.  [default: 3/4 of what the smallest gives]")
@click.option(
    "--more",
    type=click.IntRange(0),
    help="Score at most this many additional samples for a variant of one format.  [default: 3 times the run's]",
)
@click.option("--variants", default="", help="Comma-separated variants to compare with the whole method.  [default: all]")
@click.option(
    "--recipes",
    cls=Listing,
    table=RECIPES_TABLE,
    is_flag=False,
    flag_value="all",
    default="",
    help="Compare recipes instead, NLL alone and scaled delimiters: all, or a comma-separated list of {names}.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trainings that run at the same time, each with its share of the cores and its own copy of the model.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def ablate_command(
    file: Path, given: tuple[str, ...], seeds: int, pairs: int | None, more: int | None, variants: str, recipes: str,
    jobs: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure which parts of the method help, or which recipe does most.

    Trains variants of a pipeline.yaml with equal numbers of pairs and steps, and asks each the same held-out samples. With
    --recipes what a recipe sets is compared, whatever the file says of it; all else is the file's.
    """
    from mia_augment import ConfigError

    from mia_cli.config.schema import load_config
    from mia_cli.experiments.ablate import run_ablation
    from mia_cli.terminal.display import Display, print_json, stdout
    from mia_cli.terminal.result_tables import show_ablation

    names, chosen = ([name.strip() for name in given.split(",") if name.strip()] for given in (variants, recipes))
    if names and chosen:
        raise ConfigError(
            "--variants and --recipes: expected one of them; variants change parts of the method, recipes all of it"
        )
    config = load_config(file, bare=bool(chosen), given=given)
    result = run_ablation(config, Display(), seeds=seeds, pairs=pairs, more=more, names=names, recipes=chosen, jobs=jobs)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        show_ablation(result, stdout())


@click.command("diagnose")
@click.argument("file", type=READ_FILE, default=Path("pipeline.yaml"))
@SET
@click.option("--samples", type=click.IntRange(8), default=300, show_default=True, help="Number of samples to ask the model.")
@click.option("--thorough", is_flag=True, help="Also try value-weighted attention, which takes two thirds more time.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def diagnose_command(
    file: Path, given: tuple[str, ...], samples: int, thorough: bool, trust_remote_code: bool, as_json: bool
) -> None:
    """Examine a model before aligning it.

    Does it confuse its images? Does its attention tell wrong answers from right ones? Do the thresholds decide anything?
    Asks the model of a pipeline.yaml a few hundred of its samples, before a day is spent on all of them.
    """
    from mia_cli.config.schema import load_config
    from mia_cli.experiments.diagnose import run_diagnosis
    from mia_cli.terminal.diagnosis_tables import show_diagnosis
    from mia_cli.terminal.display import Display, print_json, stdout

    config = load_config(file, given=given)
    found = run_diagnosis(config, Display(), samples=samples, thorough=thorough, trust_remote_code=trust_remote_code)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        show_diagnosis(found, stdout())


@click.command("status")
@click.argument("run_dir", type=READ)
@click.option("--watch", is_flag=True, help="Show it anew every second until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def status_command(run_dir: Path, watch: bool, as_json: bool) -> None:
    """Show which stages of a run are done, and how far the one is that is being made.

    RUN_DIR may also be its pipeline.yaml.
    """
    from mia_cli.inspection.status import read_status
    from mia_cli.terminal.display import print_json, stdout
    from mia_cli.terminal.result_tables import status_table
    from mia_cli.terminal.watching import watch_run

    folder = run_folder(run_dir)
    if watch and not as_json:
        watch_run(folder, stdout())
        return
    stages = read_status(folder)
    if as_json:
        print_json([stage.model_dump() for stage in stages])
    else:
        stdout().print(status_table(stages))


@click.command("report")
@click.argument("run_dir", type=READ)
@click.argument("other", type=READ, required=False)
@click.option(
    "--out", type=WRITE_FILE, help="Where to write the page.  [default: report.html, of two runs compared.html, in RUN_DIR]"
)
@click.option("--pairs", type=click.IntRange(0), help="Example pairs to show.")
def report_command(run_dir: Path, other: Path | None, out: Path | None, pairs: int | None) -> None:
    """Write a run's report as one HTML file, or compare it with another's.

    With OTHER, a second run that was asked the same held-out questions: how much better or worse it is, paired, what differs
    in the settings, and which answers do. The file works offline. RUN_DIR and OTHER may also be a run's pipeline.yaml.
    """
    from mia_cli.config.schema import ReportSettings, build
    from mia_cli.layout import COMPARED, REPORT, saved_settings
    from mia_cli.report import write_report
    from mia_cli.terminal.display import Display

    folder = run_folder(run_dir)
    if other is not None:
        return _compare(folder, run_folder(other), out or folder / COMPARED)
    saved = saved_settings(folder).get("report")
    settings = build(
        ReportSettings, {**(saved if isinstance(saved, dict) else {}), **({} if pairs is None else {"pairs": pairs})}
    )
    target = out or folder / REPORT
    display = Display()
    with display.progress("report") as progress:
        size = write_report(folder, target, settings, progress=progress)
    display.say("report", f"{size / 1e6:.1f} MB -> {target}", "green")


def _compare(first: Path, second: Path, out: Path) -> None:
    from mia_cli.report.two_runs.two_runs_page import write_two_runs
    from mia_cli.terminal.display import Display

    size = write_two_runs(first, second, out)
    Display().say("report", f"{size / 1e3:.0f} kB -> {out}", "green")


def run_folder(path: Path) -> Path:
    """The run directory that a folder or a pipeline.yaml stands for."""
    from mia_augment import DataError
    from mia_augment.storage import MANIFEST

    from mia_cli.config.schema import load_config
    from mia_cli.runner import STAGE_STATES

    if path.is_file():
        return load_config(path).run_dir
    for folder in (path, path / "run"):
        if (folder / STAGE_STATES).is_file() or any(folder.glob(f"*/{MANIFEST}")):  # the latter: made stage by stage
            return folder
    raise DataError(f"{path}: no run there (no {STAGE_STATES}); expected the run_dir of a `mia run`, or its pipeline.yaml")


def _show_plan(config: PipelineConfig, trust_remote_code: bool, as_json: bool) -> None:
    from mia_cli.experiments.dry_run import plan_run
    from mia_cli.terminal.display import Display, print_json, stdout
    from mia_cli.terminal.plan_table import show_plan

    plan = plan_run(config, Display(), trust_remote_code=trust_remote_code)
    if as_json:
        print_json(plan.model_dump(mode="json"))
    else:
        show_plan(plan, stdout())


def _show_results(run_dir: Path, made: set[str], as_json: bool) -> None:
    from mia_cli.terminal.display import print_json, stdout
    from mia_cli.terminal.result_tables import results, show_results

    if as_json:
        print_json(results(run_dir))
    else:
        show_results(run_dir, made, stdout())
