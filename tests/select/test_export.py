from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mia_augment.errors import ConfigError, DataError
from mia_augment.records import PreferencePair, ScoredSample
from mia_augment.storage.files import Manifest, image_folders, read_jsonl, resolve_image, write_jsonl, write_manifest
from mia_augment.storage.lock import only_writer
from mia_select import EXPORTED, LAYOUTS, select
from mia_select.export import export_pairs, trl_rows
from mia_select.export.row_writers import Texts
from mia_select.importing import SkippedRow, import_folder, import_pairs
from mia_select.importing.talks import Talk, read_trl
from mia_select.layouts import Layout
from PIL import Image

MakeScored = Callable[..., ScoredSample]


@pytest.fixture
def folder(tmp_path: Path, make_scored: MakeScored) -> Path:
    """Pairs of a sequence of three photos and a grid of two, with unicode and awkward line ends."""
    samples = [
        make_scored("seq", parts=3, target=1, response='It is "blau" \u2028 und größer.'),
        make_scored("grid", format="grid", parts=2),
    ]
    pairs = [record for record in select(samples) if isinstance(record, PreferencePair)]
    assert len(pairs) == 2
    for number, name in enumerate(pairs[0].images):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 6), (200, 0, 0)).save(tmp_path / "photos" / name)
    (tmp_path / "samples" / "images").mkdir(parents=True)
    Image.new("RGB", (20, 10), (0, 0, 200)).save(tmp_path / "samples" / "images" / "grid.png")
    folder = tmp_path / "pairs"
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_manifest(
        folder, Manifest(stage="select", version="0", settings={}, inputs={}, image_folders=["../samples", "../photos"])
    )
    return folder


def original(folder: Path) -> list[PreferencePair]:
    return list(read_jsonl(folder / "pairs.jsonl", PreferencePair))


@pytest.mark.parametrize("fmt", EXPORTED)
def test_reading_an_export_gives_the_same_pairs(folder: Path, tmp_path: Path, fmt: str) -> None:
    file = export_pairs(folder, fmt, tmp_path / "out")
    assert list(import_pairs(file, fmt)) == original(folder)
    assert list(import_pairs(tmp_path / "out", fmt)) == original(folder)


def test_trl_has_message_parts_in_place(folder: Path, tmp_path: Path) -> None:
    file = export_pairs(folder, "trl", tmp_path / "out")
    row = json.loads(file.read_text("utf-8").split("\n")[0])
    assert row["prompt"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Image1:"},
                {"type": "image"},
                {"type": "text", "text": "\nImage2:"},
                {"type": "image"},
                {"type": "text", "text": "\nImage3:"},
                {"type": "image"},
                {"type": "text", "text": "\nIn Image2, what color is it?"},
            ],
        }
    ]
    assert row["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": "The color is red."}]}]
    assert [Path(path).is_file() for path in row["images"]] == [True] * 3


def test_llama_factory_gets_its_dataset_entry_and_keeps_others(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / "dataset_info.json").write_text('{"other": {"file_name": "x.json"}}')
    (row, _) = json.loads(export_pairs(folder, "llama-factory", out).read_text("utf-8"))
    info = json.loads((out / "dataset_info.json").read_text())
    assert info == {
        "other": {"file_name": "x.json"},
        "mia_pairs": {
            "file_name": "mia_pairs.json",
            "ranking": True,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"},
        },
    }
    assert row["conversations"][0]["value"].count("<image>") == len(row["images"]) == 3
    assert (row["chosen"]["from"], row["rejected"]["from"]) == ("gpt", "gpt")


def test_ms_swift_ends_with_the_chosen_turn(folder: Path, tmp_path: Path) -> None:
    row = json.loads(export_pairs(folder, "ms-swift", tmp_path / "swift.jsonl").read_text("utf-8").split("\n")[1])
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["messages"][1]["content"] == "The color is red."
    assert row["rejected_response"] == "The color is blue."


def test_mia_dpo_writes_one_image_as_a_string(folder: Path, tmp_path: Path) -> None:
    sequence, grid = json.loads(export_pairs(folder, "mia-dpo", tmp_path / "out").read_text("utf-8"))
    assert isinstance(sequence["image"], list)
    assert isinstance(grid["image"], str)
    assert grid["gt"] == grid["chosen"]


