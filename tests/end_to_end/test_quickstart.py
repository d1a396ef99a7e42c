"""`mia quickstart` at its smallest, with the embedded model itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SMALL = ("--pictures", 20, "--test-pictures", 12, "--per-bucket", 4)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder of a quickstart and its results."""
    from click.testing import CliRunner
    from mia_cli.main import main

    folder = tmp_path_factory.mktemp("quickstart") / "here"
    result = CliRunner().invoke(main, ["quickstart", str(folder), *map(str, SMALL), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return folder, json.loads(result.stdout)


def test_it_draws_learns_and_measures(quickstart):
    folder, results = quickstart
    assert results["stages"]["augment"]["counts"]["samples"] == 100
    assert results["selection"]["pairs"] > 0
    rows = {row["name"]: row for row in results["evaluation"]["rows"]}
    assert {"sequence/2", "sequence/3", "sequence/4", "sequence/5", "pic_in_pic/2", "single"} <= set(rows)
    assert all(row["before"]["n"] == row["after"]["n"] for row in rows.values())
    assert (folder / "run" / "report.html").is_file()
    assert (folder / "pipeline.yaml").is_file()


def test_the_embedded_model_really_answers_single_pictures(quickstart):
    rows = {row["name"]: row for row in quickstart[1]["evaluation"]["rows"]}
    assert rows["single"]["before"]["rate"] >= 0.75


def test_a_second_call_finds_everything_done_and_shows_the_table(mia, quickstart):
    folder, _ = quickstart
    result = mia("quickstart", folder, *SMALL)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("unchanged, skipped") == 8
    for words in ("sequence, all", "single", "before", "after", "[", "pairs", "seconds", "report.html"):
        assert words in result.stdout
