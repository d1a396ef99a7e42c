"""`mia run` from rows to report on a small configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_pipeline import write_pipeline

STAGES = ["augment", "held_out", "score", "select", "attention", "train", "evaluate", "report"]


def remarks(stderr: str) -> dict[str, list[str]]:
    """What was said about each stage."""
    said: dict[str, list[str]] = {}
    for line in stderr.splitlines():
        name, _, text = line.partition(" ")
        said.setdefault(name, []).append(text.strip())
    return said


def skipped(stderr: str) -> list[str]:
    return [name for name, lines in remarks(stderr).items() if any("unchanged, skipped" in line for line in lines)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> Path:
    """A folder with a finished run."""
    from click.testing import CliRunner
    from mia_cli.main import main

    folder = tmp_path_factory.mktemp("finished")
    result = CliRunner().invoke(main, ["run", str(write_pipeline(folder, random_model))], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return folder


def test_a_run_leaves_the_files_of_every_stage(finished):
    run = finished / "run"
    for name in (
        *("augment/samples.jsonl", "augment/skipped.jsonl", "held_out/samples.jsonl", "score/scored.jsonl"),
        *("select/pairs.jsonl", "select/dropped.jsonl", "select/selection.json", "train/adapter/adapter_model.safetensors"),
        *(
            "train/metrics.jsonl",
            "attention/maps.jsonl",
            "evaluate/evaluation.json",
            "evaluate/predictions.jsonl",
            "report.html",
        ),
    ):
        assert (run / name).is_file(), name
    assert not list(run.rglob("*.tmp"))


def test_training_and_evaluation_share_no_picture(finished):
    used = {}
    for part in ("augment", "held_out"):
        lines = (finished / "run" / part / "samples.jsonl").read_text().splitlines()
        used[part] = {path for line in lines for path in json.loads(line)["source"]["paths"]}
    assert used["augment"]
    assert used["held_out"]
    assert used["augment"] & used["held_out"] == set()


def test_every_bucket_is_measured_equally_often_before_and_after(finished):
    evaluation = json.loads((finished / "run" / "evaluate" / "evaluation.json").read_text())
    counted = {row["name"]: (row["before"]["n"], row["after"]["n"]) for row in evaluation["rows"]}
    buckets = ["sequence/2", "sequence/3", "sequence/4", "sequence/5", "grid/2", "grid/4", "pic_in_pic/2", "single"]
    assert {name: counted[name] for name in buckets} == dict.fromkeys(buckets, (2, 2))
    predictions = [json.loads(line) for line in (finished / "run" / "evaluate" / "predictions.jsonl").read_text().splitlines()]
    right = sum(p["after"].rstrip(" .").lower() == p["answer"].rstrip(" .").lower() for p in predictions)
    assert sum(p["correct_after"] for p in predictions) == right


def test_a_second_call_does_nothing(mia, finished):
    before = {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*") if path.is_file()}
    result = mia("run", finished / "pipeline.yaml")
    assert result.exit_code == 0
    assert skipped(result.stderr) == STAGES
    after = {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"pipeline.json", ".lock"}


def test_the_table_at_the_end_has_all_formats_and_the_report(mia, finished):
    shown = mia("run", finished / "pipeline.yaml").stdout
    for words in ("sequence, all", "sequence 5", "grid 4", "pic-in-pic", "single", "dropped", "seconds", "report.html"):
        assert words in shown


def test_results_as_json(mia, finished):
    result = mia("run", finished / "pipeline.yaml", "--json")
    value = json.loads(result.stdout)
    assert set(value["stages"]) == set(STAGES)
    assert value["selection"]["pairs"] == len((finished / "run/select/pairs.jsonl").read_text().splitlines())
    assert {row["name"] for row in value["evaluation"]["rows"]} >= {"sequence", "single"}


def test_a_changed_rule_redoes_the_selection_and_what_follows(mia, tmp_path, random_model):
    path = write_pipeline(tmp_path, random_model)
    assert mia("run", path).exit_code == 0
    pairs = (tmp_path / "run/select/pairs.jsonl").read_bytes()
    base = (tmp_path / "run/evaluate/base.jsonl").stat().st_mtime_ns
    half = len(pairs.splitlines()) // 2
    write_pipeline(tmp_path, random_model, select={"max_pairs": half})
    result = mia("run", path)
    assert result.exit_code == 0, result.stderr
    assert skipped(result.stderr) == ["augment", "held_out", "score"]
    redone = f"redone: settings.max_pairs: None -> {half}; replaces what is there ({2 * half} pairs of {2 * half} samples)"
    assert remarks(result.stderr)["select"][0] == redone
    assert len((tmp_path / "run/select/pairs.jsonl").read_bytes().splitlines()) == half
    assert (tmp_path / "run/evaluate/base.jsonl").stat().st_mtime_ns == base


def test_a_killed_run_goes_on_and_ends_with_the_same_files(mia, finished, tmp_path, random_model):
    path = write_pipeline(tmp_path, random_model)
    run = tmp_path / "run"
    names = (
        "augment/samples.jsonl",
        "score",
        "score/.journal",
        "select",
        "train/reference.json",
        "train/checkpoints",
        "evaluate",
    )
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, str(script), str(path), *(str(run / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    killed = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    assert [name for name, was_killed in killed if was_killed != "True"] == []
    assert mia("run", path).exit_code == 0
    for name in ("augment/samples.jsonl", "score/scored.jsonl", "select/pairs.jsonl", "evaluate/predictions.jsonl"):
        assert (run / name).read_bytes() == (finished / "run" / name).read_bytes(), name
    weights = "train/adapter/adapter_model.safetensors"
    assert (run / weights).read_bytes() == (finished / "run" / weights).read_bytes()
    assert not list(run.rglob("*.tmp"))


def test_status_tells_what_is_done(mia, finished, tmp_path, random_model):
    stages = json.loads(mia("status", finished / "run", "--json").stdout)
    assert [(stage["name"], stage["state"]) for stage in stages] == [(name, "done") for name in STAGES]
    assert mia("status", finished / "pipeline.yaml").stdout.count("done") == len(STAGES)
    write_pipeline(tmp_path, random_model, select={"max_answer_chars": 1})
    assert mia("run", tmp_path / "pipeline.yaml").exit_code == 2
    states = [stage["state"] for stage in json.loads(mia("status", tmp_path / "run", "--json").stdout)]
    assert states == ["done", "done", "done", *["not started"] * 5]


def test_the_readmes_python_example_runs(finished, monkeypatch, capsys):
    readme = Path(__file__).parents[2] / "packages" / "mia-cli" / "README.md"
    code = readme.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(finished)
    exec(compile(code, str(readme), "exec"), {})
    assert "'rows': [{'name': 'sequence'" in capsys.readouterr().out
