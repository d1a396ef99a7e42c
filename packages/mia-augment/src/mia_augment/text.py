"""When two short answers say the same."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = frozenset(("a", "an", "the"))
_NO_APOSTROPHES = str.maketrans("", "", "'\u2019\u2018`\u00b4")
_KEPT = frozenset("%#&@")
"""Punctuation to Unicode, but part of an answer: 50 %, C#."""
_DIGIT = re.compile(r"\d")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER_MARKS = re.compile(r"(?<=\d)[.:/](?=\d)|(?<![\w.])[-\u2212](?=\.?\d)|(?<!\w)\.(?=\d)")
"""Marks that belong to a number: 3.5, 10:30, 1/2, -3, .5."""
_KEEP_POINT, _KEEP_MINUS, _KEEP_COLON, _KEEP_SLASH = "\ue000", "\ue001", "\ue002", "\ue003"
_SHIELD = {".": _KEEP_POINT, "-": _KEEP_MINUS, "\u2212": _KEEP_MINUS, ":": _KEEP_COLON, "/": _KEEP_SLASH}
_UNSHIELD = str.maketrans({_KEEP_POINT: ".", _KEEP_MINUS: "-", _KEEP_COLON: ":", _KEEP_SLASH: "/"})


def _replacement(character: str) -> str | None:
    """A space for a punctuation mark that goes; None: the character stays."""
    return " " if unicodedata.category(character).startswith("P") and character not in _KEPT else None


_ASCII = str.maketrans({c: new for c in map(chr, range(128)) if (new := _replacement(c)) is not None})
_WORDS = _ASCII | _NO_APOSTROPHES
"""For texts without numbers, both in one."""


def normalize_answer(text: str) -> str:
    """An answer without case, punctuation, articles and surplus whitespace.

    Marks inside numbers stay (``3.5``, ``-3``, ``10:30``), commas between thousands go. A last word is no article (``The
    letter is A.``), and where nothing would be left the text itself stays.

    >>> normalize_answer("  The Colour: is a DARK-red. ")
    'colour is dark red'
    >>> normalize_answer("It costs 1,000.50!")
    'it costs 1000.50'
    """
    folded = text.lower() if text.isascii() else _fold(text)
    words = _without_punctuation(folded).split()
    kept = [word for word in words[:-1] if word not in _ARTICLES]
    return " ".join(kept + words[-1:]) or folded.strip()


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are equal after `normalize_answer`.

    >>> same_answer("Red.", "the red")
    True
    >>> same_answer("3.5", "35")
    False
    """
    return first == second or normalize_answer(first) == normalize_answer(second)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _without_punctuation(text: str) -> str:
    numbers = _DIGIT.search(text) is not None
    if not numbers and text.isascii():
        return text.translate(_WORDS)
    text = text.translate(_NO_APOSTROPHES)
    if numbers:
        text = _NUMBER_MARKS.sub(lambda mark: _SHIELD[mark.group()], _THOUSANDS.sub("", text))
    if text.isascii():
        return text.translate(_ASCII)
    text = "".join(c if (new := _replacement(c)) is None else new for c in text)
    return text.translate(_UNSHIELD) if numbers else text
