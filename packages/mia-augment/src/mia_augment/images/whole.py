"""Find damage in picture files that decoders overlook: they take zeros for data and paint what is missing."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

from mia_augment.images.jpeg import ZEROS, jpeg_damage

_PNG_HEAD = 8
_WEBP_HEAD, _WEBP_FRAME = 12, 16
_LOSSY, _LOSSLESS = b"VP8 ", b"VP8L"
_png_chunk = struct.Struct(">I4s").unpack_from
_webp_chunk = struct.Struct("<4sI").unpack_from


def damage(data: bytes, format: str | None, size: tuple[int, int]) -> str | None:
    """Why a picture file that decoders may accept is not whole; None: no damage was found.

    Not told: zeros in files without compression (BMP, PPM, TIFF), where they are black pixels; and in WebP, AVIF and JPEG 2000
    zeros that do not go on to the end.

    Args:
        data: the whole file.
        format: Pillow's name of its kind.
        size: of the picture, (width, height) px.
    """
    if format in ("JPEG", "MPO"):
        return jpeg_damage(data)
    if format == "PNG":
        return _wrong_checksum(data)
    if format == "WEBP":
        return next((_ZERO_FILLED for kind, part in _webp_pixels(data, _WEBP_HEAD) if _ends_in_zeros(kind, part, size)), None)
    if format == "AVIF":
        return _ZERO_FILLED if data.endswith(ZEROS) else None
    return None


_ZERO_FILLED = f"zero-filled: its compressed data ends in {len(ZEROS)} or more zero bytes (an interrupted download?)"
_FLAT_BLOCK = 12.5
"""Bytes that a lossy WebP may spend on a block of 16 x 16 px in which nothing changes: 25 codes of up to 4 bits, all zeros."""


def _wrong_checksum(data: bytes) -> str | None:
    """Pillow does not look at the checksums of a PNG's pixels."""
    position = _PNG_HEAD
    while position + 12 <= len(data):
        size, kind = _png_chunk(data, position)
        end = position + 8 + size
        if kind == b"IDAT" and zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return "its pixels were altered: the checksum of a part of them does not match (an interrupted download?)"
        if kind == b"IEND":
            break
        position = end + 4
    return None


def _ends_in_zeros(kind: bytes, part: bytes, size: tuple[int, int]) -> bool:
    """Whether more zero bytes stand at the end than a flat picture has there."""
    if not part.endswith(ZEROS):
        return False
    flat = _FLAT_BLOCK * math.ceil(size[0] / 16) * math.ceil(size[1] / 16) if kind == _LOSSY else 0
    return len(part) - len(part.rstrip(b"\0")) > len(ZEROS) + flat


def _webp_pixels(data: bytes, position: int) -> Iterator[tuple[bytes, bytes]]:
    """(kind, compressed pixels) of a WebP's picture, or of each of its frames."""
    while position + 8 <= len(data):
        kind, size = _webp_chunk(data, position)
        part = data[position + 8 : position + 8 + size]
        if kind in (_LOSSY, _LOSSLESS):
            yield kind, part
        elif kind == b"ANMF":
            yield from _webp_pixels(part, _WEBP_FRAME)
        position += 8 + size + size % 2
