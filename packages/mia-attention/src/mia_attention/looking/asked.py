"""What a person asks about some pictures: the prompt, and the same question about one picture alone. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mia_augment import IMAGE, ConfigError, DataError, open_picture
from mia_augment.compose import label, sequence_header, single_header
from PIL import Image

Picture = str | Path | Image.Image
"""A file, or a picture that is open already."""

_NAMED = re.compile(r"(?<![A-Za-z])(?:image|picture|photo|photograph|img|pic)\s?#?(\d{1,2})(?![0-9A-Za-z])", re.IGNORECASE)
_LEAD = re.compile(rf"^\s*(?:in|on|at|for|from|of|within|considering|regarding)\s+(?:the\s+)?{_NAMED.pattern}\s*[,:]?\s*", re.I)


@dataclass(frozen=True)
class Asked:
    """A question about pictures.

    Attributes:
        pictures: RGB, upright.
        labels: what the prompt calls each: Image1, Image2 ..
        names: of their files, or their labels.
        question: as it was given.
        prompt: with ``<image>`` once per picture.
        alone: the prompt that asks the same about a single picture; None: it makes no sense there.
        why_not_alone: why not, where `alone` is None.
        about: index of the picture that the question names, None: none, or several.
    """

    pictures: list[Image.Image]
    labels: list[str]
    names: list[str]
    question: str
    prompt: str
    alone: str | None
    why_not_alone: str | None
    about: int | None


def ask_about(pictures: Sequence[Picture], question: str, names: Sequence[str] | None = None) -> Asked:
    """Open the pictures and word the prompt.

    A question without ``<image>`` gets the pictures in front of it, named Image1, Image2 ..; one that holds ``<image>`` once
    per picture is the prompt as it stands.

    Args:
        names: of the pictures, to be shown; by default their files'.

    Raises:
        ConfigError: there is no picture, or no question.
        DataError: a picture cannot be opened, the question names an image that is not there, or it has another number of
            ``<image>`` than there are pictures.
    """
    if isinstance(pictures, str | Path | Image.Image):
        raise ConfigError(
            f"pictures: expected a list of files or pictures, got one {type(pictures).__name__}: put it in a list"
        )
    if not pictures:
        raise ConfigError("pictures: expected at least one, got none")
    if not isinstance(question, str) or not question.replace(IMAGE, "").strip():
        raise ConfigError(f"question: expected a text, got {question!r}")
    count = len(pictures)
    prompt = _prompt(question, count)
    named = named_images(question)
    if prompt != question and (wrong := [number for number in named if not 1 <= number <= count]):
        only = "only one picture is" if count == 1 else f"{count} pictures are"
        raise DataError(
            f"the question names image {wrong[0]}, but {only} given, {_range(count)}: give the picture, or ask about another; "
            f"if a picture holds several, write {IMAGE} where each picture stands in the question; "
            "see docs/errors.md#no-such-image"
        )
    if names is not None and len(names) != count:
        raise ConfigError(f"names: expected one for each of {count} pictures, got {len(names)}")
    opened = [_opened(picture, index) for index, picture in enumerate(pictures)]
    alone, why_not = _alone(question, prompt, count, named)
    return Asked(
        pictures=opened,
        labels=[label(index) for index in range(count)],
        names=list(names) if names else [_name(picture, index) for index, picture in enumerate(pictures)],
        question=question,
        prompt=prompt,
        alone=alone,
        why_not_alone=why_not,
        about=named[0] - 1 if len(named) == 1 else None,
    )


def named_images(question: str) -> list[int]:
    """Numbers of the images that a question names, each once, in order.

    >>> named_images("In Image2, is the cat as large as in picture 1? (Image 2)"), named_images("How many of the 3 pictures?")
    ([2, 1], [])
    """
    return list(dict.fromkeys(int(number) for number in _NAMED.findall(question)))


def bare_question(question: str) -> str:
    """A question about one named image, as it is asked about that image alone.

    >>> bare_question("In Image2, what animal is it?"), bare_question("What is on the left of image 1?")
    ('What animal is it?', 'What is on the left of the image?')
    """
    text = _NAMED.sub("the image", _LEAD.sub("", question)).strip()
    text = re.sub(r"\bthe the image\b", "the image", text, flags=re.I)
    return text[:1].upper() + text[1:]


def _prompt(question: str, count: int) -> str:
    placed = question.count(IMAGE)
    if placed == 0:
        return (single_header() if count == 1 else sequence_header(count)) + question.strip()
    if placed != count:
        raise DataError(
            f"the question holds {IMAGE} {placed} times for {count} picture{'s' * (count > 1)}: expected it once per picture, "
            "or not at all; see docs/errors.md#pictures-and-placeholders"
        )
    return question


def _alone(question: str, prompt: str, count: int, named: Sequence[int]) -> tuple[str | None, str | None]:
    if count == 1:
        return None, "a single picture: nothing to compare with"
    if prompt == question:
        return None, f"the question places its pictures itself ({IMAGE}): asked about one alone it would be another"
    if len(named) > 1:
        return None, f"the question names {len(named)} images: asked about one alone it would be another"
    return single_header() + bare_question(question), None


def _name(picture: Picture, index: int) -> str:
    return label(index) if isinstance(picture, Image.Image) else Path(picture).name


def _opened(picture: Picture, index: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if not isinstance(picture, str | Path):
        raise ConfigError(f"picture {index + 1}: expected a file or a PIL picture, got a {type(picture).__name__}")
    try:
        return open_picture(picture)
    except DataError as error:
        raise DataError(f"picture {index + 1}: {error}; see docs/errors.md#picture-that-cannot-be-opened") from error


def _range(count: int) -> str:
    return "Image1" if count == 1 else f"Image1 to {label(count - 1)}"
