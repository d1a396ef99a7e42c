"""From a prompt with `<image>` placeholders to the text a processor expects. Needs no torch: the processor is passed in."""

from __future__ import annotations

from typing import Any

from mia_augment.compose.prompts import IMAGE
from mia_augment.errors import DataError, ModelError
from mia_augment.prompting.plain_text import guarded

Parts = list[dict[str, str]]
Content = Parts | str
"""Of a chat message: texts and pictures in order, or one text."""

_MEDIA_TOKENS = ("image_token", "boi_token", "eoi_token", "video_token", "audio_token")


def media_tokens(processor: Any) -> set[str]:
    """The texts that stand for a picture, a video or a sound in a rendered prompt."""
    tokenizer = getattr(processor, "tokenizer", None)
    named = [getattr(owner, name, None) for owner in (processor, tokenizer) for name in _MEDIA_TOKENS]
    ids = [getattr(processor, f"{name}_id", None) for name in _MEDIA_TOKENS]
    read = [tokenizer.convert_ids_to_tokens(i) for i in ids if tokenizer is not None and isinstance(i, int)]
    return {token for token in [*named, *read] if isinstance(token, str) and token}


def check_prompt(processor: Any, prompt: str) -> None:
    """Raise DataError where a prompt's text holds the model's own token for a picture besides the placeholders."""
    for text in prompt.split(IMAGE):
        if found := next((token for token in sorted(media_tokens(processor)) if token in text), None):
            raise DataError(
                f"the question holds {found!r}, which stands for a picture, video or sound of its own in this model's "
                "prompts; remove it from the text"
            )


def message_parts(prompt: str) -> Parts:
    """Split a prompt at its placeholders into the content parts of a chat message, in place.

    >>> message_parts("Image1:<image>\\nWhat is it?")
    [{'type': 'text', 'text': 'Image1:'}, {'type': 'image'}, {'type': 'text', 'text': '\\nWhat is it?'}]
    """
    parts: Parts = []
    for index, text in enumerate(prompt.split(IMAGE)):
        if index:
            parts.append({"type": "image"})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def render_prompt(processor: Any, prompt: str) -> str:
    """One user message with this prompt, through the processor's chat template, up to where the answer starts.

    Raises:
        DataError, ModelError: as `user_message`.
    """
    return apply_template(processor, [user_message(processor, prompt)], generation=True)


def user_message(processor: Any, prompt: str) -> dict[str, Any]:
    """The chat message whose rendering has every picture at its place and the line breaks of the family's own format.

    The line break after pictures that a prompt begins with is LLaVA's way to set them off; each family's template has its own,
    so it is left to that. Some templates (LLaVA-1.5's) move all images to the front, which would undo ``Image1:<image>``; there
    the processor's own image token is written into the text instead.

    Special tokens in the text are guarded (`mia_augment.prompting.plain_text`), for a processor that `process` calls; whoever
    sends the message elsewhere takes the guards out (`plain_content`).

    Raises:
        ModelError: the processor has no chat template.
        DataError: the question holds a token that stands for a picture, or the template leaves some of it out.
    """
    check_template(processor)
    check_prompt(processor, prompt)
    prompt = guarded(processor, prompt)
    parts = _without_doubled_breaks(processor, without_first_break(message_parts(prompt)))
    first = _try(processor, parts)
    token = image_placeholder(processor, first)
    inline = prompt.replace(IMAGE, token) if token else prompt
    forms: list[Content] = [parts, [{"type": "text", "text": inline}], inline]
    rendered = [first, *(_try(processor, content) for content in forms[1:] if token)]
    complete = [bool(text) and all(piece.strip() in text for piece in prompt.split(IMAGE)) for text in rendered]
    placed = [ok and (token is None or _in_place(text, prompt, token)) for ok, text in zip(complete, rendered, strict=True)]
    if not any(rendered):
        apply_template(processor, [{"role": "user", "content": parts}], generation=True)  # raises what is wrong with it
    for good in (placed, complete):
        if True in good:
            return {"role": "user", "content": forms[good.index(True)]}
    raise DataError(
        f"the chat template of {type(processor).__name__} cannot render a prompt: expected the text {prompt[-80:]!r}, "
        f"got {first[-200:]!r}; compare the template with the one published with the checkpoint"
    )


def _try(processor: Any, content: Content) -> str:
    """The rendered message; empty where the template does not take such a content."""
    try:
        return apply_template(processor, [{"role": "user", "content": content}], generation=True)
    except Exception:  # jinja's errors and whatever a template's own code raises: another form may do
        return ""


def apply_template(processor: Any, messages: list[dict[str, Any]], *, generation: bool) -> str:
    """The text of a conversation; with `generation`, up to where the next answer starts."""
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation))


def check_template(processor: Any) -> None:
    """Raise ModelError where a processor has no chat template."""
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(
            f"{type(processor).__name__} has no chat template: expected one, to turn a prompt into the model's input; "
            "save one with the processor (chat_template.jinja) or choose an instruction-tuned checkpoint"
        )


def image_placeholder(processor: Any, rendered: str) -> str | None:
    """The token that stands for a picture in a prompt: the image token, or for some the one that begins an image (Gemma 3) or
    another of the processor's (Qianfan-OCR); the first of them that the rendered prompt holds.
    """
    others = sorted(name for name in getattr(processor, "__dict__", ()) if "image" in name and name.endswith("_token"))
    tokens = [getattr(processor, name, None) for name in ("image_token", "boi_token", *others)]
    known = [token for token in tokens if isinstance(token, str)]
    return next((token for token in known if token in rendered), known[0] if known else None)


def without_first_break(parts: Parts) -> Parts:
    """The parts without blanks between the pictures that come first and the text behind them."""
    kept: Parts = []
    for part in parts:
        first = all(before["type"] == "image" for before in kept)
        if part["type"] == "text" and first and (kept or not part["text"].strip()):
            part = {**part, "text": part["text"].lstrip()}
        if part["type"] == "image" or part["text"]:
            kept.append(part)
    return kept


def _without_doubled_breaks(processor: Any, parts: Parts) -> Parts:
    """The parts without the line breaks after pictures that the template writes itself (InternVL's)."""
    if not any(part["type"] == "text" and part["text"].startswith("\n") for part in parts):
        return parts
    probe = "qvzx"
    text = {"type": "text", "text": probe}
    rendered = _try(processor, [text, {"type": "image"}, text])
    token = image_placeholder(processor, rendered)
    between = rendered.rpartition(probe)[0].rpartition(token)[2] if token else ""
    if not between.endswith("\n"):
        return parts
    return [part if part["type"] == "image" else {**part, "text": part["text"].removeprefix("\n")} for part in parts]


def _in_place(rendered: str, prompt: str, token: str) -> bool:
    """Whether the texts between the images still stand between the image tokens."""
    texts = prompt.split(IMAGE)
    pieces = rendered.split(token)
    return len(pieces) == len(texts) and all(text.strip() in piece for text, piece in zip(texts, pieces, strict=True))
