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


def test_settings_of_all_stages_are_read_without_torch(python: Callable[[str], str]):
    loaded = python("""
import sys
from mia_cli.config import PipelineConfig

PipelineConfig()
print("torch" in sys.modules, "transformers" in sys.modules)
""")
    assert loaded.split() == ["False", "False"]
