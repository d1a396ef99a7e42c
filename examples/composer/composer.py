"""InternLM-XComposer2.5, whose code comes with its checkpoint, in the words that mia and transformers share.

`Composer` wraps the model, `ComposerProcessor` what its `chat` does to prompts and pictures, and `ComposerAdapter` says where
its attention is. Nothing of its code is copied; what is called of it is named where it is called.

    python composer.py internlm/internlm-xcomposer2d5-7b --samples run/augment --out run/score
    mia select --scored run/score --out run/select
    python composer.py internlm/internlm-xcomposer2d5-7b --pairs run/select --out run/train
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mia_attention import Call, Encoded, register_adapter
from mia_attention.models.families import patch_means
from mia_attention.models.inputs import encode
from mia_augment.prompting import render_prompt
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torchvision.transforms.functional import pil_to_tensor, resize
from transformers import BatchFeature, GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

PICTURE, START, END = "<ImageHere>", "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"
TEMPLATE = (
    "{% for m in messages %}" + START + "{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{{ '" + PICTURE + "' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endif %}"
    + END + "\n{% endfor %}{% if add_generation_prompt %}" + START + "assistant\n{% endif %}"
)  # fmt: skip
TRAINING: dict[str, Any] = {
    "lora": {"targets": ["wqkv", "wo", "w1", "w2", "w3"]},  # beside its own partial LoRA, which stays as it is
    "route": "plain",
    "gradient_checkpointing": False,
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ComposerConfig(PretrainedConfig):
    """What mia asks of a configuration."""

    model_type = "internlm_xcomposer_in_mia"

    def __init__(self, image_token_id: int = 0, **words: Any) -> None:
        self.image_token_id = image_token_id
        super().__init__(**words)


class Composer(PreTrainedModel, GenerationMixin):
    """The model, called with ids in which a picture's tokens stand, and with its pixels."""

    config_class = ComposerConfig

    def __init__(self, remote: Any, tokenizer: Any) -> None:
        kept = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
        words = {name: getattr(remote.config, name) for name in kept}
        super().__init__(ComposerConfig(tokenizer.convert_tokens_to_ids(PICTURE), **words))
        self.model = remote
        ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END)]
        self.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)

    def get_input_embeddings(self) -> Any:
        return self.model.model.tok_embeddings

    def get_output_embeddings(self) -> Any:
        return self.model.output

    def get_decoder(self) -> Any:
        return self.model.model

    def set_attn_implementation(self, *_: Any, **__: Any) -> None:
        """Its attention is its own."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        logits_to_keep: int | Tensor = 0,
    ) -> CausalLMOutputWithPast:
        """Logits; pictures are inserted where their tokens stand, which is also where its partial LoRA acts (`im_mask`)."""
        seen = input_ids == self.config.image_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(seen, 0))
        if pixel_values is not None and image_sizes is not None:
            found = [
                self.model.encode_img(self.cut(one, size)[None]) for one, size in zip(pixel_values, image_sizes, strict=True)
            ]
            embeds = embeds.masked_scatter(seen[..., None], torch.cat(found, 1).to(embeds.dtype))
        if position_ids is None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
        out = self.model.model(
            inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values,
            use_cache=use_cache, return_dict=True, im_mask=seen, infer_mode="base",
        )  # fmt: skip
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.model.output(out.last_hidden_state[:, kept]).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)

    @staticmethod
    def cut(pixels: Tensor, size: Tensor) -> Tensor:
        """A picture without what fills it up to the size of the largest, (3, height, width)."""
        return pixels[:, : int(size[0]), : int(size[1])]

    @torch.inference_mode()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: Any, logits_processor: Any, **more: Any
    ) -> Tensor:
        """Greedy: its own `generate` wants caches of tuples, which transformers 5 no longer gives."""
        ends = torch.tensor(generation_config.eos_token_id, device=input_ids.device)
        ids, mask, step, cache = input_ids, attention_mask, {"input_ids": input_ids, **more}, None
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for _ in range(generation_config.max_new_tokens):
            out = self(**step, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
            scores, cache = out.logits[:, -1], out.past_key_values
            for change in logits_processor:
                scores = change(ids, scores)
            token = scores.argmax(-1).masked_fill(done, generation_config.pad_token_id)[:, None]
            ids, mask = torch.cat([ids, token], 1), torch.cat([mask, (~done).long()[:, None]], 1)
            step, done = {"input_ids": token}, done | torch.isin(token[:, 0], ends)
            if done.all():
                break
        return ids


class ComposerProcessor:
    """What its `interleav_wrap_chat` does: text between pictures is tokenized by itself, a picture is cut into parts."""

    image_token, chat_template = PICTURE, TEMPLATE

    def __init__(self, tokenizer: Any, part: int = 560, patch: int = 28) -> None:
        """`part`: side of a part in pixels; `patch`: side of what becomes one token."""
        tokenizer.add_tokens([START, END, PICTURE], special_tokens=True)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        self.tokenizer, self.part, self.patch = tokenizer, part, patch
        self.image_processor = self
        self.image_token_id = tokenizer.convert_tokens_to_ids(PICTURE)

    def apply_chat_template(self, messages: Any, **words: Any) -> Any:
        return self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **words)

    def to_json_string(self) -> str:
        """By which stored log-probs know that pictures were made otherwise."""
        return json.dumps({"part": self.part, "patch": self.patch})

    def pixels(self, picture: Image.Image, several: bool) -> Tensor:
        """Values in 0..1, (3, height, width), both whole numbers of parts: at most 24 of them, among several pictures 6."""
        flat = picture.height <= picture.width
        picture = (picture if flat else picture.transpose(Image.Transpose.TRANSPOSE)).convert("RGB")
        ratio, scale = picture.width / picture.height, 1
        while scale * math.ceil(scale / ratio) <= (6 if several else 24):
            scale += 1
        width = min(math.ceil(picture.width / self.part), scale - 1) * self.part
        height = int(width / ratio)
        shrunk = pil_to_tensor(resize(picture, [height, width])).float() / 255
        shrunk = pad(shrunk, (0, 0, 0, -height % self.part), value=1.0)
        return shrunk if flat else shrunk.transpose(1, 2)

    def count(self, pixels: Tensor) -> int:
        """Tokens of a picture: the whole, one between, its parts; each row ends with one more."""
        side, (rows, columns) = self.part // self.patch, (length // self.patch for length in pixels.shape[1:])
        return side * (side + 1) + 1 + rows * (columns + 1)

    def __call__(self, images: Sequence[Sequence[Image.Image]], text: Sequence[str], **words: Any) -> BatchFeature:
        made = [[self.pixels(picture, len(row) > 1) for picture in row] for row in images]
        rows = [self._ids(line, list(map(self.count, row))) for line, row in zip(text, made, strict=True)]
        side = words.get("padding_side", "left")
        features = self.tokenizer.pad({"input_ids": rows}, padding=True, padding_side=side, return_tensors="pt")
        every = [pixels for row in made for pixels in row]
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        highest, widest = (max(pixels.shape[axis] for pixels in every) for axis in (1, 2))
        filled = [pad((each - mean) / std, (0, widest - each.shape[2], 0, highest - each.shape[1])) for each in every]
        sizes = torch.tensor([each.shape[1:] for each in every])
        return BatchFeature({**features, "pixel_values": torch.stack(filled), "image_sizes": sizes})

    def _ids(self, text: str, counts: Sequence[int]) -> list[int]:
        parts, found = text.split(PICTURE), []
        for place, part in enumerate(parts):
            if place:
                found += [self.image_token_id] * counts[place - 1]
            if part or not place:
                found += self.tokenizer(part, add_special_tokens=not place)["input_ids"]
        return found


class ComposerAdapter:
    """Where its attention is: `layers[i].attention`, with queries, keys and values from one matrix, `wqkv`."""

    def layers(self, model: Any) -> Mapping[int, nn.Module]:
        return {index: layer.attention for index, layer in enumerate(model.get_decoder().layers)}

    def call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
        past = kwargs.get("past_key_value")
        grouped = module.wqkv(kwargs["hidden_states"], kwargs["im_mask"])
        grouped = grouped.unflatten(-1, (module.num_key_value_heads, module.num_key_value_groups + 2, module.head_dim))
        query, key, value = grouped[..., :-2, :].flatten(2, 3), grouped[..., -2, :], grouped[..., -1, :]
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        length = key.shape[2] + (past[0].shape[2] if past is not None else 0)
        turns = [each[kwargs["position_ids"]][:, None] for each in module.rotary_emb(value, seq_len=length)]
        query, key = (part * turns[0] + _half_turned(part) * turns[1] for part in (query, key))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        return Call(query, key, value, kwargs["attention_mask"], module.head_dim**-0.5)

    def encode(self, model: Any, processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Encoded:
        return encode(model, processor, [render_prompt(processor, prompt) for prompt in prompts], images)

    def brightness(self, model: Any, processor: Any, picture: Image.Image) -> Tensor:
        """Whole picture, one token, parts; the token that ends a row sees nothing. As among several pictures."""
        pixels = processor.pixels(picture, several=True)[None]
        whole = interpolate(pixels, size=(processor.part, processor.part), mode="bicubic")
        rows = [pad(patch_means(view, processor.patch)[0], (0, 1)).flatten() for view in (whole, pixels)]
        return torch.cat([rows[0], rows[0].new_zeros(1), rows[1]])


def _half_turned(states: Tensor) -> Tensor:
    one, other = states.chunk(2, -1)
    return torch.cat([-other, one], -1)


register_adapter(ComposerConfig.model_type, ComposerAdapter())


def as_its_code_expects(config: Any) -> None:
    """Its code was written for transformers 4.33: rotary scaling is None or says its `type`; by default it wants flash-attn."""
    rope = config.rope_parameters or {}
    kind = rope.get("type") or rope.get("rope_type", "default")
    config.rope_parameters = None if kind == "default" else {"type": kind, "factor": float(rope["factor"])}
    config.attn_implementation = "eager"


def load_composer(name: str) -> tuple[Composer, ComposerProcessor]:
    """The published model; its code is run, so name only a checkpoint that you trust."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    config = AutoConfig.from_pretrained(name, trust_remote_code=True)
    as_its_code_expects(config)
    remote = AutoModelForCausalLM.from_pretrained(name, config=config, trust_remote_code=True, dtype=torch.bfloat16)
    remote.tokenizer = tokenizer
    processor = ComposerProcessor(tokenizer)
    return Composer(remote, tokenizer).to("cuda").eval(), processor


def main() -> None:
    from mia_attention import ScoreSettings, score_samples
    from mia_dpo_train import TrainSettings, train_pairs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="internlm/internlm-xcomposer2d5-7b, or its folder")
    parser.add_argument("--samples", type=Path, help="what mia augment wrote, to be scored")
    parser.add_argument("--pairs", type=Path, help="what mia select wrote, to be trained on")
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    model, processor = load_composer(told.model)
    if told.samples:
        score_samples(told.samples, model, processor, told.out, ScoreSettings(batch_size=1), model_id=told.model)
    if told.pairs:
        train_pairs(told.pairs, model, processor, told.out, TrainSettings(**TRAINING), model_id=told.model)


if __name__ == "__main__":
    main()
