# ruff: noqa: E501 - tables of numbers and names
"""A tiny random model and its real processor for any type of transformers' image-text-to-text table, from its classes alone.

Configurations are built from their defaults with small numbers in place of the usual names; a tokenizer has one token per word
and those special ones that the processor's source asks for. What a type needs beyond that stands in `family_exceptions.py`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from functools import partial
from typing import Any

import tiny_models
import torch
import transformers as hf
from family_exceptions import EXCEPTIONS, REFUSED
from tiny_models import TEMPLATE, Build
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as TYPES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "global_head_dim": 16, "vocab_size": 512, "max_position_embeddings": 8192, "moe_intermediate_size": 32,
    "intermediate_size_mlp": 64, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_num_experts": 4,
    "moe_k": 2, "moe_topk": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "moe_num_shared_experts": 1, "first_k_dense_replace": 1,
    "shared_expert_intermediate_size": 32, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "sliding_window": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "d_model": 64, "num_global_key_value_heads": 2,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512, "query_pre_attn_scalar": 16, "ffn_dim": 96, "word_embed_proj_dim": 64,
    "block_ff_dim": 96, "block_multiple_of": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "mamba_n_heads": 4,
    "num_layers": 4, "num_heads": 4, "index_topk": 4096, "index_head_dim": 16, "index_n_heads": 2, "num_kv_shared_layers": 0, "moe_latent_size": None,
    "linear_head_dim": 16, "linear_num_heads": 4, "shared_experts_intermediate_size": 32,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "embed_dim": 32, "intermediate_size": 48, "num_hidden_layers": 2, "depth": 2, "num_attention_heads": 2,
    "num_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "image_size": 56, "out_hidden_size": 64, "projection_dim": 64, "num_position_embeddings": 64,
    "fullatt_block_indexes": [0], "deepstack_visual_indexes": [0], "encoder_hidden_size": 32, "projector_hidden_size": 64,
    "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "n_window": 4, "output_dim": 64, "mlp_dim": 48,
    "vocab_size": 512, "num_query_tokens": 4, "cross_attention_frequency": 1, "num_layers": 2, "layers": 2, "width": 32, "use_head": False, "vision_use_head": False,
    "hidden_dim": 32, "text_hidden_size": 64, "text_config_hidden_size": 64, "vision_feature_layer": -1, "init_pos_emb_height": 8, "init_pos_emb_width": 8,
    "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "num_embeddings": 16, "projected_hidden_size": 64,
    "vision_output_dim": 64, "output_channels": 32, "window_size": 56, "global_attn_indexes": [1], "language_hidden_size": 64, "embedding_dim": 32, "n_embed": 16, "latent_channels": 32,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
KEPT = ("patch_size", "spatial_merge_size", "vision_use_head", "temporal_patch_size", "norm_type")
ZERO_AT_FIRST = ("weight", "gate", "alpha_cross_attn", "alpha_dense")
"""Parameters of one dimension that must not stay zero: some shut pictures out until they are trained."""
STANDARD = {"bos_token", "eos_token", "pad_token", "unk_token"}


def build(name: str) -> Build:
    """A tiny random model of a type of transformers' table (seeded), in eval mode, and its processor with a chat template."""
    torch.manual_seed(0)
    if name in REFUSED:
        raise NotImplementedError(REFUSED[name])
    if name in {**tiny_models.BUILDERS, **tiny_models.OTHERS} and name not in EXCEPTIONS:
        made = tiny_models.build(name)
    else:
        made = _built(name)
    made.model.eval()
    if made.model._supports_sdpa:
        made.model.set_attn_implementation("sdpa")
    return made


def _built(name: str) -> Build:
    special = EXCEPTIONS.get(name, {})
    config = tiny_config(name)
    processor = tiny_processor(name, config)
    _set_ids(config, processor)
    for key, value in special.get("ids", {}).items():
        owner = config
        *path, last = key.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, processor.tokenizer.convert_tokens_to_ids(value))  # of one token, or of several
    with torch.device("cpu"):
        model = getattr(hf, special.get("model", TYPES[name]))(config)
    _randomise(model, special.get("scale", 0.1))
    tag = str(special.get("tag") or getattr(processor, "image_token", None) or "<image>")
    processor.chat_template = special.get("template", TEMPLATE).replace("IMAGE_TOKENS", tag)
    return Build(name, model, processor, tag)


