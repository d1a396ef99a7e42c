"""Walks through the source, counted over calls that really happen in tiny runs: `uv run python tests/house/measure.py --walks`.

A reader who follows one thing reads each function that is given it, once, in the order of their first calls: from the caller
into the function, and back to the caller for what comes next. A file *entered* counts once; coming back to a file that was left
counts as a *return*. Two things are followed: the settings of a
pipeline.yaml through `mia run`, and one sample through scoring.

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


def settings_through_run(root: Path = ROOT) -> Walk:
    """The settings of a small pipeline.yaml through all stages of `mia run` with the embedded model."""
    import yaml
    from mia_cli.main import main
    from PIL import Image
    from pydantic import BaseModel

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

        def is_settings(value: Any) -> bool:
            if isinstance(value, BaseModel):
                return type(value).__module__.startswith("mia_") and type(value).__name__.endswith(("Settings", "Config"))
            return isinstance(value, Path | str) and str(value) == str(file)

        return follow(lambda: main.main(["run", str(file)], standalone_mode=False), is_settings, root)


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ROOT
    walks = {"one sample through scoring": sample_through_scoring, "pipeline.yaml through mia run": settings_through_run}
    for title, measured in walks.items():
        walk = measured(root)
        print(f"{title}: {walk}")
        if "-v" in sys.argv:
            print("   ", " > ".join(walk.path))


if __name__ == "__main__":
    main()