def test_copied_pictures_travel_with_the_file(folder: Path, tmp_path: Path) -> None:
    row = json.loads(export_pairs(folder, "ms-swift", tmp_path / "out", images="copy").read_text("utf-8").split("\n")[0])
    assert row["images"] == [f"images/coco/seq{i}.jpg" for i in range(3)]
    for name in row["images"]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "photos" / name.removeprefix("images/")).read_bytes()


def test_parquet_holds_the_pictures_and_says_so(folder: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(export_pairs(folder, "parquet", tmp_path / "out"))
    first = table.to_pylist()[0]["images"][2]
    assert Image.open(io.BytesIO(first["bytes"])).size == (10, 6)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["images"]["feature"] == {"_type": "Image"}


def test_trl_rows_open_the_pictures(folder: Path) -> None:
    sequence, grid = trl_rows(folder)
    assert [picture.size for picture in sequence["images"]] == [(8, 6), (9, 6), (10, 6)]
    assert grid["images"][0].getpixel((0, 0)) == (0, 0, 200)
    assert set(sequence) == {"images", "prompt", "chosen", "rejected"}


def test_nothing_is_written_when_a_picture_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "coco" / "seq2.jpg").unlink()
    with pytest.raises(DataError, match=r"pair seq: image 'coco/seq2\.jpg': no such file"):
        export_pairs(folder, "trl", tmp_path / "out", images="copy")
    assert not (tmp_path / "out").exists()


def test_a_placeholder_in_an_answer_is_refused(folder: Path, tmp_path: Path) -> None:
    write_jsonl(folder / "pairs.jsonl", [pair.model_copy(update={"rejected": "see <image>"}) for pair in original(folder)])
    with pytest.raises(DataError, match="pair seq: expected <image> in the prompt only, the rejected answer holds it"):
        export_pairs(folder, "trl", tmp_path / "out")


def test_a_lost_placeholder_is_found_when_reading_and_writing(folder: Path, tmp_path: Path) -> None:
    file = export_pairs(folder, "ms-swift", tmp_path / "out")
    file.write_text(file.read_text("utf-8").replace("Image3:<image>", "Image3:"), "utf-8")
    first, second = import_pairs(file, "ms-swift")
    assert isinstance(first, SkippedRow)
    assert (first.row, first.id) == (1, "seq")
    assert "got 2 in the prompt for 3 images" in first.reason
    assert second == original(folder)[1], "a bad row costs itself alone"
    lines = (folder / "pairs.jsonl").read_text("utf-8").replace("Image3:<image>", "Image3:")
    (folder / "pairs.jsonl").write_text(lines, "utf-8")
    with pytest.raises(DataError, match="got 2 in the prompt for 3 images"):
        export_pairs(folder, "ms-swift", tmp_path / "again")


def test_a_lost_image_is_found_when_reading(folder: Path, tmp_path: Path) -> None:
    file = export_pairs(folder, "trl", tmp_path / "out")
    row = json.loads(file.read_text("utf-8").split("\n")[0])
    file.write_text(json.dumps({**row, "images": row["images"][:2]}))
    (skipped,) = import_pairs(file, "trl")
    assert isinstance(skipped, SkippedRow)
    assert "image count: expected one <image> for each image, got 3 in the prompt for 2 images" in skipped.reason


def test_rows_of_other_tools_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    prompt = "Image1:<image>\nImage2:<image>\nIn Image2, what is it?"
    file.write_text(json.dumps([{"image": ["a.jpg", "b.jpg"], "prompt": prompt, "chosen": "x", "rejected": "y", "gt": "x"}]))
    (pair,) = import_pairs(file, "mia-dpo")
    assert (pair.format, pair.target, pair.images) == ("sequence", 1, ["a.jpg", "b.jpg"])
    assert [region.label for region in pair.regions] == ["Image1", "Image2"]


