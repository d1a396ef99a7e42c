from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from mia_augment.errors import DataError
from mia_augment.images.picture_values import picture_path, single_pictures
from PIL import Image

STREAM = io.BytesIO()
Image.new("RGB", (9, 5), (200, 10, 10)).save(STREAM, "PNG")
PNG = STREAM.getvalue()
BASE64 = base64.b64encode(PNG).decode()


def kept(value):
    """What is handed to the store of a picture, or its path."""
    found: list[bytes] = []
    path = picture_path(value, lambda picture: found.append(picture) or "kept")
    return found[0] if path == "kept" else path


def images() -> dict[str, bytes]:
    """A small file of every kind that Pillow can write here."""
    made = {}
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        stream = io.BytesIO()
        Image.new("RGB", (30, 20), (200, 10, 10)).save(stream, name)
        made[name] = stream.getvalue()
    return made


@pytest.mark.parametrize(
    "value",
    [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        BASE64,
        BASE64.rstrip("="),
        "\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)),
        BASE64.replace("+", "-").replace("/", "_"),
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;charset=utf-8;BASE64,{BASE64}",
        {"bytes": PNG, "path": None},
        {"bytes": BASE64, "path": "a.png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"},
        {"type": "image", "image": {"bytes": PNG}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
    ],
)
def test_the_bytes_of_a_picture_are_found_however_they_are_given(value):
    assert kept(value) == PNG


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_base64_of_every_kind_of_picture_is_known(name):
    data = images()[name]
    assert kept(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a.png", "a.png"),
        (Path("a/b.png"), "a/b.png"),
        ("file:///data/a%20b.png", "/data/a b.png"),
        ({"bytes": None, "path": "a.png"}, "a.png"),
        ({"path": float("nan"), "url": "a.png"}, "a.png"),
        ("Qk/" + "a" * 100, "Qk/" + "a" * 100),
        ("Qk1" + "a" * 100, "Qk1" + "a" * 100),
        ("/9j/" + "a" * 60 + ".jpg", "/9j/" + "a" * 60 + ".jpg"),
        (None, None),
        ("", None),
        (float("nan"), None),
        ({"bytes": None, "path": None}, None),
    ],
)
def test_paths_stay_as_they_are(value, path):
    assert kept(value) == path


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (7, "bad row: expected the path of a picture as image, got int 7"),
        ("data:image/png;base64", "bad row: expected a comma"),
        ("data:image/png;base64,", "broken picture: nothing stands behind"),
        ("data:image/svg+xml,<svg>" + "x" * 5000, "bad row: expected ';base64'"),
        ("data:image/png;base64,!!!" + BASE64 * 50, "broken picture: "),
        (BASE64[:36] * 50 + "A", "broken picture: 1801 characters of base64"),
        ("x" * 5000, "bad row: expected a path, or base64 of"),
        ({"bytes": "y" * 5000}, "bad row: expected a path, or base64 of"),
        ("https://example.com/" + "x" * 5000, "picture on the web"),
    ],
)
def test_what_is_no_picture_is_told_in_few_words(value, reason):
    with pytest.raises(DataError) as caught:
        kept(value)
    assert str(caught.value).startswith(reason)
    assert len(str(caught.value)) < 400


def test_columns_of_one_of_several_and_of_no_picture_are_lists_of_them():
    assert single_pictures("a.png") == ["a.png"]
    assert single_pictures(("a.png", {"path": "b.png"})) == ["a.png", {"path": "b.png"}]
    assert single_pictures({"bytes": PNG}) == [{"bytes": PNG}]
    assert single_pictures([]) == single_pictures(None) == single_pictures([None, ""]) == []


def test_without_a_place_to_keep_it_a_picture_in_the_row_is_refused():
    with pytest.raises(DataError, match="no place was given to keep it"):
        picture_path(PNG, None)
