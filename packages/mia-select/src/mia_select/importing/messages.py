"""Messages of any chat format as one kind: who speaks, and a text with a placeholder where a picture stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mia_augment import IMAGE
from mia_augment.images import excerpt

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
_ROLES = {
    **dict.fromkeys(("user", "human"), USER),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), ASSISTANT),
    SYSTEM: SYSTEM,
}
_TOOL_ROLES = frozenset(
    ("tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation", "observations")
)
_TEXT_PARTS = frozenset(("text", "input_text", "output_text"))
_PICTURE_PARTS = frozenset(("image", "image_url", "input_image"))
_PAYLOADS = ("image", "image_url", "url", "path", "bytes", "base64", "data")
"""Keys under which a part of a message brings its own picture."""


class Refused(Exception):
    """Why a row gives no pair; the text up to the first colon is the kind of reason, under which it is counted."""


@dataclass(frozen=True)
class Message:
    """What one side says at once."""

    role: str
    text: str
    """Holds `<image>` for every picture that stands in it."""
    pictures: tuple[Any, ...] = ()
    """For every `<image>` the picture that the message itself brings; None: the next one of the row's images."""
    parts: bool = False
    """Whether it came as typed parts, where a picture without a part is a mistake."""


def said(role: str, value: Any, what: str) -> Message:
    """A message from its content: a text, a number, or typed parts.

    Raises:
        Refused: nothing was said, or something that is neither text nor picture; `what` says where.
    """
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        read = [_part(part, what) for part in value]
        pictures = tuple(picture for _, found in read for picture in found)
        return Message(role, "".join(text for text, _ in read), pictures, parts=True)
    text = plain(value, what)
    return Message(role, text, (None,) * text.count(IMAGE))


def plain(value: Any, what: str) -> str:
    """A text, or a finite number as one."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    raise Refused(f"bad row: expected a text as {what}, got {excerpt(value)}")


def filled(row: Mapping[str, Any], key: str) -> Any:
    """What stands under a key; None where there is nothing or an empty list, as tables fill missing columns."""
    value = row.get(key)
    return None if isinstance(value, Sequence) and not isinstance(value, str | bytes) and not value else value


def messages(value: Any, what: str) -> list[Message]:
    """A conversation: `[{role, content}]`, `[{from, value}]`, or `[{user, assistant}]` with both sides of a turn at once."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise Refused(f"bad row: expected a list of messages as {what}, got {excerpt(value)}")
    found = []
    for index, entry in enumerate(value, 1):
        where = f"message {index} of {what}"
        if not isinstance(entry, Mapping):
            raise Refused(f"bad row: expected an object with role and content as {where}, got {excerpt(entry)}")
        found.extend(_entry(entry, where))
    return found


def is_conversation(value: Any) -> bool:
    """Whether it is a list of messages, and not a text or a list of parts."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and bool(value) and _is_message(value[0])


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and any(key in value for key in ("role", "from"))


def _entry(entry: Mapping[str, Any], where: str) -> list[Message]:
    if entry.get("tool_calls"):
        raise Refused(f"tools: {where} calls a tool; expected questions and answers about pictures only")
    role = entry.get("role", entry.get("from"))
    if role is None:
        sides = [(side, entry[key]) for key, side in _ROLES.items() if key in entry]
        if sides:
            return [said(side, content, where) for side, content in sides]
    known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        if isinstance(role, str) and role.replace("-", "_") in _TOOL_ROLES:
            raise Refused(f"tools: {where} is from {role}; expected questions and answers about pictures only")
        raise Refused(f"bad row: expected {where} to be from user, assistant or system, got {excerpt(role)}")
    return [said(known, entry.get("content", entry.get("value")), where)]


def _part(part: Any, what: str) -> tuple[str, tuple[Any, ...]]:
    """A part's text and the pictures in it."""
    if not isinstance(part, Mapping):
        raise Refused(f"bad row: expected typed parts in {what}, got {excerpt(part)}")
    kind = part.get("type") or ("text" if part.get("text") is not None else next((k for k in _PAYLOADS if k in part), None))
    if not isinstance(kind, str):
        raise Refused(f"bad row: expected parts of text or image in {what}, got one of {excerpt(kind)}")
    if kind in _TEXT_PARTS:
        text = plain(part.get("text") or "", what)
        return text, (None,) * text.count(IMAGE)
    if kind in _PICTURE_PARTS or part.get("type") is None:
        return IMAGE, (next((part[key] for key in _PAYLOADS if part.get(key) is not None), None),)
    raise Refused(f"bad row: expected parts of text or image in {what}, got one of {excerpt(kind)}")
