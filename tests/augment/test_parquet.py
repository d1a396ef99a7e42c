from __future__ import annotations

import io
import subprocess
import sys

import pytest
from mia_augment import AugmentSettings, augment, augment_dataset, read_rows
from mia_augment.errors import ConfigError, DataError
from mia_augment.images.decode import open_picture
from mia_augment.records import Sample, Skipped
from mia_augment.rows.pictures_in_rows import EmbeddedPictures
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image
from PIL import Image

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COLORS = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]


def png(color: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(stream, "PNG")
    return stream.getvalue()


def embedded_rows() -> list[dict]:
    return [
        {"id": n, "image": {"bytes": png(color), "path": None}, "question": "Which?", "answer": f"Color {n}."}
        for n, color in enumerate(COLORS)
    ]


@pytest.fixture
def source(tmp_path):
    broken = {"id": 9, "image": {"bytes": b"no picture", "path": None}, "question": "Which?", "answer": "None."}
    parquet.write_table(pyarrow.Table.from_pylist([*embedded_rows(), broken]), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_conversations_and_paths_are_read(tmp_path, data):
    parquet.write_table(pyarrow.Table.from_pylist(data.rows), tmp_path / "rows.parquet")
    assert list(read_rows(tmp_path / "rows.parquet")) == list(read_rows(data.source))


def test_the_same_rows_give_the_same_samples_from_any_kind_of_file(tmp_path, data, tree):
    parquet.write_table(pyarrow.Table.from_pylist(data.rows), tmp_path / "rows.parquet")
    augment_dataset(tmp_path / "rows.parquet", data.root, tmp_path / "a")
    augment_dataset(data.source, data.root, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_pictures_inside_the_rows_are_kept_and_found(tmp_path, source):
    (tmp_path / "root").mkdir()
    out = tmp_path / "out"
    settings = AugmentSettings(formats={"sequence": 1, "pic_in_pic": 1}, samples_per_row=8, sequence={"counts": {3: 1}})
    manifest = augment_dataset(source, tmp_path / "root", out, settings, workers=2)
    assert manifest.counts["samples"] == 24
    assert [s.reason.split(":")[0] for s in read_jsonl(out / "skipped.jsonl", Skipped)] == ["broken picture"]
    for sample in read_jsonl(out / "samples.jsonl", Sample):
        if sample.format == "sequence":
            picture = open_picture(resolve_image(sample.images[sample.target], image_folders(out)))
            assert sample.answer == f"Color {COLORS.index(picture.getpixel((0, 0)))}."


def test_rows_of_a_hugging_face_data_set_can_be_passed_as_they_are(tmp_path):
    rows = [{**row, "image": Image.open(io.BytesIO(row["image"]["bytes"]))} for row in embedded_rows()]
    pictures: dict[str, Image.Image] = {}
    made = list(
        augment(
            rows,
            tmp_path,
            AugmentSettings(formats={"sequence": 1}, sequence={"counts": {2: 1}}),
            write_image=pictures.__setitem__,
        )
    )
    assert len(made) == 3
    for sample in made:
        assert sample.answer == f"Color {COLORS.index(pictures[sample.images[sample.target]].getpixel((0, 0)))}."


def test_pictures_of_any_mode_and_orientation_can_stand_in_rows(tmp_path):
    halves = Image.new("RGB", (60, 40), COLORS[0])
    halves.paste(COLORS[2], (30, 0, 60, 40))
    exif, turned, printed = Image.Exif(), io.BytesIO(), io.BytesIO()
    exif[0x0112] = 6
    halves.save(turned, "JPEG", exif=exif, quality=95)
    halves.convert("CMYK").save(printed, "JPEG", quality=95)
    store = EmbeddedPictures(tmp_path).store
    upright = open_picture(tmp_path / store(Image.open(turned)))
    assert upright.size == (40, 60)
    assert upright.getpixel((20, 5))[0] > 180  # what was left is above
    assert upright.getpixel((20, 55))[2] > 180
    assert open_picture(tmp_path / store(Image.open(printed))).getpixel((5, 20))[0] > 180
    turned.truncate(len(turned.getvalue()) - 100)
    with pytest.raises(DataError, match="broken picture: the row's own picture"):
        store(Image.open(turned))


def test_an_embedded_picture_is_written_once(tmp_path):
    store = EmbeddedPictures(tmp_path).store
    assert store(png(COLORS[0])) == store(png(COLORS[0])) != store(png(COLORS[1]))
    assert len(list(tmp_path.rglob("*.png"))) == 2


def test_without_a_place_to_keep_them_such_rows_are_skipped(source):
    assert all(row.reason.startswith("bad row: its picture stands in the row") for row in read_rows(source))


def test_texts_in_another_encoding_cost_their_row_alone(tmp_path):
    raw = pyarrow.array([b"What?", b"O\xf9 est-il?", "Où?".encode()] * 200, pyarrow.binary())
    questions = pyarrow.Array.from_buffers(pyarrow.string(), 600, raw.buffers())
    table = {"image": [f"{n}.png" for n in range(600)], "question": questions, "answer": ["x"] * 600}
    parquet.write_table(pyarrow.table(table), tmp_path / "rows.parquet")
    found = list(read_rows(tmp_path / "rows.parquet"))
    assert [row.turns[0][0] for row in found if not isinstance(row, Skipped)] == ["What?", "Où?"] * 200
    reasons = [row.reason for row in found if isinstance(row, Skipped)]
    assert len(reasons) == 200
    assert reasons[199].startswith(r"not UTF-8: row 599 of rows.parquet holds bytes of another encoding, b'O\xf9 est-il?'")


def test_a_damaged_parquet_file_is_refused(source):
    source.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a valid parquet file"):
        list(read_rows(source))


def test_a_missing_pyarrow_names_the_extra_to_install(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"mia-augment\[parquet\]"):
        list(read_rows(source))


WITHOUT_PYARROW = """
import sys
from pathlib import Path
sys.modules["pyarrow"] = None
from mia_augment import read_rows
assert len(list(read_rows(Path(sys.argv[1])))) == 12
"""


def test_json_is_read_without_pyarrow(data):
    subprocess.run([sys.executable, "-c", WITHOUT_PYARROW, str(data.source)], check=True)
