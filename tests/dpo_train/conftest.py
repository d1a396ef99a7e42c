"""Tiny random vision-language models with real processors, built from configuration classes; nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import transformers as hf
from mia_augment.records import PreferencePair, Region, Scores
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

WORDS = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "what",
    "is",
    "in",
    "image",
    "on",
    "the",
    "left",
    "right",
    "cat",
    "dog",
    "two",
    "one",
    "red",
    "blue",
    "green",
    ":",
    "?",
    ".",
    "user",
    "assistant",
]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}


def tokenizer(specials: list[str], named: dict[str, str] | None = None) -> Any:
    words = ["<pad>", "<s>", "</s>", "<unk>", *specials, *WORDS, "\n", "\n\n", "\n\n\n"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    )
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named or {},
    )
    made.add_tokens([AddedToken(word, special=True, normalized=False) for word in specials], special_tokens=True)
    return made


def clip() -> Any:
    return hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )


def siglip() -> Any:
    return hf.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14,
        vision_use_head=False,
    )  # fmt: skip


def llava() -> tuple[Any, Any, str]:
    tok = tokenizer(["<image>"])
    images = hf.LlavaImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = hf.LlavaProcessor(
        image_processor=images,
        tokenizer=tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaConfig(
        vision_config=clip(), text_config=hf.LlamaConfig(**TEXT), image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration(config), processor, "<image>"


def llava_next() -> tuple[Any, Any, str]:
    tok, pins = tokenizer(["<image>"]), [[56, 112], [112, 56], [112, 112]]
    images = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=pins
    )
    processor = hf.LlavaNextProcessor(
        image_processor=images,
        tokenizer=tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaNextConfig(
        vision_config=clip(), text_config=hf.LlamaConfig(**TEXT), image_grid_pinpoints=pins,
        image_token_index=tok.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    return hf.LlavaNextForConditionalGeneration(config), processor, "<image>"


def llava_onevision() -> tuple[Any, Any, str]:
    tok, pins = tokenizer(["<image>", "<video>"]), [[56, 56], [56, 112], [112, 56], [112, 112]]
    images = hf.LlavaOnevisionImageProcessorPil(size={"height": 56, "width": 56}, image_grid_pinpoints=pins)
    processor = hf.LlavaOnevisionProcessor(
        image_processor=images, tokenizer=tok, video_processor=hf.LlavaOnevisionVideoProcessor(), num_image_tokens=16,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    config = hf.LlavaOnevisionConfig(
        vision_config=siglip(), text_config=hf.Qwen2Config(**TEXT), image_grid_pinpoints=pins,
        image_token_index=tok.convert_tokens_to_ids("<image>"), video_token_index=tok.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
    )  # fmt: skip
    return hf.LlavaOnevisionForConditionalGeneration(config), processor, "<image>"


def qwen(name: str) -> tuple[Any, Any, str]:
    specials = ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"]
    tok = tokenizer(specials)
    patch = 14 if name in ("qwen2_vl", "qwen2_5_vl") else 16
    images = hf.Qwen2VLImageProcessorPil(min_pixels=patch * patch * 4, max_pixels=patch * patch * 64, patch_size=patch)
    names = ["vision_start_token_id", "image_token_id", "video_token_id", "vision_end_token_id"]
    ids = dict(zip(names, tok.convert_tokens_to_ids(specials), strict=True))
    tag = "<|vision_start|><|image_pad|><|vision_end|>"
    video = hf.Qwen3VLVideoProcessor() if patch == 16 else hf.Qwen2VLVideoProcessor()
    text = dict(TEXT, rope_parameters=ROPE)
    if name == "qwen2_vl":
        vision = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
        model = hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(text_config=text, vision_config=vision, **ids))
        return model, hf.Qwen2VLProcessor(images, tok, video), tag
    small = {"depth": 1, "hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "num_heads": 2}
    small["patch_size"] = patch
    if name == "qwen2_5_vl":
        vision = dict(small, fullatt_block_indexes=[0])
        config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        return hf.Qwen2_5_VLForConditionalGeneration(config), hf.Qwen2_5_VLProcessor(images, tok, video), tag
    if name == "qwen3_vl":
        vision = dict(small, deepstack_visual_indexes=[0], num_position_embeddings=64)
        config = hf.Qwen3VLConfig(text_config=dict(text, head_dim=16), vision_config=vision, **ids)
        return hf.Qwen3VLForConditionalGeneration(config), hf.Qwen3VLProcessor(images, tok, video), tag
    linear = {
        "head_dim": 16, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "rope_parameters": dict(ROPE, mrope_section=[1, 1, 0], partial_rotary_factor=0.25),
    }  # fmt: skip
    config = hf.Qwen3_5Config(text_config={**text, **linear}, vision_config=dict(small, num_position_embeddings=64), **ids)
    return hf.Qwen3_5ForConditionalGeneration(config), hf.Qwen3VLProcessor(images, tok, video), tag


def internvl() -> tuple[Any, Any, str]:
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tok = tokenizer(list(named.values()), named)
    images = hf.GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=4)
    processor = hf.InternVLProcessor(images, tok, hf.InternVLVideoProcessor(), image_seq_length=4)
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": [56, 56],
        "patch_size": [14, 14],
    }  # fmt: skip
    config = hf.InternVLConfig(
        vision_config=vision, text_config=hf.Qwen2Config(**TEXT).to_dict(), image_seq_length=4, vision_feature_layer=-1,
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    return hf.InternVLForConditionalGeneration(config), processor, "<IMG_CONTEXT>"


def idefics(name: str) -> tuple[Any, Any, str]:
    specials = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    keys = ["fake_image_token", "image_token", "end_of_utterance_token", "global_image_token"]
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tok = tokenizer([*specials, *tiles], dict(zip(keys, specials, strict=True)) if name == "smolvlm" else None)
    kind = hf.Idefics3ImageProcessorPil if name == "idefics3" else hf.SmolVLMImageProcessorPil
    images = kind(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True)
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 14,
    }  # fmt: skip
    shared = {
        "vision_config": vision, "text_config": hf.LlamaConfig(**TEXT), "scale_factor": 2,
        "image_token_id": tok.convert_tokens_to_ids("<image>"),
    }  # fmt: skip
    if name == "idefics3":
        model = hf.Idefics3ForConditionalGeneration(hf.Idefics3Config(**shared))
        return model, hf.Idefics3Processor(images, tok, image_seq_len=4), "<image>"
    import transformers.models.smolvlm.processing_smolvlm as processing

    processing.num2words = lambda number, *rest, **named: str(number)  # only used for videos; keeps num2words out of the tests
    processor = hf.SmolVLMProcessor(images, tok, hf.SmolVLMVideoProcessor(), image_seq_len=4)
    return hf.SmolVLMForConditionalGeneration(hf.SmolVLMConfig(**shared)), processor, "<image>"


def gemma3() -> tuple[Any, Any, str]:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tok = tokenizer(list(named.values()), named)
    images = hf.Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    processor = hf.Gemma3Processor(images, tok, image_seq_length=4)
    text = dict(
        TEXT, head_dim=16, sliding_window=12, num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=16,
    )  # fmt: skip
    config = hf.Gemma3Config(
        vision_config=siglip(), text_config=hf.Gemma3TextConfig(**text), mm_tokens_per_image=4,
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config), processor, "<start_of_image>"


def mistral3() -> tuple[Any, Any, str]:
    specials = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    tok = tokenizer(specials)
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessorPil(size={"longest_edge": 112}, patch_size=14), tok, patch_size=14, spatial_merge_size=2
    )
    vision = hf.PixtralVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=112, patch_size=14
    )
    config = hf.Mistral3Config(
        vision_config=vision, text_config=hf.MistralConfig(**dict(TEXT, head_dim=16, sliding_window=None)),
        image_token_index=tok.convert_tokens_to_ids("[IMG]"), spatial_merge_size=2, vision_feature_layer=-1,
    )  # fmt: skip
    return hf.Mistral3ForConditionalGeneration(config), processor, "[IMG]"


BUILDERS: dict[str, Callable[[], tuple[Any, Any, str]]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": lambda: qwen("qwen2_vl"),
    "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: qwen("qwen3_vl"),
    "qwen3_5": lambda: qwen("qwen3_5"),
    "internvl": internvl,
    "idefics3": lambda: idefics("idefics3"),
    "smolvlm": lambda: idefics("smolvlm"),
    "gemma3": gemma3,
    "mistral3": mistral3,
}


def build(name: str) -> tuple[Any, Any]:
    """Model (seeded, with weights large enough that attention matters) and processor."""
    torch.manual_seed(0)
    model, processor, tag = BUILDERS[name]()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data.normal_(0, 0.08 if parameter.shape[-1] > 200 else 0.15, generator=generator)
    processor.chat_template = (
        "{% for m in messages %}user : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %} " + tag + " {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
    )
    return model.eval(), processor


def picture(name: str) -> Image.Image:
    """A picture of noise whose size and pixels follow from its name."""
    number = int("".join(ch for ch in name if ch.isdigit()) or 0)
    width, height = 60 + 17 * (number % 4), 70 + 23 * (number % 3)
    pixels = np.random.RandomState(number).randint(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_pair(
    number: int, images: int, *, chosen: str = "the cat is red .", rejected: str = "a dog on the left is blue ."
) -> PreferencePair:
    names = [f"{(number * 5 + k) % 11}.png" for k in range(images)]
    labels = "".join(f"image {['a', 'b', 'c', 'd', 'e'][k]} : <image>\n" for k in range(images))
    return PreferencePair(
        id=f"pair-{number:03d}",
        format="sequence",
        images=names,
        prompt=f"{labels} in image a what is on the {WORDS[number % 8]} ?",
        chosen=chosen,
        rejected=rejected,
        scores=Scores(),
        target=0,
        regions=[Region(image=k, label=f"Image{k + 1}") for k in range(images)],
    )


@pytest.fixture(scope="session")
def families() -> list[str]:
    return list(BUILDERS)


@pytest.fixture(name="build")
def build_fixture() -> Callable[[str], tuple[Any, Any]]:
    return build


@pytest.fixture
def open_picture() -> Callable[[str], Image.Image]:
    return picture


@pytest.fixture(name="make_pair")
def make_pair_fixture() -> Callable[..., PreferencePair]:
    return make_pair


@pytest.fixture
def pairs() -> list[PreferencePair]:
    """Nine pairs with one to three images and answers of different lengths."""
    answers = ["red .", "the cat is red .", "two dog in the image on the right .", "one blue cat ."]
    return [
        make_pair(n, 1 + n % 3, chosen=answers[n % 4], rejected=answers[(n + 1 + n % 2) % 4] + " ?" * (n % 2)) for n in range(9)
    ]


@pytest.fixture
def pairs_folder(tmp_path: Path, pairs: list[PreferencePair]) -> Path:
    """A folder as the selection stage leaves it."""
    from mia_augment.files import Manifest, write_jsonl, write_manifest

    folder = tmp_path / "pairs"
    write_jsonl(folder / "pairs.jsonl", pairs)
    for name in {name for pair in pairs for name in pair.images}:
        picture(name).save(folder / name)
    write_manifest(folder, Manifest(stage="select", version="0", settings={}, inputs={}))
    return folder
