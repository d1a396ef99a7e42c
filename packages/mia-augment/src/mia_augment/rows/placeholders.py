"""Placeholders by which models and data sets mark where a picture stands, all written as `<image>`."""

from __future__ import annotations

import re

from mia_augment.compose.prompts import IMAGE
from mia_augment.errors import DataError

_ELSEWHERE = re.compile(
    r"</?(?:video|audio|speech|sound)(?:[ _]?\d{1,2})?>|<\|(?:video|audio|speech|sound)(?:_\w{1,12})?\|>|<video_context>"
    r"|<(?:video|audio)_(?:soft_token|placeholder)>|<\|kimi_k25_video_placeholder\|>",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"<\|?(?:image|img)[ _-]?(\d{1,2})\|?>", re.IGNORECASE)
"""`<image_1>`, `<image 1>`, `<|image_1|>`."""
_PADS = re.compile(
    r"(?:<\|image_pad\|>|<\|imgpad\|>|<\|media_pad\|>|<\|patch\|>|<img_context>|<im_patch>|<image_soft_token>|<image_pad>"
    r"|<\|vision_pad\|>|<\|endoftext10\|>)+",
    re.IGNORECASE,
)
"""Stand once for each of a picture's tokens."""
_PICTURES = re.compile(
    r"\(?<image>\./</image>\)?|<img>[^<>]{0,1000}</img>|<image(?:here|_placeholder|_token)?\s?/?>|<img_plh>|\[IMG\]"
    r"|<\|(?:image|image_token|image_placeholder|media_placeholder)\|>",
    re.IGNORECASE,
)
_OPEN = (
    r"(?:<\|vision_start\|>|<img>|<start_of_image>|<boi>|<im_start>|<image_start>|<\|image_start\|>|<\|img\|>|<\|begin_of_image\|>"
    r"|<\|media_begin\|>(?:image)?<\|media_content\|>|<image>(?=\s?<image>\s?</image>))"
)
_CLOSE = (
    r"(?:<\|vision_end\|>|</img>|<end_of_image>|<eoi>|<im_end>|<image_end>|<\|image_end\|>|<\|end_of_image\|>|<\|endofimg\|>"
    r"|<\|media_end\|>|</image>|\[IMG_END\])"
)
_FRAMED = re.compile(rf"{_OPEN}(?:\s?{IMAGE})?(?:\s?{_CLOSE})*|{IMAGE}(?:\s?{_CLOSE})+|{_CLOSE}", re.IGNORECASE)
_FOREIGN = (_ELSEWHERE, _NUMBERED, _PADS, _PICTURES, re.compile(_OPEN, re.IGNORECASE))
_END = re.compile(_CLOSE, re.IGNORECASE)
_FIRST = re.compile(rf"\(?\b(?:picture|image|img)[ _#]?1\s?:\s?{IMAGE}\)?", re.IGNORECASE)
"""A picture that is introduced by its number."""
_WITHIN = re.compile(r"[\w,] $")
"""What stands before a placeholder that is a part of a sentence."""


def one_placeholder(text: str) -> str:
    """A text in which every placeholder of a picture, with what frames it, is `<image>`.

    Known are those of Qwen-VL, InternVL, MiniCPM-V, InternLM-XComposer, MiniGPT-4, Gemma 3, Pixtral, Phi, Llama 3.2 and 4,
    GLM-4V, DeepSeek-VL, Kimi-VL, dots, Mantis and MMMU, in capitals or not. A numbered one within a sentence, where no other
    number stands, becomes "the image".

    Raises:
        DataError: a placeholder of a video or a sound.

    >>> one_placeholder("<|vision_start|><|image_pad|><|vision_end|>What digit?")
    '<image>What digit?'
    >>> one_placeholder("<image 1> What is left of the cup in <image 1>?")
    '<image> What is left of the cup in the image?'
    """
    if "<" not in text.replace(IMAGE, "") and "[IMG]" not in text:  # the quick way out for nearly all texts
        return _FIRST.sub(IMAGE, text) if IMAGE in text else text
    if found := _ELSEWHERE.search(text):
        raise DataError(
            f"no image: expected questions about a picture, got a placeholder of a video or a sound: {found.group()}"
        )
    text = _PICTURES.sub(IMAGE, _PADS.sub(IMAGE, _without_numbers(text)))
    return _FIRST.sub(IMAGE, _FRAMED.sub(_framed, text))


def foreign_placeholder(text: str) -> str | None:
    """The first placeholder of a text that is not `<image>`: of a video, of a sound, or the one of a single model.

    >>> foreign_placeholder("<image>What is left of it in <image_2>?")
    '<image_2>'
    """
    found = (match for pattern in _FOREIGN for match in pattern.finditer(text) if match.group() != IMAGE)
    first = min(found, key=lambda match: match.start(), default=None)
    return None if first is None else first.group()


def _framed(frame: re.Match[str]) -> str:
    """The picture of a frame; nothing for an end without a beginning."""
    return "" if _END.fullmatch(frame.group()) else IMAGE


def _without_numbers(text: str) -> str:
    """Numbered placeholders as `<image>`, or as words where they are said again or within a sentence."""
    alone, seen = set(_NUMBERED.findall(text)) == {"1"}, set[str]()

    def named(match: re.Match[str]) -> str:
        again = match[1] in seen or (alone and _WITHIN.search(text[max(0, match.start() - 2) : match.start()]))
        seen.add(match[1])
        return "the image" if again else IMAGE

    return _NUMBERED.sub(named, text)
