"""Makes a preference pair of what a tool's row says, or says why the row gives none."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mia_augment import IMAGE, IMAGE_FILES, SINGLE, DataError, PreferencePair, Region, Skipped, free_id, pair_problem
from mia_augment.compose import label
from mia_augment.images import excerpt
from mia_augment.prompting import message_parts, without_first_break
from mia_augment.rows import foreign_placeholder
from mia_augment.storage import summary
from pydantic import ValidationError

from mia_select.export.row_writers import EXTRA
from mia_select.importing.detection import read_talk
from mia_select.importing.messages import ASSISTANT, SYSTEM, USER, Message, Refused
from mia_select.importing.talks import Talk

NamePicture = Callable[[Any, str | None], str]
"""From a picture as it stands in a row (path, bytes, base64, ..), and the name that it had when we exported it, to an entry of
`images`; raises Refused or DataError."""

_NAMED_TARGET = re.compile(r"\bIn Image(\d+)\b")
_MARKUP = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<end_of_utterance>|\[/?INST\]|<\|(?:user|assistant|system)\|>|"
    r"\b(?:ASSISTANT|Assistant|GPT):\s*$"
)
"""Marks that chat templates write around a question."""


class SkippedRow(Skipped):
    """A row of a file that gave no pair."""

    row: int
    """Its place in the file, from 1."""


def to_pair(
    row: Any, number: int, fmt: str, name_picture: NamePicture, without_system: Callable[[], None] | None = None
) -> PreferencePair | SkippedRow:
    """The pair of a row, or why there is none.

    A row that another tool wrote says nothing of regions: several images make a `sequence`, one a `single`; the target is the
    one that the prompt names with "In ImageN", else the first.

    Args:
        without_system: called for each pair that loses its system message; None: a row with one is refused.
    """
    record_id = f"row-{number}"
    try:
        record_id = _id(row, record_id)
        talk = read_talk(row, fmt)
        asked = [message for message in talk.asked if message.role != SYSTEM or message.pictures]
        drop = without_system is not None and len(asked) < len(talk.asked)
        pair = _pair(row, record_id, replace(talk, asked=asked) if drop else talk, name_picture)
        if drop and without_system:
            without_system()
        return pair
    except Refused as refused:
        reason = str(refused)
    except DataError as error:
        reason = str(error)
    except ValidationError as error:
        reason = f"bad row: {summary(error)}"
    except RecursionError:
        reason = "bad row: it is nested too deeply"
    return SkippedRow(id=record_id, row=number, reason=reason)


def own_ids(
    records: Iterator[PreferencePair | SkippedRow], renamed: Callable[[str], None] = lambda _: None
) -> Iterator[PreferencePair | SkippedRow]:
    """The records, each pair with an id of its own (see `checks.ids.free_id`); `renamed` is called with each repeated id."""
    seen: set[str] = set()
    numbers: Counter[str] = Counter()
    for record in records:
        if isinstance(record, PreferencePair):
            if record.id in seen:
                renamed(record.id)
                record = record.model_copy(update={"id": free_id(record.id, seen, numbers)})
            seen.add(record.id)
        yield record


def _id(row: Any, default: str) -> str:
    """The row's own id: any text or number, 0 included."""
    given = next((row[key] for key in ("id", "idx") if row.get(key) is not None), "") if isinstance(row, Mapping) else ""
    if given == "" or isinstance(given, bool) or not isinstance(given, str | int | float):
        return default
    return _whole(str(given), "id") or default


def _pair(row: Mapping[str, Any], record_id: str, talk: Talk, name_picture: NamePicture) -> PreferencePair:
    prompt, pictures = _prompt(talk)
    texts = {"prompt": prompt, "chosen": _answer(talk.chosen, "chosen"), "rejected": _answer(talk.rejected, "rejected")}
    extra = _extra(row, prompt, len(pictures))
    if _same_but_for_the_first_break(extra.get("prompt"), prompt):
        texts["prompt"] = extra["prompt"]
    own = extra.get("images") or [None] * len(pictures)
    pair = PreferencePair.model_validate({"id": record_id, **extra, "images": ["?"] * len(pictures), **texts})
    if problem := pair_problem(pair):
        raise Refused(problem)
    names = [name_picture(picture, name) for picture, name in zip(pictures, own, strict=True)]
    return pair.model_copy(update={"images": names})


