"""Special tokens that stand in a question are text: only those that the chat template writes are special. Needs no torch.

A question that names ``</s>`` or ``<|im_end|>`` would end the user's turn, for tokenizers find their special tokens anywhere in
a rendered prompt. So such words are marked where a message is made, by a character that Unicode keeps free for such use, and
read as ordinary text where the rendered prompt is tokenized. Tokens that are no part of a conversation's frame (Qwen-VL's
``<|box_start|>``) are left to the user.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from mia_augment.errors import DataError

Places = Sequence[tuple[int, int]]
"""From where to where each token stands in its text, in characters."""
GUARD = "\ufdd0"
"""Stands behind the first character of a special token that is text."""
_BEFORE = "\ufdd1"
_BRACKETS = re.compile(r"[<>\[\]|]")
"""Every published special token has one."""
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")


def guarded(processor: Any, prompt: str) -> str:
    """A prompt whose text cannot be taken for what frames a conversation in this processor's chat template."""
    text = prompt.replace(GUARD, "").replace(_BEFORE, "")
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not _BRACKETS.search(text):
        return text
    for token in sorted(_frame(processor, tokenizer), key=len, reverse=True):
        text = text.replace(token, token[0] + GUARD + token[1:])
    return text


def plain_content(content: Any) -> Any:
    """A message's content without guards, for someone who renders and tokenizes it himself."""
    if isinstance(content, str):
        return content.replace(GUARD, "")
    return [{name: value.replace(GUARD, "") for name, value in part.items()} for part in content]


def _frame(processor: Any, tokenizer: Any) -> set[str]:
    """Texts of the tokens that begin, end and part a conversation's turns."""
    named = {token for name in _NAMES if isinstance(token := getattr(tokenizer, name, None), str)}
    added = set(getattr(tokenizer, "get_added_vocab", dict)())
    written = _conversation(processor)
    return {token for token in named | {token for token in added if token in written} if len(token) > 1}


def _conversation(processor: Any) -> str:
    """A question with an answer and the next question, as the chat template frames them; empty where it refuses."""
    said = [("user", "mia"), ("assistant", "mia"), ("user", "mia")]
    for wrap in (lambda text: [{"type": "text", "text": text}], str):
        messages = [{"role": role, "content": wrap(text)} for role, text in said]
        try:
            return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # jinja's errors and whatever a template's own code raises: the other form may do
            continue
    return ""


