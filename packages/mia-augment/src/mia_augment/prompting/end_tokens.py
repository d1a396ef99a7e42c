"""Which tokens end an answer: those a checkpoint names, and what its chat template writes. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mia_augment.models import text_config

_ANSWER = "mia answer"
"""Stands for an answer while the chat template is looked at."""


def stop_ids(model: Any, processor: Any) -> list[int]:
    """Ids of the tokens that end an answer by the checkpoint's own word: its generation settings, else its tokenizer.

    The decoder's configuration is asked only where these say nothing, for its class fills in a number that may be an ordinary
    word of this tokenizer.
    """
    return _named(model) or _named(processor.tokenizer) or _ids(getattr(text_config(model), "eos_token_id", None))


def end_tokens(model: Any, processor: Any) -> list[int]:
    """Ids of all tokens at which generation has to stop, in order and without repeats.

    Checkpoints often name only some of them in one place, so generation settings, tokenizer and chat template are asked: what
    runs past the end of its turn is invented dialogue.
    """
    found = [*_named(model), *_named(processor.tokenizer), *_ids(turn_end(processor))]
    return list(dict.fromkeys(found or stop_ids(model, processor)))


def _named(owner: Any) -> list[int]:
    """End tokens that a model names in its generation settings, or a tokenizer for itself."""
    return _ids(getattr(getattr(owner, "generation_config", owner), "eos_token_id", None))


def _ids(ends: int | Sequence[int] | None) -> list[int]:
    if ends is None:
        return []
    return [int(ends)] if isinstance(ends, int) else [int(end) for end in ends]


def turn_end(processor: Any) -> int | None:
    """Id of the token that the chat template writes after an answer, or else at the start of the turn that follows.

    None where the template writes no such token of the tokenizer there, as LLaVA-1.5's does, or cannot be asked.
    """
    if getattr(processor, "chat_template", None) is None:
        return None
    said = [("user", "mia question"), ("assistant", _ANSWER), ("user", "mia question")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    try:
        rendered = str(processor.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template may refuse what it does not know, by any error
        return None
    _, found, rest = rendered.partition(_ANSWER)
    known: dict[str, int] = processor.tokenizer.get_added_vocab()
    starting = [token for token in known if token.strip() and rest.lstrip().startswith(token.strip())]
    return known[max(starting, key=len)] if found and starting else None
