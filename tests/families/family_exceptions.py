# ruff: noqa: E501 - tables of numbers and names
"""What the types of transformers' table need beyond what can be read from their classes, or why they cannot be built.

Keys of an entry: `text_config`, `vision_config`, .. (numbers of a part), `kinds` (model type of a part), `config` (of the whole),
`ids` (a field of the configuration -> the token whose id it holds), `named`, `specials`, `tokenizer` (special tokens),
`images`, `processor` (keywords of either), `processor_class`, `image_processor`, `tag` (what a prompt holds per image).
"""

from typing import Any

from tiny_models import PINPOINTS

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LAYERED_ROPE = {"full_attention": ROPE, "sliding_attention": ROPE}
MROPE = {**ROPE, "mrope_section": [2, 3, 3]}
QWEN_TAG = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
QWEN: dict[str, Any] = {
    "tag": QWEN_TAG,
    "named": QWEN_NAMES,
    "ids": {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
    "specials": ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"],
}
GLM: dict[str, Any] = {
    "tag": "<|begin_of_image|><|image|><|end_of_image|>",
    "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
    "specials": ["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"],
    "ids": {"image_start_token_id": "<|begin_of_image|>", "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>", "video_end_token_id": "<|end_of_video|>"},
    "text_config": {"rope_parameters": {**ROPE, "mrope_section": [2, 2, 4], "partial_rotary_factor": 1.0}, "pad_token_id": 0},
    "vision_config": {"image_size": 112},
}  # fmt: skip
CHAMELEON = {
    word: 4 + index
    for index, word in enumerate(
        ["<image>", "<racm3:break>", "<eoss>", *(f"IMGIMG{a}{b}Z" for a in "AB" for b in "ABCDEFGHIJ")]
    )
}
EMU = {
    word: 4 + index
    for index, word in enumerate(["<image>", "<|extra_200|>", *(f"<|visual token {index:06d}|>" for index in range(16))])
}
MOE_LAYERS = ["dense", "sparse", "sparse", "sparse"]
HIGH_RES = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "output_channels": 32, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 48}  # fmt: skip
BLIP: dict[str, Any] = {
    "template": "{% for m in messages %}{{ m['role'] }} : {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} assistant :",
    "named": {"image_token": None},
    "specials": ["<image>"],
    "vision_config": {"image_size": 56},
    "ids": {"image_token_index": "<image>"},
    "tag": "",
    "single": True,
}  # fmt: skip
ENCODER = "it is an encoder and a decoder: pictures stand in the encoder, no visual token in the prompt"
OMNI = {**QWEN, "text_config": {"rope_parameters": {**MROPE}, "pad_token_id": 0}, "processor_class": "Qwen2_5OmniProcessor",
        "image_processor": "Qwen2VLImageProcessor",
        "named": {**QWEN_NAMES, "audio_token": "<|AUDIO|>",
                  "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}}  # fmt: skip

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "aria": {
        "config": {"projector_patch_to_query_dict": {100: 4}},
        "vision_config": {"image_size": 980, "patch_size": 98},
        "processor": {"size_conversion": {490: 4, 980: 4}},
    },
    "blip-2": {**BLIP, "processor": {"num_query_tokens": 4}, "text_config": {"num_attention_heads": 4, "hidden_size": 64}},
    "instructblip": {**BLIP, "processor": {"num_query_tokens": 4}},
    "aya_vision": {"processor": {"img_size": 56, "patch_size": 28}},
    "chameleon": {
        "config": {"vocabulary_map": CHAMELEON},
        "specials": list(CHAMELEON),
        "first": True,
        "named": {"image_token": "<image>"},
        "vq_config": {"num_embeddings": 16, "resolution": 64},
        "images": {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        "processor": {"image_seq_length": 64},
    },
    "emu3": {
        "config": {"vocabulary_map": EMU},
        "specials": list(EMU),
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
        **QWEN,
        "named": {"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
        "tag": "<|vision_start|><|IMAGE_PAD|><|vision_end|>",
        "text_config": {"rope_parameters": LAYERED_ROPE},
    },
    "cosmos3_edge": {**QWEN, "text_config": {"rope_parameters": MROPE}, "config": {"projector_hidden_size": 64}},
    "cosmos3_omni": {**QWEN, "processor_class": "Qwen3VLProcessor", "text_config": {"rope_parameters": MROPE}},
    "deepseek_ocr2": {
        "refused": "slow",
        "vision_config": {"sam_config": {"downsample_channels": [32, 32]}},
        "text_config": {"mlp_layer_types": MOE_LAYERS, "topk_group": 1, "n_group": 1},
    },
    "diffusion_gemma": {"refused": "it writes by diffusion: there is no next token"},
    "ernie4_5_vl_moe": {
        "tag": "<image_start_token><image_token><image_end_token>",
        "text_config": {"moe_intermediate_size": [32, 32], "rope_parameters": {**ROPE, "mrope_section": [3, 3, 2]}},
    },
    "evolla": {"refused": "it takes proteins, no pictures"},
    "dots3_note": {},
    "deepseek_vl": {"vision_config": {"patch_size": 14}},
    "janus": {"vision_config": {"patch_size": 14}},
    "deepseek_vl_hybrid": {
        "vision_config": {"patch_size": 14},
        "high_res_vision_config": {"image_size": 64},
        "images": {"high_res_size": {"height": 64, "width": 64}},
    },
    "kimi_k25": {"config": {"projection_hidden_size": 32}},
    "gemma4": {"images": {"max_soft_tokens": 70}},
    "step3p7": {
        "vision_config": {"image_size": 112, "patch_size": 14},
        "images": {"size": {"height": 112, "width": 112}, "patch_size": 56},
    },
    "hunyuan_vl": {"tag": "<image_start_token><image_token><image_end_token>", "text_config": {}},
    "granite_docling": {
        "vision_config": {"image_size": 128, "deepstack_visual_indexes": [0, 1]},
        "images": {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 128}},
    },
    "glm5_next": {**GLM, "text_config": {"qk_rope_head_dim": 0, "pad_token_id": 0}},
    "granite4_vision": {
        "config": {"deepstack_layer_map": [[0, 0]], "spatial_target_layers": [0, 1, 2, 3], "image_grid_pinpoints": PINPOINTS},
    },
    "llama4": {
        "vision_config": {"intermediate_size": 128, "projector_input_dim": 64, "projector_output_dim": 64},
    },
    "llava_next_video": {"config": {"image_grid_pinpoints": PINPOINTS, "vision_feature_layer": -1}},
    "minimax_m3_vl": {"specials": ["]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["]},
    "muse_glimmer": {"config": {"out_hidden_size": 128, "projector_hidden_size": 64}},
    "muse_spark": {
        "config": {"out_hidden_size": 128, "projector_hidden_size": 64},
        "audio_config": {"num_hidden_layers": 4, "out_hidden_size": 64},
    },
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2, "image_size": 64}},
    "ovis2": {
        "ids": {
            "image_token_id": "<IMG_ATOM>",
            "visual_indicator_token_ids": ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"],
        },
    },
    "paddleocr_vl": {"text_config": {"rope_parameters": MROPE}},
    "qianfan_ocr": {"tag": "<image>", "specials": ["<image>"]},
    "qwen4_exp": {
        **QWEN,
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
    "fast_vlm": {"refused": "timm"},
    "florence2": {"refused": ENCODER},
    "fuyu": {"single": True, "specials": ["|SPEAKER|", "|NEWLINE|"]},
    "glm4v": GLM,
    "glm46v": GLM,
    "glm_ocr": {**GLM, "processor_class": "Glm46VProcessor", "image_processor": "Glm46VImageProcessor"},
    "glm4v_moe": {**GLM, "image_processor": "Glm4vImageProcessor"},
    "glmga": {**GLM, "processor_class": "Glm46VProcessor"},
    "idefics": {},
    "kosmos-2": {"processor_class": "Kosmos2Processor"},
    "instructblipvideo": {"refused": "it takes videos, no pictures"},
    "mistral4": {"refused": "its type in the table is the language model alone"},
    "pi0": {"refused": "it drives robots: it writes actions, no text"},
    "pix2struct": {"refused": ENCODER},
    "pp_formulanet": {"refused": ENCODER},
    "kosmos-2.5": {},
    "t5gemma2": {"refused": ENCODER},
    "udop": {"refused": ENCODER},
    "vision-encoder-decoder": {"refused": ENCODER},
    "blip": {"refused": "its text decoder reads the picture by cross-attention"},
    "git": {},
    "paligemma": {"named": {"image_token": "<image>"}, "config": {"projection_dim": 64}},
    "qwen2_5_omni_thinker": OMNI,
    "qwen3_omni_moe_thinker": {**OMNI, "processor_class": "Qwen3OmniMoeProcessor"},
    "qwen3_vl_moe": {**QWEN, "image_processor": "Qwen2VLImageProcessor", "text_config": {"rope_parameters": MROPE}},
    "shieldgemma2": {"refused": "it judges one picture by fixed policies, which its processor writes itself"},
}

EXCEPTIONS |= {
    "gemma4": {"images": {"max_soft_tokens": 70}, "scale": 0.05},
    "gemma4_unified": {"images": {"max_soft_tokens": 70}, "scale": 0.05},
    "granite_docling": {
        **EXCEPTIONS["granite_docling"],
        "text_config": {
            "embedding_multiplier": 1.0,
            "logits_scaling": 1.0,
            "residual_multiplier": 1.0,
            "attention_multiplier": 0.25,
        },
    },
    "idefics2": {
        "images": {"do_image_splitting": False, "size": {"shortest_edge": 56, "longest_edge": 56}},
        "perceiver_config": {"resampler_n_latents": 4, "resampler_n_heads": 2, "resampler_head_dim": 16, "resampler_depth": 1},
    },
    "kimi_k25": {**QWEN, "named": {}, "config": {"projection_hidden_size": 32}, "text_config": {"head_dim": 8}},
    "llama4": {**EXCEPTIONS["llama4"], "ids": {"image_token_index": "<|patch|>"}},
    "nemotron_h_omni": {
        "vision_config": {"video_temporal_patch_size": 2, "image_size": 64},
        "config": {"vision_hidden_size": 32, "projector_hidden_size": 64},
        "text_config": {"mamba_num_heads": 8},
    },
    "ovis2": {**EXCEPTIONS["ovis2"], "processor": {"image_seq_length": 16}},
    "paddleocr_vl": {
        "text_config": {"rope_parameters": MROPE},
        "specials": ["<vs>", "<ve>"],
        "tag": "<vs><image_token><ve>",
        "ids": {"vision_start_token_id": "<vs>", "vision_end_token_id": "<ve>"},
    },
    "paligemma": {**EXCEPTIONS["paligemma"], "after": {"image_processor.image_seq_length": 16}},
    "qwen3_5_moe": {
        **QWEN,
        "text_config": {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}},
    },
    "got_ocr2": {
        "single": True,
        "vision_config": {"image_size": 256, "patch_size": 4},
        "images": {"size": {"height": 256, "width": 256}},
    },
    "pp_chart2table": {
        "single": True,
        "vision_config": {"image_size": 256, "patch_size": 4},
        "images": {"size": {"height": 256, "width": 256}},
        "tag": "<img><imgpad></img>",
    },
    "fuyu": {"single": True, "specials": ["|SPEAKER|", "|NEWLINE|"], "tag": "|SPEAKER|"},
}