def test_rows_that_are_no_json_are_named(tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text('{"messages": []}\n{"messages": [}\n')
    found = list(import_pairs(file, "ms-swift"))
    assert [isinstance(record, SkippedRow) and record.row for record in found] == [1, 2]
    assert "row 2" in found[1].reason or "line 2" in found[1].reason


@pytest.mark.parametrize("fmt", EXPORTED)
@pytest.mark.parametrize("images", ["absolute", "copy"])
def test_an_imported_export_has_the_same_pairs_and_pictures(folder: Path, tmp_path: Path, fmt: str, images: Any) -> None:
    export_pairs(folder, fmt, tmp_path / "out", images=images)
    manifest = import_folder(tmp_path / "out", tmp_path / "in")
    assert (manifest.counts["pairs"], manifest.counts["skipped"], manifest.counts["renamed"]) == (2, 0, 0)
    for pair, before in zip(original(tmp_path / "in"), original(folder), strict=True):
        assert pair.model_copy(update={"images": before.images}) == before
        contents = [
            [resolve_image(name, image_folders(at)).read_bytes() for name in record.images]
            for at, record in ((tmp_path / "in", pair), (folder, before))
        ]
        assert contents[0] == contents[1]


def test_a_picture_that_came_later_is_imported_from_the_same_file(folder: Path, tmp_path: Path) -> None:
    """The file is the same, but what it names is not: an import is never up to date."""
    file = export_pairs(folder, "trl", tmp_path / "out")
    picture = tmp_path / "samples" / "images" / "grid.png"
    data = picture.read_bytes()
    picture.unlink()
    assert import_folder(file, tmp_path / "in").counts["pairs"] == 1
    picture.write_bytes(data)
    assert import_folder(file, tmp_path / "in").counts["pairs"] == 2


def test_two_imports_do_not_write_one_folder_at_once(folder: Path, tmp_path: Path) -> None:
    file = export_pairs(folder, "trl", tmp_path / "out")
    with only_writer(tmp_path / "in"), pytest.raises(ConfigError):
        import_folder(file, tmp_path / "in")
    assert import_folder(file, tmp_path / "in").counts["pairs"] == 2


def test_an_import_does_not_write_over_another_stage(folder: Path, tmp_path: Path) -> None:
    file = export_pairs(folder, "trl", tmp_path / "out")
    before = (folder / "pairs.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="expected a folder of the stage 'import', it holds results of 'select'"):
        import_folder(file, folder)
    assert (folder / "pairs.jsonl").read_bytes() == before


def test_unknown_formats_and_wrong_endings_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of trl, parquet, mia-dpo, llama-factory, ms-swift"):
        export_pairs(folder, "axolotl", tmp_path)
    with pytest.raises(ConfigError, match=r"ending in \.jsonl for trl"):
        export_pairs(folder, "trl", tmp_path / "pairs.json")


def test_the_break_behind_first_pictures_is_left_to_the_template_in_message_parts(folder: Path, tmp_path: Path) -> None:
    """LLaVA-1.5's template writes a line break behind every picture: with ours there would be two."""
    file = export_pairs(folder, "trl", tmp_path / "out")
    grid = json.loads(file.read_text("utf-8").split("\n")[1])
    assert original(folder)[1].prompt.startswith("<image>\nIn")
    assert grid["prompt"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "In Image1, what color is it?"}]
    grid["prompt"][0]["content"][1]["text"] = "In Image2, what color is it?"
    file.write_text(json.dumps(grid), "utf-8")
    (changed,) = import_pairs(file, "trl")
    assert isinstance(changed, PreferencePair)
    assert changed.prompt == "<image>In Image2, what color is it?"  # what was changed on purpose is not put back


def test_a_layout_is_one_row_of_the_table(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool whose rows are TRL's under other names: written, told by its columns and read back by its row alone."""

    def write(texts: Texts) -> dict[str, Any]:
        return {"q": texts.prompt, "good": texts.chosen, "bad": texts.rejected, "images": texts.images}

    def read(row: Mapping[str, Any]) -> Talk:
        return read_trl({"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"], "images": row["images"]})

    monkeypatch.setitem(LAYOUTS, "other", Layout(read, lambda row: "good" in row, write, "other.jsonl"))
    file = export_pairs(folder, "other", tmp_path / "out")
    assert json.loads(file.read_text("utf-8").split("\n")[0])["good"] == original(folder)[0].chosen
    assert list(import_pairs(tmp_path / "out", "other")) == list(import_pairs(file)) == original(folder)
