"""Models with random weights in the shapes of LLaVA-1.5-7B and Qwen2.5-VL-7B, and made-up prompts and pairs for them.

A picture takes 576 tokens in both: 336 x 336 px in patches of 14, and 672 x 672 px in patches of 14 merged two by two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from mia_dpo_train.data.encode import EncodedPair

PICTURE_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 576, 60, 30
IMAGE, BEFORE, BEHIND, VIDEO, TINY_WORDS = 900, 901, 902, 903, 1024
"""Special tokens and the vocabulary of tiny models; weights are random, so that ids mean nothing."""


@dataclass(frozen=True)
class Shape:
    """One of the two models."""

    title: str
    config: Callable[[bool], Any]
    """Its configuration; True: a tiny one of the same kind."""
    around: tuple[list[int], list[int]]
    """Ids before and behind the tokens of a picture."""
    types: str | None
    """Name of the input that tells pictures from text."""
    pixels: Callable[[int, torch.Generator], dict[str, torch.Tensor]]
    """What the processor makes of so many pictures."""


def _llava(tiny: bool) -> Any:
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    if tiny:
        vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    return hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=hf.LlamaConfig(**text, vocab_size=TINY_WORDS if tiny else 32064, max_position_embeddings=4096),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
    )


def _qwen(tiny: bool) -> Any:
    text: dict[str, Any] = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    if tiny:
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 2, "rope_parameters": {**text["rope_parameters"], "mrope_section": [2, 3, 3]}}
        vision |= {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 64}
        vision |= {"fullatt_block_indexes": [1]}
    return hf.Qwen2_5_VLConfig(
        text_config={
            **text,
            "vocab_size": TINY_WORDS if tiny else 152064,
            "max_position_embeddings": 32768,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config=vision,
        image_token_id=IMAGE,
        vision_start_token_id=BEFORE,
        vision_end_token_id=BEHIND,
        video_token_id=VIDEO,
    )


def _llava_pixels(images: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(images, 3, 336, 336, generator=generator)}


def _qwen_pixels(images: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    patches = torch.randn(images * 48 * 48, 3 * 2 * 14 * 14, generator=generator)
    return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 48, 48]] * images)}


SHAPES = {
    "llava": Shape("LLaVA-1.5-7B", _llava, ([], []), None, _llava_pixels),
    "qwen2_5_vl": Shape("Qwen2.5-VL-7B", _qwen, ([BEFORE], [BEHIND]), "mm_token_type_ids", _qwen_pixels),
}


def build(shape: Shape, *, tiny: bool, device: str) -> Any:
    """The model, seeded, made on the device: bf16, and fp32 where it is tiny."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if tiny else torch.bfloat16)
    try:
        with torch.device(device):
            return hf.AutoModelForImageTextToText.from_config(shape.config(tiny)).eval()
    finally:
        torch.set_default_dtype(before)


def words(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(10, IMAGE, (count,), generator=generator).tolist()


def prompt_ids(shape: Shape, images: int, generator: torch.Generator, question: int = QUESTION_TOKENS) -> torch.Tensor:
    """Some words before each picture, and a question behind the last."""
    before, behind = shape.around
    ids = [1]
    for _ in range(images):
        ids += [*words(4, generator), *before, *[IMAGE] * PICTURE_TOKENS, *behind]
    return torch.tensor([*ids, *words(question, generator)])


def pair(shape: Shape, images: int, number: int) -> EncodedPair:
    """A pair by its number; questions are of different lengths."""
    generator = torch.Generator().manual_seed(number)
    prompt = prompt_ids(shape, images, generator, QUESTION_TOKENS + 40 * (number % 3))
    pixels = shape.pixels(images, generator)
    chosen, rejected = (torch.tensor([*words(ANSWER_TOKENS - 1, generator), 2]) for _ in range(2))
    types = {shape.types: (prompt == IMAGE).long()} if shape.types else {}
    return EncodedPair(str(number), prompt, types, chosen, rejected, pixels)


def prompts(shape: Shape, model: Any, images: int, batch: int) -> dict[str, torch.Tensor]:
    """Inputs of so many prompts; every second one is padded a little on the left."""
    generator = torch.Generator().manual_seed(images)
    ids = torch.stack([prompt_ids(shape, images, generator) for _ in range(batch)])
    mask = torch.ones_like(ids)
    mask[1::2, :4] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, **shape.pixels(batch * images, generator)}
    if shape.types:
        inputs[shape.types] = (ids == IMAGE).long()
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return {name: value.to(model.device) for name, value in inputs.items()}
