"""Tokenizer, processor and untrained model of the embedded checkpoint: LLaVA's architecture, 1.5 million parameters."""

from __future__ import annotations

import string
from dataclasses import dataclass

import torch
from mia_augment.compose import prompts
from mia_cli.drawn import drawing
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

MEAN, STD = 0.5, 0.27
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PIECE = r" ?[A-Za-z]+| ?[0-9]|[^A-Za-z0-9]"
"""A token is a word or a digit with the space before it, or any other single character."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['role'] | upper }}:\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% set start = namespace(pictures=true) %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>"
    "{% if start.pictures and loop.nextitem is defined and not (loop.nextitem['text'] | default('')).startswith('\\n') %}"
    "{{ '\\n' }}{% endif %}"
    "{% else %}{% set start.pictures = false %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """What may differ between models of the family; the defaults are the embedded model's."""

    width: int = 128
    layers: int = 4
    """Of the language model."""
    patch: int = 12
    """Side of a patch in pixels: the picture's resolution in visual tokens."""


def corpus() -> list[str]:
    """Every text that a prompt or an answer can be made of."""
    questions = list(drawing.QUESTIONS.values())
    texts = ["USER:\n\nASSISTANT:\n", *questions, *(q[0].lower() + q[1:] for q in questions)]
    texts += [f" {q[0].lower() + q[1:]}" for q in questions]
    texts += [f"{lead}, " for lead in prompts.PIC_IN_PIC_LEADS]
    texts += [f"{digit} {digit}" for digit in string.digits] + ["Image1: In Image1, "]
    for name, values in drawing.ATTRIBUTES.items():
        texts += [f"The {name} is {value}." for value in values]
    return texts


def build_tokenizer() -> PreTrainedTokenizerFast:
    split = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    pieces = sorted({piece for text in corpus() for piece, _ in split.pre_tokenize_str(text)})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )


def build_processor(shape: Shape = Shape()) -> LlavaProcessor:
    image_processor = CLIPImageProcessor(
        size={"height": drawing.SIZE, "width": drawing.SIZE},
        do_center_crop=False,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0, shape: Shape = Shape()) -> LlavaForConditionalGeneration:
    torch.manual_seed(seed)
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=drawing.SIZE,
        patch_size=shape.patch,
        projection_dim=shape.width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        initializer_range=0.08,
        **tokens,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(drawing.SIZE // shape.patch) ** 2,
        tie_word_embeddings=False,
        **tokens,
    )
    return LlavaForConditionalGeneration(config)
