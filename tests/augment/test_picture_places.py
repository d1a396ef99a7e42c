"""Where pictures lie, as rows say it, and what a file is that is none."""

from __future__ import annotations

import io

import pytest
from mia_augment.errors import DataError
from mia_augment.images import decode as pictures
from mia_augment.images import picture_kinds
from mia_augment.images.decode import open_picture
from mia_augment.images.sniff import PictureFolder
from mia_augment.settings import PictureSettings
from PIL import Image


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "coco").mkdir(parents=True)
    for name in ("1.png", "Caf\u00e9.png"):
        Image.new("RGB", (9, 5), (200, 10, 10)).save(folder / "coco" / name)
    return folder


def folder(root):
    return PictureFolder(root, PictureSettings())


def test_absolute_paths_below_the_root_are_taken_as_relative_ones(root):
    for name in (f"{root}/coco/1.png", f"{root}//coco/./1.png", "coco/1.png", "./coco/1.png"):
        assert folder(root).locate(name)[0] == "coco/1.png"


def test_the_root_may_be_named_by_a_link_in_the_rows_or_by_the_caller(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        for name in (f"{root}/coco/1.png", f"{tmp_path}/link/coco/1.png"):
            assert folder(place).locate(name)[0] == "coco/1.png"


@pytest.mark.parametrize(
    "name",
    [
        "{root}/../secret.png",
        "/x/..{root}/coco/1.png",
        "{root}-other/1.png",
        "/",
        "{root}",
        "{root}/",
        "/secret.png",
        "{root}/out/1.png",
    ],
)
def test_absolute_paths_elsewhere_are_refused(root, tmp_path, name):
    other = tmp_path / "root-other"
    other.mkdir()
    for path in (other / "1.png", tmp_path / "secret.png"):
        Image.new("RGB", (9, 5)).save(path)
    (root / "out").symlink_to(other)
    with pytest.raises(DataError, match="outside the image root"):
        folder(root).locate(name.replace("{root}", str(root)))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("coco/1.jpg", "coco/1.png"),
        ("coco/1.PNG", "coco/1.png"),
        ("coco/1", "coco/1.png"),
        ("coco\\1.png", "coco/1.png"),
        ("C:\\data\\coco\\1.png", "coco/1.png"),
        (" coco/1.png\n", "coco/1.png"),
        ("COCO/1.PNG", "coco/1.png"),
        ("coco%2F1.png", "coco/1.png"),
        ("coco/Cafe\u0301.png", "coco/Caf\u00e9.png"),
        ("root/coco/1.png", "coco/1.png"),
        ("data/root/coco/1.png", "coco/1.png"),
    ],
)
def test_a_picture_nearby_is_named_but_not_taken(root, name, near):
    with pytest.raises(DataError, match="missing file") as caught:
        folder(root).locate(name)
    assert f"{near!r} is: mend the row, or the image root" in str(caught.value)


@pytest.mark.parametrize("name", ["coco/2.png", "1.png", "coco/1.png/x", "../root-other/1.png"])
def test_without_one_nearby_there_is_no_hint(root, name):
    with pytest.raises(DataError) as caught:
        folder(root).locate(name)
    assert "mend the row" not in str(caught.value)


def test_a_name_no_system_takes_is_told_as_such(root):
    with pytest.raises(DataError, match="File name too long"):
        folder(root).locate("x" * 900)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n",
            "a Git LFS pointer; fetch the picture with `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
        (b'{"error": "rate limit"}', "a text"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_a_file_that_is_no_picture_is_called_by_its_name(tmp_path, content, says):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken picture") as caught:
        open_picture(path)
    assert f"not a picture but {says}" in str(caught.value)


def heic(path, size=(64, 48)):
    heif = pytest.importorskip("pillow_heif")
    halves = Image.new("RGB", size, (200, 10, 10))
    halves.paste((10, 10, 200), (size[0] // 2, 0, *size))
    stream = io.BytesIO()
    heif.from_pillow(halves).save(stream, quality=90)
    path.write_bytes(stream.getvalue())
    return path


def test_heic_is_read_where_the_extra_is_installed(tmp_path):
    picture = open_picture(heic(tmp_path / "a.jpg"))
    assert picture.size == (64, 48)
    assert picture.getpixel((8, 8))[0] > 150 > picture.getpixel((56, 8))[0]
    with pytest.raises(DataError, match="picture too large"):
        open_picture(tmp_path / "a.jpg", limits=PictureSettings(max_pixels=1000))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-50])
    with pytest.raises(DataError, match="broken picture"):
        open_picture(tmp_path / "a.jpg")


def test_heic_without_the_extra_says_which_to_install(tmp_path, monkeypatch):
    path = heic(tmp_path / "a.heic")
    monkeypatch.setattr(picture_kinds, "learn_heic", lambda: False)
    others = tuple(name for name in pictures._readable() if name != "HEIF")
    monkeypatch.setattr(pictures, "_readable", lambda: others)
    with pytest.raises(DataError, match=r"a HEIC picture; install what reads it: pip install 'mia-augment\[heic\]'"):
        open_picture(path)
