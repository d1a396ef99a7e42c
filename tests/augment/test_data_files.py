"""Files of rows of every kind, whole and damaged: what cannot be read is skipped and counted, or refused; never altered."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import tracemalloc

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import DataError
from mia_augment.read import json_values, tar_rows, text_files
from mia_augment.read.dataset import Damaged, data_files, read_rows, read_values
from mia_augment.records import Sample, Skipped
from mia_augment.rows.pictures_in_rows import EmbeddedPictures
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image
from PIL import Image


def row(n, answer="A dog."):
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": answer}]
    return {"id": str(n), "image": f"coco/{n}.jpg", "conversations": talk}


ROWS = [row(n) for n in range(6)]
TEXTS = [json.dumps(r) for r in ROWS]
ARRAY = json.dumps(ROWS)
BAD = '{"id": "bad", "image": "coco/0.jpg", "conversations": [{"from": "human" "value": "What?"}]}'


def read(tmp_path, content, name="rows.json"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path))


def ids(rows):
    return [r.id for r in rows if not isinstance(r, Skipped)]


def reasons(rows):
    return [r.reason for r in rows if isinstance(r, Skipped)]


ALL = [str(n) for n in range(6)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS[:3]) + json.dumps(ROWS[3:]),
        json.dumps(ROWS[:3]) + "\n" + json.dumps(ROWS[3:], indent=2) + "\n",
        json.dumps(ROWS[:3]) + ",\n" + json.dumps(ROWS[3:]),
        "\n".join(TEXTS[:3]) + "\n" + json.dumps(ROWS[3:]),
        json.dumps(ROWS[:3], indent=1) + "\n" + "\n".join(TEXTS[3:]),
        "".join(TEXTS),
        "\n".join(json.dumps(r, indent=4) for r in ROWS),
        "\r\n".join(TEXTS) + "\r\n",
        "\r".join(TEXTS),
        ",\n".join(TEXTS),
        "[" + " ".join(TEXTS) + "]",
        "[" + ",".join(TEXTS) + ",]",
        "\ufeff" + "\n\ufeff".join(TEXTS),
        " " * 3_000_000 + ARRAY + "\n" * 3_000_000,
        "[" + (" " * 1_500_000).join(["", *",\n,".join(TEXTS).split("\n,"), ""]) + "]",
        json.dumps({"data": ROWS}),
        json.dumps({"version": "1.0", "info": {"year": 2024}, "annotations": ROWS, "license": [1, 2]}, indent=1),
        json.dumps({"train": ROWS[:4], "test": ROWS[4:]}),
        json.dumps({"data": ROWS[:3]}) + "\n" + json.dumps({"data": ROWS[3:]}),
        json.dumps({"my_own_name": ROWS, "made": "2024"}),
        json.dumps(dict(enumerate(ROWS))),
        json.dumps({n: {k: v for k, v in r.items() if k != "id"} for n, r in enumerate(ROWS)}, indent=2),
        "\n".join(json.dumps({"set": "x", "boxes": [{"id": 7}], **r}) for r in ROWS),
        json.dumps([{"meta": {"id": 3}, **r} for r in ROWS]),
    ],
)
def test_rows_are_found_whatever_stands_around_them(tmp_path, content, monkeypatch):
    assert ids(read(tmp_path, content)) == ALL
    assert reasons(read(tmp_path, content)) == []
    if len(content) < 10_000:
        for size in (1, 5, 97):
            monkeypatch.setattr(json_values, "CHUNK", size)
            assert ids(read(tmp_path, content)) == ALL


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_bad_row_costs_itself_alone_wherever_it_stands(tmp_path, place, indent):
    texts = [json.dumps(r, indent=indent) for r in ROWS]
    texts.insert(place, BAD)
    for content in ("[" + ",\n".join(texts) + "]", "[" + ", ".join(texts) + "]", "\n".join(texts)):
        found = read(tmp_path, content)
        assert ids(found) == ALL
        (reason,) = reasons(found)
        assert "is not valid JSON" in reason
        assert found[place].id == f"row-{place + 1}"


@pytest.mark.parametrize("garbage", ["];", "]\n</body>", "] trailing words", "]\n]", "]\n\0\0\0\0"])
def test_text_behind_the_rows_is_told(tmp_path, garbage):
    found = read(tmp_path, ARRAY[:-1] + garbage)
    assert ids(found) == ALL
    assert len(reasons(found)) == 1
    behind = read(tmp_path, ARRAY[:-1] + garbage + "\n" + ARRAY)
    assert ids(behind) == ALL + ALL
    assert len(reasons(behind)) == 1


def test_a_bad_last_row_of_the_first_of_two_arrays_costs_itself_alone(tmp_path):
    found = read(tmp_path, "[" + ",".join([*TEXTS[:3], BAD]) + "]\n[" + ",".join(TEXTS[3:]) + "]")
    assert ids(found) == ALL
    assert len(reasons(found)) == 1


def test_an_array_of_which_no_row_is_known_is_refused(tmp_path):
    with pytest.raises(DataError, match="no row can be found behind it"):
        read(tmp_path, '[{"foo" 3}, {"foo": 4}, {"foo": 5}, {"foo": 6}]')


def test_an_object_that_is_a_row_and_holds_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="with both"):
        read(tmp_path, json.dumps({"data": ROWS, **row(9)}))


def test_damaging_any_byte_loses_no_more_than_a_row(tmp_path):
    """Every row comes back as it was, or is among at most two that are told."""
    draw, sound = random.Random(0), read(tmp_path, ARRAY)
    for content in (ARRAY, json.dumps(ROWS, indent=1), "\n".join(TEXTS)):
        for _ in range(300):
            damaged = bytearray(content.encode())
            place = draw.randrange(1, len(damaged))
            damaged[place] = draw.randrange(256)
            try:
                found = read(tmp_path, bytes(damaged))
            except DataError:
                continue
            whole = [r for r in found if r in sound]
            assert len(whole) >= 4, (place, chr(damaged[place]), found)
            assert len(whole) == 6 or len(found) > len(whole), "lost without a word"


ACCENTS = [row(n, answer) for n, answer in enumerate(("Là-bas.", "A dog.", "Über Köln", "naïve café", "dog"))]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("lines", [True, False])
def test_unicode_of_any_width_is_read(tmp_path, encoding, lines):
    texts = [json.dumps(r, ensure_ascii=False) for r in ACCENTS]
    content = "\n".join(texts) if lines else "[" + ",".join(texts) + "]"
    answers = [r.turns[0][1] for r in read(tmp_path, content.encode(encoding))]
    assert answers == ["Là-bas.", "A dog.", "Über Köln", "naïve café", "dog"]
    table = "image,question,answer\n" + "".join(f"a.jpg,What?,{answer}\n" for answer in answers)
    assert [r.turns[0][1] for r in read(tmp_path, table.encode(encoding), "rows.csv")] == answers


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp437", "mac-roman"])
@pytest.mark.parametrize("lines", [True, False])
def test_rows_in_other_encodings_are_told_and_never_altered(tmp_path, encoding, lines):
    texts = [json.dumps(r, ensure_ascii=False) for r in ACCENTS]
    content = "\n".join(texts) if lines else "[" + ",".join(texts) + "]"
    found = read(tmp_path, content.encode(encoding))
    assert [r.turns[0][1] for r in found if not isinstance(r, Skipped)] == ["A dog.", "dog"]
    assert [reason.split(":")[0] for reason in reasons(found)] == ["not UTF-8"] * 3


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "euc_kr", "big5", "gb18030"])
def test_bytes_that_look_like_utf_8_by_chance_do_not_pass_in_a_file_that_is_none(tmp_path, encoding):
    chance = {"gbk": "一专业", "gb18030": "一专业", "euc_kr": "三上", "big5": "价"}.get(encoding)
    if chance:
        assert chance.encode(encoding).decode() != chance  # valid UTF-8, and something else
    other = {"euc_kr": "강아지입니다", "shift_jis": "これは犬です。", "big5": "這是一隻狗"}.get(encoding, "这是一只狗吗")
    answers = ["dog", chance or other, other, other + "!", "cat"]
    texts = [json.dumps(row(n, answer), ensure_ascii=False) for n, answer in enumerate(answers)]
    found = read(tmp_path, "\n".join(texts).encode(encoding))
    assert [r.turns[0][1] for r in found if not isinstance(r, Skipped)] == ["dog", "cat"]
    assert len(reasons(found)) == 3


def test_encodings_of_seven_bits_do_not_pass(tmp_path):
    table = "image,question,answer\na.jpg,これは?,犬\nb.jpg,What?,dog\n".encode("iso2022_jp")
    lines = "\n".join([json.dumps(row(0, "犬です"), ensure_ascii=False), TEXTS[1]]).encode("iso2022_jp")
    for name, content in (("a.csv", table), ("a.jsonl", lines)):
        found = read(tmp_path, content, name)
        assert len(ids(found)) == len(reasons(found)) == 1


def test_a_stray_byte_costs_its_row_alone(tmp_path):
    texts = [json.dumps(row(n, f"Café {n}, naïveté, très Köln"), ensure_ascii=False).encode() for n in range(6)]
    texts[2] = texts[2].replace("é 2".encode(), b"\xe9 2")
    found = read(tmp_path, b"\n".join(texts))
    assert ids(found) == ["0", "1", "3", "4", "5"]
    assert "row 3 of rows.json holds bytes of another encoding" in reasons(found)[0]
    assert "xe9 2" in reasons(found)[0]


def test_utf_16_that_breaks_off_is_refused(tmp_path):
    with pytest.raises(DataError, match="not valid UTF-16"):
        read(tmp_path, ARRAY.encode("utf-16")[:-1] + b"\xd8")


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files_are_read_and_damaged_ones_refused(tmp_path, ending, pack):
    packed = pack(("\n".join(TEXTS)).encode())
    assert ids(read(tmp_path, packed, f"rows.jsonl.{ending}")) == ALL
    assert data_files(tmp_path)[0].name == f"rows.jsonl.{ending}"
    with pytest.raises(DataError, match="cannot be unpacked"):
        read(tmp_path, packed[:-12], f"rows.jsonl.{ending}")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("filler", [b" ", b"[", b"\n", b"\0"])
def test_a_file_that_unpacks_to_absurd_sizes_is_refused(tmp_path, monkeypatch, pack, filler):
    monkeypatch.setattr(text_files, "UNPACKED_FREELY", 1 << 20)
    with pytest.raises(DataError, match="unpacks to more than 250 times its size"):
        read(tmp_path, pack(b"[" + filler * (8 << 20)))


@pytest.mark.parametrize(
    ("beginning", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n", "git lfs pull"),
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x28\xb5\x2f\xfdrest", "unzstd"),
        (b"ARROW1\0\0", "Arrow"),
    ],
)
def test_files_that_are_something_else_are_called_by_their_name(tmp_path, beginning, says):
    with pytest.raises(DataError, match=says):
        read(tmp_path, beginning)


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv", ";"), ("a.csv.gz", ",")])
def test_tables_are_read(tmp_path, name, delimiter):
    lines = [
        ["image", "question", "answer"],
        ["a.jpg", '"What, then?"', "One"],
        ["b.jpg", '"Two\nlines"', "Two"],
        ["c.jpg", "What?", ""],
    ]
    content = "".join(delimiter.join(cells) + "\r\n" for cells in lines).encode()
    first, second, third = read(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert (first.image, first.turns) == ("a.jpg", (("What, then?", "One"),))
    assert second.turns == (("Two\nlines", "Two"),)
    assert third.reason.startswith("no answer")


def test_lines_of_a_table_with_more_or_fewer_cells_are_told(tmp_path):
    found = read(tmp_path, "image,question,answer\na.jpg,What?,One\nb.jpg,Where, then?,Two\nc.jpg,What?\n", "a.csv")
    assert ids(found) == ["row-1"]
    assert "line 3 of a.csv has 4 cells, expected 3: image, question, answer" in reasons(found)[0]
    assert "line 4 of a.csv has 2 cells" in reasons(found)[1]


def test_the_delimiter_may_be_told_as_excel_does(tmp_path):
    assert ids(read(tmp_path, "sep=;\nimage;question;answer\na.jpg;What, then?;One\n", "a.csv")) == ["row-1"]


def test_names_in_another_encoding_refuse_the_table(tmp_path):
    with pytest.raises(DataError, match=r"not UTF-8: line 1 of a\.csv"):
        read(tmp_path, "image,question,answer,année\na.jpg,What?,One,2024\n".encode("latin-1"), "a.csv")


def test_line_numbers_are_right_however_many_lines_are_bad(tmp_path):
    lines = [text if n % 3 else BAD for n, text in enumerate(TEXTS * 2000)]
    found = reasons(read(tmp_path, "\n".join(lines)))
    assert [int(reason.split(" of ")[0].split()[-1]) for reason in found] == list(range(1, 12_001, 3))


def test_a_quote_that_is_never_closed_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a quote missing"):
        read(tmp_path, 'image,question,answer\na.jpg,"What?,One\nb.jpg,What?,Two\n', "a.csv")


def png(color):
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), color).save(stream, "PNG")
    return stream.getvalue()


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                tar.addfile(info)
    return path


def members(n):
    talk = {"question": f"What is {n}?", "answer": f"This {n}."}
    return [(f"set/{n:05d}.png", png((n, 0, 0))), (f"set/{n:05d}.json", json.dumps(talk).encode())]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar", "w:xz")])
def test_tars_of_pictures_and_json_are_read(tmp_path, name, mode):
    source = tar_of(tmp_path / name, [m for n in range(3) for m in members(n)], mode)
    embedded = EmbeddedPictures(tmp_path / "out")
    found = list(read_rows(source, embedded.store))
    assert [(r.id, r.turns[0]) for r in found] == [(f"set/{n:05d}", (f"What is {n}?", f"This {n}.")) for n in range(3)]
    assert [(tmp_path / "out" / r.image).read_bytes() for r in found] == [png((n, 0, 0)) for n in range(3)]


def test_pictures_of_any_packing_give_the_same_samples_however_many_workers(tmp_path, tree):
    def as_row(n, picture):
        return {"id": f"set/{n:05d}", "question": f"What is {n}?", "answer": f"This {n}.", "image": picture}

    kinds = {
        "a.tar": None,
        "b.jsonl": lambda data: base64.b64encode(data).decode(),
        "c.jsonl": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
        "d.json": lambda data: {"bytes": base64.b64encode(data).decode(), "path": None},
    }
    (tmp_path / "root").mkdir()
    pairs = AugmentSettings(formats=["grid", "sequence"], sequence={"counts": [2]}, grid={"counts": [2]})
    trees = []
    for name, packing in kinds.items():
        source = tmp_path / name
        if packing is None:
            tar_of(source, [member for n in range(6) for member in members(n)])
        else:
            rows = [json.dumps(as_row(n, packing(png((n, 0, 0))))) for n in range(6)]
            source.write_text("\n".join(rows) if name.endswith("l") else f"[{','.join(rows)}]")
        for workers in (1, 2):
            out = tmp_path / f"{name}-{workers}"
            manifest = augment_dataset(source, tmp_path / "root", out, pairs, workers=workers)
            assert manifest.counts["samples"] == 6
            assert augment_dataset(source, tmp_path / "root", out, pairs) == manifest
            for sample in read_jsonl(out / "samples.jsonl", Sample):
                assert all(resolve_image(image, image_folders(out)).is_file() for image in sample.images)
            trees.append({path: data for path, data in tree(out).items() if path != ".pictures"})
    assert all(other == trees[0] for other in trees)


def test_a_tar_of_a_table_and_its_pictures_is_refused_rather_than_half_read(tmp_path):
    source = tar_of(tmp_path / "a.tar", [*members(0), ("data/rows.jsonl", TEXTS[0].encode())])
    with pytest.raises(DataError, match=r"holds 'data/rows\.jsonl'; unpack it"):
        list(read_rows(source, EmbeddedPictures(tmp_path / "out").store))


def test_the_picture_of_a_tar_is_meant_whatever_path_its_json_names(tmp_path):
    talk = {"image": "elsewhere/1.png", "question": "What?", "answer": "That."}
    source = tar_of(tmp_path / "a.tar", [("1.png", png((1, 0, 0))), ("1.json", json.dumps(talk).encode())])
    (found,) = read_rows(source, EmbeddedPictures(tmp_path / "out").store)
    assert (tmp_path / "out" / found.image).read_bytes() == png((1, 0, 0))


def test_names_and_links_of_a_tar_lead_nowhere(tmp_path):
    evil = [("../../escaped.png", png((9, 9, 9))), ("../../escaped.json", members(0)[1][1])]
    links = [("set/7.png", (tarfile.SYMTYPE, "/etc/passwd")), ("set/7.json", members(7)[1][1])]
    links += [("set/8.png", (tarfile.LNKTYPE, "/etc/passwd")), ("set/8.json", members(8)[1][1])]
    source = tar_of(tmp_path / "a.tar", evil + links + members(5))
    found = list(read_rows(source, EmbeddedPictures(tmp_path / "out").store))
    assert ids(found) == ["../../escaped", "set/00005"]
    assert [reason.split(":")[0] for reason in reasons(found)] == ["no image", "no image"]
    outside = list(tmp_path.parent.rglob("escaped*"))
    assert outside == []
    assert all(path.is_relative_to(tmp_path / "out" / "embedded") for path in (tmp_path / "out").rglob("*.png"))


def test_members_that_are_damaged_or_too_large_cost_their_row_and_a_cut_tar_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_rows, "MAX_MEMBER", 5000)
    bad = [("set/1.png", png((1, 0, 0))), ("set/1.json", b"{")]
    large = [("set/2.png", bytes(6000)), ("set/2.json", members(2)[1][1])]
    latin = [("set/3\udcff.png", png((3, 0, 0))), ("set/3\udcff.json", '{"question": "Où?", "answer": "x"}'.encode("latin-1"))]
    source = tar_of(tmp_path / "a.tar", members(0) + bad + large + latin + members(4))
    found = list(read_rows(source, EmbeddedPictures(tmp_path / "out").store))
    assert ids(found) == ["set/00000", "set/00004"]
    assert ["'set/1.json' cannot be read" in reasons(found)[0], "'set/2.png' has 6000 bytes" in reasons(found)[1]] == [
        True,
        True,
    ]
    assert reasons(found)[2].startswith("bad row: 'set/3\\udcff.json' cannot be read")
    whole = source.read_bytes()
    for size in (700, 1600, 2600):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.tar: (not a valid tar file|breaks off)"):
            list(read_rows(tmp_path / "cut.tar", EmbeddedPictures(tmp_path / "out").store))


def test_a_tar_with_absurd_headers_or_holes_is_refused_without_reading_them(tmp_path):
    header = tarfile.TarInfo("1.png")
    header.pax_headers = {"comment": "x" * 3_000_000}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(b""))
    with pytest.raises(DataError, match="a header of 3000"):
        list(read_rows(tmp_path / "a.tar"))
    sparse = tarfile.TarInfo("2.png")
    sparse.size = 1 << 40
    (tmp_path / "b.tar").write_bytes(sparse.tobuf() + bytes(10_240))
    with pytest.raises(DataError, match=r"b\.tar"):
        list(read_rows(tmp_path / "b.tar"))


@pytest.mark.parametrize("name", ["b.jsonl.zst", "b.arrow", "b.json.zip"])
def test_shards_that_cannot_be_read_are_refused_and_not_passed_over(tmp_path, name):
    (tmp_path / "a.jsonl").write_text(TEXTS[0])
    beginning = {"b.jsonl.zst": b"\x28\xb5\x2f\xfd", "b.arrow": b"\xff\xff\xff\xff", "b.json.zip": b"PK\x03\x04"}[name]
    (tmp_path / name).write_bytes(beginning + bytes(100))
    with pytest.raises(DataError, match=name):
        list(read_rows(tmp_path))


def test_a_folder_skips_descriptions_and_tells_where_data_lies(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "data" / "train-00000.jsonl").write_text("\n".join(TEXTS))
    with pytest.raises(DataError, match="there are some in data"):
        list(read_values(tmp_path))
    (tmp_path / "a.jsonl").write_text(TEXTS[0])
    (tmp_path / ".b.jsonl").write_text(TEXTS[0])
    assert [path.name for path in data_files(tmp_path)] == ["a.jsonl"]
    assert not any(isinstance(value, Damaged) for value in read_values(tmp_path))


@pytest.mark.parametrize("around", ["[{}]", '{{"version": 1, "data": [{}]}}'])
def test_large_files_are_not_held_in_memory(tmp_path, around):
    rows = ",\n".join(json.dumps(row(n, "word " * 400)) for n in range(8000))
    content = around.format(rows).encode()
    (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(content, 1))
    del rows
    for name in ("a.json", "b.json.gz"):
        tracemalloc.start()
        assert sum(1 for _ in read_rows(tmp_path / name)) == 8000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < len(content) / 2


def every_kind(folder):
    """Name -> content of a sound file of every kind."""
    table = "id,image,question,answer\n" + "".join(f'{n},coco/{n}.jpg,"What, é?",A dog.\n' for n in range(6))
    made = {
        "a.json": ARRAY.encode(),
        "b.json": json.dumps({"data": ROWS}, indent=1).encode(),
        "c.json": ARRAY.encode("utf-16"),
        "d.jsonl": "\n".join(TEXTS).encode(),
        "e.jsonl.gz": gzip.compress("\n".join(TEXTS).encode()),
        "f.jsonl.xz": lzma.compress("\n".join(TEXTS).encode()),
        "g.csv": table.encode(),
        "h.json": json.dumps(dict(enumerate(ROWS))).encode(),
    }
    tar = [member for n in range(4) for member in members(n)]
    for name, mode in (("i.tar", "w"), ("j.tar.gz", "w:gz"), ("k.tar", "w:bz2")):
        made[name] = tar_of(folder / name, tar, mode).read_bytes()
    return made


def test_files_damaged_anywhere_give_rows_and_reasons_or_one_clear_message(tmp_path):
    draw, store = random.Random(1), EmbeddedPictures(tmp_path / "out").store
    for name, content in every_kind(tmp_path).items():
        path = tmp_path / name
        for _ in range(120):
            damaged = bytearray(content)
            for _ in range(draw.choice((1, 1, 3))):
                place = draw.randrange(len(damaged))
                how = draw.random()
                if how < 0.4:
                    damaged[place] = draw.randrange(256)
                elif how < 0.6:
                    del damaged[place:]
                elif how < 0.8:
                    del damaged[place : place + draw.randrange(1, 600)]
                else:
                    damaged[place:place] = draw.randbytes(draw.randrange(1, 20))
                if not damaged:
                    damaged = bytearray(b"[")
            path.write_bytes(damaged)
            try:
                found = list(read_rows(path, store))
            except DataError as error:
                found = [Skipped(id=name, reason=str(error))]
            for one in found:
                assert one.model_dump_json().encode()  # no half characters
            told = [one.reason for one in found if one.id == name]
            assert all(name in reason for reason in told)
