"""Files that an interrupted download left whole in length or with a sound end; and sound ones that look a little like them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from mia_augment.errors import DataError
from mia_augment.images.decode import open_picture
from mia_augment.images.jpeg import jpeg_damage, without_end
from mia_augment.images.sniff import PictureFolder
from mia_augment.settings import PictureSettings
from PIL import Image, ImageDraw

RNG = np.random.default_rng(0)
JPEGS = {
    "baseline": {"quality": 85},
    "optimized": {"quality": 85, "optimize": True},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 85, "restart_marker_rows": 1},
    "4:4:4": {"quality": 95, "subsampling": 0},
}
KINDS = {
    **{name: ("JPEG", options) for name, options in JPEGS.items()},
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
}


def photo(width: int = 320, height: int = 240) -> Image.Image:
    """Smooth shapes with some grain, as compressible as photographs are."""
    coarse = Image.fromarray(RNG.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = RNG.normal(0, 9, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


PHOTOS = {name: encoded(photo(), kind, **options) for name, (kind, options) in KINDS.items()}
ENDS = {"JPEG": 2, "PNG": 12, "WEBP": 0}


def refused(data: bytes, path: Path, **options) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError, match="broken picture") as caught:
        open_picture(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("end", [False, True], ids=["to the end", "but for the end"])
@pytest.mark.parametrize("kind", KINDS)
def test_zeros_from_some_point_on_are_refused(tmp_path, kind, end, share):
    data = PHOTOS[kind]
    kept = data[len(data) - ENDS[KINDS[kind][0]] :] if end and ENDS[KINDS[kind][0]] else b""
    start = int(len(data) * share)
    damaged = data[:start] + bytes(len(data) - start - len(kept)) + kept
    refused(damaged, tmp_path / "a", fit_into=(90, 90))
    refused(damaged, tmp_path / "a")
    with pytest.raises(DataError, match="broken picture"):
        PictureFolder(tmp_path, PictureSettings()).content_key(str(tmp_path / "a"))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", [kind for kind in JPEGS if kind != "progressive"])
def test_a_jpeg_that_ends_early_with_an_end_marker_is_refused_not_grey(tmp_path, kind, share):
    data = PHOTOS[kind]
    refused(data[: int(len(data) * share)] + b"\xff\xd9", tmp_path / "a.jpg")


def test_a_progressive_jpeg_without_its_last_scans_is_refused(tmp_path):
    data = PHOTOS["progressive"]
    scans = [position for position in range(len(data)) if data[position : position + 2] == b"\xff\xda"]
    told = refused(data[: scans[-2]] + b"\xff\xd9", tmp_path / "a.jpg")
    assert "scans are missing" in told
    refused(data[: (scans[3] + scans[4]) // 2] + b"\xff\xd9", tmp_path / "a.jpg")


def test_a_jpeg_whose_components_have_scans_of_their_own_needs_all_of_them(tmp_path):
    data = PHOTOS["progressive"]
    frame = data.index(b"\xff\xc2")
    # no scan; then the first scan of luminance alone: the two colour components are absent
    assert jpeg_damage(data[:frame] + b"\xff\xc0" + data[frame + 2 : data.index(b"\xff\xda")] + b"\xff\xd9") is None
    scan = b"\xff\xda" + bytes((0, 8, 1, 1, 0, 0, 63, 0))
    only = data[:frame] + b"\xff\xc0" + data[frame + 2 : data.index(b"\xff\xda")] + scan + b"\x12" * 50 + b"\xff\xd9"
    assert "2 of its 3 colour components" in str(jpeg_damage(only))


@pytest.mark.parametrize("kind", ["baseline", "restarts", "png"])
def test_a_hole_of_zeros_is_refused(tmp_path, kind):
    data = PHOTOS[kind]
    middle = len(data) // 2
    told = refused(data[:middle] + bytes(1500) + data[middle + 1500 :], tmp_path / "a")
    assert "zero" in told or "checksum" in told


def flat(color: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (1200, 900), color)


def stripes() -> Image.Image:
    columns = (np.arange(1200) // 8 % 2 * 200).astype(np.uint8)
    return Image.fromarray(np.tile(columns[None, :, None], (900, 1, 3)))


def drawing() -> Image.Image:
    picture = Image.new("RGB", (1200, 900), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((100, 60, 300, 200), fill=(200, 20, 30))
    pen.text((320, 220), "Some text", fill="black")
    return picture


def half_grey() -> Image.Image:
    """What a damaged one may look like: the lower part in the very grey that decoders put for what is missing."""
    picture = flat((128, 128, 128))
    picture.paste(photo(1200, 300), (0, 0))
    return picture


SOUND = {
    "black": flat((0, 0, 0)),
    "white": flat((255, 255, 255)),
    "grey": flat((128, 128, 128)),
    "stripes": stripes(),
    "drawing": drawing(),
    "half grey": half_grey(),
    "one pixel": Image.new("RGB", (1, 1), (9, 9, 9)),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("JPEG", {**options, "quality": quality}) for options in JPEGS.values() for quality in (30, 95)),
        ("PNG", {"compress_level": 0}),
        ("WEBP", {"quality": 80, "method": 0}),
        ("WEBP", {"lossless": True, "method": 0}),
    ],
)
def test_sound_pictures_however_flat_are_read(tmp_path, name, kind, options):
    (tmp_path / "a").write_bytes(encoded(SOUND[name], kind, **options))
    assert open_picture(tmp_path / "a").size == SOUND[name].size
    PictureFolder(tmp_path, PictureSettings()).content_key(str(tmp_path / "a"))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_other_jpegs_that_are_whole_are_read(tmp_path, mode, kind):
    for picture in (photo(), flat((128, 128, 128))):
        (tmp_path / "a.jpg").write_bytes(encoded(picture.convert(mode), "JPEG", **JPEGS[kind]))
        open_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", JPEGS)
def test_what_stands_around_the_pixels_may_be_zeros(tmp_path, kind):
    exif = Image.Exif()
    exif[0x927C] = bytes(5000)
    data = encoded(photo(), "JPEG", exif=exif, icc_profile=bytes(9000), **JPEGS[kind])
    thumbnail = encoded(flat((0, 0, 0)).resize((160, 120)), "JPEG", optimize=True)[:60_000]
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail + data[2:]
    for behind in (b"", bytes(3000), b"<html>", thumbnail):
        (tmp_path / "a.jpg").write_bytes(with_thumbnail + behind)
        opened = open_picture(tmp_path / "a.jpg")
        assert opened.tobytes() == Image.open(io.BytesIO(data)).tobytes()
        PictureFolder(tmp_path, PictureSettings()).content_key(str(tmp_path / "a.jpg"))


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path):
    photo().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[flat((9, 9, 9))])
    assert open_picture(tmp_path / "a.jpg").size == (320, 240)


def test_a_webp_that_ends_in_a_long_flat_area_is_read(tmp_path):
    noise = RNG.integers(0, 255, (900, 1000, 3), dtype=np.uint8)
    noise[300:] = 128
    data = encoded(Image.fromarray(noise), "WEBP", quality=50, method=0)
    assert len(data.rstrip(b"\0")) < len(data) - 5000  # thousands of zeros stand at its end
    (tmp_path / "a.webp").write_bytes(data)
    open_picture(tmp_path / "a.webp")


def test_the_end_of_a_jpeg_is_replaced_only_where_one_scan_holds_everything():
    baseline, progressive = PHOTOS["baseline"], PHOTOS["progressive"]
    assert without_end(baseline) is not None
    assert without_end(baseline[:-2]) is None
    assert without_end(progressive) is None
    assert without_end(b"\xff\xd8\xff\xe0\x00") is None
    assert jpeg_damage(b"\xff\xd8\xff\xda") is None
