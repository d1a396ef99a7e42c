"""One row of single-image instruction data, from the many shapes in which such data comes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mia_augment.compose.questions import speaks_of_several_images
from mia_augment.errors import DataError
from mia_augment.images.picture_values import StorePicture, excerpt, is_empty, picture_path, single_pictures
from mia_augment.records import Record, Skipped
from mia_augment.rows.conversation import clean, turns_of

_ID_KEYS = ("id", "sample_id", "question_id", "questionId", "qid", "idx", "uid", "uuid", "index", "__key__")
_IMAGE_KEYS = ("image", "images", "image_path", "file_name", "img", "image_file", "jpg", "jpeg", "png", "webp")
_SPEAKS_OF_ONE = re.compile("image|img|picture|photo|video", re.IGNORECASE)


class Row(Record):
    """A picture with one or several questions about it and their answers."""

    id: str
    image: str
    """POSIX path relative to the image root."""
    turns: tuple[tuple[str, str], ...]
    """(question, answer), at least one, without `<image>`; of unlabelled rows an answer may be empty."""


def parse_row(value: Any, number: int, store: StorePicture | None = None, *, unlabelled: bool = False) -> Row | Skipped:
    """A `Row` from an object as it stands in a data file, or why it is none.

    Understood are LLaVA's `{id, image, conversations: [{from, value}]}`, `messages: [{role, content}]` with texts or typed
    parts as content, `texts: [{user, assistant}]`, and flat `{image, question, answer}` or `answers`; the picture as a path, or
    as `mia_augment.images.picture_values.picture_path` takes it.

    Args:
        value: what was read.
        number: its place in the file, from 1; the id of a row that has none.
        store: keeps pictures that come inside the rows; None: such rows cannot be used.
        unlabelled: a question without an answer is taken, its answer empty.
    """
    row_id = f"row-{number}"
    try:
        if not isinstance(value, Mapping):
            raise DataError(f"bad row: expected an object with id, image and conversations, got {excerpt(value)}")
        if isinstance(value.get("json"), Mapping):  # a WebDataset as Hugging Face's loader gives it
            value = {**value, **value["json"]}
        row_id = _id(value, row_id)
        turns, spoken = turns_of(value, unlabelled=unlabelled)
        image = _image(value, spoken, store)
        for question, _ in turns:
            if speaks_of_several_images(question):
                raise DataError(f"several images: a question already speaks of more than one: {excerpt(question)}")
        return Row(id=row_id, image=image, turns=turns)
    except DataError as refused:
        return Skipped(id=row_id, reason=str(refused))
    except RecursionError:
        return Skipped(id=row_id, reason="bad row: it is nested too deeply")


def _id(value: Mapping[str, Any], default: str) -> str:
    given = next((value[key] for key in _ID_KEYS if not is_empty(value.get(key))), None)
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise DataError(f"bad row: expected a text or a number as id, got {excerpt(given)}")
    return clean(str(given))


def _image(value: Mapping[str, Any], spoken: list[Any], store: StorePicture | None) -> str:
    """The path of the one picture of a row, which its column or a message (`spoken`) gives."""
    column = next((value[key] for key in _IMAGE_KEYS if single_pictures(value.get(key))), None)
    given = single_pictures(column)
    if max(len(given), len(spoken)) > 1:
        raise DataError(f"several images: the row has {max(len(given), len(spoken))}, expected one")
    paths = list(dict.fromkeys(filter(None, (picture_path(one, store) for one in [*given, *spoken]))))
    if len(paths) > 1:
        raise DataError("several images: the row has one in its column and another in its messages, expected one")
    if not paths:
        raise DataError(_why_none(value))
    if "\0" in paths[0] or clean(paths[0]) != paths[0]:
        raise DataError(f"bad row: the path of the picture holds characters that no file name can have: {excerpt(paths[0])}")
    return paths[0]


def _why_none(value: Mapping[str, Any]) -> str:
    others = [key for key in value if isinstance(key, str) and _SPEAKS_OF_ONE.search(key) and not is_empty(value[key])]
    if not others:
        return "no image: the row has text only"
    return f"no image: expected a picture under one of {', '.join(_IMAGE_KEYS[:6])}; found {excerpt(', '.join(others))}"
