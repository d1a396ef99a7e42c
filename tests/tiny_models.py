"""Tiny random vision-language models of every family, with real processors, built from configuration classes.

Nothing is downloaded. Imported by name: pytest puts this folder on the path; processes that a test starts need FOLDER there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

FOLDER = str(Path(__file__).parent)
WORDS = [
    *"abcdefgh", "what", "is", "in", "image", "on", "the", "left", "right", "cat", "dog", "two", "one", "red", "blue", "green",
    ":", "?", ".", ",", "user", "assistant", "In", "Image1", "Image2", "Image3",
]  # fmt: skip
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 8192,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
QWEN = ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}IMAGE_TOKENS{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} assistant :"
)


@dataclass(frozen=True)
class Build:
    name: str
    model: Any
    processor: Any
    tag: str
    """What a rendered prompt holds per image."""


def tokenizer(specials: list[str], named: dict[str, str] | None = None) -> Any:
    """One token per word; `named` gives some of the special ones the names by which a processor asks for them."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *specials, *WORDS, "\n", "\n\n", "\n\n\n"]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(":", "isolated")]
    )
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named or {},
        padding_side="right",
    )
    made.add_tokens([AddedToken(word, special=True, normalized=False) for word in specials], special_tokens=True)
    return made


def clip() -> Any:
    return hf.CLIPVisionConfig(**VISION, patch_size=14)


def siglip() -> Any:
    return hf.SiglipVisionConfig(**VISION, patch_size=14, vision_use_head=False)


def llava(*, pad: bool = False) -> Build:
    tok = tokenizer(["<image>"])
    images = hf.LlavaImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, do_pad=pad)
    processor = hf.LlavaProcessor(
        images, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    config = hf.LlavaConfig(
        vision_config=clip(),
        text_config=hf.LlamaConfig(**TEXT),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    return Build("llava", hf.LlavaForConditionalGeneration(config), processor, "<image>")


def llava_next() -> Build:
    tok = tokenizer(["<image>"])
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=PINPOINTS
    )
    processor = hf.LlavaNextProcessor(
        images, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    config = hf.LlavaNextConfig(
        vision_config=clip(),
        text_config=hf.LlamaConfig(**TEXT),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    return Build("llava_next", hf.LlavaNextForConditionalGeneration(config), processor, "<image>")


def llava_onevision() -> Build:
    tok = tokenizer(["<image>", "<video>"])
    pinpoints = [[56, 56], [56, 112], [112, 56], [112, 112], [112, 168]]
    images = hf.LlavaOnevisionImageProcessor(size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints)
    processor = hf.LlavaOnevisionProcessor(
        images, tok, hf.LlavaOnevisionVideoProcessor(), num_image_tokens=16, vision_feature_select_strategy="full"
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=siglip(),
        text_config=hf.Qwen2Config(**TEXT),
        image_grid_pinpoints=pinpoints,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
    )
    return Build("llava_onevision", hf.LlavaOnevisionForConditionalGeneration(config), processor, "<image>")


def qwen(name: str) -> Build:
    tok = tokenizer(QWEN)
    names = ["vision_start_token_id", "image_token_id", "video_token_id", "vision_end_token_id"]
    ids = dict(zip(names, tok.convert_tokens_to_ids(QWEN), strict=True))
    patch = 14 if name in ("qwen2_vl", "qwen2_5_vl") else 16
    pixels = patch * patch * 4
    images = hf.Qwen2VLImageProcessor(
        size={"shortest_edge": pixels, "longest_edge": pixels * 64}, patch_size=patch, min_pixels=pixels, max_pixels=pixels * 64
    )
    text: dict[str, Any] = dict(TEXT, rope_parameters=ROPE)
    tag = "<|vision_start|><|image_pad|><|vision_end|>"
    if name == "qwen2_vl":
        tower = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
        model = hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(text_config=text, vision_config=tower, **ids))
        return Build(name, model, hf.Qwen2VLProcessor(images, tok, hf.Qwen2VLVideoProcessor()), tag)
    vision: dict[str, Any] = {"depth": 1, "hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "num_heads": 2}
    vision["patch_size"] = patch
    if name == "qwen2_5_vl":
        config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=dict(vision, fullatt_block_indexes=[0]), **ids)
        processor = hf.Qwen2_5_VLProcessor(images, tok, hf.Qwen2VLVideoProcessor())
        return Build(name, hf.Qwen2_5_VLForConditionalGeneration(config), processor, tag)
    processor = hf.Qwen3VLProcessor(images, tok, hf.Qwen3VLVideoProcessor())
    vision["num_position_embeddings"] = 64
    if name == "qwen3_vl":
        vision["deepstack_visual_indexes"] = [0]
        config = hf.Qwen3VLConfig(text_config=dict(text, head_dim=16), vision_config=vision, **ids)
        return Build(name, hf.Qwen3VLForConditionalGeneration(config), processor, tag)
    text |= {
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "rope_parameters": dict(ROPE, mrope_section=[1, 1, 0], partial_rotary_factor=0.25),
    }
    config = hf.Qwen3_5Config(text_config=text, vision_config=vision, **ids)
    return Build(name, hf.Qwen3_5ForConditionalGeneration(config), processor, tag)


def internvl() -> Build:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = tokenizer(list(named.values()), named)
    images = hf.GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=6)
    processor = hf.InternVLProcessor(images, tok, hf.InternVLVideoProcessor(), image_seq_length=4)
    config = hf.InternVLConfig(
        vision_config=dict(VISION, image_size=[56, 56], patch_size=[14, 14]),
        text_config=hf.Qwen2Config(**TEXT).to_dict(),
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        vision_feature_layer=-1,
    )
    return Build("internvl", hf.InternVLForConditionalGeneration(config), processor, "<IMG_CONTEXT>")


def idefics3(name: str) -> Build:
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    tok = tokenizer([*named.values(), *tiles], named if name == "smolvlm" else None)
    sizes: dict[str, Any] = {
        "size": {"longest_edge": 112},
        "max_image_size": {"longest_edge": 56},
        "do_image_splitting": True,
    }
    common: dict[str, Any] = {
        "vision_config": dict(VISION, patch_size=14),
        "text_config": hf.LlamaConfig(**TEXT, pad_token_id=0),
        "scale_factor": 2,
        "image_token_id": tok.convert_tokens_to_ids("<image>"),
    }
    if name == "idefics3":
        processor: Any = hf.Idefics3Processor(hf.Idefics3ImageProcessor(**sizes), tok, image_seq_len=4)
        return Build(name, hf.Idefics3ForConditionalGeneration(hf.Idefics3Config(**common)), processor, "<image>")
    import transformers.models.smolvlm.processing_smolvlm as module

    module.num2words = lambda number, *_, **__: str(number)  # only videos need the real one
    processor = hf.SmolVLMProcessor(hf.SmolVLMImageProcessor(**sizes), tok, hf.SmolVLMVideoProcessor(), image_seq_len=4)
    return Build(name, hf.SmolVLMForConditionalGeneration(hf.SmolVLMConfig(**common)), processor, "<image>")


def gemma3() -> Build:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tok = tokenizer(list(named.values()), named)
    processor = hf.Gemma3Processor(hf.Gemma3ImageProcessor(size={"height": 56, "width": 56}), tok, image_seq_length=4)
    text = hf.Gemma3TextConfig(
        **TEXT,
        head_dim=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=16,
    )
    config = hf.Gemma3Config(
        vision_config=siglip(),
        text_config=text,
        mm_tokens_per_image=4,
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    return Build("gemma3", model, processor, "<start_of_image>")


def mistral3() -> Build:
    tok = tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size=14), tok, patch_size=14, spatial_merge_size=2
    )
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**dict(VISION, image_size=112), patch_size=14),
        text_config=hf.MistralConfig(**TEXT, head_dim=16),
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return Build("mistral3", hf.Mistral3ForConditionalGeneration(config), processor, "[IMG]")


