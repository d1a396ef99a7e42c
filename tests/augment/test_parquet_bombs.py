"""Parquet files that unfold to far more than they hold, and damaged ones: refused with a message, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mia_augment.errors import DataError
from mia_augment.read import parquet as reading
from mia_augment.read.dataset import read_values
from mia_augment.read.json_values import Damaged
from mia_augment.read.parquet import read_parquet

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

MB = 1 << 20


@pytest.fixture
def small(monkeypatch):
    """Limits a hundred times as small, so that the bombs may be too."""
    for name in ("BATCH_BYTES", "MAX_ROW_BYTES"):
        monkeypatch.setattr(reading, name, getattr(reading, name) // 100)


def repeated(count: int, size: int) -> object:
    """One text of `size` bytes, `count` times, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * size]))


def plain(count: int, size: int) -> object:
    return repeated(count, size).cast(pa.string())


def in_one_row(values: object) -> object:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


BOMBS = {
    "a text that every row repeats": (lambda: {"id": pa.array(range(500)), "question": repeated(500, MB)}, {}),
    "compressed texts": (lambda: {"question": plain(8, MB)}, {"use_dictionary": False, "compression": "zstd"}),
    "a list that repeats a text": (
        lambda: {"images": in_one_row(repeated(500, MB).cast(pa.string()))},
        {"compression": "zstd"},
    ),
    "a list of objects": (
        lambda: {"images": in_one_row(pa.StructArray.from_arrays([plain(8, MB), plain(8, 1)], ["bytes", "path"]))},
        {"compression": "zstd"},
    ),
    "a list of a million nothings": (lambda: {"images": in_one_row(pa.nulls(MB, pa.int8()))}, {}),
    "one enormous row": (lambda: {"question": plain(1, 4 * MB)}, {"compression": "none", "use_dictionary": False}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_unfolds_to_far_more_than_it_holds_is_refused(tmp_path, small, name):
    make, options = BOMBS[name]
    parquet.write_table(pa.table(make()), tmp_path / "bomb.parquet", **options)
    most: list[int] = []
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"bomb.parquet: .*MB") as caught:
        most.extend(pa.total_allocated_bytes() - before for _ in read_parquet(tmp_path / "bomb.parquet"))
    assert max(most, default=0) < 8 * MB
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_seven_kilobytes_that_unfold_to_gigabytes(tmp_path):
    path = tmp_path / "bomb.parquet"
    table = pa.table({"id": pa.array([str(n) for n in range(1400)]), "question": repeated(1400, 2 * MB)})
    parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 20_000
    most: list[int] = []
    with pytest.raises(DataError, match="kB that unfold to"):
        most.extend(pa.total_allocated_bytes() for _ in read_parquet(path))
    assert max(most) < 300 * MB


def test_rows_that_repeat_a_text_are_read_as_they_are(tmp_path):
    rows = [{"id": n, "prompt": "the same " * 9, "turns": [{"from": "gpt", "value": f"{n % 3}"}] * (n % 4), "b": b"\0\xff" * n}
            for n in range(40)]  # fmt: skip
    for options in ({}, {"use_dictionary": False}, {"row_group_size": 7}, {"compression": "zstd", "data_page_size": 64}):
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", **options)
        assert list(read_parquet(tmp_path / "rows.parquet")) == rows


def test_large_rows_are_handed_out_in_small_parts(tmp_path, small):
    rows = [{"id": n, "picture": bytes([n]) * MB} for n in range(6)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert list(read_parquet(tmp_path / "rows.parquet")) == rows


def test_a_text_that_is_not_utf8_costs_its_row_alone(tmp_path):
    raw = pa.array([b"good", b"caf\xe9", b"also good"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    parquet.write_table(pa.table({"question": texts}), tmp_path / "rows.parquet")
    first, bad, last = read_parquet(tmp_path / "rows.parquet")
    assert (first, last) == ({"question": "good"}, {"question": "also good"})
    assert isinstance(bad, Damaged)
    assert "not UTF-8" in bad.reason


def sound(folder: Path) -> bytes:
    rows = [{"id": n, "text": "a b" * n, "turns": [{"from": "gpt", "value": "x"}]} for n in range(20)]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "sound.parquet")
    return (folder / "sound.parquet").read_bytes()


def test_a_damaged_name_of_a_column_refuses_the_file(tmp_path):
    content = sound(tmp_path)
    footer = content.rindex(b"PAR1") - int.from_bytes(content[-8:-4], "little") - 4
    (tmp_path / "rows.parquet").write_bytes(content[:footer] + content[footer:].replace(b"text", b"\x80ext"))
    with pytest.raises(DataError, match=r"rows.parquet: not a valid parquet file"):
        list(read_parquet(tmp_path / "rows.parquet"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_are_damaged_it_is_read_or_refused(tmp_path, data):
    content = bytearray(sound(tmp_path))
    end = data.draw(st.integers(4, len(content)))
    for place in data.draw(st.lists(st.integers(4, end - 1), max_size=6)) if end > 4 else ():
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "rows.parquet").write_bytes(content[:end])
    try:
        for value in read_values(tmp_path / "rows.parquet"):
            assert isinstance(value, dict | Damaged)
    except DataError as error:
        assert "rows.parquet" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "table",
    [
        pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]),
        pa.table({"t": pa.array([2**62], pa.timestamp("us"))}),
        pa.table({}),
        pa.table({"n": pa.nulls(3)}),
        pa.table({"m": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))}),
        pa.table({"d": pa.array([10**17], pa.duration("s"))}),
    ],
)
def test_odd_columns_are_read_or_refused(tmp_path, table):
    parquet.write_table(table, tmp_path / "rows.parquet")
    try:
        assert all(isinstance(value, dict | Damaged) for value in read_values(tmp_path / "rows.parquet"))
    except DataError as error:
        assert "rows.parquet" in str(error)  # noqa: PT017
