"""Data as it lies about: what must come of every folder below `rows/` stands in its `expected.json` (see `rows/README.md`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import MiaError
from mia_augment.images.decode import open_picture
from mia_augment.records import Sample, Skipped
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image

CASES = sorted(path.parent for path in (Path(__file__).parent / "rows").glob("*/expected.json"))
NEEDS = {".parquet": "pyarrow"}


def expectations() -> list[Any]:
    found = []
    for folder in CASES:
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        sources = expected["source"] if isinstance(expected["source"], list) else [expected["source"]]
        found += [pytest.param(folder, source, expected, id=f"{folder.name}/{source}") for source in sources]
    return found


@pytest.mark.parametrize(("folder", "source", "expected"), expectations())
def test_rows_found_in_the_wild(folder, source, expected, tmp_path):
    for suffix in NEEDS.keys() & set(Path(source).suffixes):
        pytest.importorskip(NEEDS[suffix])
    case = placed(folder, tmp_path / "case")
    root = case / expected.get("image_root", "img")
    root.mkdir(exist_ok=True)
    settings = AugmentSettings.model_validate({"formats": ["single"], **expected.get("settings", {})})
    out = tmp_path / "out"
    samples: list[dict[str, Any]] = []
    message = ""
    try:
        augment_dataset(case / source, root, out, settings)
    except MiaError as error:
        message = str(error)
    else:
        found = read_jsonl(out / "samples.jsonl", Sample)
        samples = [essentials(sample, out, root, wanted) for sample, wanted in paired(found, expected["samples"])]
    assert expected.get("refused", "") in message
    assert bool(message) == ("refused" in expected), message
    assert samples == expected.get("samples", [])
    skipped = {s.id: s.reason for s in read_jsonl(out / "skipped.jsonl", Skipped)} if not message else {}
    assert skipped.keys() == expected.get("skipped", {}).keys()
    for row_id, reason in expected.get("skipped", {}).items():
        assert reason in skipped[row_id]
        assert len(skipped[row_id]) < 500


def placed(folder: Path, case: Path) -> Path:
    """A copy of a case in which the image root stands where `@IMAGE_ROOT@` was."""
    shutil.copytree(folder, case)
    for path in [*case.glob("*.json"), *case.glob("*.jsonl"), *case.glob("*.csv")]:
        path.write_bytes(path.read_bytes().replace(b"@IMAGE_ROOT@", (case / "img").as_posix().encode()))
    return case


def paired(found: Any, expected: list[dict[str, Any]]) -> list[tuple[Sample, dict[str, Any]]]:
    samples = sorted(found, key=lambda sample: sample.source.ids[sample.target])
    assert [sample.source.ids[sample.target] for sample in samples] == [wanted["row"] for wanted in expected]
    return list(zip(samples, expected, strict=True))


def essentials(sample: Sample, out: Path, root: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Of a sample what its expectation speaks of."""
    path = sample.source.paths[sample.target]
    known: dict[str, Any] = {
        **sample.model_dump(mode="json"),
        "row": sample.source.ids[sample.target],
        "question": sample.source.question,
        "path": path,
        "turns": 1 + len(sample.followups),
    }
    if "picture" in wanted:
        same = same_pixels(resolve_image(path, image_folders(out)), root / wanted["picture"])
        known["picture"] = wanted["picture"] if same else f"another picture: {path}"
    return {key: known[key] for key in wanted}


def same_pixels(first: Path, second: Path) -> bool:
    one, other = open_picture(first), open_picture(second)
    return one.size == other.size and one.tobytes() == other.tobytes()
