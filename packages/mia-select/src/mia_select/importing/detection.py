"""Whose layout a row has, and what it says in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mia_augment.images import excerpt

from mia_select.importing.messages import Refused
from mia_select.importing.tables import without_text_lists
from mia_select.importing.talks import ForeignRow, Talk
from mia_select.layouts import LAYOUTS


def detect(row: ForeignRow) -> str:
    """Whose layout a row has, by its columns: the lowest in the table that claims it.

    Raises:
        Refused: none that is known.
    """
    if found := next((name for name, layout in reversed(LAYOUTS.items()) if layout.claims(row)), None):
        return found
    if row and all(isinstance(entry, Mapping) and "annotation" in entry for entry in row.values()):
        raise Refused(
            "bad row: this lists annotation files, as MMPR's meta does; import each of them, with its root as image root"
        )
    names = excerpt(", ".join(map(str, list(row)[:8])))
    raise Refused(f"bad row: expected the columns chosen and rejected, or messages and rejected_response; got {names}")


def read_talk(row: Any, fmt: str) -> Talk:
    """The row in the layout `fmt`, or `auto`.

    Raises:
        Refused: it says nothing that can be learnt from; the reason says what is wrong.
    """
    if not isinstance(row, Mapping):
        raise Refused(f"bad row: expected an object with a prompt and two answers, got {excerpt(row)}")
    row = without_text_lists(row)
    for key in ("tools", "videos", "video", "audios", "audio"):
        if row.get(key) and row[key] not in ("[]", "null"):
            kind = "tools" if key == "tools" else "no image"
            raise Refused(f"{kind}: the row has {key}, which a pair over pictures cannot hold")
    return LAYOUTS[detect(row) if fmt == "auto" else fmt].read(row)
