"""The assistant's turn as the chat template writes it, as token ids. Needs no torch.

An answer's tokens are what follows the generation prompt in the rendered conversation, up to and with the token that ends the
turn: the blank that a template puts after ``Assistant:`` is in, the line break that it puts after ``<|im_end|>`` is not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mia_augment.errors import DataError, ModelError
from mia_augment.prompting.chat import apply_template, user_message
from mia_augment.prompting.plain_text import token_ids

_PROBE = "qvzx0xzvq"
"""Stands for an answer when a template is asked what it writes around one."""
_OPEN_THOUGHT = re.compile(r"\s*<think>\s*$")


@dataclass(frozen=True)
class RenderedTurn:
    """A prompt and an answer to it, rendered."""

    prompt: str
    """Up to where the answer starts, as `mia_augment.prompting.chat.render_prompt` gives it."""
    answer: str
    """What follows in the conversation, without what ends the turn."""
    end: tuple[int, ...]
    """Token ids that end the turn."""


def render_turn(processor: Any, prompt: str, answer: str, *, stops: Collection[int] = ()) -> RenderedTurn:
    """A prompt (with `<image>` placeholders) and an answer as the chat template writes them.

    Args:
        stops: tokens that the model stops at (`stop_ids`); without them the tokenizer's end-of-sequence token counts.

    Raises:
        ModelError: no chat template, one that writes no assistant's turn or changes the prompt when the answer follows, or no
            token that could end an answer.
        DataError: the answer is empty, or holds a token that ends a turn.
    """
    user = user_message(processor, prompt)
    head = apply_template(processor, [user], generation=True)
    as_text, tail = _around(processor, user, head)
    known = len(processor.tokenizer)
    end = _end(processor.tokenizer, tail, [stop for stop in stops if stop < known])
    said = _without_end(processor.tokenizer, answer, end)
    whole = _conversation(processor, user, said, as_text=as_text)
    if not whole.endswith(tail):
        raise ModelError(_parts_company(processor, head, whole))
    body = _after(processor, head, whole[: len(whole) - len(tail)], said)
    return RenderedTurn(head, body, end)


def answer_ids(processor: Any, prompt: str, answer: str, *, stops: Collection[int] = (), end: bool = True) -> list[int]:
    """Token ids of an answer behind its prompt: with those of the prompt they are the ids of the whole text.

    Where the tokenizer would join the prompt's last characters with the answer's first, the prompt keeps its own tokens, since
    the model is given those; the answer's text is then tokenized by itself.

    Args:
        stops: see `render_turn`.
        end: with the tokens that end the turn.

    Raises:
        DataError, ModelError: as `render_turn`.
    """
    turn = render_turn(processor, prompt, answer, stops=stops)
    body = _continued(processor.tokenizer, turn.prompt, turn.answer)
    return [*body, *turn.end] if end else body


def emitted_ids(processor: Any, ids: Sequence[int] | None, text: str) -> list[int] | None:
    """The ids that a model emitted, if they still say this text; None: there are none, or the text was changed since."""
    if not ids:
        return None
    said = [processor.tokenizer.decode(part, skip_special_tokens=True) for part in (list(ids), list(ids[:-1]))]
    return list(ids) if text.strip() in [each.strip() for each in said] else None  # not every end counts as special


def token_text(processor: Any, ids: Sequence[int]) -> str:
    """Tokens one by one, for messages: ``'ĠThe' 'Ġcat' '</s>'``."""
    return " ".join(repr(token) for token in processor.tokenizer.convert_ids_to_tokens(list(ids)))


def _around(processor: Any, user: dict[str, Any], head: str) -> tuple[bool, str]:
    """Whether the template wants an answer as a plain text instead of parts, and what it writes behind one."""
    problem: Exception | None = None
    for as_text in (False, True):
        try:
            whole = _conversation(processor, user, _PROBE, as_text=as_text)
        except Exception as error:  # jinja's errors and whatever a template's own code raises: the other form may do
            problem = error
            continue
        before, found, tail = whole.rpartition(_PROBE)
        if found and before.count("'text'") == head.count("'text'") and before.count('"text"') == head.count('"text"'):
            return as_text, tail
    raise ModelError(
        f"the chat template of {type(processor).__name__} writes no assistant's turn"
        + (f" ({type(problem).__name__}: {problem})" if problem else "")
        + "; expected one that renders a conversation of user and assistant, as the one published with the checkpoint"
    )


def _conversation(processor: Any, user: dict[str, Any], answer: str, *, as_text: bool) -> str:
    content: Any = answer if as_text else [{"type": "text", "text": answer}]
    return apply_template(processor, [user, {"role": "assistant", "content": content}], generation=False)


def _after(processor: Any, head: str, whole: str, said: str) -> str:
    """What follows the generation prompt in a conversation; blanks that the two write differently do not count.

    A prompt that opens a block of thoughts which the conversation has not is answered by closing it.
    """
    body = whole[len(head) :] if whole.startswith(head) else _behind(head, whole)
    if body is not None:
        doubled = head[-1:].isspace() and body[:1].isspace() and body.lstrip().startswith(said.strip())
        return body.lstrip() if doubled and not body.startswith(said) else body
    opened = _OPEN_THOUGHT.search(head)
    body = _behind(head[: opened.start()], whole) if opened else None
    if body is None or not body.lstrip().startswith(said.strip()):
        raise ModelError(_parts_company(processor, head, whole))
    return f"\n</think>\n\n{body.lstrip()}"


def _behind(head: str, whole: str) -> str | None:
    """The rest of a text behind another one, whatever blanks both have; None: it begins otherwise."""
    place = 0
    for letter in head:
        if not letter.isspace():
            while whole[place : place + 1].isspace():
                place += 1
            if whole[place : place + 1] != letter:
                return None
            place += 1
    return whole[place:]


def _parts_company(processor: Any, head: str, whole: str) -> str:
    same = (place for place, (one, other) in enumerate(zip(head, whole, strict=False)) if one != other)
    start = max(0, next(same, min(len(head), len(whole))) - 40)
    return (
        f"the chat template of {type(processor).__name__} writes the prompt otherwise when an answer follows: expected "
        f"{head[start : start + 200]!r}, got {whole[start : start + 200]!r}; an answer's tokens cannot be told; mend the "
        "template (chat_template.jinja) so that the conversation begins with the generation prompt"
    )


def _end(tokenizer: Any, tail: str, stops: Collection[int]) -> tuple[int, ...]:
    """The tokens that end a turn: the first special ones that the template writes behind an answer, or where it writes none,
    the token that generation stops at.
    """
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} - {tokenizer.unk_token_id}
    ids = token_ids(tokenizer, tail) if tail.strip() else []
    first = next((place for place, token in enumerate(ids) if token in special), None)
    if first is None:
        return (_stop(tokenizer, stops),)
    last = first
    final = set(stops) or {tokenizer.eos_token_id}
    while ids[last] not in final and last + 1 < len(ids) and ids[last + 1] in special:
        last += 1
    return tuple(ids[first : last + 1])


def _stop(tokenizer: Any, stops: Collection[int]) -> int:
    own = tokenizer.eos_token_id
    if own is None and not stops:
        raise ModelError(
            f"{type(tokenizer).__name__} has no end-of-sequence token, and its chat template ends answers without one; "
            "a response would never learn to end"
        )
    return int(own) if own is not None and (own in stops or not stops) else int(next(iter(stops)))


def _without_end(tokenizer: Any, answer: str, end: Sequence[int]) -> str:
    """The answer without tokens that end a turn behind it, so that they are not learned twice."""
    ids = {*end, tokenizer.eos_token_id} - {None}
    marks = sorted(str(token) for token in tokenizer.convert_ids_to_tokens(list(ids)))
    said = answer
    while mark := next((mark for mark in marks if said.rstrip().endswith(mark)), None):
        said = said.rstrip().removesuffix(mark)
    if not said.strip():
        raise DataError(f"the answer is empty: expected words, got {answer!r}")
    for mark in marks:
        if mark in said:
            raise DataError(f"the answer holds {mark!r}, which ends a turn: expected plain text, got {answer!r}")
    return said


def _continued(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """Ids of an answer behind its prompt."""
    before, whole = token_ids(tokenizer, prompt), token_ids(tokenizer, prompt + answer)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    alone = [token_ids(tokenizer, text) for text in (answer, answer.lstrip(" "))]
    wanted = tokenizer.decode(whole)
    return next((ids for ids in alone if tokenizer.decode([*before, *ids]) == wanted), alone[0])