def reading_plainly(processor: Any, texts: Sequence[str]) -> Any:
    """The processor, with a tokenizer that reads guarded words as text where some of the texts have any."""
    if not any(GUARD in text for text in texts):
        return processor
    changed = copy.copy(processor)
    changed.tokenizer = _PlainReader(processor.tokenizer)
    return changed


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text without what begins or ends a sequence; guarded words are read as text."""
    reader = _PlainReader(tokenizer) if GUARD in text else tokenizer
    return [int(token) for token in reader(text, add_special_tokens=False)["input_ids"]]


class _PlainReader:
    """A tokenizer that reads guarded words as text, and everything else as the tokenizer that it stands for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str | Sequence[str], **keywords: Any) -> Any:
        rows = [text] if isinstance(text, str) else list(text)
        last: dict[str, Any] = {
            name: keywords.pop(name) for name in ("padding", "padding_side", "return_tensors") if name in keywords
        }
        placed = keywords.pop("return_offsets_mapping", False)
        made = self._tokenizer(rows, **keywords, return_offsets_mapping=True)
        offsets = made.pop("offset_mapping")
        for index, row in enumerate(rows):
            if GUARD in row:
                ids, offsets[index] = self._row(row, made["input_ids"][index], offsets[index])
                made["input_ids"][index] = ids
                for name, fill in (("attention_mask", 1), ("token_type_ids", 0)):
                    if name in made:
                        made[name][index] = [fill] * len(ids)
        if isinstance(text, str):
            return {**{name: values[0] for name, values in made.items()}, **({"offset_mapping": offsets[0]} if placed else {})}
        padded = self._tokenizer.pad(made, **last)
        filled = _padded(offsets, padded["input_ids"], last)
        padded.char_to_token = functools.partial(_token_at, filled)
        if placed:
            padded["offset_mapping"] = filled if last.get("return_tensors") != "pt" else padded["input_ids"].new_tensor(filled)
        return padded

    def _row(
        self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets of a text whose guarded stretches, each between two special tokens, are read anew."""
        added = self._tokenizer.get_added_vocab()
        special = {*added.values(), *self._tokenizer.all_special_ids} - {self._tokenizer.unk_token_id}
        stand = zip(ids, offsets, strict=True)
        cuts = [place for place, (token, (one, other)) in enumerate(stand) if token in special and GUARD not in text[one:other]]
        found: list[int] = []
        places: list[tuple[int, int]] = []
        for before, after in zip([None, *cuts], [*cuts, None], strict=True):
            if before is not None:
                found.append(ids[before])
                places.append(tuple(offsets[before]))  # type: ignore[arg-type]
            first, last = 0 if before is None else before + 1, len(ids) if after is None else after
            start = 0 if before is None else offsets[before][1]
            end = len(text) if after is None else offsets[after][0]
            if GUARD not in text[start:end]:
                found += ids[first:last]
                places += [tuple(offset) for offset in offsets[first:last]]  # type: ignore[misc]
                continue
            own_ids, own_places = self._stretch(text[start:end], start)
            if wrong := [token for token in own_ids if token in special]:
                raise DataError(_not_readable(self._tokenizer, wrong[0]))
            found, places = found + own_ids, places + own_places
        return found, places

    def _stretch(self, text: str, start: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets of a stretch that begins at a place of the whole text."""
        kept = [place for place, letter in enumerate(text) if letter != GUARD]
        lead = _BEFORE if start else ""
        core = _without_added(self._tokenizer, len(self._tokenizer))
        made = core.encode(lead + "".join(text[place] for place in kept), add_special_tokens=False)
        pairs = [
            (token, (start + kept[one - len(lead)], start + kept[other - len(lead) - 1] + 1))
            for token, (one, other) in zip(made.ids, made.offsets, strict=True)
            if other > one >= len(lead)
        ]
        return [token for token, _ in pairs], [place for _, place in pairs]


@functools.lru_cache(maxsize=4)
def _without_added(tokenizer: Any, size: int) -> Any:
    """The tokenizer's core without added tokens, but for one that tells that a stretch is not the first of its text."""
    from tokenizers import AddedToken, Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DataError(_not_readable(tokenizer, tokenizer.eos_token_id))
    core = Tokenizer.from_str(json.dumps({**json.loads(backend.to_str()), "added_tokens": [], "post_processor": None}))
    core.add_tokens([AddedToken(_BEFORE, special=False, normalized=False)])
    return core


def _not_readable(tokenizer: Any, token: int) -> str:
    name = tokenizer.convert_ids_to_tokens(token)
    return (
        f"the question holds {name!r}, which frames a turn in this model's prompts: expected plain text, and this tokenizer "
        "cannot read it as such; remove it from the question"
    )


def _padded(offsets: Sequence[Places], rows: Any, how: dict[str, Any]) -> list[Places]:
    """Offsets of all rows, (0, 0) where they are filled up."""
    pads = [[(0, 0)] * (len(row) - len(own)) for own, row in zip(offsets, rows, strict=True)]
    if how.get("padding_side") == "left":
        return [[*pad, *own] for own, pad in zip(offsets, pads, strict=True)]
    return [[*own, *pad] for own, pad in zip(offsets, pads, strict=True)]


def _token_at(offsets: Sequence[Places], row: int, letter: int) -> int | None:
    """Place of the token that holds a character of a row's text, as processors ask for it; None: none does."""
    return next((place for place, (one, other) in enumerate(offsets[row]) if one <= letter < other), None)
