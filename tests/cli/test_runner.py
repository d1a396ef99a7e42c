"""Which stages are run again, what is said about it, and what a failure leaves behind."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mia_augment.errors import DataError
from mia_augment.storage import Manifest, Stage, only_writer, read_manifest, write_manifest
from mia_cli.inspection.status import read_status
from mia_cli.runner import Runner, read_states
from mia_cli.terminal.display import Display, duration
from rich.console import Console

PLAN = {"stage": "work", "version": "1"}


class Work:
    """A stage that notes how often it was made."""

    def __init__(self, folder: Path, key: dict) -> None:
        self.folder, self.times = folder, 0
        self.key = {"settings": {}, "inputs": {}} | key
        self.fails = False

    def stage(self) -> Stage:
        return Stage("work", self.folder, lambda: Manifest(**PLAN, **self.key), self.make)

    def make(self, planned, progress) -> Manifest:
        self.times += 1
        (self.folder / "manifest.json").unlink(missing_ok=True)
        if self.fails:
            raise DataError("nothing to work on")
        return planned.model_copy(update={"counts": {"things": 3, "things/odd": 2}})


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


def run(folder: Path, work: Work, said: io.StringIO) -> Runner:
    runner = Runner(folder, Display(Console(file=said, width=200)))
    runner.run(work.stage())
    return runner


def last(said: io.StringIO) -> str:
    return said.getvalue().splitlines()[-1]


def test_a_stage_is_made_once(tmp_path, said):
    work = Work(tmp_path / "work", {"settings": {"beta": 0.1}})
    assert run(tmp_path, work, said).made == ["work"]
    assert run(tmp_path, work, said).made == []
    assert work.times == 1
    assert "unchanged, skipped (3 things)" in last(said)


def test_a_changed_setting_redoes_it_and_is_named(tmp_path, said):
    work = Work(tmp_path / "work", {"settings": {"beta": 0.1, "lora": {"r": 8}}})
    run(tmp_path, work, said)
    work.key["settings"] = {"beta": 0.1, "lora": {"r": 16}}
    run(tmp_path, work, said)
    assert work.times == 2
    assert "redone: settings.lora.r: 8 -> 16" in said.getvalue()


def test_a_changed_input_is_named_without_its_hash(tmp_path, said):
    work = Work(tmp_path / "work", {"inputs": {"pairs.jsonl": "a" * 64}})
    run(tmp_path, work, said)
    work.key["inputs"] = {"pairs.jsonl": "b" * 64}
    run(tmp_path, work, said)
    assert "redone: inputs.pairs.jsonl changed" in said.getvalue()
    assert "bbbb" not in said.getvalue()


def test_a_lost_result_is_made_again(tmp_path, said):
    work = Work(tmp_path / "work", {})
    run(tmp_path, work, said)
    (tmp_path / "work" / "manifest.json").unlink()
    run(tmp_path, work, said)
    assert "redone: manifest.json is gone" in said.getvalue()
    assert work.times == 2


def test_a_failed_stage_is_not_taken_for_done(tmp_path, said):
    work = Work(tmp_path / "work", {"settings": {"beta": 1}})
    run(tmp_path, work, said)
    work.key["settings"], work.fails = {"beta": 2}, True
    with pytest.raises(DataError):
        run(tmp_path, work, said)
    assert read_states(tmp_path) == {}
    work.key["settings"], work.fails = {"beta": 1}, False
    run(tmp_path, work, said)
    assert work.times == 3


def test_what_an_unfinished_stage_left_is_gone_on_with(tmp_path, said):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "journal").write_text("kept")
    run(tmp_path, Work(folder, {}), said)
    assert sorted(path.name for path in folder.iterdir()) == ["journal", "manifest.json"]
    assert "continued" in said.getvalue()


def test_what_a_killed_run_left_in_its_directory_is_removed(tmp_path):
    (tmp_path / ".report.html.123.tmp").write_text("half")
    with only_writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_stage_whose_files_were_cut_is_made_again(tmp_path, said):
    work = Work(tmp_path / "work", {})
    run(tmp_path, work, said)
    manifest = Manifest(**PLAN, **work.key).model_copy(update={"stage": "select", "counts": {"pairs": 2}})
    write_manifest(work.folder, manifest)
    stage = dataclasses.replace(work.stage(), plan=lambda: manifest)
    (work.folder / "pairs.jsonl").write_text("{}\n{}\n")
    Runner(tmp_path, Display(Console(file=said, width=200))).run(stage)
    assert work.times == 1
    (work.folder / "pairs.jsonl").write_text("{}\n")
    Runner(tmp_path, Display(Console(file=said, width=200))).run(stage)
    assert work.times == 2
    assert "pairs.jsonl: expected 2 records, as manifest.json counts them, found 1" in said.getvalue()


def test_what_was_made_stands_in_a_readable_file(tmp_path, said):
    work = Work(tmp_path / "work", {"settings": {"beta": 0.1}})
    run(tmp_path, work, said)
    state = json.loads((tmp_path / "stages.json").read_text())["work"]
    assert state["counts"] == {"things": 3, "things/odd": 2}
    manifest = read_manifest(work.folder)
    assert manifest.settings == {"beta": 0.1}
    assert manifest.seconds == state["seconds"]


def test_states_that_the_first_version_wrote_are_read(tmp_path, said):
    old = {"work": {"key": {"settings": 1, "version": "0.1.0"}, "seconds": 2.5, "counts": {"things": 1}}}
    (tmp_path / "stages.json").write_text(json.dumps(old))
    assert read_states(tmp_path)["work"].seconds == 2.5
    work = Work(tmp_path / "work", {})
    write_manifest(work.folder, Manifest(**PLAN | {"version": "0"}, **work.key))
    run(tmp_path, work, said)
    assert "redone: version: 0 -> 1" in said.getvalue()
    assert read_states(tmp_path)["work"].counts == {"things": 3, "things/odd": 2}


def test_a_stage_finished_by_a_call_that_was_killed_then_is_known_again(tmp_path, said):
    work = Work(tmp_path / "work", {})
    run(tmp_path, work, said)
    (tmp_path / "stages.json").unlink()
    assert run(tmp_path, work, said).made == []
    assert read_states(tmp_path)["work"].counts == {"things": 3, "things/odd": 2}


@pytest.mark.parametrize("text", ["{", '{"work": {"nonsense": 1}}'])
def test_a_spoilt_state_file_is_told(tmp_path, text):
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(DataError, match="delete it to redo"):
        read_states(tmp_path)


def test_two_commands_do_not_work_in_one_run_directory(tmp_path):
    """The lock belongs to the process, so a second one has to ask; `mia status` tells that the first works."""
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "samples.jsonl").touch()
    (tmp_path / "score").mkdir()
    (tmp_path / "score" / "scored.jsonl").touch()
    assert [stage.state for stage in read_status(tmp_path)][:3] == ["unfinished", "not started", "unfinished"]
    code = (
        "import sys; from pathlib import Path; from mia_augment.storage import only_writer\n"
        "with only_writer(Path(sys.argv[1])):\n    print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        second = subprocess.run(command, capture_output=True, text=True, input="", timeout=60)
        states = [stage.state for stage in read_status(tmp_path)]
        first.communicate("")
    assert states[:3] == ["running", "not started", "unfinished"]
    assert f"another process is writing here (process {first.pid} on " in second.stderr
    third = subprocess.run(command, capture_output=True, text=True, input="", timeout=60)
    assert third.stdout == "in\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.44, "0.4 s"), (59.4, "59 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7325, "2 h 02 min")],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


def test_what_is_written_over_is_said_before(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    first = Work(tmp_path / "work", {"inputs": {"rows": "a" * 64}})
    Runner(tmp_path, Display(console)).run(first.stage())
    other = Work(tmp_path / "work", {"inputs": {"rows": "b" * 64}})
    Runner(tmp_path, Display(console)).run(other.stage())
    said = console.file.getvalue()
    assert said.count("replaces what is there (3 things)") == 1
    assert said.index("redone: inputs.rows changed; replaces what is there") > said.index("started")
