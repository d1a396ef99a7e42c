"""Preference pairs as other tools write them: what must come of every folder below `pairs/` stands in its `expected.json`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mia_augment.records import PreferencePair
from mia_augment.storage.files import image_folders, read_jsonl, read_manifest, resolve_image
from mia_cli.main import main
from mia_select.importing import SkippedRow, import_pairs

HERE = Path(__file__).parent / "pairs"
CASES = sorted(path.parent.name for path in HERE.glob("*/expected.json"))


def expectations() -> list[Any]:
    found = []
    for case in CASES:
        expected = json.loads((HERE / case / "expected.json").read_text(encoding="utf-8"))
        found += [pytest.param(case, kind, expected, id=f"{case}.{kind}") for kind in expected.get("as", ["json", "jsonl"])]
    return found


@pytest.mark.parametrize(("case", "kind", "expected"), expectations())
def test_pairs_found_in_the_wild(case: str, kind: str, expected: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "img"
    shutil.copytree(HERE / "img", root)
    file, out = placed(case, kind, tmp_path), tmp_path / "out"
    result = CliRunner().invoke(
        main, ["import", str(file), "--image-root", str(root), "--out", str(out), *expected.get("options", [])]
    )
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == (0 if expected["pairs"] else 2), result.output
    if expected["pairs"]:
        check_folder(out, root, expected, result.output)
    else:
        assert not (out / "manifest.json").exists()
        check_reasons(list(import_pairs(file)), expected)


def check_folder(out: Path, root: Path, expected: dict[str, Any], output: str) -> None:
    pairs = list(read_jsonl(out / "pairs.jsonl", PreferencePair))
    found = [essentials(pair, out, root, wanted) for pair, wanted in zip(pairs, expected["pairs"], strict=True)]
    assert found == expected["pairs"]
    check_reasons(list(read_jsonl(out / "skipped.jsonl", SkippedRow)), expected)
    manifest = read_manifest(out)
    assert manifest is not None
    counts = [manifest.counts[name] for name in ("pairs", "skipped", "renamed")]
    assert counts == [len(expected["pairs"]), len(expected["skipped"]), expected.get("renamed", 0)]
    assert {name: manifest.counts[name] for name in expected.get("counts", {})} == expected.get("counts", {})
    assert f"{len(expected['pairs'])} pairs, {len(expected['skipped'])} skipped, {expected.get('renamed', 0)} renamed" in output


def check_reasons(found: list[Any], expected: dict[str, Any]) -> None:
    """Every row that is left out is named with its reason."""
    assert [str(record.row) for record in found] == list(expected["skipped"])
    for record in found:
        assert record.reason.startswith(expected["skipped"][str(record.row)])
        assert len(record.reason) < 400


def placed(case: str, kind: str, folder: Path) -> Path:
    """The rows as a file of that kind, with the image root and the pictures' bytes where they are spoken of."""
    text = (HERE / case / "rows.jsonl").read_text(encoding="utf-8").replace("@ROOT@", (folder / "img").as_posix())
    rows = [json.loads(line) for line in text.splitlines()]
    file = folder / f"rows.{kind}"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(_with_bytes(rows)), file)
    elif kind == "csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        file.write_text(text if kind == "jsonl" else json.dumps(rows, indent=1), encoding="utf-8")
    return file


def _with_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_bytes(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_bytes(entry) for entry in value]
    spoken = isinstance(value, str) and value.startswith("$bytes ")
    return (HERE / "img" / value.removeprefix("$bytes ")).read_bytes() if spoken else value


def essentials(pair: PreferencePair, out: Path, root: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Of a pair what its expectation speaks of; `pictures` are the files of the image root with the same bytes."""
    known = pair.model_dump(mode="json")
    contents = [resolve_image(name, image_folders(out)).read_bytes() for name in pair.images]
    by_content = {path.read_bytes(): path.name for path in root.iterdir()}
    known["pictures"] = [by_content.get(content, "another picture") for content in contents]
    return {key: known[key] for key in wanted}


def test_the_papers_own_data_trains_as_it_is(tmp_path: Path) -> None:
    """One JSON list as it was released: one picture as a text, several as a list, `gt` beside `chosen`, ids that repeat."""
    shutil.copytree(HERE / "img", tmp_path / "coco")
    names = [f"coco/{number % 2 + 1}.png" for number in range(5)]
    rows = []
    for count in (1, 2, 5):
        listed = "\n".join(f"Image{number}:<image>" for number in range(1, count + 1)) if count > 1 else "<image>"
        question = f"{listed}\nIn Image1, what digit?" if count > 1 else "<image>\nIn the picture at the center, what digit?"
        said = {"prompt": question, "chosen": "1", "rejected": "2", "gt": "1"}
        rows.append({"id": "000000033471", "image": names[:count] if count > 1 else names[0], **said})
    (tmp_path / "mia_dpo.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
    (tmp_path / "train.yaml").write_text("epochs: 1\naccumulation: 1\nper_device_batch_size: 1\n", encoding="utf-8")
    for call in (
        ["import", str(tmp_path / "mia_dpo.json"), "--out", str(tmp_path / "pairs")],
        ["train", "--pairs", str(tmp_path / "pairs"), "--model", "embedded", "--config", str(tmp_path / "train.yaml"),
         "--out", str(tmp_path / "trained")],
    ):  # fmt: skip
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 0, result.output
    pairs = list(read_jsonl(tmp_path / "pairs" / "pairs.jsonl", PreferencePair))
    assert [(len(pair.images), pair.format, pair.target) for pair in pairs] == [
        (1, "single", 0),
        (2, "sequence", 0),
        (5, "sequence", 0),
    ]
    assert len({pair.id for pair in pairs}) == 3
    manifest = read_manifest(tmp_path / "trained")
    assert manifest is not None
    assert manifest.counts["steps"] == 3
