"""What pydantic found wrong with values, in words of our own: for each place what was expected and what was found.

Its own messages name types of Python, and its places the alternatives that it tried (`layer.list[int]`, `formats.x.[key]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

VALUE_WIDTH = 200
"""Characters of a value that are shown."""
_UNKNOWN_KEY = "extra_forbidden"

_EXPECTED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number that is not so long", "float_type": "a number", "float_parsing": "a number",
    "finite_number": "a finite number", "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "a text", "path_type": "a path", "list_type": "a list", "tuple_type": "a list",
    "dict_type": "keys and values", "model_type": "keys and values", "model_attributes_type": "keys and values",
    "mapping_type": "keys and values", "none_required": "null", "bytes_type": "bytes",
    "string_unicode": "a text that UTF-8 can hold", "literal_error": "{expected}", "enum": "{expected}",
    "greater_than": "a number greater than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "a number less than {lt}", "less_than_equal": "at most {le}",
    "too_short": "at least {min_length}, by number", "too_long": "at most {max_length}, by number",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
}  # fmt: skip
"""Kind of problem -> what was expected; what stands in brackets pydantic tells."""
_ALTERNATIVE = re.compile(r"\[key\]|[A-Z]\w*|(?:int|str|float|bool|none|path|bytes)|\w[\w-]*\[.*\]|(?:function|lax|json)-\S*")
"""Part of a place that names an alternative, or says that a key is meant."""


class Problem(NamedTuple):
    """What is wrong at one place."""

    place: tuple[Any, ...]
    """Keys that lead there, from the outermost."""
    text: str
    """``expected a whole number, got 'many'``."""
    unknown: bool = False
    """The last key of the place is none that is known there."""


def problems(error: ValidationError, real: Callable[[Sequence[Any], str], tuple[Any, ...]] | None = None) -> list[Problem]:
    """One problem for each place. Of a value with several alternatives, that of the one which it came nearest to.

    Args:
        error: what pydantic raised.
        real: from where and what (its type) pydantic says a problem is to the keys that lead there; by default the names of
            alternatives are left out.
    """
    by_place: dict[tuple[Any, ...], list[Any]] = {}
    for found in error.errors(include_url=False):
        place = (real or _without_alternatives)(found["loc"], found["type"])
        by_place.setdefault(place, []).append(found)
    return [
        Problem(place, _told(found), unknown=any(each["type"] == _UNKNOWN_KEY for each in found))
        for place, found in by_place.items()
        if not any(other != place and other[: len(place)] == place for other in by_place)
    ]


def _without_alternatives(place: Sequence[Any], kind: str) -> tuple[Any, ...]:
    ends = len(place) - 1 if kind in (_UNKNOWN_KEY, "missing") else len(place)
    inner = (key for key in place[:ends] if not (isinstance(key, str) and _ALTERNATIVE.fullmatch(key)))
    return (*inner, *place[ends:])


def _told(found: Sequence[Any]) -> str:
    """What was expected, by any of the alternatives, and what was found."""
    first = found[0]
    if first["type"] == "missing":
        return "is missing"
    if first["type"] == _UNKNOWN_KEY:
        return "is no known key"
    if first["type"] == "json_invalid":
        return f"not valid JSON: {first['ctx']['error']}"
    own = next((str(each["ctx"]["error"]) for each in found if each["type"] == "value_error"), None)
    if own is not None:
        plain = isinstance(first["input"], str | int | float)
        return f"{own}, got {shown(first['input'])}" if plain and "got " not in own else own
    return f"expected {', or '.join(dict.fromkeys(map(_expected, found)))}, got {shown(first['input'])}"


def _expected(found: Any) -> str:
    known = _EXPECTED.get(found["type"])
    if known is not None:
        return known.format(**found.get("ctx", {}))
    text = re.sub(r"^\w+ should (?:be )?", "", found["msg"])
    return text[:1].lower() + text[1:]


def shown(value: Any) -> str:
    """A value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= VALUE_WIDTH else f"{text[:VALUE_WIDTH]} ..."


def dotted(place: Sequence[Any]) -> str:
    """Keys as a person writes them: ``train.lora.r``."""
    return ".".join(map(str, place))


def summary(error: ValidationError) -> str:
    """The first few problems of a record in one line: ``field: what is wrong``."""
    found = problems(error)
    parts = [f"{dotted(problem.place) or 'record'}: {problem.text}" for problem in found[:3]]
    return "; ".join(parts) + (f" (and {len(found) - 3} more)" if len(found) > 3 else "")
