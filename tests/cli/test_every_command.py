"""Every command, given bad input in every place that takes a path: one clear message and exit code 2, never a traceback.

Commands and places come from the click group itself, so that a new command is tried by being there. A place is named after
what it wants (`samples`, `pairs`, `source`, `out` ..); see `SOUND` for what the others of the same command get meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from bad_inputs import CONTENTS, NOWHERE, STAGES, UNWRITABLE, damages, sound_run
from click.testing import CliRunner, Result
from mia_cli.main import main

SOUND = {
    "samples": "run/augment", "scored": "run/score", "pairs": "run/select", "run_dir": "run", "source": "rows.json",
    "image_root": ".", "file": "pipeline.yaml", "model": "model", "adapter": "adapter", "record_id": "a", "layout": "trl",
    "config": "pipeline.yaml", "pictures": "pictures/1.png", "question": "What color?", "responses": "answers.jsonl",
    "kind": "jsonl", "checkpoint": "model", "vision_tower": "model",
}  # fmt: skip
"""Name of a parameter -> what it gets while another one is bad; the model is one that would be refused after all paths."""
WORDS = {"record_id", "layout", "question", "kind"}
"""Parameters of `SOUND` that are no paths."""
SOUND_OF = {("import", "file"): "found.jsonl"}
"""The same where a command means something else by a name."""
WRITTEN = {"out", "directory"}
"""Parameters that name what a command writes."""
PLAIN = {"model", "image_root"}
"""Parameters that take a path without being declared as one."""
FLAGS: dict[str, list[list[str]]] = {"export": [[], ["--merged"]], "init": [["--force"]]}
"""Ways to call a command that takes other paths each time."""
USED_WITH = {("export", True): {"model", "adapter", "out"}, ("export", False): {"pairs", "out", "layout"}}
"""(command, whether called with flags) -> what it uses then, where that is not all."""
REFUSED_LATER = {("init", "image_root"), ("init", "source")}
"""What a command only writes down for later."""


def every_command(group: click.Group = main, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from every_command(command, (*before, name))
        elif not command.hidden:  # called by `mia run` alone
            yield (*before, name), command


def is_place(command: str, flags: list[str], parameter: click.Parameter) -> bool:
    path = isinstance(parameter.type, click.Path) or parameter.name in PLAIN
    used = USED_WITH.get((command, bool(flags)))
    return path and (command, parameter.name) not in REFUSED_LATER and (used is None or parameter.name in used)


def is_written(command: str, name: str) -> bool:
    return name in WRITTEN or (command, name) == ("init", "file")


CALLS = [
    pytest.param(names, command, parameter, flags, id=" ".join([*names, *flags, parameter.name or ""]))
    for names, command in every_command()
    for flags in FLAGS.get(names[-1], [[]])
    for parameter in command.params
    if is_place(names[-1], flags, parameter)
]


def sound_value(names: tuple[str, ...], name: str) -> str:
    return SOUND_OF.get((names[-1], name), SOUND[name])


def arguments(
    names: tuple[str, ...], command: click.Command, flags: list[str], given: dict[str, Path], sound: Path
) -> list[str]:
    """A whole command line: what is given, and sound values for whatever else is needed."""
    line = [*names, *flags]
    used = USED_WITH.get((names[-1], bool(flags)))
    for parameter in command.params:
        name = parameter.name or ""
        wanted = parameter.required or (parameter.name in SOUND and isinstance(parameter, click.Argument))
        if name in given:
            value = str(given[name])
        elif (used is not None and name not in used) or not (wanted or used):
            continue
        elif name in WRITTEN:
            value = str(given["elsewhere"] / "written")
        elif name in SOUND:
            value = SOUND[name] if name in WORDS else str(sound / sound_value(names, name))
        else:
            raise AssertionError(f"{' '.join(names)} {name}: say in SOUND what this parameter gets")
        line += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
    return line


def call(line: list[str]) -> Result:
    return CliRunner().invoke(main, line)


def check(result: Result, line: list[str], *, refused: bool, name: str) -> None:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"mia {' '.join(line)}") from result.exception
    shown = f"mia {' '.join(line)}\n{result.output[-2000:]}"
    others = () if refused else (0, 1) if line[0] == "doctor" else (0,)  # 1: it says that something is not installed
    assert result.exit_code in (2, *others), shown
    assert "Traceback" not in result.output, shown
    if result.exit_code == 2:
        said = result.stderr
        assert "rror: " in said, shown
        assert len(said) < 3000, shown
        assert name[:60] in "".join(said.split("\n       ")).replace("\n", ""), shown


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound_run(tmp_path_factory.mktemp("sound") / "all")


@pytest.mark.parametrize(("names", "command", "parameter", "flags"), CALLS)
def test_a_place_where_nothing_can_be(names, command, parameter, flags, sound, tmp_path, monkeypatch):
    written = is_written(names[-1], parameter.name)
    for make in UNWRITABLE if written else NOWHERE:
        here = tmp_path / make.__name__
        here.mkdir()
        bad = make(here)
        monkeypatch.chdir(here)
        line = arguments(names, command, flags, {parameter.name: bad, "elsewhere": here}, sound)
        check(call(line), line, refused=names != ("doctor",), name=bad.name)


@pytest.mark.parametrize("command", ["status", "report", "inspect"])
def test_what_is_called_sound_is_taken(command, sound, tmp_path):
    out = ["--out", str(tmp_path / "page.html")] if command == "report" else ["a"] if command == "inspect" else []
    assert call([command, str(sound / "run"), *out]).exit_code == 0


def reads_a_file(names: tuple[str, ...], parameter: click.Parameter) -> bool:
    return not is_written(names[-1], parameter.name or "") and parameter.name in SOUND and parameter.name not in PLAIN


READ_CALLS = [call for call in CALLS if reads_a_file(call.values[0], call.values[2])]


FEW = ("empty", "junk", "list", "object", "cut", "latin-1", "surrogate", "deep")
"""Contents for each of the many files of a run directory."""


def files_of(name: str, place: Path) -> list[Path]:
    """The files of an input that a program reads by their structure."""
    if place.is_file():
        return [place]
    assert name in {*STAGES, "run_dir", "adapter", "checkpoint", "vision_tower"}
    return sorted(path for path in place.rglob("*") if path.suffix in (".json", ".jsonl"))


def has_to_be_named(names: tuple[str, ...], name: str, file: Path) -> bool:
    """Whether a command cannot do without this file, and has to say that it is about this one."""
    return (
        name == "source"
        or (names[-1], name) in SOUND_OF
        or (name in STAGES and file.name in (STAGES[name][1], "manifest.json"))
    )


@pytest.mark.parametrize(("names", "command", "parameter", "flags"), READ_CALLS)
def test_a_damaged_file(names, command, parameter, flags, sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = sound / sound_value(names, parameter.name)
    place = tmp_path / "damaged" / original.name
    copy = shutil.copytree if original.is_dir() else shutil.copyfile
    place.parent.mkdir()
    copy(original, place)
    for file in files_of(parameter.name, place):
        needed = has_to_be_named(names, parameter.name, file)
        for kind in damages(file, FEW if parameter.name == "run_dir" else CONTENTS):
            here = tmp_path / f"{file.name}-{kind}"
            line = arguments(names, command, flags, {parameter.name: place, "elsewhere": here}, sound)
            check(call(line), line, refused=needed, name=file.name if needed else "")


NO_TORCH = """
import sys
from click.testing import CliRunner
from mia_cli.main import main
for line in {lines!r}:
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 2, (line, result.output)
    assert "torch" not in sys.modules, line
"""


def test_a_wrong_path_is_told_before_torch_is_imported(python, sound, tmp_path):
    lines = []
    for names, command, parameter, flags in (call.values for call in CALLS):
        if names != ("doctor",):  # it looks for devices, whatever the folder
            bad = tmp_path / "a-file" / "below"
            lines.append(arguments(names, command, flags, {parameter.name: bad, "elsewhere": tmp_path}, sound))
    (tmp_path / "a-file").write_text("x")
    python(NO_TORCH.format(lines=lines))
