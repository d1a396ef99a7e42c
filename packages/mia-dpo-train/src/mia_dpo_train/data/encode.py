"""From preference pairs to token ids and image tensors.

Convention: the prompt is rendered by the chat template up to where the answer starts; a response is what the template writes
behind it, up to and with the token that ends the turn (see `mia_augment.prompting`). An answer that the model gave itself is
the tokens that it emitted. Nothing is ever cut off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import torch
from mia_augment import END_TOKENS, IMAGE, DataError, ModelError, PreferencePair
from mia_augment.images import OpenImage
from mia_augment.prompting import answer_ids, emitted_ids, per_token, process, refusal, render_prompt, render_turn
from torch import Tensor

Pictures = Tensor | list[Any]
"""An output of a processor that tells of pictures: numbers, or an entry for each picture (Unlimited-OCR)."""


@dataclass(frozen=True)
class EncodedPair:
    """One pair as the model sees it."""

    id: str
    prompt: Tensor
    """Token ids with the image tokens in place: (prompt,)."""
    types: dict[str, Tensor]
    """What else the processor says of every prompt token, as which stand for images, by its names: (prompt,) each, or
    (prompt, pictures, ..) for which of them it sees."""
    chosen: Tensor
    """Token ids with those that end the turn: (chosen,)."""
    rejected: Tensor
    """Likewise: (rejected,). Empty where the pair contrasts pictures alone."""
    vision: dict[str, Pictures]
    """All other outputs of the processor, e.g. pixel_values."""
    more: tuple[Tensor, ...] = ()
    """Further rejected answers."""
    other: EncodedPair | None = None
    """The chosen answer under the rejected pictures, with no rejected one."""

    @property
    def answers(self) -> list[Tensor]:
        """The chosen answer and the rejected ones."""
        return [self.chosen, self.rejected, *self.more]

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest answer."""
        own = len(self.prompt) + max(map(len, self.answers))
        return max(own, self.other.length) if self.other else own

    @cached_property
    def digest(self) -> str:
        """Hash of all that the log-probs of this pair depend on, besides the model."""
        digest = hashlib.sha256()
        answers = [("chosen", self.chosen), ("rejected", self.rejected), *(("more", answer) for answer in self.more)]
        parts: list[tuple[str, Pictures]] = [("prompt", self.prompt), *answers, *self.vision.items()]
        for name, tensor in parts:
            if isinstance(tensor, list):
                digest.update(f"{name}{tensor}".encode())
                continue
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())  # numpy knows no bfloat16
        if self.other:
            digest.update(f"other{self.other.digest}".encode())
        return digest.hexdigest()

    @property
    def vision_bytes(self) -> int:
        own = sum(value.nbytes for value in self.vision.values() if isinstance(value, Tensor))
        return own + (self.other.vision_bytes if self.other else 0)


