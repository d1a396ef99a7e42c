"""Walks through the source, counted over calls that really happen in tiny runs: `uv run python tests/house/measure.py --walks`.

**A sample through scoring.** A reader reads each function that is given the sample, once, in the order of their first calls:
from the caller into the function, and back to the caller for what comes next. A file *entered* counts once; coming back to a
file that was left counts as a *return*.

**A key of a pipeline.yaml through `mia run`.** A reader who asks what a key does goes from the command down to each place
where its value is read: every file on the stack of calls at that moment is entered, those that only hand the settings on and
those that know nothing of them included. What reads the YAML itself (`mia_cli/config`) is entered first, by every key. Read
means: an attribute of the settings was taken; writing all of them down (a manifest) reads no key. A key that is read at
several places has the files of all of them.

Another checkout is measured with its own interpreter: `../other/.venv/bin/python tests/house/walks.py ../other`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
Follows = Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Walk:
    """Which files a reader enters, in order; consecutive ones differ."""

    path: list[str]
    functions: int
    ran: int
    """Files of which any function was called, whatever it was given."""

    @property
    def entered(self) -> int:
        return len(set(self.path))

    @property
    def returns(self) -> int:
        return len(self.path) - self.entered

    def back_and_forth(self) -> list[tuple[str, str]]:
        """Pairs of files between which the reader goes there, back, and there again."""
        steps = zip(self.path, self.path[1:], self.path[2:], self.path[3:], strict=False)
        return sorted({(a, b) for a, b, c, d in steps if (a, b) == (c, d)})

    def __str__(self) -> str:
        pairs = len(self.back_and_forth())
        entered = f"{self.entered} files entered (of {self.ran} that ran), {self.returns} returns, {self.functions} functions"
        return f"{entered}; {pairs} back and forth"


def holds(value: Any, is_it: Follows, depth: int = 2) -> bool:
    """Whether an argument is what is followed, or a container or dataclass around it."""
    if is_it(value):
        return True
    if not depth:
        return False
    if isinstance(value, dict):
        return any(holds(inner, is_it, depth - 1) for inner in list(value.values())[:20])
    if isinstance(value, list | tuple):
        return any(holds(inner, is_it, depth - 1) for inner in value[:20])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return any(holds(getattr(value, name, None), is_it, depth - 1) for name in names)
    return False


def arguments(frame: FrameType) -> Iterator[Any]:
    """What a function was called with, `self` included."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
    local = frame.f_locals
    return (local[name] for name in code.co_varnames[:count] if name in local)


def codes_above(frame: FrameType) -> Iterator[CodeType]:
    """Code of the callers, the nearest first."""
    above = frame.f_back
    while above:
        yield above.f_code
        above = above.f_back


def follow(run: Callable[[], object], is_it: Follows, root: Path = ROOT) -> Walk:
    """Run something and note, in order of first call, the functions of the packages that are given what is followed."""
    sources = str(root / "packages")
    read: dict[CodeType, None] = {}
    path: list[str] = []
    ran: set[str] = set()

    def shown(code: CodeType) -> str:
        return code.co_filename.split("/src/", 1)[1]

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code in read or not code.co_filename.startswith(sources) or code.co_name.startswith("<"):
            return
        ran.add(code.co_filename)
        if any(holds(value, is_it) for value in arguments(frame)):
            callers = list(codes_above(frame))
            if any(caller.co_name == "<module>" and caller.co_filename.startswith(sources) for caller in callers):
                return  # defaults that are made while a module is imported
            nearest = [caller for caller in callers if caller in read][:1]
            for file in [shown(caller) for caller in [*nearest, code]]:
                if path[-1:] != [file]:
                    path.append(file)
            read[code] = None

    threading.setprofile(note)  # batches are prepared in a thread of their own
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return Walk(path, len(read), len(ran))


def sample_through_scoring(root: Path = ROOT) -> Walk:
    """One sample of two pictures, scored with a tiny random LLaVA."""
    sys.path[:0] = [str(TESTS)] * (str(TESTS) not in sys.path)
    from mia_attention import ScoreSettings, score
    from mia_augment.records import Region, Sample, Source
    from PIL import Image
    from tiny_models import build

    made = build("llava", strong=True)
    pictures = {name: Image.new("RGB", (56, 56), name) for name in ("red", "blue")}
    names = list(pictures)
    sample = Sample(
        id="1", format="sequence", images=names, prompt="Image1:<image>\nImage2:<image>\nIn Image2, what is on the left?",
        answer="cat", regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2")], target=1,
        source=Source(ids=["1", "2"], paths=names, question="What is on the left?"),
    )  # fmt: skip

    def run() -> None:
        list(score([sample], made.model, made.processor, ScoreSettings(max_new_tokens=3), open_image=pictures.__getitem__))

    return follow(run, lambda value: type(value).__name__ in {"Sample", "ScoredSample"}, root)


