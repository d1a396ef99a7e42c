"""`mia run --dry-run`: what it says, and that it leaves nothing behind."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from mia_cli.main import main
from small_pipeline import write_pipeline


def plan(*arguments: object) -> dict:
    result = CliRunner().invoke(main, ["run", *map(str, arguments), "--dry-run", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("dry"), "embedded")


def test_it_names_every_stage_with_its_samples_and_cost_and_makes_nothing(path):
    found = plan(path)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert list(stages) == ["augment", "held_out", "score", "select", "attention", "train", "evaluate", "report"]
    count = int(stages["augment"]["items"].split()[0])
    assert stages["score"]["items"] == f"{count} samples"
    assert 20 <= count <= 40  # of 40 rows, less those held out
    for name in ("augment", "score", "train", "evaluate"):
        low, high = stages[name]["seconds"]
        assert 0 <= low <= high
    assert stages["score"]["memory"] > 1e8
    assert stages["train"]["disk"] > 1e6
    assert stages["evaluate"]["items"] == "2 x 16 samples"  # 8 formats and numbers, 2 of each
    assert any("95 % interval from these few" in note for note in found["notes"])
    assert not (path.parent / "run").exists()


def test_it_goes_by_what_is_set_on_the_command_line(path):
    found = plan(path, "--set", "data.limit=12", "--set", "evaluate.per_bucket=0", "--set", "score.batch_size=4")
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert "evaluate" not in stages
    assert int(stages["augment"]["items"].split()[0]) <= 12
    assert "measured on 4 samples" in found["notes"][-1]


def test_what_cannot_be_trained_is_told_and_the_rest_is_estimated(path):
    found = plan(path, "--set", "train.max_length=3", "--set", "data.limit=12")
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert stages["train"]["seconds"] is None
    assert stages["score"]["seconds"] is not None
    assert any("not measured any further" in note for note in found["notes"])
