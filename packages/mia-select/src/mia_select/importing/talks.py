"""What each tool's row says: what was asked, both answers, and the pictures. One reader a kind of row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mia_augment.images import excerpt, single_pictures

from mia_select.importing.messages import (
    ASSISTANT,
    SYSTEM,
    USER,
    Message,
    Refused,
    filled,
    is_conversation,
    messages,
    plain,
    said,
)

ForeignRow = Mapping[str, Any]


@dataclass(frozen=True)
class Talk:
    """One row of any tool."""

    asked: list[Message]
    """All that stands before the answers."""
    chosen: list[Message]
    rejected: list[Message]
    images: list[Any]
    """Pictures of the row, in the order in which the messages refer to them."""
    lead: str | None
    """Where a plain text names no picture, the tool puts all of them first, followed by this; None: it refuses the row."""


def read_trl(row: ForeignRow) -> Talk:
    chosen, rejected = _answer(row, "chosen"), _answer(row, "rejected")
    prompt = filled(row, "prompt")
    if is_conversation(row["chosen"]) and not is_conversation(prompt) and (prompt is None or len(chosen) > 1):
        asked, chosen, rejected = _shared(chosen, rejected)
    elif prompt is None and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        asked, chosen, rejected = _shared_text(row["chosen"], row["rejected"])
    else:
        asked = _asked(prompt, "prompt")
    return Talk(asked, _behind(asked, chosen), _behind(asked, rejected), _images(row), "")


def read_question(row: ForeignRow) -> Talk:
    """MIA-DPO, RLAIF-V, MMPR: question and answers as plain texts (or as conversations), pictures before them."""
    key = "prompt" if filled(row, "question") is None else "question"
    talk = read_trl({**row, "prompt": filled(row, key)})
    return replace(talk, lead="\n")


def read_llama_factory(row: ForeignRow) -> Talk:
    key = _first(row, "conversations", "messages", "conversation")
    asked = [*_system(row, messages(row[key], key))] if key else _alpaca(row, "instruction", "input")
    chosen, rejected = _behind(asked, _answer(row, "chosen")), _behind(asked, _answer(row, "rejected"))
    return Talk(asked, chosen, rejected, _images(row), None)


def read_ms_swift(row: ForeignRow) -> Talk:
    key = _first(row, "messages", "conversations", "conversation")
    if key:
        asked = _system(row, messages(row[key], key))
        chosen = [asked.pop()] if asked and asked[-1].role == ASSISTANT else []
    else:
        query = next((k for k in ("query", "prompt", "instruction", "question", "problem") if filled(row, k)), "query")
        asked = _alpaca(row, query, "input")
        response = next((k for k in ("response", "answer", "output", "chosen") if filled(row, k)), "response")
        chosen = _answer(row, response)
    if not chosen:
        raise Refused(f"no answer: expected the last of {key} to be the chosen answer, from assistant")
    _same_pictures(row)
    if filled(row, "rejected_messages"):
        rejected = messages(row["rejected_messages"], "rejected_messages")
        before = asked if rejected and rejected[0].role == SYSTEM else [m for m in asked if m.role != SYSTEM]
        rejected = _behind(before, rejected)
    elif filled(row, "rejected_response") is None and filled(row, "rejected_images"):
        rejected = list(chosen)
    else:
        rejected = _answer(row, "rejected_response")
    return Talk(asked, chosen, rejected, _images(row), "")


def _answer(row: ForeignRow, key: str) -> list[Message]:
    """What stands under a key as messages; a text is one from the assistant."""
    value = row.get(key)
    if value is None:
        raise Refused(f"no answer: expected a text as {key}, the row has none")
    if is_conversation(value):
        return messages(value, key)
    if isinstance(value, Mapping) and ("role" in value or "from" in value):
        return messages([value], key)
    return [said(ASSISTANT, value, key)]


def _asked(value: Any, what: str) -> list[Message]:
    if value is None:
        raise Refused(f"no question: expected a text or messages as {what}, the row has none")
    return messages(value, what) if is_conversation(value) else [said(USER, value, what)]


def _alpaca(row: ForeignRow, key: str, more: str) -> list[Message]:
    """History, instruction and input of Alpaca's columns, the latter on a line of its own."""
    asked = []
    history = row.get("history") or []
    if not isinstance(history, Sequence):
        raise Refused(f"bad row: expected a list as history, got {excerpt(history)}")
    for turn in history:
        if not isinstance(turn, Sequence) or isinstance(turn, str) or len(turn) != 2:
            raise Refused(f"bad row: expected pairs of question and answer as history, got {excerpt(turn)}")
        asked += [said(USER, turn[0], "history"), said(ASSISTANT, turn[1], "history")]
    texts = [plain(row[name], name) for name in dict.fromkeys((key, more)) if filled(row, name) not in (None, "")]
    if not texts:
        raise Refused(f"no question: expected a text as {key}, the row has none")
    return _system(row, [*asked, said(USER, "\n".join(texts), key)])


def _system(row: ForeignRow, asked: list[Message]) -> list[Message]:
    """With the row's own system message in front, unless the messages begin with one."""
    own = next((row[key] for key in ("system", "system_prompt") if filled(row, key) not in (None, "")), None)
    if own is None or (asked and asked[0].role == SYSTEM):
        return asked
    return [said(SYSTEM, own, "system"), *asked]


def _shared(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """The messages with which both conversations begin are the prompt; each keeps at least its last."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise Refused("no question: the row has no prompt, and both conversations begin differently")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _shared_text(chosen: str, rejected: str) -> tuple[list[Message], list[Message], list[Message]]:
    """The text with which both answers begin is the prompt, but for a space before they part (as TRL cuts it)."""
    limit = min(len(chosen), len(rejected)) - 1
    shared = next((i for i in range(max(limit, 0)) if chosen[i] != rejected[i]), max(limit, 0))
    if shared and chosen[shared - 1] == " ":
        shared -= 1
    if not chosen[:shared].strip():
        raise Refused("no question: the row has no prompt, and both texts begin differently")
    return (
        [said(USER, chosen[:shared], "prompt")],
        [said(ASSISTANT, chosen[shared:], "chosen")],
        [said(ASSISTANT, rejected[shared:], "rejected")],
    )


def _behind(asked: list[Message], answer: list[Message]) -> list[Message]:
    """An answer without the prompt, if it repeats it."""
    if len(answer) <= len(asked):
        return answer
    same = all(a.role == b.role and a.text == b.text for a, b in zip(asked, answer, strict=False))
    return answer[len(asked) :] if same else answer


def _same_pictures(row: ForeignRow) -> None:
    """Refuse a row whose rejected answer is about other pictures: a pair has one prompt."""
    others = filled(row, "rejected_images")
    if others is not None and _listed(others) != _images(row):
        raise Refused("other pictures: the rejected answer has its own rejected_images; both must be about the same ones")


def _images(row: ForeignRow) -> list[Any]:
    return _listed(next((row[key] for key in ("images", "image", "image_path") if filled(row, key) is not None), None))


def _listed(value: Any) -> list[Any]:
    return [_bare(picture) for picture in single_pictures(value)]


def _bare(picture: Any) -> Any:
    """`{bytes, path}` without bytes is just a path."""
    if isinstance(picture, Mapping) and not picture.get("bytes") and isinstance(picture.get("path"), str):
        return picture["path"]
    return picture


def _first(row: ForeignRow, *keys: str) -> str | None:
    return next((key for key in keys if filled(row, key) is not None), None)