def _randomise(model: Any, scale: float) -> None:
    """Weights so large that pictures decide what is said; nothing is left at zero or uninitialised."""
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            parameter.data.normal_(0, scale, generator=generator)
        elif not torch.isfinite(parameter).all() or (key.endswith(ZERO_AT_FIRST) and not parameter.any()):
            parameter.data.fill_(1.0)


def tiny_config(name: str) -> Any:
    special = EXCEPTIONS.get(name, {})
    kind = CONFIG_MAPPING[name]
    default = kind()
    parts: dict[str, Any] = {}
    for part in getattr(kind, "sub_configs", {}):
        inner = getattr(default, part, None)
        if part in special.get("kinds", {}):
            inner = CONFIG_MAPPING[special["kinds"][part]]()
        elif inner is None and part == "vision_config":
            inner = kind.sub_configs[part]()
        if inner is None or special.get(part, {}) is None:
            continue
        parts[part] = small(inner, TEXT if "text" in part or part in ("decoder", "encoder") else VISION, special.get(part, {}))
    own = {} if "text_config" in parts else {k: v for k, v in TEXT.items() if hasattr(default, k)}
    tops = {
        k: v
        for k, v in {
            "hidden_size": 64,
            "projection_dim": 64,
            "mm_hidden_size": 64,
            "projector_hidden_size": 64,
            "num_query_tokens": 4,
            "image_seq_length": 4,
        }.items()
        if hasattr(default, k) and k in inspect.signature(kind.__init__).parameters
    }
    return kind(**{**own, **tops, **parts, **special.get("config", {})})


def small(config: Any, numbers: dict[str, Any], special: dict[str, Any]) -> Any:
    """A configuration of the same class with small numbers; layer types and the like are derived anew by the class."""
    kind = type(config)
    known = config.to_dict()
    aliases = getattr(kind, "attribute_map", {})
    values = {k: known[k] for k in KEPT if k in known}
    values |= {k: v for k, v in numbers.items() if k in known or k in aliases}
    for part in getattr(kind, "sub_configs", {}):
        if isinstance(getattr(config, part, None), hf.PretrainedConfig):
            own = VISION if part == "vision_config" else numbers
            values[part] = small(getattr(config, part), own, special.get(part, {}))
    if known.get("num_attention_heads") is not None and known.get("num_attention_heads") == known.get("num_key_value_heads"):
        values["num_key_value_heads"] = values.get("num_attention_heads", 4)
    if "sam" in kind.__name__.lower():
        values["window_size"] = 2
    if isinstance(known.get("patch_size"), (list, tuple)) and "image_size" in values:
        values["image_size"] = [56, 56]
    rope = known.get("rope_parameters")
    if isinstance(rope, dict) and "mrope_section" in rope:
        values["rope_parameters"] = {
            **ROPE,
            "mrope_section": [2, 3, 3],
            **{k: v for k, v in rope.items() if k == "mrope_interleaved"},
        }
    return kind(
        **{
            **values,
            **{
                key: value
                for key, value in special.items()
                if key not in values or not isinstance(values[key], hf.PretrainedConfig)
            },
        }
    )


def _source(name: str) -> str:
    return inspect.getsource(importlib.import_module(_processor_class(name).__module__))


def _processor_class(name: str) -> Any:
    return getattr(hf, EXCEPTIONS.get(name, {}).get("processor_class") or PROCESSOR_MAPPING_NAMES[name])


