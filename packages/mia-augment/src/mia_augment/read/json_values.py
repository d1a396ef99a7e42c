"""The values of a JSON file, one at a time, whatever surrounds them and however large the file is.

Read are arrays, lines (JSONL), values one after another, rows under one key of an object (``{"data": [..]}``) or under a key
each (``{"0": {..}, "1": {..}}``), and any sequence of these. No more than a chunk and one value is held in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mia_augment.errors import DataError
from mia_augment.images.picture_values import excerpt
from mia_augment.read.text_files import Text

CHUNK = 1 << 20
MAX_ROW = 64 << 20
"""A row longer than this many characters is taken for a broken file."""
LOOKAHEAD = 16
"""An error this near the end of what was read may just mean that the rest has to be read."""

_MOST_FIRST_KEYS = 64
"""So many first keys of rows are remembered."""
_TALK = frozenset(("conversations", "conversation", "messages", "texts", "question", "query"))
_PICTURE = frozenset(("image", "images", "image_path", "file_name"))
ROW_KEYS = _TALK | _PICTURE | {"id", "sample_id", "question_id"}
"""Keys by which an object is known as a row, and not as something around rows."""
_SPLITS = ("train", "validation", "val", "test")
_AROUND = frozenset(
    ("data", "rows", "annotations", "samples", "examples", "items", "records", "instances", "dataset", *_SPLITS)
)
"""Keys under which an object may hold a list of rows."""
_SPACE = re.compile("[ \t\r\n\ufeff]*")
"""A byte order mark may stand where files were put together."""
_FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\]|\\.){0,200})"\s*:')
_DECODE = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class Damaged:
    """A place in a file where no row could be read."""

    reason: str


def json_values(text: Text) -> Iterator[Any]:
    """Yield the values of an opened JSON file, and a `Damaged` for each that cannot be read.

    Raises:
        DataError: damaged in a place behind which no row can be found.
    """
    return _Reader(text).top_level()


def _rows_of(members: dict[str, Any]) -> list[Any]:
    """The rows of an object that holds one list of objects and nothing of a row; else the object itself."""
    lists = [value for value in members.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(lists) == 1 and not members.keys() & ROW_KEYS else [members]


class _Broken(Exception):
    """A value is no JSON; `place`: where in the buffer."""

    def __init__(self, problem: str, place: int) -> None:
        super().__init__(problem)
        self.place = place


class _Reader:
    def __init__(self, text: Text) -> None:
        self._source, self._name = text, text.name
        self._buffer, self._position, self._ended = "", 0, False
        self._count, self._line, self._line_known_to = 0, 1, 0
        self._first_keys: set[str] = set()
        self._gave_up = False
        """No row was found behind a damaged one."""

    def top_level(self) -> Iterator[Any]:
        while here := self._next():
            if here == "[":
                self._position += 1
                yield from self._array()
            elif here == "{" and self._around_rows():
                yield from self._object()
            elif here == ",":
                self._position += 1
            else:
                yield from self._row(in_array=False)

    def _array(self) -> Iterator[Any]:
        """The rest of an array, behind its bracket or a comma."""
        while here := self._next():
            if here == "]":
                self._position += 1
                return
            if here == ",":
                self._position += 1
            else:
                yield from self._row(in_array=True)
        if not self._gave_up:
            yield self._breaks_off("a bracket is missing at the end")

    def _object(self) -> Iterator[Any]:
        """Rows below an object's keys; the object itself where there are none."""
        members: dict[str, Any] = {}
        damaged: list[Damaged] = []
        before = self._count
        self._position += 1
        try:
            while (here := self._next()) != "}":
                if not here:
                    raise _Broken("a brace is missing at the end", len(self._buffer))
                if here == ",":
                    self._position += 1
                    continue
                key = self._key()
                if self._next() == "[" and key in _AROUND:
                    self._position += 1
                    yield from self._array()
                    continue
                value = self._decoded()
                if isinstance(value, dict) and value.keys() & _PICTURE and value.keys() & _TALK:
                    yield self._counted({"id": key, **value})
                elif isinstance(value, Damaged):
                    damaged.append(value)
                else:
                    members[key] = value
        except _Broken as broken:
            yield from self._skipped(broken, in_array=False)
            return
        self._position += 1
        if self._count == before:
            for value in damaged[:1] or _rows_of(members):
                yield self._counted(value)
            return
        for one in damaged:
            yield self._counted(one)
        if members.keys() & ROW_KEYS:
            raise DataError(f"{self._name}: expected rows or one row, got an object with both: {excerpt(list(members), 200)}")

    def _around_rows(self) -> bool:
        """Whether the object here may be one around rows: its first key is none of a row."""
        while not (match := _FIRST_KEY.match(self._buffer, self._position)):
            if self._ended or len(self._buffer) - self._position > 4096:
                return False
            self._more(CHUNK)
        return match[1] not in ROW_KEYS and match[1] not in self._first_keys

    def _key(self) -> str:
        key = self._decoded()
        if not isinstance(key, str) or self._next() != ":":
            raise _Broken("expected a key and a colon", self._position)
        self._position += 1
        self._next()
        return key

    def _row(self, in_array: bool) -> Iterator[Any]:
        try:
            value = self._decoded()
            if in_array and (behind := self._next()) not in (",", "]", "{", ""):
                raise _Broken(f"expected ',' or ']', got {behind!r}", self._position)
        except _Broken as broken:
            yield from self._skipped(broken, in_array)
            return
        yield self._counted(value)

    def _counted(self, value: Any) -> Any:
        self._count += 1
        if isinstance(value, dict) and value and len(self._first_keys) < _MOST_FIRST_KEYS:
            self._first_keys.add(next(iter(value)))
        return value

    def _decoded(self) -> Any:
        """Decode the value at the position and move behind it.

        Raises:
            _Broken: no JSON.
        """
        wanted = CHUNK
        while True:
            try:
                value, end = _DECODE(self._buffer, self._position)
                if end < len(self._buffer) or self._ended:
                    start, self._position = self._position, end
                    if not self._source.doubtful:
                        return value
                    reason = self._source.undecoded(self._buffer[start:end], f"row {self._count + 1}")
                    return Damaged(reason) if reason else value
                broken, place = None, end
            except json.JSONDecodeError as error:
                broken, place = error.msg, len(self._buffer) if error.msg.startswith("Unterminated") else error.pos
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets within brackets
                broken, place = str(error), self._position
            if broken and (self._ended or place < len(self._buffer) - LOOKAHEAD):
                raise _Broken(broken, place)
            if len(self._buffer) - self._position > MAX_ROW:
                raise self._hopeless(broken or f"longer than {MAX_ROW} characters")
            self._more(wanted)
            wanted *= 2

    def _skipped(self, broken: _Broken, in_array: bool) -> Iterator[Any]:
        """Say what is broken and go to the next row behind the position; without one, to the end of the file."""
        at_end = self._ended and broken.place >= len(self._buffer) - LOOKAHEAD
        where = f"{f'row {self._count + 1}' if in_array else f'line {self._line_here()}'} of {self._name}"
        pattern, searched = self._row_start(in_array), self._position + 1
        while not (behind := pattern.search(self._buffer, searched)) and not self._ended:
            if len(self._buffer) - self._position > MAX_ROW:
                raise self._hopeless(str(broken))
            searched = max(1, len(self._buffer) - 4096 - self._position)
            self._more(CHUNK)
        self._position = behind.end() if behind else len(self._buffer)
        self._gave_up = not behind
        if behind:
            yield self._counted(Damaged(f"bad row: {where} is not valid JSON: {broken}"))
        elif at_end:
            yield self._breaks_off(str(broken))
        elif in_array and not self._first_keys:
            raise self._hopeless(str(broken))
        else:
            yield self._counted(Damaged(f"bad row: {where} is not valid JSON: {broken}; no other row stands behind it"))

    def _row_start(self, in_array: bool) -> re.Pattern[str]:
        """What stands before a row, to find the next one behind a damaged one: rows are known by their first key."""
        keys = "|".join(re.escape(json.dumps(key, ensure_ascii=False)) for key in sorted(self._first_keys | ROW_KEYS))
        before = r"(?:,|\n|\]\s*\[)\s*" if in_array else r"\n\s*"
        return re.compile(rf"{before}(?=\{{\s*(?:{keys})\s*:)" + ("" if in_array else r"|\n(?=[\[{])"))

    def _breaks_off(self, problem: str) -> Damaged:
        self._count += 1
        return Damaged(f"bad row: {self._name} breaks off in or before its row {self._count}: {problem}")

    def _hopeless(self, problem: str) -> DataError:
        return DataError(
            f"{self._name}: row {self._count + 1} is not valid JSON ({problem}) and no row can be found behind it; "
            "mend it, or convert the file to JSONL, where a bad line costs that line alone"
        )

    def _next(self) -> str:
        """Move to the next character that is no space and return it; empty: the file has ended."""
        while True:
            self._position = _SPACE.match(self._buffer, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if self._ended:
                return ""
            self._more(CHUNK)

    def _more(self, wanted: int) -> None:
        """Read on, and forget what lies before the position."""
        self._line_here()
        more = self._source.file.read(wanted)
        self._ended = not more
        self._buffer, self._position, self._line_known_to = self._buffer[self._position :] + more, 0, 0

    def _line_here(self) -> int:
        self._line += self._buffer.count("\n", self._line_known_to, self._position)
        self._line_known_to = self._position
        return self._line
