"""What `mia` does before anything is asked of it."""

from collections.abc import Callable

import pytest

COMMANDS = [
    *("quickstart", "run", "init", "status", "report", "embedded"),
    *("inspect", "doctor", "completion"),
    *("augment", "score", "select", "train", "evaluate", "export"),
]


def test_help_names_every_command(mia):
    shown = mia("--help").output
    assert [name for name in COMMANDS if name not in shown] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(mia, command):
    result = mia(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_imports_nothing_heavy(python: Callable[[str], str]):
    heavy = python("""
import sys
from click.testing import CliRunner
from mia_cli.main import main

assert CliRunner().invoke(main, ["--help"]).exit_code == 0
print(*(name for name in ("torch", "transformers", "numpy", "PIL", "pydantic", "jinja2", "rich") if name in sys.modules))
""")
    assert heavy.split() == []


def test_a_run_that_finds_everything_done_imports_no_torch(python: Callable[[str], str]):
    """What is asked of a pipeline before a stage has to be made: its stages, their plans and the report's figures."""
    code = """
import sys
import mia_cli.main, mia_cli.pipeline, mia_cli.evaluate, mia_cli.report.page, mia_cli.terminal.result_tables
from mia_attention import READOUTS, ScoreSettings, answer_all, maps_stage, score_stage
from mia_dpo_train import train_pairs
from mia_select import select_pairs
print("torch" in sys.modules)
"""
    assert python(code) == "False\n"


def test_settings_of_all_stages_are_read_without_torch(python: Callable[[str], str]):
    loaded = python("""
import sys
from mia_cli.config.schema import PipelineConfig

PipelineConfig()
print("torch" in sys.modules, "transformers" in sys.modules)
""")
    assert loaded.split() == ["False", "False"]


def test_an_interrupted_command_says_that_it_can_go_on(mia, monkeypatch, tmp_path):
    def interrupted(_):
        raise KeyboardInterrupt

    (tmp_path / "stages.json").write_text("{}")
    monkeypatch.setattr("mia_cli.inspection.status.read_states", interrupted)
    result = mia("status", tmp_path)
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr


def test_a_mistake_of_ours_keeps_its_traceback(mia, monkeypatch, tmp_path):
    (tmp_path / "stages.json").write_text("{}")
    monkeypatch.setattr("mia_cli.inspection.status.read_states", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mia("status", tmp_path)


def test_a_file_that_cannot_be_written_is_told_in_one_line(mia, tmp_path):
    (tmp_path / "file").write_text("")
    result = mia("init", tmp_path / "file" / "pipeline.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_several_processes_are_sent_to_the_single_stages(mia, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    path = tmp_path / "pipeline.yaml"
    path.write_text("data: {source: rows.json}\n")
    result = mia("run", path)
    assert result.exit_code == 2
    assert "accelerate launch -m mia_cli train" in result.stderr


def test_of_several_processes_only_the_first_speaks(monkeypatch, capsys):
    from mia_cli.terminal.display import Display

    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        Display().say("score", f"by rank {rank}")
    assert capsys.readouterr().err.split() == ["score", "by", "rank", "0"]


def test_a_fault_of_our_own_keeps_its_traceback_and_says_how_to_report_it(mia, monkeypatch, tmp_path):
    def broken(folder):
        raise TypeError("a fault")

    monkeypatch.setattr("mia_cli.inspection.status.read_status", broken)
    (tmp_path / "stages.json").write_text("{}")
    with pytest.raises(TypeError, match="a fault") as caught:
        mia("status", tmp_path)
    assert "please report it" in caught.value.__notes__[0]


def test_running_out_of_memory_is_a_message(mia, monkeypatch, tmp_path):
    def hungry(folder):
        raise MemoryError

    monkeypatch.setattr("mia_cli.inspection.status.read_status", hungry)
    (tmp_path / "stages.json").write_text("{}")
    result = mia("status", tmp_path)
    assert result.exit_code == 2
    assert "not enough memory" in result.stderr
