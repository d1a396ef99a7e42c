"""Every reader of files, given whatever bytes: records, or an error that names the file; never anything else."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mia_augment.errors import DataError
from mia_augment.read.dataset import read_rows
from mia_augment.records import Skipped
from mia_augment.rows.row import Row
from mia_augment.storage import reading
from mia_augment.storage.files import MANIFEST, Manifest, atomic_write, read_jsonl, read_manifest, write_json, write_jsonl
from mia_augment.storage.reading import read_json, read_record
from mia_select.evaluation.accuracy import Prediction
from mia_select.importing import import_pairs

QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = Skipped(id="a", reason="é")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"id": "caf\xe9", "reason": "x"}', "line 2: not a valid Skipped: not UTF-8 (byte 0xe9)"),
        (b'{"id": "a"}', "line 2: not a valid Skipped: reason: is missing"),
        (b'{"id": "\\ud83d", "reason": "x"}', "line 2: not a valid Skipped"),
        (b"[" * 100_000, "line 2: not a valid Skipped"),
        (b'{"id": "a", "rea', "line 2: not a valid Skipped"),
        (b"\0\0\0", "line 2: not a valid Skipped"),
    ],
)
def test_a_damaged_line_is_told_with_its_number(tmp_path, content, said):
    path = tmp_path / "records.jsonl"
    path.write_bytes(GOOD.model_dump_json().encode() + b"\n" + content + b"\n")
    records = read_jsonl(path, Skipped)
    assert next(records) == GOOD
    with pytest.raises(DataError) as caught:
        next(records)
    assert f"{path}, {said}" in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n", ""])
def test_a_byte_order_mark_and_other_line_ends_are_no_problem(tmp_path, end):
    path = tmp_path / "records.jsonl"
    text = GOOD.model_dump_json() + (end or "\n") + GOOD.model_dump_json() + end
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_jsonl(path, Skipped)) == [GOOD, GOOD]


def test_utf_16_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.json, line 1: not UTF-8 .*looks like UTF-16"):
        read_json(tmp_path / "a.json")


def test_files_and_lines_beyond_the_limits_are_refused_before_they_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE", 1000)
    monkeypatch.setattr(reading, "MAX_FILE", 1000)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'"' + b"x" * 5_000_000 + b'"\n')
    tracemalloc.start()
    with pytest.raises(DataError, match=r"long\.jsonl, line 1: expected at most"):
        list(read_jsonl(path, Skipped))
    with pytest.raises(DataError, match=r"long\.jsonl: expected at most"):
        read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


ROW = {
    "id": 1,
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "é"}],
}
PAIR = {"id": 1, "images": ["1.png"], "prompt": "<image>\nWhat?", "chosen": "a", "rejected": "b"}
MADE = {"stage": "s", "version": "0", "settings": {}, "inputs": {}, "counts": {"a": 1}}
SOUND = [json.dumps(value).encode() for value in (ROW, PAIR, MADE, [ROW, ROW], [PAIR, PAIR], GOOD.model_dump())]
KEYS = [
    "id",
    "image",
    "images",
    "conversations",
    "messages",
    "from",
    "value",
    "role",
    "content",
    "prompt",
    "chosen",
    "rejected",
    "question",
    "answer",
    "type",
    "text",
    "bytes",
    "path",
    "mia",
    "stage",
    "counts",
]
TEXTS = [
    "<image>",
    "1.png",
    "data:image/png;base64,AAAA",
    "human",
    "gpt",
    "user",
    "assistant",
    "image",
    "text",
    "../x",
    "\x00",
    "�",
    "[1]",
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TEXTS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=14,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = draw(st.sampled_from(SOUND))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(max_size=3)) + content[place + draw(st.integers(0, 9)) :]
    return content


lines = st.lists(values, min_size=1, max_size=4).map(lambda many: "\n".join(map(json.dumps, many)).encode())
contents = st.one_of(
    damaged(),
    lines,
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.sampled_from([b"[" * 50_000, b'{"id":' * 50_000, b"\x1f\x8b", b"PAR1", b"PAR1" * 9, b"\xff\xfe[\0", b"[NaN, 1e999]"]),
)


def tar_of(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


NAMES = ("f.json", "f.jsonl", "f.csv", "f.tsv", "f.tar", "f.json.gz", "f.parquet")


@QUICK
@given(content=contents, name=st.sampled_from(NAMES), packed=st.sampled_from(["as it is", "gzip", "cut gzip", "tar"]))
@example(content=b'[{"image": "\\ud83d"}]', name="f.json", packed="as it is")
def test_rows_and_pairs_of_whatever_bytes(tmp_path, content, name, packed):
    whole = {"gzip": gzip.compress(content), "cut gzip": gzip.compress(content)[:-5], "tar": tar_of("a.json", content)}
    path = tmp_path / name
    path.write_bytes(whole.get(packed, content))
    with contextlib.suppress(DataError):
        assert all(isinstance(row, Row | Skipped) for row in read_rows(path, store=lambda picture: "kept.png"))
    with contextlib.suppress(DataError):
        for pair in import_pairs(path, "auto", store=lambda picture: "kept.png"):
            pair.model_dump_json()


@QUICK
@given(content=contents)
def test_records_of_our_own_of_whatever_bytes(tmp_path, content):
    path = tmp_path / MANIFEST
    path.write_bytes(content)
    readers = (
        lambda: list(read_jsonl(path, Skipped)),
        lambda: list(read_jsonl(path, Prediction)),
        lambda: read_manifest(tmp_path),
        lambda: read_json(path),
        lambda: read_record(path, Manifest),
    )
    for read in readers:
        try:
            read()
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", [
    lambda path: write_json(path, {"a": 1}),
    lambda path: write_jsonl(path, [GOOD]),
    lambda path: write_text(path),
])  # fmt: skip
def test_a_full_disk_is_told_with_the_file_and_leaves_what_was_there(tmp_path, monkeypatch, write):
    path = tmp_path / "result.json"
    path.write_text("before")
    whole = Path.open

    def open_full(self: Path, mode: str = "r", *args: object, **kinds: object) -> object:
        return FullDisk() if "w" in mode else whole(self, mode, *args, **kinds)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(path)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def write_text(path: Path) -> None:
    with atomic_write(path) as file:
        file.write("text")
