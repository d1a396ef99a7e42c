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


PICTURELESS = "{% for m in messages %}{{ m['role'] }} : {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
"""A chat template for processors that place the picture themselves."""


def numbered(words: list[str]) -> dict[str, int]:
    """Ids of special tokens that come first, behind the four of every tokenizer."""
    return {word: 4 + index for index, word in enumerate(words)}


REFUSED: dict[str, str] = {
    "diffusion_gemma": "it writes by diffusion: there is no next token",
    "evolla": "it takes proteins, no pictures",
    "instructblipvideo": "it takes videos, no pictures",
    "mistral4": "its type in the table is the language model alone",
    "pi0": "it drives robots: it writes actions, no text",
    "pix2struct": "it is an encoder and a decoder, and its processor draws the prompt into the picture: it has no tokens",
    "pp_formulanet": "it is an encoder and a decoder that takes a picture and no prompt",
    "kosmos-2.5": "its processor marks the places of pictures as if prompts were never padded on the left, as batches are",
    "udop": "it is an encoder and a decoder, and its prompt is words with their boxes, which no chat template writes",
    "vision-encoder-decoder": "it is an encoder and a decoder that takes a picture and no prompt",
    "blip": "its text decoder reads the picture by cross-attention, and its own generate cuts the prompt's last token",
    "shieldgemma2": "it judges one picture by fixed policies, which its processor writes itself",
    "fuyu": "not measured: its processor cuts off the token that its own tokenizer alone writes in front of pictures",
}
"""Types that are not built, and why."""

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "aria": {
        "config": {"projector_patch_to_query_dict": {100: 4}},
        "vision_config": {"image_size": 980, "patch_size": 98},
        "processor": {"size_conversion": {490: 4, 980: 4}},
    },
    "blip-2": {
        "template": PICTURELESS,
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
        "template": PICTURELESS,
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
        "vision_config": {
            "sam_config": {"image_size": 128, "patch_size": 2, "downsample_channels": [32, 32], "global_attn_indexes": []}
        },
        "images": {"size": {"height": 128, "width": 128}, "tile_size": 96, "max_patches": 2},
        "processor": {"patch_size": 2},
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
        "vision_config": {
            "mlp_layer_types": ["dense", "sparse"],
            "adapter_in_dim": 32,
            "adapter_out_dim": 64,
            "num_local_experts": 4,
        },
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
        "images": {"temporal_patch_size": 1},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 64},
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
    "minicpmv4_6": {"config": {"insert_layer_id": 0}},
    "minicpmv4_7": {"config": {"insert_layer_id": 0}},
    "fast_vlm": {
        "processor_class": "LlavaProcessor",
        "image_processor": "CLIPImageProcessor",
        "kinds": {"vision_config": "timm_wrapper"},
        "vision_config": {
            "architecture": "fastvit_mci3",
            "hidden_size": 64,
            "model_args": {"inference_mode": True, "layers": [1] * 5, "embed_dims": [8, 8, 16, 32, 32]},
        },
        "images": {"size": {"shortest_edge": 256}, "crop_size": {"height": 256, "width": 256}},
        "processor": {"patch_size": 64, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"},
    },
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": {
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "img_size": [56, 56],
                "ref_feat_shape": [4, 4],
                "global_pool": "",
            },
        },
        "config": {"projector_pooling_ratio": 2},
        "images": {"tile_size": 56, "size": {"height": 56, "width": 56}, "max_num_tiles": 4},
        "processor": {"patch_size": 14, "pooling_ratio": 2},
    },
    "mllama": {
        "tag": "<|image|>",
        "specials": ["<|image|>", "<|python_tag|>"],
        "text_config": {"cross_attention_layers": [1, 3]},
        "vision_config": {
            "attention_heads": 2,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 64,
            "patch_size": 14,
        },
    },
    "idefics": {
        "template": PICTURELESS,
        "tag": "",
        "single": True,
        "specials": ["<image>", "<fake_token_around_image>", "<end_of_utterance>"],
        "config": {"vocab_size": 512, "additional_vocab_size": 0},
        "vision_config": {"patch_size": 14},
        "images": {"image_size": 56},
    },
    "git": {
        "template": PICTURELESS,
        "tag": "",
        "single": True,
        "image_processor": "CLIPImageProcessor",
        "vision_config": {"patch_size": 14},
    },
    "pp_chart2table": {
        "tag": "<img>" + "<imgpad>" * 256 + "</img>",
        "specials": ["<img>", "</img>", "<imgpad>"],
        "named": {"image_token": "<imgpad>"},
        "single": True,
        "vision_config": {"image_size": 256, "patch_size": 4, "window_size": 8, "global_attn_indexes": []},
        "images": {"size": {"height": 256, "width": 256}},
    },
    "kosmos-2": {
        "processor_class": "Kosmos2Processor",
        "template": PICTURELESS,
        "tag": "",
        "single": True,
        "image_processor": "CLIPImageProcessor",
        "text_config": {"embed_dim": 64, "layers": 4, "ffn_dim": 96, "attention_heads": 4},
        "vision_config": {"patch_size": 14},
        "config": {"latent_query_num": 4},
        "processor": {"num_patch_index_tokens": 4},
        "after": {"num_image_tokens": 4},
    },
    "florence2": {
        "template": PICTURELESS,
        "tag": "",
        "single": True,
        "named": {"image_token": "<image>"},
        "image_processor": "CLIPImageProcessor",
        "text_config": {
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
        },
        "vision_config": {
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
        },
        "images": {"image_seq_length": 50},
    },
    "t5gemma2": {
        "tag": "<start_of_image>",
        "processor_class": "Gemma3Processor",
        "image_processor": "Gemma3ImageProcessor",
        "named": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        "encoder": {"mm_tokens_per_image": 4, "vision_config": {"patch_size": 14}},
        "ids": {
            "encoder.image_token_index": "<image_soft_token>",
            "encoder.boi_token_index": "<start_of_image>",
            "encoder.eoi_token_index": "<end_of_image>",
        },
        "images": {"size": {"height": 56, "width": 56}},
    },
    "gemma3n": {
        "vision_config": {"hidden_size": 2048, "model_args": {"channel_multiplier": 0.02, "msfa_output_resolution": 2}},
        "config": {"vision_soft_tokens_per_image": 4},
        "images": {"size": {"height": 64, "width": 64}},
    },
}

EXCEPTIONS["glm46v"] = EXCEPTIONS["glm4v"]