def tiny_processor(name: str, config: Any) -> Any:
    special = EXCEPTIONS.get(name, {})
    kind, source = _processor_class(name), _source(name)
    literal = re.findall(r"[\"'](<[^\"'<>{} ]+>|\[[A-Z_]+\])[\"']", source)
    named = {
        word: f"<{word}>"
        for word in re.findall(r"(?:tokenizer\.|tokenizer, \")(\w+?_token)\b", source)
        if word not in STANDARD and not word.startswith("add_")
    }
    named = {word: text for word, text in {**named, **special.get("named", {})}.items() if text}
    signature = inspect.signature(kind.__init__).parameters
    defaults = [p.default for p in signature.values() if isinstance(p.default, str) and re.fullmatch(r"<.*>|\[.*\]", p.default)]
    texts = [str(word) for word in named.values()]
    own = special.get("specials", [])
    specials = list(dict.fromkeys([*(own if special.get("first") else []), *texts, *literal, *defaults, *own]))
    tok = tiny_models.tokenizer(specials, named)
    for key, value in special.get("tokenizer", {}).items():
        setattr(tok, key, value)
    parts = {
        "image_processor": partial(_image_processor, name, config),
        "tokenizer": lambda: tok,
        "qformer_tokenizer": lambda: tok,
        "video_processor": partial(_other_part, name, "video_processing", "VideoProcessor"),
        "feature_extractor": partial(_other_part, name, "feature_extraction", "FeatureExtractor"),
    }
    keywords: dict[str, Any] = {part: make() for part, make in parts.items() if part in signature}
    vision = getattr(config, "vision_config", None)
    for key in ("patch_size", "spatial_merge_size", "downsample_ratio", "image_seq_length", "pixel_shuffle_ratio"):
        for owner in (vision, config):
            if key in signature and isinstance(getattr(owner, key, None), int | float):
                keywords[key] = getattr(owner, key)
    for key, value in {
        "num_image_tokens": 16,
        "image_seq_length": 4,
        "image_seq_len": 4,
        "num_query_tokens": 4,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }.items():
        if key in signature:
            keywords[key] = value
    made = kind(**{**keywords, **special.get("processor", {})})
    for path, value in special.get("after", {}).items():
        setattr(made, path, value)
    return made


def _image_processor(name: str, config: Any) -> Any:
    special = EXCEPTIONS.get(name, {})
    names = special.get("image_processor") or IMAGE_PROCESSOR_MAPPING_NAMES.get(name)
    if isinstance(names, dict):
        names = names.get("torchvision") or names["pil"]
    kind = getattr(hf, names)
    size = dict(getattr(kind, "size", None) or {})
    keywords: dict[str, Any] = {}
    vision = getattr(config, "vision_config", None)
    patch = getattr(vision, "patch_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    if hasattr(kind, "patch_size") and isinstance(patch, int):
        keywords["patch_size"] = patch
    merge = getattr(kind, "merge_size", None)
    if isinstance(merge, int) and isinstance(patch, int):
        cell = (patch * merge) ** 2
        if "shortest_edge" in size or not size:
            keywords["size"] = {"shortest_edge": cell * 4, "longest_edge": cell * 16}
    elif "height" in size:
        keywords["size"] = {"height": 56, "width": 56}
    elif "shortest_edge" in size:
        keywords["size"] = {"shortest_edge": 56} if "longest_edge" not in size else {"shortest_edge": 56, "longest_edge": 112}
    elif "longest_edge" in size:
        keywords["size"] = {"longest_edge": 112}
    if getattr(kind, "crop_size", None):
        keywords["crop_size"] = {"height": 56, "width": 56}
    if getattr(kind, "image_grid_pinpoints", None):
        keywords["image_grid_pinpoints"] = tiny_models.PINPOINTS
    return kind(**{**keywords, **special.get("images", {})})


def _other_part(name: str, module: str, suffix: str) -> Any:
    """Its video processor or feature extractor, which pictures never reach."""
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES as SOUND
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES as VIDEO

    special = EXCEPTIONS.get(name, {})
    found = special.get(module) or (VIDEO if suffix == "VideoProcessor" else SOUND).get(name)
    if isinstance(found, dict):
        found = found.get("torchvision")
    if found is None:
        found = "Qwen2VLVideoProcessor" if suffix == "VideoProcessor" else "WhisperFeatureExtractor"
    return getattr(hf, found)()


def _set_ids(config: Any, processor: Any) -> None:
    """Ids of special tokens in a configuration, by the names that the processor gives the tokens."""
    tok = processor.tokenizer
    for key in [*config.to_dict()]:
        stem = re.sub(r"_(id|index)$", "", key)
        if stem == key or ("token" not in stem and stem not in ("image",)):
            continue
        word = stem if stem.endswith("_token") else f"{stem}_token"
        text = getattr(processor, word, None) or getattr(tok, word, None)
        ident = getattr(processor, f"{word}_id", None)
        if not isinstance(ident, int) and isinstance(text, str) and text in tok.get_vocab():
            ident = tok.convert_tokens_to_ids(text)
        if isinstance(ident, int) and word not in STANDARD:
            setattr(config, key, ident)