class PairEncoder:
    """Encodes pairs with a processor; cheap to hand to worker processes.

    `stops` are the tokens that the model stops at (`mia_augment.prompting.stop_ids`).
    """

    def __init__(self, processor: Any, open_image: OpenImage, stops: Collection[int] = ()) -> None:
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise ModelError(f"{type(processor).__name__} has no tokenizer: expected the processor of a vision-language model")
        if tokenizer.eos_token_id is None and not stops:
            render_turn(processor, IMAGE, "Yes.")  # raises where the template ends no answer either
        self.processor, self.tokenizer, self.open_image, self.stops = processor, tokenizer, open_image, stops
        self.end_tokens = end_token_texts(tokenizer)
        """Texts that no answer may hold (see `mia_augment.checks.pair_checks.pair_problem`)."""

    def __call__(self, pair: PreferencePair) -> EncodedPair:
        """Raises DataError, naming the pair, when an image can't be opened, or the processor refuses one or the prompt."""
        try:
            return self._encoded(pair)
        except Exception as error:
            reason = refusal(error)
            if reason is None:
                raise
            name = f"pair {pair.id}: "
            raise DataError(name + reason.removeprefix(name)) from error

    def _encoded(self, pair: PreferencePair) -> EncodedPair:
        other = pair.under_rejected_images()
        return replace(self._under_its_pictures(pair), other=self._under_its_pictures(other) if other else None)

    def _under_its_pictures(self, pair: PreferencePair) -> EncodedPair:
        """The pair without what its answers are under the rejected pictures."""
        text = render_prompt(self.processor, pair.prompt)
        outputs = process(self.processor, [text], [[self.open_image(name) for name in pair.images]])
        known = per_token(outputs)
        said = pair.rejected_answers if pair.rejected or pair.rejected_ids else []
        rejected = [self._response(pair, "rejected", answer.text, answer.ids) for answer in said]
        return EncodedPair(
            id=pair.id,
            prompt=outputs["input_ids"][0],
            types={name: value[0] for name, value in known.items() if name not in ("input_ids", "attention_mask")},
            chosen=self._response(pair, "chosen", pair.chosen, pair.chosen_ids),
            rejected=rejected[0] if rejected else torch.zeros(0, dtype=torch.long),
            vision=self._vision(outputs),
            more=tuple(rejected[1:]),
        )

    def vision(self, pairs: Sequence[PreferencePair]) -> dict[str, Pictures]:
        """What the processor makes of the pictures of several pairs in one call, as the model's own batches are made."""
        pairs = [*pairs, *(other for pair in pairs if (other := pair.under_rejected_images()) is not None)]
        texts = [render_prompt(self.processor, pair.prompt) for pair in pairs]
        images = [[self.open_image(name) for name in pair.images] for pair in pairs]
        return self._vision(process(self.processor, texts, images))

    def _vision(self, outputs: Any) -> dict[str, Pictures]:
        """What a processor's outputs tell of pictures, numbers in 32 bits (some processors give them in 16)."""
        known = per_token(outputs)
        vision = {name: value for name, value in outputs.items() if name not in known}
        for name, value in vision.items():
            if not isinstance(value, Tensor | list):
                told = f"{type(self.processor).__name__} gives {name} as {type(value).__name__}"
                raise ModelError(f"{told}, expected a tensor, or a list with an entry for each picture")
        return {
            name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in vision.items()
        }

    def _response(self, pair: PreferencePair, name: str, text: str, emitted: Sequence[int] | None) -> Tensor:
        ids = emitted_ids(self.processor, emitted, text)
        try:
            ids = ids or answer_ids(self.processor, pair.prompt, text, stops=self.stops)
        except DataError as error:
            raise DataError(f"pair {pair.id}: its {name} answer: {error}") from error
        if self._image_token in ids:
            raise DataError(f"pair {pair.id}: its {name} answer contains the image token; expected plain text")
        return torch.tensor(ids, dtype=torch.long)

    @property
    def _image_token(self) -> int | None:
        return getattr(self.processor, "image_token_id", None)


def end_token_texts(tokenizer: Any) -> frozenset[str]:
    """Texts that a tokenizer reads as the end of a turn or of a text."""
    unknown = {None, tokenizer.unk_token_id}
    known = {token for token in END_TOKENS if tokenizer.convert_tokens_to_ids(token) not in unknown}
    return frozenset({*known, str(tokenizer.eos_token)})


@dataclass
class PairBatch:
    """Pairs side by side: prompts padded on the left, so that all end in the same column; answers padded on the right.

    A row is a prompt over its pictures with answers to it: one row for every pair, and behind them one for every pair that
    contrasts pictures, with its chosen answer under the other ones.
    """

    ids: list[str]
    prompt: Tensor
    """(rows, prompt)"""
    prompt_mask: Tensor
    """True where a token stands: (rows, prompt)."""
    types: dict[str, Tensor]
    """(rows, prompt) each"""
    chosen: Tensor
    """(rows, chosen)"""
    chosen_mask: Tensor
    rejected: Tensor
    """(rows, rejected)"""
    rejected_mask: Tensor
    vision: dict[str, Pictures] = field(default_factory=dict)
    """Images of all rows, in order."""
    digests: list[str] = field(default_factory=list)
    """Of the pairs, by which what is stored about them is found."""
    more: tuple[Tensor, ...] = ()
    """Further rejected answers, each (rows, answer)."""
    more_masks: tuple[Tensor, ...] = ()
    others: Tensor | None = None
    """Pair to which each of the last rows belongs, which are under its other pictures; None: there are no such rows."""

    def to(self, device: torch.device) -> PairBatch:
        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, dict):
                return {name: moved(tensor) for name, tensor in value.items()}
            return tuple(moved(tensor) for tensor in value) if isinstance(value, tuple) else value

        return PairBatch(**{each.name: moved(getattr(self, each.name)) for each in fields(self)})

    @property
    def answers(self) -> list[tuple[Tensor, Tensor]]:
        """Chosen answers and rejected ones with their masks, each (rows, answer)."""
        return [
            (self.chosen, self.chosen_mask),
            (self.rejected, self.rejected_mask),
            *zip(self.more, self.more_masks, strict=True),
        ]

    def by_pair(self, values: Tensor) -> Tensor:
        """Numbers of answers and rows as numbers of answers and pairs; where there are others, theirs come last, else 0."""
        if self.others is None:
            return values
        pairs = len(self.ids)
        own, others = values[:, :pairs], values[0, pairs:]
        return torch.cat([own, own.new_zeros(1, pairs).index_copy(1, self.others, others[None])])

    @property
    def lengths(self) -> Tensor:
        """Tokens of chosen and rejected answers: (answers, pairs), as `by_pair` orders them; 0: the pair has none there."""
        return self.by_pair(torch.stack([mask.sum(1) for _, mask in self.answers]))

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int(self.prompt_mask.sum() + sum(mask.sum() for _, mask in self.answers))


