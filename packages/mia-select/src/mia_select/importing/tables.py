"""Messages and lists that a table such as CSV holds as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mia_augment.images import excerpt, parsed_list

from mia_select.importing.messages import Refused

_LISTS = frozenset(("images", "image", "rejected_images", "history"))
"""Columns whose text is never said to anyone, so that a list in it is one."""
_TALKS = frozenset(
    ("prompt", "chosen", "rejected", "messages", "conversations", "conversation", "rejected_messages", "rejected_response")
)
_MESSAGE = (("role", "content"), ("from", "value"))
_WRITTEN = [re.compile(rf"\[?\s*\{{.*['\"]{who}['\"]\s*:.*", re.DOTALL) for who, _ in _MESSAGE]


def without_text_lists(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with lists and messages in place of the texts that stand for them.

    An answer may well be JSON: only what consists of messages (role and content, or from and value) is taken for such.

    Raises:
        Refused: a text that is messages, written as no program reads them (as numpy prints them).
    """
    return {key: _unwritten(key, value) for key, value in row.items()}


def _unwritten(key: str, value: Any) -> Any:
    if not isinstance(value, str) or key not in _LISTS | _TALKS or not value.lstrip().startswith(("[", "{")):
        return value
    text = value.strip()
    single = text.startswith("{")
    found = parsed_list(f"[{text}]" if single else text)
    if isinstance(found, list) and found and (key in _LISTS or all(_is_message(entry) for entry in found)):
        return found[0] if single else found
    if isinstance(found, str) and any(written.fullmatch(text) for written in _WRITTEN):
        raise Refused(f"bad row: expected messages as {key}, got a text that cannot be read as such: {excerpt(text)}")
    return value


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and any(value.keys() >= set(keys) for keys in _MESSAGE)
