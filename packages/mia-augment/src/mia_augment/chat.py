"""From a prompt with `<image>` placeholders to the text a processor expects. Needs no torch: the processor is passed in."""

from __future__ import annotations

from typing import Any

from mia_augment.errors import DataError, ModelError
from mia_augment.records import IMAGE

_MEDIA_TOKENS = ("image_token", "boi_token", "eoi_token", "video_token", "audio_token")


def media_tokens(processor: Any) -> set[str]:
    """The texts that stand for a picture, a video or a sound in a rendered prompt."""
    tokenizer = getattr(processor, "tokenizer", None)
    named = [getattr(owner, name, None) for owner in (processor, tokenizer) for name in _MEDIA_TOKENS]
    ids = [getattr(processor, f"{name}_id", None) for name in _MEDIA_TOKENS]
    read = [tokenizer.convert_ids_to_tokens(i) for i in ids if tokenizer is not None and isinstance(i, int)]
    return {token for token in [*named, *read] if isinstance(token, str) and token}


def check_prompt(processor: Any, prompt: str) -> None:
    """Raise DataError where the text of a prompt holds what stands for a picture, besides the placeholders."""
    for text in prompt.split(IMAGE):
        if found := next((token for token in sorted(media_tokens(processor)) if token in text), None):
            raise DataError(
                f"the question holds {found!r}, which stands for a picture, video or sound of its own in this model's "
                "prompts; remove it from the text"
            )


def message_parts(prompt: str) -> list[dict[str, str]]:
    """Split a prompt at its placeholders into the content parts of a chat message, in place.

    >>> message_parts("Image1:<image>\\nWhat is it?")
    [{'type': 'text', 'text': 'Image1:'}, {'type': 'image'}, {'type': 'text', 'text': '\\nWhat is it?'}]
    """
    parts: list[dict[str, str]] = []
    for index, text in enumerate(prompt.split(IMAGE)):
        if index:
            parts.append({"type": "image"})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def render_prompt(processor: Any, prompt: str) -> str:
    """One user message with this prompt, through the processor's chat template, up to where the answer starts.

    Some templates (LLaVA-1.5's) move all images to the front, which would undo ``Image1:<image>``; there the processor's
    own image token is written into the text instead.

    Raises:
        DataError: the question holds a token that stands for a picture.
        ModelError: the processor has no chat template.
    """
    check_prompt(processor, prompt)
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(
            f"{type(processor).__name__} has no chat template: expected one, to turn a prompt into the model's input; "
            "save one with the processor (chat_template.jinja) or choose an instruction-tuned checkpoint"
        )
    rendered = _apply(processor, message_parts(prompt))
    token = _placeholder(processor, rendered)
    if token is None or _in_place(rendered, prompt, token):
        return rendered
    inline = [{"type": "text", "text": prompt.replace(IMAGE, token)}]
    return _apply(processor, inline)


def _placeholder(processor: Any, rendered: str) -> str | None:
    """What stands for a picture in a prompt: the image token, or for some (Gemma 3) the token that begins an image."""
    tokens = [getattr(processor, name, None) for name in ("image_token", "boi_token")]
    known = [token for token in tokens if isinstance(token, str)]
    return next((token for token in known if token in rendered), known[0] if known else None)


def _apply(processor: Any, content: list[dict[str, str]]) -> str:
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _in_place(rendered: str, prompt: str, token: str) -> bool:
    """Whether the texts between the images still stand between the image tokens."""
    texts = prompt.split(IMAGE)
    pieces = rendered.split(token)
    return len(pieces) == len(texts) and all(text.strip() in piece for text, piece in zip(texts, pieces, strict=True))
