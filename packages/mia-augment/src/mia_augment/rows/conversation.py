"""The conversation of a row: questions and answers in turn, and the pictures that stand between their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from mia_augment.compose.prompts import IMAGE
from mia_augment.compose.questions import without_placeholder
from mia_augment.errors import DataError
from mia_augment.images.picture_values import excerpt, holds_picture, is_empty, parsed_list
from mia_augment.rows.answers import ANSWER_KEYS, answer_of, with_options
from mia_augment.rows.placeholders import one_placeholder

_TALK_KEYS = ("conversations", "conversation", "messages", "dialog", "dialogue")
_QUESTION_KEYS = ("question", "prompt", "instruction", "query", "problem")
WORDS = (*_TALK_KEYS, *_QUESTION_KEYS, "texts", "questions", "json", *ANSWER_KEYS)
"""Names under which the words of a row may stand."""
_ROLES = {
    **dict.fromkeys(("human", "user"), "question"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "bot"), "answer"),
    "system": "system",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "image_url", "input_image")

Turns = tuple[tuple[str, str], ...]


def turns_of(row: Mapping[str, Any], *, unlabelled: bool = False) -> tuple[Turns, list[Any]]:
    """The (question, answer) pairs of a row, at least one, without `<image>`; and the pictures that its messages hold.

    Args:
        unlabelled: a question without an answer is taken, its answer empty.

    Raises:
        DataError: there are none, or they are not as expected.
    """
    talk = _talk(row)
    if not _is_list(talk):
        raise DataError(f"bad row: expected a list of turns as conversations, got {excerpt(talk)}")
    pictures: list[Any] = []
    texts = [_turn(turn, index, pictures) for index, turn in enumerate(talk, 1)]
    if texts and texts[0][0] == "system":
        texts = texts[1:]
    if not texts:
        raise DataError("no answer: the conversation is empty")
    texts = [(who, one_placeholder(text)) for who, text in texts]
    placeholders = sum(text.count(IMAGE) for _, text in texts)
    if placeholders > 1:
        raise DataError(f"several images: {IMAGE} stands {placeholders} times in the conversation, expected once")
    return _paired(_with_gaps(texts) if unlabelled else texts, unlabelled), pictures


def clean(text: str) -> str:
    """Without lone surrogates (half of an emoji, as cut JSON has them), which no file could hold."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _talk(row: Mapping[str, Any]) -> Any:
    """The turns of a row as objects that say who speaks and what."""
    talk = next((row[key] for key in _TALK_KEYS if row.get(key) is not None), None)
    talk, texts = parsed_list(talk), parsed_list(row.get("texts"))
    if talk is None and _is_list(texts):
        texts = [text for text in texts if isinstance(text, Mapping)]
        return [turn for text in texts for turn in _pair(text.get("user"), text.get("assistant"))]
    return _flat(row) if talk is None else talk


def _flat(row: Mapping[str, Any]) -> list[Any]:
    """The turns of a row that has question and answer under names of their own."""
    questions, answers = parsed_list(row.get("questions")), parsed_list(row.get("answers"))
    if _is_list(questions) and is_empty(answers):
        answers = [None] * len(questions)
    if _is_list(questions) and _is_list(answers):
        if len(questions) != len(answers):
            raise DataError(f"bad row: expected an answer to each question, got {len(answers)} to {len(questions)}")
        return [turn for both in zip(questions, answers, strict=True) for turn in _pair(*both)]
    question = next((row[key] for key in _QUESTION_KEYS if not is_empty(row.get(key))), None)
    answer = answer_of(row)
    if question is None and answer is None:
        raise DataError("bad row: expected conversations, messages, or question and answer; found none of them")
    if _is_list(question):  # messages, as of a prompt and its completion
        return [*question, *(answer if _is_list(answer) else [{"role": "assistant", "content": answer}])]
    if isinstance(row.get("input"), str) and question == row.get("instruction") and row["input"].strip():
        question = f"{question}\n{row['input']}"
    question, answer = with_options(row, question, answer)
    history = row.get("history")
    earlier = history if _is_list(history) and all(_is_list(pair) and len(pair) == 2 for pair in history) else []
    return [turn for both in [*earlier, (question, answer)] for turn in _pair(*both)]


def _pair(question: Any, answer: Any) -> list[Any]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _with_gaps(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The turns with an empty answer behind each question that has none."""
    filled: list[tuple[str, str]] = []
    for who, text in [*texts, ("question", "")]:
        if who == "question" and filled and filled[-1][0] == "question":
            filled.append(("answer", ""))
        filled.append((who, text))
    return filled[:-1]


def _paired(texts: list[tuple[str, str]], unlabelled: bool) -> Turns:
    """Questions with their answers, which may be empty if the rows are `unlabelled`."""
    for index, (who, _) in enumerate(texts):
        if who != ("answer" if index % 2 else "question"):
            raise DataError(f"bad row: expected questions and answers in turn, got a second {who} as turn {index + 1}")
    if len(texts) % 2:
        raise DataError(f"no answer: turn {len(texts)}, a question, is the last one")
    bare = [without_placeholder(text) for _, text in texts]
    empty = [index for index, text in enumerate(bare) if not text and not (unlabelled and index % 2)]
    if empty:
        index = empty[0]
        what = "answer" if index % 2 else "question"
        raise DataError(f"no {what}: {what} {index // 2 + 1} is empty")
    return tuple(zip(bare[::2], bare[1::2], strict=True))


def _turn(turn: Any, index: int, pictures: list[Any]) -> tuple[str, str]:
    """Who speaks (question, answer or system) and the text; pictures that stand in it are added to `pictures`."""
    if not isinstance(turn, Mapping):
        raise DataError(f"bad row: expected an object with from and value as turn {index}, got {excerpt(turn)}")
    who, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if isinstance(text, str) and text.startswith("[{") and '"type"' in text[:40]:  # parts, written as JSON once more
        text = parsed_list(text)
    if not isinstance(text, str):
        text = _as_text(text, index, pictures)
    role = _ROLES.get(who.lower()) if isinstance(who, str) else None
    if role is None:
        raise DataError(f"bad row: expected turn {index} to be from human or gpt, got {excerpt(who)}")
    return role, clean(text)


def _as_text(value: Any, index: int, pictures: list[Any]) -> str:
    """A turn's content that is no text as one: nothing, a number, or typed parts."""
    if is_empty(value):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise DataError(f"bad row: expected a text as turn {index}, got {excerpt(value)}")
    return "".join(_part(part, index, pictures) for part in value)


def _part(part: Any, index: int, pictures: list[Any]) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise DataError(f"bad row: expected texts and images as parts of turn {index}, got {excerpt(part)}")
    kind = part.get("type") or ("text" if isinstance(part.get("text"), str) else "image" if holds_picture(part) else None)
    if kind in _TEXT_PARTS:
        text = part.get("text")
        return text if isinstance(text, str) else _as_text(text, index, pictures)
    if kind not in _IMAGE_PARTS:
        raise DataError(f"bad row: expected texts and images as parts of turn {index}, got {excerpt(kind or dict(part))}")
    if holds_picture(part):
        pictures.append(part)
    return IMAGE
