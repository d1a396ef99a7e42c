"""One row of single-image instruction data, from the many shapes in which such data comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mia_augment.errors import DataError
from mia_augment.given import StorePicture, picture_path, pictures_given, shown
from mia_augment.questions import speaks_of_several_images, without_placeholder
from mia_augment.records import IMAGE, Record, Skipped

_IMAGE_KEYS = ("image", "images", "image_path", "file_name", "img", "image_file")
_QUESTION_KEYS = ("question", "prompt", "instruction", "query", "problem")
_ANSWER_KEYS = ("answer", "gt", "response", "output", "caption", "text", "label")
_ROLES = {
    **dict.fromkeys(("human", "user"), "question"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt"), "answer"),
    "system": "system",
}


class Row(Record):
    """A picture with one or several questions about it and their answers."""

    id: str
    image: str
    """POSIX path relative to the image root."""
    turns: tuple[tuple[str, str], ...]
    """(question, answer), at least one, without `<image>`."""


class _Refused(Exception):
    """Why a row cannot be used; the text up to the first colon is the kind of reason, under which it is counted."""


def parse_row(value: Any, number: int, store: StorePicture | None = None) -> Row | Skipped:
    """A `Row` from an object as it stands in a data file, or why it is none.

    Understood are LLaVA's `{id, image, conversations: [{from, value}]}`, `messages: [{role, content}]`, `texts: [{user,
    assistant}]`, and flat `{image, question, answer}`; the picture as a path, or as a Hugging Face data set gives it.

    Args:
        value: what was read.
        number: its place in the file, from 1; the id of a row that has none.
        store: keeps pictures that come inside the rows; None: such rows cannot be used.
    """
    row_id = f"row-{number}"
    try:
        if not isinstance(value, Mapping):
            raise _Refused(f"bad row: expected an object with id, image and conversations, got {shown(value)}")
        row_id = _id(value, row_id)
        turns = _turns(value)
        image = _image(value, store)
        for question, _ in turns:
            if speaks_of_several_images(question):
                raise _Refused(f"several images: a question already speaks of more than one: {shown(question)}")
        return Row(id=row_id, image=image, turns=turns)
    except (_Refused, DataError) as refused:
        return Skipped(id=row_id, reason=str(refused))
    except RecursionError:
        return Skipped(id=row_id, reason="bad row: it is nested too deeply")


def _id(value: Mapping[str, Any], default: str) -> str:
    given = value.get("id", value.get("question_id", value.get("idx")))
    if given is None or given == "":
        return default
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise _Refused(f"bad row: expected a text or a number as id, got {shown(given)}")
    return _clean(str(given))


def _image(value: Mapping[str, Any], store: StorePicture | None) -> str:
    column = next((value[key] for key in _IMAGE_KEYS if pictures_given(value.get(key))), None)
    given = pictures_given(column)
    if len(given) > 1:
        raise _Refused(f"several images: the row has {len(given)}, expected one")
    image = picture_path(given[0], store) if given else None
    if not image:
        raise _Refused("no image: the row has text only")
    if "\0" in image or _clean(image) != image:
        raise _Refused(f"bad row: the path of the picture holds characters that no file name can have: {shown(image)}")
    return image


def _turns(value: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    talk = value.get("conversations", value.get("messages"))
    if talk is None and isinstance(value.get("texts"), Sequence):
        talk = _from_pairs(value["texts"])
    if talk is None:
        question, answer = (next((value[k] for k in keys if k in value), None) for keys in (_QUESTION_KEYS, _ANSWER_KEYS))
        if question is None and answer is None:
            raise _Refused("bad row: expected conversations, messages, or question and answer; found none of them")
        talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    if not isinstance(talk, Sequence) or isinstance(talk, str):
        raise _Refused(f"bad row: expected a list of turns as conversations, got {shown(talk)}")
    texts = [_turn(turn, index) for index, turn in enumerate(talk, 1)]
    if texts and texts[0][0] == "system":
        texts = texts[1:]
    if not texts:
        raise _Refused("no answer: the conversation is empty")
    placeholders = sum(text.count(IMAGE) for _, text in texts)
    if placeholders > 1:
        raise _Refused(f"several images: {IMAGE} stands {placeholders} times in the conversation, expected once")
    return _paired(texts)


def _from_pairs(texts: Sequence[Any]) -> list[Any]:
    """Turns of `[{user, assistant}]`."""
    pairs = [text for text in texts if isinstance(text, Mapping)]
    return [{"from": who, "value": pair.get(key)} for pair in pairs for who, key in (("human", "user"), ("gpt", "assistant"))]


def _paired(texts: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Questions with their answers."""
    for index, (who, _) in enumerate(texts):
        if who != ("answer" if index % 2 else "question"):
            raise _Refused(f"bad row: expected questions and answers in turn, got a second {who} as turn {index + 1}")
    if len(texts) % 2:
        raise _Refused(f"no answer: turn {len(texts)}, a question, is the last one")
    clean = [without_placeholder(text) for _, text in texts]
    if "" in clean:
        index = clean.index("")
        what = "answer" if index % 2 else "question"
        raise _Refused(f"no {what}: {what} {index // 2 + 1} is empty")
    return tuple(zip(clean[::2], clean[1::2], strict=True))


def _turn(turn: Any, index: int) -> tuple[str, str]:
    """Who speaks (question, answer or system) and the text."""
    if not isinstance(turn, Mapping):
        raise _Refused(f"bad row: expected an object with from and value as turn {index}, got {shown(turn)}")
    who, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(text, str):
        text = _as_text(text, index)
    role = _ROLES.get(who) if isinstance(who, str) else None
    if role is None:
        raise _Refused(f"bad row: expected turn {index} to be from human or gpt, got {shown(who)}")
    return role, _clean(text)


def _as_text(value: Any, index: int) -> str:
    """A turn's content that is no text as one: nothing, a number, or typed parts."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    joined = _joined(value) if isinstance(value, Sequence) else None
    if joined is None:
        raise _Refused(f"bad row: expected a text as turn {index}, got {shown(value)}")
    return joined


def _joined(parts: Sequence[Any]) -> str | None:
    texts = []
    for part in parts:
        if not isinstance(part, Mapping):
            return None
        texts.append(IMAGE if part.get("type") == "image" else str(part.get("text", "")))
    return "".join(texts)


def _clean(text: str) -> str:
    """Without lone surrogates (half of an emoji, as cut JSON has them), which no file could hold."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
