# ruff: noqa: E501 - a table of numbers and names
"""What the types of transformers' table need beyond what can be read from their classes, and which cannot be built.

Keys of an entry: `text_config`, `vision_config`, .. (numbers of a part), `config` (of the whole), `ids` (a field of the
configuration -> the token whose id it holds), `named` (attributes of the tokenizer), `specials` (more special tokens; `first`: before all
others), `images`, `processor` (keywords of either), `after` (attributes of the made processor), `processor_class`, `image_processor`,
`tag` (what a prompt holds per picture), `template`, `single` (one picture a prompt), `scale` (of the weights).
"""

from typing import Any

CHAMELEON = ["<image>", "<racm3:break>", "<eoss>", *(f"IMGIMG{a}{b}Z" for a in "AB" for b in "ABCDEFGHIJ")]
EMU = ["<image>", "<|extra_200|>", *(f"<|visual token {index:06d}|>" for index in range(16))]


def numbered(words: list[str]) -> dict[str, int]:
    """Ids of special tokens that come first, behind the four of every tokenizer."""
    return {word: 4 + index for index, word in enumerate(words)}


REFUSED: dict[str, str] = {
    "diffusion_gemma": "it writes by diffusion: there is no next token",
    "evolla": "it takes proteins, no pictures",
    "fast_vlm": "not measured: its vision tower comes from timm, which the tests do without",
    "florence2": "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt",
    "idefics": "it reads images by cross-attention",
    "kosmos-2": "its configuration names no visual token: pictures are placed by a mask of positions",
    "instructblipvideo": "it takes videos, no pictures",
    "mistral4": "its type in the table is the language model alone",
    "pi0": "it drives robots: it writes actions, no text",
    "pix2struct": "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt",
    "pp_formulanet": "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt",
    "kosmos-2.5": "its configuration names no visual token: pictures are placed by a mask of positions",
    "t5gemma2": "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt",
    "udop": "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt",
    "vision-encoder-decoder": "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt",
    "blip": "its text decoder reads the picture by cross-attention",
    "git": "its pictures stand before the text as embeddings: there are no visual tokens in the prompt",
    "shieldgemma2": "it judges one picture by fixed policies, which its processor writes itself",
    "pp_chart2table": "its processor puts no visual tokens into the prompt",
    "mllama": "it reads images by cross-attention",
    "fuyu": "it has no chat template, and its processor places the picture before the text itself",
    "deepseek_ocr2": "not measured: its tiny build takes too long",
    "dots3_note": "not measured: it has no tiny build yet",
    "glm5_next": "not measured: its tiny build takes too long",
    "gemma3n": "not measured: its vision tower comes from timm, which the tests do without",
    "perception_lm": "not measured: its vision tower comes from timm, which the tests do without",
}
"""Types that are not built, and why."""

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "aria": {
        "config": {"projector_patch_to_query_dict": {100: 4}},
        "vision_config": {"image_size": 980, "patch_size": 98},
        "processor": {"size_conversion": {490: 4, 980: 4}},
    },
    "blip-2": {
        "template": "{% for m in messages %}{{ m['role'] }} : {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :",
        "named": {"image_token": None},
        "specials": ["<image>"],
        "vision_config": {"image_size": 56},
        "ids": {"image_token_index": "<image>"},
        "tag": "",
        "single": True,
        "processor": {"num_query_tokens": 4},
        "text_config": {"num_attention_heads": 4, "hidden_size": 64},
    },
    "instructblip": {
        "template": "{% for m in messages %}{{ m['role'] }} : {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :",
        "named": {"image_token": None},
        "specials": ["<image>"],
        "vision_config": {"image_size": 56},
        "ids": {"image_token_index": "<image>"},
        "tag": "",
        "single": True,
        "processor": {"num_query_tokens": 4},
    },
    "aya_vision": {"processor": {"img_size": 56, "patch_size": 28}},
    "chameleon": {
        "config": {"vocabulary_map": numbered(CHAMELEON)},
        "specials": CHAMELEON,
        "first": True,
        "named": {"image_token": "<image>"},
        "vq_config": {"num_embeddings": 16, "resolution": 64},
        "images": {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        "processor": {"image_seq_length": 64},
    },
    "emu3": {
        "config": {"vocabulary_map": numbered(EMU)},
        "specials": EMU,
        "first": True,
        "named": {
            "image_token": "<image>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
        "images": {"min_pixels": 4096, "max_pixels": 8192},
        "vq_config": {"codebook_size": 16, "channel_multiplier": [1, 1, 1, 1]},
    },
    "cohere2_vision": {"vision_config": {"image_size": 64}, "images": {"size": {"height": 64, "width": 64}, "patch_size": 2}},
    "cohere_compass": {
        "tag": "<|vision_start|><|IMAGE_PAD|><|vision_end|>",
        "named": {"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "text_config": {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            }
        },
    },
    "cosmos3_edge": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
        "config": {"projector_hidden_size": 64},
    },
    "cosmos3_omni": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "processor_class": "Qwen3VLProcessor",
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
    },
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "topk_group": 1, "n_group": 1},
        "vision_config": {"sam_config": {"downsample_channels": [32, 32]}},
    },
    "ernie4_5_vl_moe": {
        "tag": "<image_start_token><image_token><image_end_token>",
        "text_config": {
            "moe_intermediate_size": [32, 32],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]},
        },
    },
    "dots3_note": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "vision_config": {"num_hidden_layers": 42, "adapter_in_dim": 32},
        "text_config": {
            "num_key_value_heads": 4,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 4,
            "swa_q_lora_rank": 24,
            "swa_kv_lora_rank": 16,
            "swa_head_dim": 16,
            "swa_qk_nope_head_dim": 8,
            "swa_v_head_dim": 16,
        },
    },
    "deepseek_vl": {"vision_config": {"patch_size": 14}},
    "janus": {"vision_config": {"patch_size": 14}},
    "deepseek_vl_hybrid": {
        "vision_config": {"patch_size": 14},
        "high_res_vision_config": {"image_size": 64},
        "images": {"high_res_size": {"height": 64, "width": 64}},
    },
    "kimi_k25": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "config": {"projection_hidden_size": 32},
        "text_config": {"head_dim": 8},
    },
    "gemma4": {"images": {"max_soft_tokens": 70}, "scale": 0.05},
    "step3p7": {
        "vision_config": {"image_size": 112, "patch_size": 14},
        "images": {"size": {"height": 112, "width": 112}, "patch_size": 56},
    },
    "hunyuan_vl": {
        "tag": "<image_start_token><image_token><image_end_token>",
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2, 2]}},
    },
    "granite_docling": {
        "vision_config": {"image_size": 128, "deepstack_visual_indexes": [0, 1]},
        "images": {"size": {"height": 128, "width": 128}},
        "text_config": {
            "embedding_multiplier": 1.0,
            "logits_scaling": 1.0,
            "residual_multiplier": 1.0,
            "attention_multiplier": 0.25,
        },
    },
    "glm5_next": {
        "tag": "<|begin_of_image|><|image|><|end_of_image|>",
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "specials": [
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            "<|image|>",
            "<|video|>",
        ],
        "ids": {
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        "text_config": {"qk_rope_head_dim": 0, "pad_token_id": 0},
        "vision_config": {"image_size": 112},
    },
    "granite4_vision": {
        "vision_config": {"hidden_size": 64, "patch_size": 7, "image_size": 56},
        "config": {
            "deepstack_layer_map": [[0, 0]],
            "spatial_target_layers": [0, 1, 2, 3],
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]],
            "downsample_rate": "2/4",
        },
        "processor": {"downsample_rate": "2/4"},
    },
    "llama4": {
        "vision_config": {"intermediate_size": 128, "projector_input_dim": 64, "projector_output_dim": 64},
        "ids": {"image_token_index": "<|patch|>"},
    },
    "llava_next_video": {
        "config": {"image_grid_pinpoints": [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]], "vision_feature_layer": -1}
    },
    "minimax_m3_vl": {"specials": ["]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["]},
    "muse_glimmer": {"config": {"out_hidden_size": 128, "projector_hidden_size": 64}},
    "muse_spark": {
        "config": {"out_hidden_size": 128, "projector_hidden_size": 64},
        "audio_config": {"num_hidden_layers": 4, "out_hidden_size": 64},
    },
    "nemotron_h_omni": {
        "vision_config": {"video_temporal_patch_size": 2, "image_size": 64},
        "config": {"vision_hidden_size": 32, "projector_hidden_size": 64},
        "text_config": {"mamba_num_heads": 8},
    },
    "ovis2": {
        "ids": {
            "image_token_id": "<IMG_ATOM>",
            "visual_indicator_token_ids": ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"],
        },
        "processor": {"image_seq_length": 16},
    },
    "paddleocr_vl": {
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
        "specials": ["<vs>", "<ve>"],
        "tag": "<vs><image_token><ve>",
        "ids": {"vision_start_token_id": "<vs>", "vision_end_token_id": "<ve>"},
    },
    "qianfan_ocr": {"tag": "<image>", "specials": ["<image>"]},
    "qwen4_exp": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "text_config": {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 4096,
            "indexer_compress_ratio": 4,
            "ngram_vocab_size_base": 64,
        },
    },
    "unlimited_ocr": {"vision_config": {"sam_config": {"downsample_channels": [32, 32]}}},
    "video_llava": {
        "images": {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}},
        "config": {"vision_feature_layer": -1},
    },
    "vipllava": {"config": {"vision_feature_layers": [-1, -2], "vision_feature_layer": [-1, -2]}},
    "glm4v": {
        "tag": "<|begin_of_image|><|image|><|end_of_image|>",
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "specials": [
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            "<|image|>",
            "<|video|>",
        ],
        "ids": {
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 2, 4],
                "partial_rotary_factor": 1.0,
            },
            "pad_token_id": 0,
        },
        "vision_config": {"image_size": 112},
    },
    "glm_ocr": {
        "tag": "<|begin_of_image|><|image|><|end_of_image|>",
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "specials": [
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            "<|image|>",
            "<|video|>",
        ],
        "ids": {
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 2, 4],
                "partial_rotary_factor": 1.0,
            },
            "pad_token_id": 0,
        },
        "vision_config": {"image_size": 112},
        "processor_class": "Glm46VProcessor",
        "image_processor": "Glm46VImageProcessor",
    },
    "glm4v_moe": {
        "tag": "<|begin_of_image|><|image|><|end_of_image|>",
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "specials": [
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            "<|image|>",
            "<|video|>",
        ],
        "ids": {
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 2, 4],
                "partial_rotary_factor": 1.0,
            },
            "pad_token_id": 0,
        },
        "vision_config": {"image_size": 112},
        "image_processor": "Glm4vImageProcessor",
    },
    "glmga": {
        "tag": "<|begin_of_image|><|image|><|end_of_image|>",
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "specials": [
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            "<|image|>",
            "<|video|>",
        ],
        "ids": {
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 2, 4],
                "partial_rotary_factor": 1.0,
            },
            "pad_token_id": 0,
        },
        "vision_config": {"image_size": 112},
        "processor_class": "Glm46VProcessor",
    },
    "paligemma": {"named": {"image_token": "<image>"}, "config": {"projection_dim": 64}, "after": {"image_seq_length": 16}},
    "qwen2_5_omni_thinker": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "audio_token": "<|AUDIO|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "text_config": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "pad_token_id": 0,
        },
        "processor_class": "Qwen2_5OmniProcessor",
        "image_processor": "Qwen2VLImageProcessor",
    },
    "qwen3_omni_moe_thinker": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "audio_token": "<|AUDIO|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "text_config": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "pad_token_id": 0,
        },
        "processor_class": "Qwen3OmniMoeProcessor",
        "image_processor": "Qwen2VLImageProcessor",
    },
    "qwen3_vl_moe": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "image_processor": "Qwen2VLImageProcessor",
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
    },
    "gemma4_unified": {"images": {"max_soft_tokens": 70}, "scale": 0.05},
    "idefics2": {
        "images": {"do_image_splitting": False, "size": {"shortest_edge": 56, "longest_edge": 56}},
        "perceiver_config": {"resampler_n_latents": 4, "resampler_n_heads": 2, "resampler_head_dim": 16, "resampler_depth": 1},
    },
    "qwen3_5_moe": {
        "tag": "<|vision_start|><|image_pad|><|vision_end|>",
        "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
        "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 0],
                "partial_rotary_factor": 0.25,
            }
        },
    },
    "got_ocr2": {
        "single": True,
        "vision_config": {"image_size": 256, "patch_size": 4, "window_size": 8, "global_attn_indexes": []},
        "images": {"size": {"height": 256, "width": 256}},
    },
    "inkling_mm_model": {
        "vision_config": {"num_hidden_layers": 4},
        "images": {"size": {"height": 40, "width": 40}, "patch_size": 40},
    },
    "inkling2": {"images": {"size": {"height": 40, "width": 40}, "patch_size": 40}},
    "minicpmv4_6": {"vision_config": {"insert_layer_id": 0}},
    "minicpmv4_7": {"vision_config": {"insert_layer_id": 0}},
}

EXCEPTIONS["glm46v"] = EXCEPTIONS["glm4v"]
