"""Random LLaVA-shaped models, shared by the benchmarks: 576 tokens for a picture of 336 x 336."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

PATCH = 14


def random_llava(
    hidden: int, layers: int, *, feed_forward: int, vocab: int, image_token: int, pixels: int, vision: tuple[int, int, int, int]
) -> Any:
    """Seeded, fp32, on the CPU, not in eval mode.

    Args:
        hidden, layers, feed_forward, vocab: of the language model; heads of 64.
        pixels: side of a picture, 14 a patch.
        vision: width, feed-forward width, layers and heads of the vision tower.
    """
    torch.manual_seed(0)
    width, inner, depth, heads = vision
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=width, intermediate_size=inner, num_hidden_layers=depth, num_attention_heads=heads,
            image_size=pixels, patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=vocab, hidden_size=hidden, intermediate_size=feed_forward, num_hidden_layers=layers,
            num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, max_position_embeddings=8192,
        ),
        image_token_index=image_token,
        vision_feature_layer=-1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)