def collate(pairs: Sequence[EncodedPair], pad: int = 0, vision: dict[str, Pictures] | None = None) -> PairBatch:
    """Put encoded pairs side by side; `vision`: what stands for their pictures, if it is not to be joined here."""
    rows, nothing = pair_rows(pairs), torch.zeros(0, dtype=torch.long)
    prompt, prompt_mask = pad_rows([row.prompt for row in rows], pad, left=True)
    slots = zip_longest(*(row.answers for row in rows), fillvalue=nothing)
    (chosen, chosen_mask), (rejected, rejected_mask), *more = [pad_rows(answers, pad) for answers in slots]
    others = [index for index, pair in enumerate(pairs) if pair.other]
    return PairBatch(
        ids=[pair.id for pair in pairs],
        prompt=prompt,
        prompt_mask=prompt_mask,
        types={name: pad_rows([row.types[name] for row in rows], 0, left=True)[0] for name in rows[0].types},
        chosen=chosen,
        chosen_mask=chosen_mask,
        rejected=rejected,
        rejected_mask=rejected_mask,
        vision=joined_vision(pairs) if vision is None else vision,
        digests=[pair.digest for pair in pairs],
        more=tuple(answer for answer, _ in more),
        more_masks=tuple(mask for _, mask in more),
        others=torch.tensor(others) if others else None,
    )


def pair_rows(pairs: Sequence[EncodedPair]) -> list[EncodedPair]:
    """The pairs, and behind them those that some of them are under other pictures."""
    return [*pairs, *(pair.other for pair in pairs if pair.other)]


def joined_vision(pairs: Sequence[EncodedPair]) -> dict[str, Pictures]:
    """The pictures of several pairs, each output of the processor concatenated; some it gives of some pictures only."""
    rows = pair_rows(pairs)
    names = dict.fromkeys(name for row in rows for name in row.vision)
    return {name: _joined([row.vision[name] for row in rows if name in row.vision]) for name in names}


def _joined(parts: Sequence[Pictures]) -> Pictures:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return concatenate(tensors)
    return [entry for part in parts for entry in part]


def pad_rows(rows: Sequence[Tensor], value: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as (rows, longest, ..), further axes as long as the longest, and where rows are real."""
    width = max(1, *(len(row) for row in rows))
    further = [max(sizes) for sizes in zip(*(row.shape[1:] for row in rows), strict=True)]
    padded = torch.full((len(rows), width, *further), value, dtype=rows[0].dtype)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        place: tuple[Any, ...] = (index, columns, *(slice(0, size) for size in row.shape[1:]))
        padded[place] = row
        mask[index, columns] = True
    return padded, mask


def concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis; other axes (tiles of an image, its height and width) are filled with zeros."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    grown = []
    for tensor in tensors:
        if list(tensor.shape[1:]) != shape:
            larger = tensor.new_zeros((tensor.shape[0], *shape))
            larger[(slice(None), *(slice(0, size) for size in tensor.shape[1:]))] = tensor
            tensor = larger
        grown.append(tensor)
    return torch.cat(grown)