def _same_but_for_the_first_break(exported: Any, prompt: str) -> bool:
    """Whether a prompt is the one that we exported: message parts leave the break behind the first pictures to the template."""
    if not isinstance(exported, str):
        return False
    ours, read = (without_first_break(message_parts(text)) for text in (exported, prompt))
    return ours == read


def _prompt(talk: Talk) -> tuple[str, list[Any]]:
    """The question with its placeholders, and a picture for each."""
    asked = talk.asked
    if any(message.role == SYSTEM for message in asked):
        raise Refused(
            "system message: a pair has no place for one, and the model would answer to another prompt; "
            "if it may go, import with --drop-system"
        )
    roles = [message.role for message in asked]
    if roles != [USER]:
        if roles[::2] == [USER] * len(roles[::2]) and roles[1::2] == [ASSISTANT] * (len(roles) // 2) and len(roles) % 2:
            raise Refused(f"several turns: {len(roles)} messages stand before the answers, a pair has place for one question")
        raise Refused(f"bad row: expected one question from user before the answers, got {', '.join(roles) or 'nothing'}")
    message = asked[0]
    if not message.text.replace(IMAGE, "").strip():
        raise Refused("no question: the prompt is empty")
    if foreign := foreign_placeholder(message.text):
        raise Refused(f"placeholder: the prompt holds {foreign}; expected {IMAGE} where a picture stands")
    if markup := _MARKUP.search(message.text):
        raise Refused(
            f"chat markup: the prompt holds {excerpt(markup.group().strip())}, as if a chat template had been applied; "
            "training applies the model's own, so give the question alone"
        )
    pictures, rest = _placed(message, talk)
    if not pictures:
        raise Refused("no image: the row has text only")
    text = IMAGE * rest + (talk.lead or "") + message.text if rest else message.text
    return _whole(text, "prompt"), pictures


def _placed(message: Message, talk: Talk) -> tuple[list[Any], int]:
    """A picture for every placeholder, and how many placeholders have yet to be put in front."""
    images = list(talk.images)
    brought = [picture for picture in message.pictures if picture is not None]
    waiting = len(message.pictures) - len(brought)
    if not waiting and brought == images:  # named twice: in the message and in the row
        return brought, 0
    if images and not message.pictures and not message.parts and talk.lead is not None:
        return images, len(images)
    if waiting != len(images):
        raise Refused(
            f"image count: expected one {IMAGE} for each image, got {waiting} in the prompt for {len(images)} images of the row"
        )
    column = iter(images)
    return [picture if picture is not None else next(column) for picture in message.pictures], 0


def _answer(answer: list[Message], side: str) -> str:
    if len(answer) != 1 or answer[0].role != ASSISTANT:
        roles = ", ".join(message.role for message in answer) or "nothing"
        raise Refused(
            f"several turns: expected the {side} answer to be one message from assistant behind the same prompt, got {roles}"
        )
    return _whole(answer[0].text, f"{side} answer")


def _whole(text: str, what: str) -> str:
    """The text, unless a file could not hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(f"bad row: the {what} holds half a character (a lone surrogate), as cut JSON does") from None
    return text


def _extra(row: Mapping[str, Any], prompt: str, count: int) -> dict[str, Any]:
    """All fields besides the texts: from the column that our own export adds, from a pair as we keep it, else guessed."""
    own = row.get(EXTRA)
    if not own and row.keys() >= {"format", "regions", "target"}:
        own = {name: value for name, value in row.items() if name not in ("prompt", "chosen", "rejected")}
    if not own:
        return _guess(prompt, count)
    try:
        extra = json.loads(own) if isinstance(own, str) else own
    except ValueError as error:
        raise Refused(f"bad row: the column {EXTRA} is not valid JSON: {error}") from None
    if not isinstance(extra, dict) or not isinstance(extra.get("images"), list):
        raise Refused(f"bad row: expected an object with images in the column {EXTRA}, got {excerpt(extra)}")
    if len(extra["images"]) != count:
        raise Refused(f"image count: expected {len(extra['images'])} images as when it was exported, got {count}")
    return extra


def _guess(prompt: str, count: int) -> dict[str, Any]:
    named = _NAMED_TARGET.search(prompt)
    target = int(named[1]) - 1 if named else 0
    return {
        "format": IMAGE_FILES if count > 1 else SINGLE,
        "regions": [Region(image=index, label=label(index)).model_dump() for index in range(count)],
        "target": target if 0 <= target < count else 0,
        "scores": {},
    }
