"""What a person sees of a run that goes on: its pace, its last numbers, and what `mia status` says of it."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest
from mia_augment.storage import Manifest, Stage, only_writer
from mia_cli.inspection.status import read_status
from mia_cli.layout import POSITION
from mia_cli.runner import Runner
from mia_cli.terminal import display as displays
from mia_cli.terminal import watching
from mia_cli.terminal.display import Display, position_text
from mia_cli.terminal.pace import Pace, Position, latest_numbers, numbers_text
from mia_cli.terminal.watching import watch_run
from rich.console import Console


def test_the_rate_is_that_of_the_last_half_minute():
    pace = Pace()
    assert pace.rate is None
    pace.add(8, now=100.0)  # the first batch took its time
    assert pace.rate is None
    pace.add(16, now=102.0)
    assert pace.rate == pytest.approx(4.0)
    for second in range(103, 160):
        pace.add(16 + 10 * (second - 102), now=float(second))
    assert pace.rate == pytest.approx(10.0)


def test_work_of_an_earlier_call_is_not_taken_for_speed():
    pace = Pace()
    pace.add(5000, now=0.0)
    pace.add(5002, now=1.0)
    assert pace.rate == pytest.approx(2.0)


def test_a_position_is_told_with_what_is_known_of_it():
    assert position_text(Position(stage="score")) == "0"
    assert position_text(Position(stage="score", done=5, total=10)) == "5 of 10"
    numbers = {"loss": 0.65149, "accuracy": 0.875}
    whole = Position(stage="train", done=13, total=24, rate=1.3, memory=1.24e9, numbers=numbers)
    assert position_text(whole) == "13 of 24, 1.3/s, 8.5 s left, 1.2 GB, loss 0.651, accuracy of pairs 88%"
    assert "40 s each" in position_text(Position(stage="train", done=3, total=9, rate=0.025))


def test_the_last_whole_line_of_the_metrics_is_shown(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert latest_numbers(log) == {}
    log.write_text("".join(json.dumps({"step": n, "loss": n / 10, "accuracy": 0.5, "dpo": 9.0}) + "\n" for n in range(900)))
    assert latest_numbers(log) == {"loss": 89.9, "accuracy": 0.5}
    with log.open("a") as file:
        file.write('{"step": 901, "lo')
    assert latest_numbers(log) == {}
    assert numbers_text({}) == ""


class Slow:
    """A stage that is seen from outside while it is made."""

    def __init__(self, folder, look):
        self.folder, self.look = folder, look

    def stage(self) -> Stage:
        return Stage("train", self.folder, lambda: Manifest(stage="train", version="1", settings={}, inputs={}), self.make)

    def make(self, planned, progress):
        (self.folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "accuracy": 1.0, "memory_mb": 4768.4}\n')
        progress(1, 4)
        self.look()
        return planned.model_copy(update={"counts": {"pairs": 4, "steps": 4}})


def test_status_tells_how_far_a_stage_is_while_it_is_made(tmp_path):
    seen = []
    quiet = Display(Console(file=io.StringIO()))
    with only_writer(tmp_path):
        stage = Slow(tmp_path / "train", lambda: seen.append(next(s for s in read_status(tmp_path) if s.name == "train")))
        Runner(tmp_path, quiet, order=["score", "train"]).run(stage.stage())
    assert seen[0].state == "running"
    assert seen[0].position.memory == pytest.approx(5e9, rel=1e-3)
    assert (seen[0].position.done, seen[0].position.total, seen[0].position.numbers["loss"]) == (1, 4, 0.5)
    assert not (tmp_path / POSITION).exists()
    after = next(s for s in read_status(tmp_path) if s.name == "train")
    assert (after.state, after.position) == ("done", None)


def test_a_terminal_shows_which_stage_of_how_many_with_memory_and_numbers(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    Runner(tmp_path, Display(console), order=["score", "train"]).run(Slow(tmp_path / "train", lambda: time.sleep(0.3)).stage())
    shown = console.file.getvalue()
    assert "train 2/2" in shown
    assert "1/4" in shown
    assert "loss 0.500, accuracy of pairs 100%" in shown
    assert "5.0 GB" in shown


def test_elsewhere_it_is_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(displays, "LOG_EVERY_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=160)
    Runner(tmp_path, Display(console), order=["train"]).run(Slow(tmp_path / "train", lambda: None).stage())
    lines = console.file.getvalue().splitlines()
    assert any("1 of 4" in line and "loss 0.500" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_with_the_run(tmp_path, monkeypatch, terminal):
    monkeypatch.setattr(watching, "EVERY", 0.02)
    going, ended = threading.Event(), threading.Event()

    def work() -> None:
        with only_writer(tmp_path):
            (tmp_path / "train").mkdir()
            (tmp_path / "train" / "metrics.jsonl").write_text("")
            position = Position(stage="train", done=3, total=9, rate=1.0)
            (tmp_path / POSITION).write_text(position.model_dump_json())
            going.set()
            ended.wait(20)

    worker = threading.Thread(target=work)
    worker.start()
    going.wait(20)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    threading.Timer(0.3, ended.set).start()
    watch_run(tmp_path, console)
    worker.join(20)
    shown = console.file.getvalue()
    assert "3 of 9, 1.0/s, 6.0 s left" in shown
    assert shown.rstrip().endswith("nobody is working on this run")
