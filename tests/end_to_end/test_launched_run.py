"""`mia run` with two processes (gloo, CPU): the same files as with one."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mia_augment.storage import run_stage
from mia_cli.config.schema import PipelineConfig, load_config
from mia_cli.launch import launch_stage
from mia_cli.loading.load import SharedModel
from mia_cli.machines import processes_of
from mia_cli.main import main
from mia_cli.pipeline import stages
from safetensors.numpy import load_file
from small_pipeline import write_pipeline

SMALL = {
    "score": {"batch_size": 2},
    "evaluate": {"holdout": 0.3, "per_bucket": 5, "batch_size": 1, "max_new_tokens": 6},
    "report": {"attention": 4},
}
ONE = {**SMALL, "train": {"max_steps": 2, "accumulation": 2, "gradient_checkpointing": False}}
TWO = {**SMALL, "train": {"max_steps": 2, "accumulation": 1, "gradient_checkpointing": False}, "launch": {"processes": 2}}


def run(folder: Path, model: Path, **changes: dict) -> Result:
    return CliRunner().invoke(main, ["run", str(write_pipeline(folder, model, **changes))], catch_exceptions=False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    result = run(folder, random_model, **ONE)
    assert result.exit_code == 0, result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("together")
    result = run(folder, random_model, **TWO)
    assert result.exit_code == 0, result.stderr
    return folder / "run"


@pytest.mark.parametrize(
    "name", ["augment/samples.jsonl", "score/scored.jsonl", "select/pairs.jsonl", "attention/maps.jsonl", "evaluate/base.jsonl"]
)
def test_two_processes_leave_the_bytes_of_one(alone: Path, together: Path, name: str) -> None:
    assert (together / name).read_bytes() == (alone / name).read_bytes()


def test_two_processes_train_the_weights_of_one(alone: Path, together: Path) -> None:
    one, two = (load_file(folder / "train/adapter/adapter_model.safetensors") for folder in (alone, together))
    assert set(one) == set(two)
    assert max(abs(one[name] - two[name]).max() for name in one) < 5e-6


def test_two_processes_measure_what_one_does(alone: Path, together: Path) -> None:
    one, two = (json.loads((folder / "evaluate/evaluation.json").read_text()) for folder in (alone, together))
    assert [(row["name"], row["before"]) for row in two["rows"]] == [(row["name"], row["before"]) for row in one["rows"]]
    assert {row["name"]: row["after"]["n"] for row in two["rows"]} == {row["name"]: row["after"]["n"] for row in one["rows"]}


def test_nothing_of_the_processes_is_left(together: Path) -> None:
    assert not (together / ".launched").exists()
    assert not list(together.rglob(".journal")) + list(together.rglob("*.journal"))


def test_the_first_error_of_a_process_is_told(tmp_path: Path, random_model: Path) -> None:
    result = run(tmp_path, random_model, **{**TWO, "score": {"layer": 99, "max_new_tokens": 6}})
    assert result.exit_code == 2
    assert "of 2 stopped in score: " in result.stderr
    assert "layer 99" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_process_that_dies_takes_the_others_down_and_the_next_call_goes_on(
    alone: Path, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = tmp_path / "killer"
    killer.mkdir()
    (killer / "sitecustomize.py").write_text("import os\nif os.environ.get('RANK') == '1':\n    os._exit(7)\n")
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(killer))
        started = time.monotonic()
        result = run(tmp_path, random_model, **TWO)
    assert result.exit_code == 2
    assert "a process of 2 died in score" in result.stderr
    assert "exitcode" in result.stderr.lower()
    assert time.monotonic() - started < 300  # far below the hour that rank 0 would wait for the other
    shutil.rmtree(killer)
    assert run(tmp_path, random_model, **{**TWO, "launch": {"processes": 1}}).exit_code == 0  # with whatever number
    assert (tmp_path / "run/score/scored.jsonl").read_bytes() == (alone / "score/scored.jsonl").read_bytes()


KILLED_AT_WORK = """
import glob, os, signal, threading, time

def watch():
    while True:
        for path in glob.glob(os.environ["WATCHED"]):
            with open(path, "rb") as file:
                if file.read().count(b"\\n") > 1:
                    os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)

if os.environ.get("RANK") == "2":
    threading.Thread(target=watch, daemon=True).start()
"""


def test_one_of_three_killed_at_its_work_and_the_next_three_go_on(
    alone: Path, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its finished batch is not asked again, and the files are those of one process."""
    three = {**ONE, "launch": {"processes": 3}}
    (tmp_path / "sitecustomize.py").write_text(KILLED_AT_WORK)
    journal = tmp_path / "run/score/.journal/2.jsonl"
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        patched.setenv("WATCHED", str(journal))
        result = run(tmp_path, random_model, **three)
    assert result.exit_code == 2
    assert "a process of 3 died in score; it was killed from outside" in result.stderr
    kept = journal.read_bytes()
    config = load_config(tmp_path / "pipeline.yaml")
    [made] = [stage for stage in stages(config, SharedModel(config.model)) if stage.name == "score"]
    launch_stage(config, "score", 3, lambda done, total: None, trust_remote_code=False)
    assert not run_stage(made).made  # the three have made it
    assert kept.count(b"\n") > 1
    for name in ("augment/samples.jsonl", "score/scored.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize(("settings", "wanted"), [({}, 1), ({"launch": {"processes": 3}}, 3)])
def test_how_many_processes(settings: dict, wanted: int) -> None:
    assert processes_of(PipelineConfig.model_validate({"model": {"device": "cpu"}, **settings})) == wanted
