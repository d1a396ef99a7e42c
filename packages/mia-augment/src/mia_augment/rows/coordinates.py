"""Texts that speak of places in a picture by numbers, which are wrong as soon as its pixels move."""

from __future__ import annotations

import re

_NUMBER = r"[-+]?(?:\d{1,7}(?:\.\d{0,12})?|\.\d{1,12})(?:\s?(?:%|px))?"
_FRACTION = r"(?<![\d.])(?:0?\.\d{2,12}|0\.\d|1\.0{1,12})(?![\d.]\d)"
_GAP, _COMMA = r"\s{0,3}", r"\s{0,3},\s{0,3}"
_OPEN, _CLOSE = rf"[\[(]{_GAP}", rf"{_GAP}[\])]"
_UNIT = r"\d{1,7}(?:\.\d{0,12})?\s?(?:%|px|pixels?\b)"
_BETWEEN = r"[\s,;]{1,4}"
_FOUR = rf"{_NUMBER}(?:{_BETWEEN}{_NUMBER}){{3}}"
_POINT = rf"{_OPEN}\d{{1,7}}{_COMMA}\d{{1,7}}{_CLOSE}"
_CUE = r"\b(?:at|point|click|tap|positions?|locations?|located|regions?|area|box|cent(?:er|re)|corners?)\W{1,3}"
_X, _Y = (rf"""(?<![\w\\]){axis}_?\d?["']?{_GAP}[=:]{_GAP}["']?{_NUMBER}""" for axis in "xy")

_PLACES = re.compile(
    rf"[\[(<{{]{_GAP}{_NUMBER}(?:{_COMMA}{_NUMBER}){{3}}{_GAP}[\])>}}]"  # four numbers in brackets: a box
    rf"|[\[({{]{_GAP}{_NUMBER}(?:\s{{1,3}}{_NUMBER}){{3}}{_GAP}[\])}}]"  # the same without commas
    rf"|{_OPEN}0?\.\d{{1,12}}{_COMMA}0?\.\d{{1,12}}{_CLOSE}"  # two fractions: a point
    rf"|{_OPEN}{_UNIT}{_COMMA}{_UNIT}{_CLOSE}"  # (34%, 60%)
    rf"|{_POINT}[^()\[\]]{{0,40}}{_POINT}"  # two points: corners
    rf"|{_FRACTION}(?:{_BETWEEN}{_FRACTION}){{3}}"  # four fractions without brackets
    rf"|{_CUE}(?:{_FOUR}|{_OPEN}{_NUMBER}{_COMMA}{_NUMBER}{_CLOSE})"  # at 12 40 330 200; at (120, 340)
    rf"|{_X}[^\n]{{0,12}}?{_Y}"  # x=34, y=60
    rf"|{_UNIT}\s(?:in |away )?from (?:the|its) (?:left|right|top|bottom)"
    r"|\b(?:left|top)\s?[:=]\s?\d{1,5}(?:\.\d{1,6})?(?:%|px)"
    r"|<\d{1,4}>\s?<\d{1,4}>|\bx_?(?:1|min)\b\s?[\"']?\s?[=:,]|\b(?:point|box|bbox)_2d"
    r"|<loc_?\d+>|<bin_?\d+>|<patch_index_\d+>|<coord|</?(?:b?box|quad|poly|points?)\b"
    r"|<\|/?(?:box|quad|point|poly|det|coord)(?:_start|_end)?\|>"
    r"|\bbbox|\bbounding[ _-]?box|\b(?:pixel )?coord(?:inate)?s?\b|\bxyxy\b|边界框|检测框|坐标",
    re.IGNORECASE,
)
"""Every repetition is bounded, so that no text can make the search slow."""
_ONLY_NUMBERS = re.compile(rf"\W{{0,3}}{_FOUR}\W{{0,3}}|{_OPEN}{_NUMBER}{_COMMA}{_NUMBER}{_CLOSE}\W{{0,3}}")
_LONGEST_NUMBERS = 120
_MAY = re.compile(r"\d|[bB][oO][xX]|[cC][oO][oO][rR][dD]|[xX][yY][xX][yY]|<|[边检坐]")
"""What every place holds: the quick way out for nearly all texts."""


def holds_coordinates(text: str) -> bool:
    """Whether a text speaks of places by numbers: boxes, points, location tokens, or by the words for these.

    Taken for places: four numbers or two fractions in brackets; four fractions, or a text of nothing but four numbers or one
    pair in brackets; numbers behind "at", "region", "box" and the like, four of them or a pair in brackets; x and y with
    values; shares or pixels from an edge; the tags and keys of Qwen-VL, InternVL, Kosmos, Florence, PaliGemma, Molmo, Gemini
    and their kin; and the words bounding box, bbox and coordinates. Not taken: sizes (34 x 60 cm), counts, years, scores such
    as (3, 4) within a sentence.

    What it cannot tell: solutions such as x = 3, y = 4 and four fractions read off a chart count as places (which costs a row
    only where nothing but formats that move pixels is made); numbers written as words, and single numbers, do not. "Left",
    "top" and quadrants are no numbers: they stay true within the part that is asked about.

    >>> holds_coordinates("[0.12, 0.4, 0.5, 0.9]"), holds_coordinates("There are 3, maybe 4 dogs.")
    (True, False)
    """
    if _MAY.search(text) is None:
        return False
    if len(text) <= _LONGEST_NUMBERS and _ONLY_NUMBERS.fullmatch(text.strip()):
        return True
    return _PLACES.search(text) is not None
