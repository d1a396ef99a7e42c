from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from mia_augment.errors import DataError
from mia_augment.images.decode import open_picture
from mia_augment.images.sniff import PictureFolder
from mia_augment.settings import PictureSettings
from PIL import Image

RED, BLUE = (220, 20, 30), (10, 20, 230)


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red left half, blue right half."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def near(picture: Image.Image, at: tuple[int, int], color: tuple[int, int, int], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(picture.getpixel(at), color, strict=True))


def save(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def test_a_plain_picture_comes_as_it_is(tmp_path):
    picture = open_picture(save(halves(), tmp_path / "a.png"))
    assert picture.mode == "RGB"
    assert picture.tobytes() == halves().tobytes()
    assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("orientation", "size", "red_at", "blue_at"),
    [
        (1, (60, 40), (5, 20), (55, 20)),
        (2, (60, 40), (55, 20), (5, 20)),
        (3, (60, 40), (55, 20), (5, 20)),
        (6, (40, 60), (20, 5), (20, 55)),
        (8, (40, 60), (20, 55), (20, 5)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, size, red_at, blue_at):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(save(halves(), tmp_path / "a.jpg", exif=exif, quality=95))
    assert picture.size == size
    assert near(picture, red_at, RED)
    assert near(picture, blue_at, BLUE)


def test_transparency_is_laid_on_white(tmp_path):
    picture = Image.new("RGBA", (10, 10), (*RED, 255))
    picture.paste((0, 0, 0, 0), (5, 0, 10, 10))
    opened = open_picture(save(picture, tmp_path / "a.png"))
    assert opened.getpixel((2, 2)) == RED
    assert opened.getpixel((7, 7)) == (255, 255, 255)
    half = open_picture(save(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), tmp_path / "b.png"))
    assert half.getpixel((0, 0)) == (127, 127, 127)
    gray = open_picture(save(Image.new("LA", (4, 4), (9, 0)), tmp_path / "c.png"))
    assert gray.getpixel((0, 0)) == (255, 255, 255)


def test_palettes_keep_their_colors_and_their_transparency(tmp_path):
    picture = halves().quantize(4)
    assert near(open_picture(save(picture, tmp_path / "a.png")), (5, 5), RED)
    index = picture.getpixel((5, 5))
    opened = open_picture(save(picture, tmp_path / "b.png", transparency=index))
    assert opened.getpixel((5, 5)) == (255, 255, 255)
    assert near(opened, (55, 5), BLUE)


def test_cmyk_becomes_rgb(tmp_path):
    picture = open_picture(save(halves().convert("CMYK"), tmp_path / "a.jpg", quality=95))
    assert near(picture, (5, 20), RED, 30)
    assert near(picture, (55, 20), BLUE, 30)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_down_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    picture = open_picture(save(Image.fromarray(values), tmp_path / f"a.{suffix}"))
    assert [picture.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (100, 100, 100), (255, 255, 255)]


def grey_png(depth: int, raw: bytes, clear: int) -> bytes:
    """A grey PNG of one row with one transparent level."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", len(raw) * 8 // depth, 1, depth, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", zlib.compress(b"\0" + raw)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("depth", "raw", "clear", "greys"),
    [
        (16, np.array([0, 25700, 65535], ">u2").tobytes(), 25700, [0, 255, 255]),
        (16, np.array([0, 25701, 65535], ">u2").tobytes(), 25700, [0, 100, 255]),
        (16, np.array([0, 25700, 65535], ">u2").tobytes(), 0, [255, 100, 255]),
        (8, bytes([1, 2, 3]), 2, [1, 255, 3]),
        (4, bytes([0x0F, 0x75]), 7, [0, 255, 255, 85]),
        (2, bytes([0b00011011]), 1, [0, 255, 170, 255]),
        (1, bytes([0b01000000]), 0, [255, 255, 255]),
    ],
)
def test_a_transparent_grey_level_is_laid_on_white_at_any_depth(tmp_path, depth, raw, clear, greys):
    (tmp_path / "a.png").write_bytes(grey_png(depth, raw, clear))
    picture = open_picture(tmp_path / "a.png")
    assert [picture.getpixel((x, 0))[0] for x in range(len(greys))] == greys


def grey_tiff(values: np.ndarray, bits: int, kind: int = 1, zero: int = 1, **tags: int) -> bytes:
    """An uncompressed grey TIFF of one row; `kind` is its SampleFormat, `zero` its PhotometricInterpretation."""
    data, order = values.tobytes(), ">" if values.dtype.byteorder == ">" else "<"
    fields = {256: len(values), 257: 1, 258: bits, 259: 1, 262: zero, 273: 0, 277: 1, 278: 1, 279: len(data), 339: kind}
    fields |= {int(name[1:]): value for name, value in tags.items()}
    fields[273] = 8 + 2 + 12 * len(fields) + 4
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(fields)) + entries + bytes(4) + data


@pytest.mark.parametrize(
    ("tiff", "greys"),
    [
        (grey_tiff(np.array([0, 2048, 4095], "<u2"), 16), [0, 128, 255]),  # 12 bits in 16
        (grey_tiff(np.array([0, 2048, 4096], "<u2"), 16), [0, 8, 16]),
        (grey_tiff(np.array([0, 100, 255], "<u2"), 16), [0, 100, 255]),
        (grey_tiff(np.array([0, 511, 1023], "<u2"), 16, t281=1023), [0, 127, 255]),
        (grey_tiff(np.array([0, 25700, 65535], ">u2"), 16), [0, 100, 255]),
        (grey_tiff(np.array([0, 25700, 65535], "<u2"), 16, zero=0), [255, 155, 0]),
        (grey_tiff(np.array([0, 25700, 65535], "<u4"), 32), [0, 100, 255]),
        (grey_tiff(np.array([0, 2000, 4095], "<f4"), 32, kind=3), [0, 125, 255]),
        (grey_tiff(np.array([np.nan, 0.2, 1], "<f4"), 32, kind=3), [0, 51, 255]),
    ],
)
def test_greys_are_scaled_by_what_means_white(tmp_path, tiff, greys):
    (tmp_path / "a.tif").write_bytes(tiff)
    picture = open_picture(tmp_path / "a.tif")
    assert [picture.getpixel((x, 0))[0] for x in range(3)] == greys


@pytest.mark.parametrize(
    "tiff",
    [
        grey_tiff(np.array([-5, 0, 9], "<i2"), 16, kind=2),
        grey_tiff(np.array([0, 2**31, 9], "<u4"), 32),
        grey_tiff(np.array([-1, 0, 1], "<f4"), 32, kind=3),
        grey_tiff(np.array([0, 1e6, np.inf], "<f4"), 32, kind=3),
    ],
)
def test_greys_of_unknown_meaning_are_refused(tmp_path, tiff):
    (tmp_path / "a.tif").write_bytes(tiff)
    with pytest.raises(DataError, match=r"its grey levels go from .* to .*, expected 0 to 65535"):
        open_picture(tmp_path / "a.tif")


def test_greys_on_their_side_keep_what_their_file_says(tmp_path):
    (tmp_path / "a.tif").write_bytes(grey_tiff(np.array([0, 511, 1023], "<u2"), 16, t281=1023, t274=6))
    picture = open_picture(tmp_path / "a.tif")
    assert [picture.getpixel((0, y))[0] for y in range(3)] == [0, 127, 255]
    (tmp_path / "b.tif").write_bytes(grey_tiff(np.array([0, 127, 255], "u1"), 8, t274=8))
    picture = open_picture(tmp_path / "b.tif")
    assert [picture.getpixel((0, y))[0] for y in range(3)] == [255, 127, 0]


def test_floats_from_zero_to_one_are_scaled(tmp_path):
    values = np.array([[0, 0.2, 1]], dtype=np.float32)
    picture = open_picture(save(Image.fromarray(values), tmp_path / "a.tif"))
    assert [picture.getpixel((x, 0))[0] for x in range(3)] == [0, 51, 255]


def test_black_and_white_becomes_rgb(tmp_path):
    assert open_picture(save(Image.new("1", (4, 4), 1), tmp_path / "a.png")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (30, 20), color) for color in (RED, BLUE)]
    path = save(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert near(open_picture(path), (3, 3), RED)


def test_the_content_counts_not_the_extension(tmp_path):
    path = save(halves(), tmp_path / "a.jpg", format="PNG")
    assert open_picture(path).tobytes() == halves().tobytes()


def test_a_text_file_named_jpg_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>404 not found</html>" * 100)
    with pytest.raises(DataError, match=r"broken picture: .*a\.jpg: not a picture"):
        open_picture(tmp_path / "a.jpg")


def test_a_postscript_file_is_not_run(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="not a picture"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path, suffix, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8))
    path = save(noise, tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match="broken picture"):
        open_picture(path)
    with pytest.raises(DataError, match="broken picture"):
        open_picture(path, fit_into=(40, 40))
    with pytest.raises(DataError, match="broken picture"):
        PictureFolder(tmp_path, PictureSettings()).content_key(path)


def test_empty_missing_and_folders_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match="0 bytes"):
        open_picture(tmp_path / "empty.jpg")
    with pytest.raises(DataError, match="missing file"):
        open_picture(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="missing file"):
        open_picture(tmp_path)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9000, 12000, 60000])
def test_decompression_bombs_are_refused_unread(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    with pytest.raises(DataError, match="picture too large"):
        open_picture(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="picture too large"):
        PictureFolder(tmp_path, PictureSettings()).content_key(tmp_path / "bomb.png")


def test_limits_can_be_set(tmp_path):
    path = save(halves(), tmp_path / "a.png")
    with pytest.raises(DataError, match="60 x 40 px is 2400 pixels, more than max_pixels 2399"):
        open_picture(path, limits=PictureSettings(max_pixels=2399))
    with pytest.raises(DataError, match="max_bytes"):
        open_picture(path, limits=PictureSettings(max_bytes=10))


def test_twenty_thousand_pixels_wide_is_no_problem(tmp_path):
    picture = open_picture(save(halves(20_000, 30), tmp_path / "a.jpg"), fit_into=(448, 448))
    assert picture.width == 2500
    assert near(picture, (2, 0), RED)
    assert near(picture, (picture.width - 2, picture.height - 1), BLUE)


@pytest.fixture
def no_decoding(monkeypatch):
    """Fails a test that decodes a picture in order to know it."""

    def refuse(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr("mia_augment.images.sniff.open_picture", refuse)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"icc_profile": bytes(9000)}, {"exif": b"Exif\0\0" + bytes(60000)}]
)
@pytest.mark.parametrize("size", [(60, 40), (700, 500)])
def test_sound_jpegs_are_known_without_decoding(tmp_path, no_decoding, options, size):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    folder = PictureFolder(tmp_path, PictureSettings())
    key = folder.content_key(str(save(Image.fromarray(noise), tmp_path / "a.jpg", **options)))
    assert key == folder.content_key(str(save(Image.fromarray(noise), tmp_path / "b.jpg", **options)))
    noise[-1, -1] ^= 255
    assert key != folder.content_key(str(save(Image.fromarray(noise), tmp_path / "c.jpg", **options)))


def test_sound_pngs_are_known_without_decoding(tmp_path, no_decoding):
    folder = PictureFolder(tmp_path, PictureSettings())
    keys = [
        folder.content_key(str(save(halves(w, 40), tmp_path / f"{w}.png", compress_level=level)))
        for w, level in [(60, 0), (900, 0), (900, 9)]
    ]
    assert len(set(keys)) == 3


def test_other_kinds_are_decoded_once_and_known_by_every_byte(tmp_path):
    folder = PictureFolder(tmp_path, PictureSettings())
    pixels = np.zeros((300, 300, 3), dtype=np.uint8)
    first = folder.content_key(str(save(Image.fromarray(pixels), tmp_path / "a.bmp")))
    pixels[150, 150] = 1
    assert first != folder.content_key(str(save(Image.fromarray(pixels), tmp_path / "b.bmp")))


def test_endless_progressive_scans_are_refused(tmp_path):
    data = io.BytesIO()
    halves().save(data, "JPEG", progressive=True)
    body = data.getvalue()
    start = body.rindex(b"\xff\xda")
    path = tmp_path / "a.jpg"
    path.write_bytes(body[:start] + body[start:-2] * 1000 + body[-2:])
    with pytest.raises(DataError, match="scans"):
        open_picture(path)
    with pytest.raises(DataError, match="scans"):
        PictureFolder(tmp_path, PictureSettings()).content_key(path)


def test_large_jpegs_come_reduced_but_never_below_what_is_needed(tmp_path):
    path = save(halves(1000, 800), tmp_path / "a.jpg", quality=95)
    reduced = open_picture(path, fit_into=(250, 250))  # 1000 x 800 fits as 250 x 200: a quarter
    assert reduced.size == (250, 200)
    assert near(reduced, (20, 100), RED)
    assert near(reduced, (230, 100), BLUE)
    assert open_picture(path, fit_into=(251, 251)).size == (500, 400)
    assert open_picture(path, fit_into=(900, 201)).size == (500, 400)
    assert open_picture(path, fit_into=(501, 5000)).size == (1000, 800)
    assert open_picture(path).size == (1000, 800)


def test_a_reduced_picture_on_its_side_is_large_enough_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(halves(1000, 400), tmp_path / "a.jpg", exif=exif, quality=95)
    # upright 400 x 1000 fits into 300 x 500 as 200 x 500: half
    assert open_picture(path, fit_into=(300, 500)).size == (200, 500)
    assert open_picture(path, fit_into=(300, 501)).size == (400, 1000)


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    path = save(halves(), tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff", quality=95)
    assert near(open_picture(path), (5, 20), RED)


@pytest.fixture
def apart_always(monkeypatch):
    monkeypatch.setattr("mia_augment.images.decode.WORK_PER_SECOND", 0)


def test_a_picture_read_in_a_process_of_its_own_is_the_same(tmp_path, request):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(halves(1000, 400), tmp_path / "a.jpg", exif=exif, quality=95)
    here = open_picture(path, fit_into=(300, 500))
    request.getfixturevalue("apart_always")
    there = open_picture(path, fit_into=(300, 500))
    assert (there.size, there.mode, there.format) == ((200, 500), "RGB", "JPEG")
    assert there.tobytes() == here.tobytes()


def test_what_is_wrong_with_a_picture_is_told_from_there_too(tmp_path, apart_always, monkeypatch):
    path = save(halves(), tmp_path / "a.bmp")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken picture: .*a\.bmp: "):
        open_picture(path)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(DataError, match="the process that read it ended with code 1"):
        open_picture(path)


def slow_jpeg(path: Path) -> Path:
    """A small file within all limits whose decoder goes over 36 million pixels 190 times."""
    data = io.BytesIO()
    Image.new("L", (6000, 6000), 90).save(data, "JPEG", progressive=True)
    body = data.getvalue()
    start = body.rindex(b"\xff\xda")
    path.write_bytes(body[:start] + body[start:-2] * 184 + body[-2:])
    return path


def test_a_picture_that_takes_too_long_is_refused_when_the_time_is_up(tmp_path):
    path = slow_jpeg(tmp_path / "a.jpg")
    assert path.stat().st_size < 2_000_000
    cpu = time.process_time()
    with pytest.raises(DataError, match=r"picture too slow: .* not read within max_seconds 1\.5"):
        open_picture(path, limits=PictureSettings(max_seconds=1.5))
    assert time.process_time() - cpu < 0.5  # several seconds are needed to decode it