@dataclasses.dataclass(frozen=True)
class KeyWalks:
    """For each key that was read, the files that lead to its reads, in the order in which they were first entered."""

    reading: list[str]
    """Files that turn the YAML into settings, which every key passes."""
    keys: dict[str, list[str]]

    def entered(self, key: str) -> int:
        return len({*self.reading, *self.keys[key]})

    @property
    def counts(self) -> list[int]:
        """Files entered by each key, ascending."""
        return sorted(map(self.entered, self.keys))

    @property
    def together(self) -> set[str]:
        """Files that any key leads through."""
        return {*self.reading, *(file for files in self.keys.values() for file in files)}

    def __str__(self) -> str:
        counts = self.counts
        longest = max(self.keys, key=self.entered)
        return (
            f"{len(counts)} keys; files entered: median {counts[len(counts) // 2]}, most {counts[-1]} ({longest}), "
            f"all keys together {len(self.together)}"
        )


def stack_files(frame: FrameType | None, sources: str) -> list[str]:
    """The packages' files on a stack of calls, the outermost first; empty while a module is imported."""
    files: list[str] = []
    while frame:
        code = frame.f_code
        if code.co_filename.startswith(sources):
            if code.co_name == "<module>":
                return []
            files.append(code.co_filename.split("/src/", 1)[1])
        frame = frame.f_back
    return files[::-1]


def files_called(run: Callable[[], object], within: str) -> list[str]:
    """The files of a folder of the packages of which a function is called, in order."""
    files: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and within in code.co_filename and code.co_name != "<module>":
            files[code.co_filename.split("/src/", 1)[1]] = None

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return list(files)


def follow_keys(run: Callable[[], object], reading: list[str], root: Path = ROOT) -> KeyWalks:
    """Run something and note for each read of a setting the files on the stack."""
    from mia_augment import Settings
    from mia_augment.images import decode

    sources = str(root / "packages")
    found: dict[str, dict[str, None]] = {}
    starters: dict[int, list[str]] = {}
    get, start = Settings.__getattribute__, threading.Thread.start

    def note(settings: Any, name: str) -> Any:
        kind = type(settings)
        if name in kind.model_fields and not isinstance(get(settings, name), Settings) and settings is not decode._DEFAULTS:
            files = starters.get(threading.get_ident(), []) + stack_files(sys._getframe(1), sources)
            if files and files[-1] not in reading:
                found.setdefault(f"{kind.__name__}.{name}", {}).update(dict.fromkeys(files))
        return get(settings, name)

    def noted_start(thread: threading.Thread) -> None:
        before, files = thread.run, stack_files(sys._getframe(1), sources)

        def with_starter() -> None:
            starters[threading.get_ident()] = files
            before()

        thread.run = with_starter  # type: ignore[method-assign]
        start(thread)

    Settings.__getattribute__ = note  # type: ignore[method-assign]
    threading.Thread.start = noted_start  # type: ignore[method-assign]
    try:
        run()
    finally:
        Settings.__getattribute__ = get  # type: ignore[method-assign]
        threading.Thread.start = start  # type: ignore[method-assign]
    return KeyWalks(reading, {key: list(files) for key, files in sorted(found.items())})


def keys_through_run(root: Path = ROOT) -> KeyWalks:
    """The keys of a small pipeline.yaml through all stages of `mia run` with the embedded model."""
    import yaml
    from mia_cli.config.schema import load_config
    from mia_cli.main import main
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        colors = ["red", "blue", "green", "yellow", "purple", "orange", "black", "white", "gray", "pink", "brown", "cyan"]
        rows = []
        for number, color in enumerate(colors):
            Image.new("RGB", (64 + number, 64), color).save(Path(folder, f"{color}.png"))
            question = "What is the color of the background?"
            rows.append({"id": color, "image": f"{color}.png", "question": question, "answer": f"The color is {color}."})
        Path(folder, "rows.json").write_text(json.dumps(rows))
        settings = {
            "data": {"source": "rows.json"},
            "augment": {"formats": ["sequence"], "sequence": {"counts": [2]}},
            "score": {"max_new_tokens": 8},
            "select": {"attention": False, "min_perplexity": None},
            "train": {"max_steps": 1, "gradient_checkpointing": False},
            "evaluate": {"holdout": 0.4, "per_bucket": 3, "max_new_tokens": 8},
        }
        file = Path(folder, "pipeline.yaml")
        file.write_text(yaml.safe_dump(settings))
        reading = files_called(lambda: load_config(file), "/mia_cli/config/")
        return follow_keys(lambda: main.main(["run", str(file)], standalone_mode=False), reading, root)


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ROOT
    walk = sample_through_scoring(root)
    print(f"one sample through scoring: {walk}")
    keys = keys_through_run(root)
    print(f"a key of pipeline.yaml through mia run: {keys}")
    if "-v" in sys.argv:
        print("   ", " > ".join(walk.path))
        for key in sorted(keys.keys, key=keys.entered):
            print("   ", keys.entered(key), key, " > ".join(keys.keys[key]))
        print("    reading:", " > ".join(keys.reading))


if __name__ == "__main__":
    main()
