from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from mia_augment import ConfigError
from mia_augment.storage import MANIFEST, Manifest, Stage, read_manifest, run_stage, standing, write_json
from mia_augment.storage.stages import changes


class Numbers:
    """A stage that writes as many lines as its settings say, and counts how often it was made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.source, self.made = folder, 3, "a" * 64, 0

    @property
    def stage(self) -> Stage:
        def make(planned: Manifest, progress: object) -> Manifest:
            self.made += 1
            (self.folder / MANIFEST).unlink(missing_ok=True)
            (self.folder / "pairs.jsonl").write_text("{}\n" * self.lines)
            return planned.model_copy(update={"counts": {"pairs": self.lines}})

        def plan() -> Manifest:
            return Manifest(stage="select", version="1", settings={"lines": self.lines}, inputs={"source": self.source})

        return Stage("numbers", self.folder, plan, make)


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    return Numbers(tmp_path / "numbers")


def test_a_stage_is_made_once(numbers):
    first, second = run_stage(numbers.stage), run_stage(numbers.stage)
    assert (first.made, second.made, numbers.made) == (True, False, 1)
    assert first.manifest == second.manifest == read_manifest(numbers.folder)
    assert first.manifest.counts == {"pairs": 3}


def test_a_stage_is_planned_once_to_be_made(numbers):
    asked = []

    def plan() -> Manifest:
        asked.append(1)
        return numbers.stage.plan()

    assert run_stage(dataclasses.replace(numbers.stage, plan=plan)).made
    assert asked == [1]


def test_it_says_why_it_has_to_be_made(numbers):
    assert standing(numbers.stage).reason == "started"
    numbers.folder.mkdir()
    (numbers.folder / "pairs.jsonl").write_text("{}\n")
    assert standing(numbers.stage).reason == "continued"
    run_stage(numbers.stage)
    assert standing(numbers.stage).reason == ""
    numbers.lines, numbers.source = 4, "b" * 64
    assert standing(numbers.stage).reason == "redone: settings.lines: 3 -> 4; inputs.source changed"


def test_a_file_that_was_cut_is_made_again(numbers):
    run_stage(numbers.stage)
    (numbers.folder / "pairs.jsonl").write_text("{}\n{}\n")
    assert standing(numbers.stage).reason.startswith("redone: ")
    assert run_stage(numbers.stage).made
    assert (numbers.folder / "pairs.jsonl").read_text() == "{}\n" * 3


def test_a_stage_that_reads_more_than_its_inputs_tell_is_always_made(numbers):
    stage = dataclasses.replace(numbers.stage, always=True)
    assert [run_stage(stage).made, run_stage(stage).made, numbers.made] == [True, True, 2]


def test_a_result_that_is_gone_is_made_again(numbers, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("")
    stage = dataclasses.replace(numbers.stage, results=(page,))
    assert run_stage(stage).made
    assert not run_stage(stage).made
    page.unlink()
    assert standing(stage).reason == "redone: page.html is gone"


def test_what_fails_leaves_no_manifest_and_is_made_next_time(numbers):
    run_stage(numbers.stage)
    numbers.lines = 5

    def fails(planned, progress):
        (numbers.folder / MANIFEST).unlink()
        raise OSError("no space")

    broken = Stage("numbers", numbers.folder, numbers.stage.plan, fails)
    with pytest.raises(OSError, match="no space"):
        run_stage(broken)
    assert read_manifest(numbers.folder) is None
    assert run_stage(numbers.stage).made


def test_a_folder_of_another_stage_is_refused(numbers):
    numbers.folder.mkdir()
    write_json(numbers.folder / MANIFEST, Manifest(stage="train", version="1", settings={}, inputs={}).model_dump())
    with pytest.raises(ConfigError, match="expected a folder of the stage 'select', it holds results of 'train'"):
        run_stage(numbers.stage)


def test_only_the_first_process_writes_the_manifest(numbers):
    assert run_stage(numbers.stage, rank=1).made
    assert read_manifest(numbers.folder) is None


def test_a_second_writer_is_refused_at_once(numbers):
    hold = "with storage.only_writer(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    code = f"import sys, pathlib, mia_augment.storage as storage\n{hold}"
    with subprocess.Popen([sys.executable, "-c", code, numbers.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another process is writing here"):
            run_stage(numbers.stage)
        other.communicate(b"\n", timeout=30)
    assert numbers.made == 0


def test_changes_name_the_deepest_difference():
    assert changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": None}) == ["a.c: 2 -> 3"]
    assert changes({"x": "0" * 64}, {"x": "1" * 64}) == ["x changed"]
    assert changes([1], [2], "list") == ["list: [1] -> [2]"]