def molmo2() -> Build:
    """Its processor numbers the patches of all pictures of a batch in one row."""
    tags = ["<|image|>", "<|video|>", "<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>"]
    tags += ["<frame_start>", "<im_end>", "<frame_end>", "<im_low>"]
    tok = tokenizer(tags)
    images = hf.Molmo2ImageProcessor(size={"height": 56, "width": 56}, patch_size=14, max_crops=2, overlap_margins=[1, 1])
    video = hf.Molmo2VideoProcessor(size={"height": 56, "width": 56}, patch_size=14)
    processor = hf.Molmo2Processor(images, video, tok)
    ids = dict(zip(tags, tok.convert_tokens_to_ids(tags), strict=True))
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    config = hf.Molmo2Config(
        text_config=dict(TEXT, head_dim=16),
        vision_config=dict(small, num_hidden_layers=2, image_size=[56, 56], patch_size=14),
        adapter_config=dict(small, vision_feature_layer=[-1, 0], text_hidden_size=64),
        image_start_token_id=ids["<im_start>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_end_token_id=ids["<im_end>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )
    return Build("molmo2", hf.Molmo2ForConditionalGeneration(config), processor, "<|image|>")


BUILDERS: dict[str, Callable[[], Build]] = {
    "llava": llava,
    "llava_pad": partial(llava, pad=True),
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": partial(qwen, "qwen2_vl"),
    "qwen2_5_vl": partial(qwen, "qwen2_5_vl"),
    "qwen3_vl": partial(qwen, "qwen3_vl"),
    "qwen3_5": partial(qwen, "qwen3_5"),
    "internvl": internvl,
    "idefics3": partial(idefics3, "idefics3"),
    "smolvlm": partial(idefics3, "smolvlm"),
    "gemma3": gemma3,
    "mistral3": mistral3,
}


OTHERS: dict[str, Callable[[], Build]] = {"molmo2": molmo2}
"""Families with no boxes of their own."""


def build(name: str, *, strong: bool = False) -> Build:
    """A tiny random model of a family (seeded), in eval mode on SDPA, and its processor with a chat template.

    Args:
        strong: with weights so large that attention and images decide what is said.
    """
    torch.manual_seed(0)
    made = {**BUILDERS, **OTHERS}[name]()
    made.model.eval().set_attn_implementation("sdpa")
    made.processor.chat_template = TEMPLATE.replace("IMAGE_TOKENS", made.tag)
    if strong:
        for parameter in made.model.parameters():
            if parameter.ndim >= 2:
                parameter.data.normal_(0, 0.08 if parameter.shape[-1] > 200 else 0.15)
    return made
