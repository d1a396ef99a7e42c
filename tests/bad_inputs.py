"""Inputs that nobody should give a program, and everybody does: one function for each kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mia_augment.records import Sample
from mia_augment.storage.files import Manifest, write_json, write_manifest
from mia_select.evaluation.accuracy import predict, summarize
from PIL import Image

DEEP = 100_000
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\n",
    "junk": bytes(range(256)) * 8,
    "nul": b"\0" * 64,
    "number": b"3",
    "text": b'"text"',
    "null": b"null",
    "list": b"[1, [2], null]",
    "object": b'{"some": {"other": ["thing"]}}',
    "cut": b'{"id": "a", "format": "sequ',
    "latin-1": '{"id": "caf\xe9"}'.encode("latin-1"),
    "utf-16": '{"id": "a"}'.encode("utf-16"),
    "half a sign": b'{"id": "\xf0\x9f"}',
    "surrogate": b'{"id": "\\ud83d"}',
    "deep": b"[" * DEEP + b"]" * DEEP,
    "deep, open": b'{"a":' * DEEP,
    "long number": b'{"id": ' + b"1" * 5000 + b"}",
    "not a number": b'{"id": NaN, "key": Infinity}',
    "parquet": b"PAR1" + b"\x15\x04" * 40 + b"PAR1",
    "gzip": b"\x1f\x8b\x08\x00" + b"\xff" * 40,
    "zip": b"PK\x03\x04" + b"\xff" * 40,
    "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "web page": b"<!DOCTYPE html><html><body>404</body></html>",
}
"""What may stand in a file in place of what is expected there."""


def no_file(folder: Path) -> Path:
    return folder / "nothing-here"


def long_name(folder: Path) -> Path:
    return folder / ("n" * 300)


def below_a_file(folder: Path) -> Path:
    (folder / "a-file").write_text("x")
    return folder / "a-file" / "below"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def dangling_link(folder: Path) -> Path:
    (folder / "dangling").symlink_to(folder / "gone")
    return folder / "dangling"


def circular_link(folder: Path) -> Path:
    (folder / "circle").symlink_to(folder / "circle")
    return folder / "circle"


def not_writable(folder: Path) -> Path:
    """Where nobody may write, root neither."""
    return Path("/proc/self/nothing-here")


def a_file(folder: Path) -> Path:
    (folder / "some-file").write_text("x")
    return folder / "some-file"


def a_folder(folder: Path) -> Path:
    (folder / "some-folder").mkdir()
    return folder / "some-folder"


Place = Callable[[Path], Path]
NOWHERE: tuple[Place, ...] = (no_file, long_name, below_a_file, pipe, dangling_link, circular_link)
"""Paths at which nothing can be read."""
UNWRITABLE: tuple[Place, ...] = (long_name, below_a_file, pipe, dangling_link, circular_link, not_writable)
"""Paths at which no folder and no file can be made."""

STAGES = {"samples": ("augment", "samples.jsonl"), "scored": ("score", "scored.jsonl"), "pairs": ("select", "pairs.jsonl")}
"""Name of a parameter -> (folder within a run, its main file)."""


def sound_run(folder: Path) -> Path:
    """Rows with pictures, a pipeline.yaml, a run directory with three stages, and folders that pretend to be models."""
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(folder / "pictures" / f"{number}.png")
        talk = [{"from": "human", "value": "<image>\nWhat color?"}, {"from": "gpt", "value": f"Red {number}."}]
        rows.append({"id": f"r{number}", "image": f"pictures/{number}.png", "conversations": talk})
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "pipeline.yaml").write_text("run_dir: run\ndata: {source: rows.json}\nevaluate: {per_bucket: 0}\n")
    found = {"prompt": "<image>\nWhat color?", "chosen": "Red 1.", "rejected": "Blue.", "images": ["pictures/1.png"]}
    (folder / "found.jsonl").write_text(json.dumps(found) + "\n")
    (folder / "answers.jsonl").write_text(json.dumps({"id": "a", "response": "Red 1."}) + "\n")
    (folder / "model").mkdir()  # without config.json: refused when it is loaded, so what comes before was found before
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    sample, scored, pair = _records()
    for record, (name, file) in zip((sample, scored, pair), STAGES.values(), strict=True):
        _stage(folder / "run" / name, file, record)
    _stage(folder / "run" / "train", "metrics.jsonl", {"step": 1, "part": "train", "loss": 0.7})
    prediction = predict(Sample.model_validate(sample), "Red 0.", None)
    _stage(folder / "run" / "evaluate", "predictions.jsonl", prediction.model_dump(mode="json"))
    write_json(folder / "run" / "evaluate" / "evaluation.json", summarize([prediction]).model_dump(mode="json"))
    selection = {"samples": 1, "candidates": 1, "pairs": 1, "rules": [], "buckets": [], "thresholds": [], "warnings": []}
    write_json(folder / "run" / "select" / "selection.json", selection)
    (folder / "run" / "select" / "dropped.jsonl").write_text(
        '{"id": "b", "format": "sequence", "parts": 2, "rule": "correct", "value": "Red 1."}\n'
    )
    (folder / "run" / "augment" / "skipped.jsonl").write_text('{"id": "r9", "reason": "missing file: r9.png"}\n')
    state = {"key": {}, "seconds": 1.0, "counts": {"samples": 1}}
    write_json(folder / "run" / "stages.json", {"augment": state, "score": state, "select": state})
    write_json(folder / "run" / "pipeline.json", {"report": {"title": "A run"}})
    return folder


def _stage(folder: Path, file: str, record: object) -> None:
    folder.mkdir(parents=True)
    (folder / file).write_text(json.dumps(record) + "\n")
    made = Manifest(
        stage=folder.name, version="0", settings={}, inputs={}, image_folders=[str(folder.parents[1])], counts={"samples": 1}
    )
    write_manifest(folder, made)


def _records() -> Iterator[dict[str, object]]:
    """A sample, the same scored, the pair of it."""
    images = ["pictures/0.png", "pictures/1.png"]
    shared = {
        "id": "a", "format": "sequence", "images": images, "prompt": "<image>\n<image>\nIn Image1, what color?", "target": 0,
        "regions": [{"image": 0, "label": "Image1"}, {"image": 1, "label": "Image2"}],
    }  # fmt: skip
    source = {"ids": ["r0", "r1"], "paths": images, "question": "What color?"}
    attention = {"layer": 1, "rows": "generated", "region_mass": [0.1, 0.3], "image_mass": [0.1, 0.3], "ratio": 0.25}
    sample = {**shared, "answer": "Red 0.", "source": source}
    yield sample
    yield {**sample, "response": "Blue.", "response_tokens": 2, "mean_logp": -1.0, "perplexity": 2.7, "attention": attention}
    yield {**shared, "chosen": "Red 0.", "rejected": "Blue.", "scores": {"ratio": 0.25}}


def damages(file: Path, kinds: Iterable[str] = CONTENTS) -> Iterator[str]:
    """Put bad contents of these kinds into a file, one after the other; at the end it is as it was."""
    sound = file.read_bytes()
    try:
        for kind in kinds:
            file.write_bytes(CONTENTS[kind])
            yield kind
    finally:
        file.write_bytes(sound)
