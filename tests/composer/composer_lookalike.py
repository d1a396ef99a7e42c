"""A tiny model with the interfaces of InternLM-XComposer2.5's own code, written anew. Imported by name.

Like it, it takes embeddings and the places of pictures in them (`im_mask`), where its linear layers add a low-rank part; gives
caches of tuples; makes the features of a picture itself, whole picture first, a token behind each row; and knows no batch of
pictures.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers.modeling_outputs import BaseModelOutputWithPast

WIDTH, HEADS, KEY_HEADS, LAYERS, PART, PATCH = 32, 4, 2, 4, 56, 28


class PartialLora(nn.Linear):
    """A linear layer that adds a low-rank part where pictures are."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside, bias=False)
        self.Plora_A, self.Plora_B = nn.Linear(inside, 3, bias=False), nn.Linear(3, outside, bias=False)

    def forward(self, x: Tensor, im_mask: Tensor | None = None) -> Tensor:
        assert im_mask is not None
        assert im_mask.shape == x.shape[:2]
        return super().forward(x) + self.Plora_B(self.Plora_A(x)) * im_mask[..., None]


class Rotary(nn.Module):
    def forward(self, value: Tensor, seq_len: int) -> tuple[Tensor, Tensor]:
        angles = torch.arange(seq_len)[:, None] / 100 ** (torch.arange(0, value.shape[-1], 2) / value.shape[-1])
        return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


class OwnAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_key_value_heads, self.num_key_value_groups, self.head_dim = KEY_HEADS, HEADS // KEY_HEADS, WIDTH // HEADS
        self.wqkv = PartialLora(WIDTH, (HEADS + 2 * KEY_HEADS) * self.head_dim)
        self.wo = PartialLora(WIDTH, WIDTH)
        self.rotary_emb = Rotary()
        self.weights: list[Tensor] = []

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_value: Any = None,
        output_attentions: bool = False,
        use_cache: bool = False,
        im_mask: Tensor | None = None,
    ) -> tuple[Tensor, Any, Any]:
        batch, count, _ = hidden_states.shape
        parts = self.wqkv(hidden_states, im_mask).view(batch, count, KEY_HEADS, self.num_key_value_groups + 2, self.head_dim)
        query = parts[..., : self.num_key_value_groups, :].reshape(batch, count, HEADS, self.head_dim).transpose(1, 2)
        key, value = parts[..., -2, :].transpose(1, 2), parts[..., -1, :].transpose(1, 2)
        before = 0 if past_key_value is None else past_key_value[0].shape[2]
        cosine, sine = (each[position_ids].unsqueeze(1) for each in self.rotary_emb(value, seq_len=count + before))
        query, key = (x * cosine + torch.cat([-x[..., 4:], x[..., :4]], -1) * sine for x in (query, key))
        if past_key_value is not None:
            key, value = torch.cat([past_key_value[0], key], 2), torch.cat([past_key_value[1], value], 2)
        kept = (key, value) if use_cache else None
        key, value = (each.repeat_interleave(self.num_key_value_groups, 1) for each in (key, value))
        weights = (query @ key.transpose(2, 3) / math.sqrt(self.head_dim) + attention_mask).softmax(-1)
        self.weights.append(weights.mean(1).detach())
        out = (weights @ value).transpose(1, 2).reshape(batch, count, WIDTH)
        return self.wo(out, im_mask), None, kept


class OwnLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.w1, self.w2 = OwnAttention(), PartialLora(WIDTH, 48), PartialLora(48, WIDTH)

    def forward(self, hidden: Tensor, im_mask: Tensor, use_cache: bool, **words: Any) -> tuple[Tensor, Any]:
        added, _, kept = self.attention(hidden_states=hidden, im_mask=im_mask, use_cache=use_cache, **words)
        hidden = hidden + added
        return hidden + self.w2(nn.functional.silu(self.w1(hidden, im_mask)), im_mask), kept


class OwnDecoder(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocabulary, WIDTH)
        self.layers = nn.ModuleList(OwnLayer() for _ in range(LAYERS))

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        im_mask: Tensor,
        past_key_values: Any = None,
        use_cache: bool = False,
        return_dict: bool = True,
        infer_mode: str = "base",
    ) -> BaseModelOutputWithPast:
        count, whole = inputs_embeds.shape[1], attention_mask.shape[1]
        least = torch.finfo(inputs_embeds.dtype).min
        causal = torch.full((count, whole), least).triu(whole - count + 1)
        mask = (causal + (1.0 - attention_mask[:, None, None].float()) * least).clamp_min(least)
        hidden, cache = inputs_embeds, []
        for index, layer in enumerate(self.layers):
            past = None if past_key_values is None else past_key_values[index]
            words = {"attention_mask": mask, "position_ids": position_ids, "past_key_value": past, "output_attentions": False}
            hidden, kept = layer(hidden, im_mask, use_cache, **words)
            cache.append(kept)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=tuple(cache) if use_cache else None)


class OwnModel(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, vocab_size=vocabulary,
            max_position_embeddings=4096,
        )  # fmt: skip
        self.model = OwnDecoder(vocabulary)
        self.output = nn.Linear(WIDTH, vocabulary, bias=False)
        self.see = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.row_end, self.between = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 1, WIDTH))

    def encode_img(self, image: Tensor) -> Tensor:
        """(1, tokens, width) of one picture, (1, 3, height, width) with both whole numbers of parts."""
        assert len(image) == 1
        assert not any(length % PART for length in image.shape[2:])
        whole = interpolate(image, size=(PART, PART), mode="bicubic")
        rows = [self._rows(self.see(view)) for view in (whole, image)]
        return torch.cat([rows[0], self.between, rows[1]], 1)

    def _rows(self, seen: Tensor) -> Tensor:
        grid = seen.permute(0, 2, 3, 1)
        ends = self.row_end[:, None].expand(1, grid.shape[1], 1, -1)
        return torch.cat([grid, ends], 2).flatten(1, 2)

    def wrapped(self, tokenizer: Any, text: str, images: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings of a prompt and where its pictures are: text and pictures in turn, one beginning."""
        embeds, places = [], []
        for index, part in enumerate(text.split("<ImageHere>")):
            if part or not index:
                ids = tokenizer(part, add_special_tokens=not index)["input_ids"]
                embeds.append(self.model.tok_embeddings(torch.tensor([ids])))
                places.append(torch.zeros(1, len(ids), dtype=torch.bool))
            if index < len(images):
                embeds.append(self.encode_img(images[index]))
                places.append(torch.ones(embeds[-1].shape[:2], dtype=torch.bool))
        return torch.cat(embeds, 1), torch.cat(places, 1)
