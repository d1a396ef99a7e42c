"""A picture as data sets give it: a path, bytes, base64, a data URI, an object around one of these, or a decoded picture."""

from __future__ import annotations

import ast
import base64
import binascii
import io
import json
import math
import os
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

from mia_augment.errors import DataError

StorePicture = Callable[[Any], str]
"""Keeps a picture that came inside a row (bytes of a file, or a Pillow image) and returns its path, as
`mia_augment.rows.pictures_in_rows.EmbeddedPictures.store` does."""

LONGEST_PATH = 1024
"""Characters; a longer text is no path."""
SHORTEST_FILE = 40
"""Characters of base64 below which a text is a path whatever it begins with."""
_INSIDE = ("bytes", "path", "url", "image_url", "image", "data", "base64", "source", "file_name")
"""Under which keys an object holds its picture, in the order in which they are looked at."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_BEGINNINGS = ("/9j/", "iVBORw0KGg", "R0lGODdh", "R0lGODlh", "UklGR", "SUkq", "TU0AK", "Qk", "AAAA", "_9j_")
"""Base64 of the first bytes of JPEG, PNG, GIF, WEBP, TIFF, BMP, and AVIF or HEIC."""
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0|....ftyp", re.DOTALL)


def single_pictures(value: Any) -> list[Any]:
    """The single pictures of a column: of a list each, of nothing none, else the one that it is.

    >>> single_pictures("a.jpg"), single_pictures(["a.jpg", "b.jpg"]), single_pictures(None), single_pictures("")
    (['a.jpg'], ['a.jpg', 'b.jpg'], [], [])
    """
    if is_empty(value):
        return []
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [one for each in value for one in single_pictures(each)]
    return [value]


def picture_path(value: Any, store: StorePicture | None) -> str | None:
    """The path of one picture, however it is given; what stands in the row itself is kept by `store` first.

    Args:
        value: a path, ``file:`` address, base64 or data URI; bytes of a picture file; a Pillow image; or an object with one of
            these under bytes, path, url, image_url, image, data, base64 or source.
        store: keeps pictures that are not given by path; None: such pictures cannot be used.

    Returns:
        The path as it stands in the row; None where no picture is given.

    Raises:
        DataError: given otherwise, by a web address, or as base64 that is damaged. The message never holds the picture itself.
    """
    for _ in range(5):  # {"image_url": {"url": ..}} is the deepest in use
        value = _inside(value) if isinstance(value, Mapping) else value
    if is_empty(value):
        return None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return _from_text(value, store)
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    if not isinstance(value, bytes) and not callable(getattr(value, "save", None)):
        raise DataError(f"bad row: expected the path of a picture as image, got {excerpt(value)}")
    return _kept(value, store)


def holds_picture(value: Mapping[str, Any]) -> bool:
    """Whether an object has a picture, or the path of one, under one of the keys that `picture_path` looks at."""
    return _inside(value) is not None


def _inside(value: Mapping[str, Any]) -> Any:
    return next((value[key] for key in _INSIDE if not is_empty(value.get(key))), None)


def is_empty(value: Any) -> bool:
    """None, an empty text, list or object, or the NaN by which pandas marks an empty cell."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str | bytes | Sequence | Mapping) and len(value) == 0)


def parsed_list(value: Any) -> Any:
    """A list that a table holds as text, as JSON or as Python writes it; anything else as it is.

    >>> parsed_list('["red", "dark red"]'), parsed_list("['red', 'dark red']"), parsed_list("[red]")
    (['red', 'dark red'], ['red', 'dark red'], '[red]')
    """
    if not isinstance(value, str) or not (text := value.strip()).startswith("[") or not text.endswith("]"):
        return value
    for read in (json.loads, _python_literal):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            continue
        return found if isinstance(found, list) else value
    return value


def _python_literal(text: str) -> Any:
    """The value of a Python literal, unless texts follow each other without a comma, as numpy prints them."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type != tokenize.NL]
    if any(kind == following == tokenize.STRING for kind, following in pairwise(kinds)):
        raise ValueError("texts without a comma between them")
    return ast.literal_eval(text)


def excerpt(value: Any, longest: int = 60) -> str:
    """A value as a message shows it: its kind, unless it is a text, and its beginning.

    >>> excerpt(7), excerpt("a" * 70)
    ('int 7', "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...")
    """
    text = repr(value[: longest + 1] if isinstance(value, str | bytes) else value)
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    return f"{type(value).__name__} {text}" if not isinstance(value, str) else text


def _from_text(text: str, store: StorePicture | None) -> str:
    head = text[:16].lower()
    if head.startswith("data:"):
        return _kept(_from_data_uri(text), store)
    if head.startswith(("http:", "https:", "s3:", "gs:", "hf:", "ftp:")):
        raise DataError(
            f"picture on the web: expected a file below the image root, got {excerpt(text, 200)}; download it first"
        )
    if head.startswith("file:"):
        return unquote(urlsplit(text).path)
    if len(text) >= SHORTEST_FILE and text.lstrip().startswith(_BEGINNINGS) and _BASE64.fullmatch(text):
        data = _decoded(text)
        if _MAGIC.match(data):
            return _kept(data, store)
    if len(text) > LONGEST_PATH:
        raise DataError(
            f"bad row: expected a path, or base64 of a JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF or HEIC file as image, "
            f"got a text of {len(text)} characters that is neither: {excerpt(text)}"
        )
    return text


def _from_data_uri(text: str) -> bytes:
    kind, comma, data = text.partition(",")
    if not comma:
        raise DataError(f"bad row: expected a comma in the data URI of the picture, found none in {excerpt(text)}")
    if not kind.lower().rstrip().endswith(";base64"):
        raise DataError(f"bad row: expected ';base64' before the comma of the picture's data URI, got {excerpt(kind)}")
    if not data.strip():
        raise DataError(f"broken picture: nothing stands behind {excerpt(kind)}")
    return _decoded(unquote(data) if "%" in data else data)


def _decoded(text: str) -> bytes:
    """Bytes of base64, with or without padding and line breaks, in the usual or the URL alphabet."""
    packed = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"broken picture: {len(text)} characters of base64 that cannot be decoded: {error}") from error


def _kept(picture: Any, store: StorePicture | None) -> str:
    if store is None:
        raise DataError("bad row: its picture stands in the row itself, and no place was given to keep it")
    return store(picture)
