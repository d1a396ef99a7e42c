"""From preference pairs to token ids and image tensors.

Convention: the prompt is rendered by the chat template up to where the answer starts; a response is what the template writes
behind it, up to and with the token that ends the turn (see `mia_augment.prompting`). An answer that the model gave itself is
the tokens that it emitted. Nothing is ever cut off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from mia_augment import END_TOKENS, IMAGE, DataError, ModelError, PreferencePair
from mia_augment.images import OpenImage
from mia_augment.prompting import answer_ids, emitted_ids, per_token, process, refusal, render_prompt, render_turn
from torch import Tensor


@dataclass(frozen=True)
class EncodedPair:
    """One pair as the model sees it."""

    id: str
    prompt: Tensor
    """Token ids with the image tokens in place: (prompt,)."""
    types: dict[str, Tensor]
    """What else the processor says of every prompt token, as which stand for images, by its names: (prompt,) each."""
    chosen: Tensor
    """Token ids with those that end the turn: (chosen,)."""
    rejected: Tensor
    """Likewise: (rejected,)."""
    vision: dict[str, Tensor]
    """All other outputs of the processor, e.g. pixel_values."""

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @cached_property
    def digest(self) -> str:
        """Hash of all that the log-probs of this pair depend on, besides the model."""
        digest = hashlib.sha256()
        for name, tensor in [
            ("prompt", self.prompt),
            ("chosen", self.chosen),
            ("rejected", self.rejected),
            *self.vision.items(),
        ]:
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def vision_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.vision.values())


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
        text = render_prompt(self.processor, pair.prompt)
        outputs = process(self.processor, [text], [[self.open_image(name) for name in pair.images]])
        known = per_token(outputs)
        return EncodedPair(
            id=pair.id,
            prompt=outputs["input_ids"][0],
            types={name: value[0] for name, value in known.items() if name not in ("input_ids", "attention_mask")},
            chosen=self._response(pair, "chosen"),
            rejected=self._response(pair, "rejected"),
            vision=self._vision(outputs),
        )

    def vision(self, pairs: Sequence[PreferencePair]) -> dict[str, Tensor]:
        """What the processor makes of the pictures of several pairs in one call, as the model's own batches are made."""
        texts = [render_prompt(self.processor, pair.prompt) for pair in pairs]
        images = [[self.open_image(name) for name in pair.images] for pair in pairs]
        return self._vision(process(self.processor, texts, images))

    def _vision(self, outputs: Any) -> dict[str, Tensor]:
        """What a processor's outputs tell of pictures, numbers in 32 bits (some processors give them in 16)."""
        known = per_token(outputs)
        vision = {name: value for name, value in outputs.items() if name not in known}
        for name, value in vision.items():
            if not isinstance(value, Tensor):
                raise ModelError(f"{type(self.processor).__name__} gives {name} as {type(value).__name__}, expected a tensor")
        return {name: value.float() if value.is_floating_point() else value for name, value in vision.items()}

    def _response(self, pair: PreferencePair, name: Literal["chosen", "rejected"]) -> Tensor:
        text: str = getattr(pair, name)
        ids = emitted_ids(self.processor, getattr(pair, f"{name}_ids"), text)
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
    """Pairs side by side: prompts padded on the left, so that all end in the same column; answers padded on the right."""

    ids: list[str]
    prompt: Tensor
    """(pairs, prompt)"""
    prompt_mask: Tensor
    """True where a token stands: (pairs, prompt)."""
    types: dict[str, Tensor]
    """(pairs, prompt) each"""
    chosen: Tensor
    """(pairs, chosen)"""
    chosen_mask: Tensor
    rejected: Tensor
    """(pairs, rejected)"""
    rejected_mask: Tensor
    vision: dict[str, Tensor] = field(default_factory=dict)
    """Images of all pairs, in order."""
    digests: list[str] = field(default_factory=list)
    """Of the pairs, by which what is stored about them is found."""

    def to(self, device: torch.device) -> PairBatch:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PairBatch(
            self.ids,
            moved(self.prompt),
            moved(self.prompt_mask),
            {name: moved(tensor) for name, tensor in self.types.items()},
            moved(self.chosen),
            moved(self.chosen_mask),
            moved(self.rejected),
            moved(self.rejected_mask),
            {name: moved(tensor) for name, tensor in self.vision.items()},
            self.digests,
        )

    @property
    def lengths(self) -> Tensor:
        """Tokens of chosen and rejected answers: (2, pairs)."""
        return torch.stack([self.chosen_mask.sum(1), self.rejected_mask.sum(1)])

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int(self.prompt_mask.sum() + self.chosen_mask.sum() + self.rejected_mask.sum())


def collate(pairs: Sequence[EncodedPair], pad: int = 0, vision: dict[str, Tensor] | None = None) -> PairBatch:
    """Put encoded pairs side by side; `vision`: what stands for their pictures, if it is not to be joined here."""
    prompt, prompt_mask = pad_rows([pair.prompt for pair in pairs], pad, left=True)
    chosen, chosen_mask = pad_rows([pair.chosen for pair in pairs], pad)
    rejected, rejected_mask = pad_rows([pair.rejected for pair in pairs], pad)
    return PairBatch(
        ids=[pair.id for pair in pairs],
        prompt=prompt,
        prompt_mask=prompt_mask,
        types={name: pad_rows([pair.types[name] for pair in pairs], 0, left=True)[0] for name in pairs[0].types},
        chosen=chosen,
        chosen_mask=chosen_mask,
        rejected=rejected,
        rejected_mask=rejected_mask,
        vision=joined_vision(pairs) if vision is None else vision,
        digests=[pair.digest for pair in pairs],
    )


def joined_vision(pairs: Sequence[EncodedPair]) -> dict[str, Tensor]:
    """The pictures of several pairs, each output of the processor concatenated."""
    return {name: concatenate([pair.vision[name] for pair in pairs]) for name in pairs[0].vision}


def pad_rows(rows: Sequence[Tensor], value: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as (rows, longest), and where they are real."""
    width = max(len(row) for row in rows)
    padded = torch.full((len(rows), width), value, dtype=rows[0].dtype)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        padded[index, columns] = row
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
