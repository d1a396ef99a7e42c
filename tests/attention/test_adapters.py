"""A model in the style of remote code: own fused attention without transformers' interface, pictures inserted as embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import Call, Encoded, ScoreSettings, capture_attention, register_adapter, respond, score
from mia_attention.models.families import FAMILIES, patch_means
from mia_augment.errors import ModelError
from mia_augment.records import Sample
from PIL import Image
from torch import nn
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

WIDTH, HEADS, KEY_HEADS, DIM, LAYERS, VOCABULARY, PATCH = 32, 4, 2, 8, 3, 64, 14


class LookalikeConfig(PretrainedConfig):
    model_type = "composer_lookalike"

    def __init__(self, **kwargs: Any) -> None:
        self.num_hidden_layers, self.hidden_size, self.num_attention_heads = LAYERS, WIDTH, HEADS
        self.vocab_size = VOCABULARY
        super().__init__(**kwargs)


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary positions, (batch, heads, length, dim)."""
    frequencies = 1.0 / 100 ** (torch.arange(0, DIM, 2) / DIM)
    angles = positions[:, None, :, None] * frequencies
    cosine, sine = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    turned = torch.cat([-x[..., DIM // 2 :], x[..., : DIM // 2]], -1)
    return x * cosine + turned * sine


class FusedAttention(nn.Module):
    """Queries, keys and values from one matrix, grouped; the weights of the last calls are kept for the test."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.wqkv = nn.Linear(WIDTH, (HEADS + 2 * KEY_HEADS) * DIM, bias=False)
        self.wo = nn.Linear(WIDTH, WIDTH, bias=False)
        self.weights: list[torch.Tensor] = []

    def split(self, hidden: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        grouped = self.wqkv(hidden).view(*hidden.shape[:2], KEY_HEADS, HEADS // KEY_HEADS + 2, DIM)
        query = grouped[..., :-2, :].flatten(2, 3).transpose(1, 2)
        key, value = grouped[..., -2, :].transpose(1, 2), grouped[..., -1, :].transpose(1, 2)
        return rotate(query, positions), rotate(key, positions), value

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        query, key, value = self.split(hidden, positions)
        key, value = cache.update(key, value, self.layer)
        key, value = (t.repeat_interleave(HEADS // KEY_HEADS, 1) for t in (key, value))
        weights = (query @ key.transpose(-1, -2) / math.sqrt(DIM) + mask).softmax(-1)
        self.weights.append(weights.mean(1).detach())
        out: torch.Tensor = self.wo((weights @ value).transpose(1, 2).flatten(2))
        return out


class Lookalike(PreTrainedModel, GenerationMixin):
    config_class = LookalikeConfig

    def __init__(self, config: LookalikeConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.see = nn.Linear(3 * PATCH * PATCH, WIDTH)
        self.attentions = nn.ModuleList(FusedAttention(layer) for layer in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.embed

    def forward(
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        hidden = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        seen, count = past_key_values.get_seq_length(), hidden.shape[1]
        if attention_mask is None:  # generate leaves out a mask of ones
            attention_mask = torch.ones(len(hidden), seen + count)
        causal = torch.ones(count, seen + count, dtype=torch.bool).tril(seen)
        allowed = causal & attention_mask[:, None, None].bool()
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        positions = (attention_mask.cumsum(1) - 1).clamp_min(0)[:, -count:]
        for attention in self.attentions:
            hidden = hidden + attention(hidden, mask, positions, past_key_values)
        return CausalLMOutputWithPast(logits=self.head(hidden), past_key_values=past_key_values)


def shrink(picture: Image.Image) -> Image.Image:
    """Two rows of patches; as many columns as the aspect ratio asks for, up to three."""
    columns = min(3, max(1, round(2 * picture.width / picture.height)))
    return picture.resize((PATCH * columns, PATCH * 2), Image.Resampling.BOX)


def pixels(picture: Image.Image) -> torch.Tensor:
    from torchvision.transforms.functional import pil_to_tensor

    return pil_to_tensor(shrink(picture)).float() / 255


class LookalikeAdapter:
    def layers(self, model: Any) -> Mapping[int, nn.Module]:
        return dict(enumerate(model.attentions))

    def call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
        hidden, mask, positions, cache = args
        query, _, _ = module.split(hidden, positions)
        stored = cache.layers[module.layer]
        return Call(query, stored.keys, stored.values, mask, DIM**-0.5)

    def encode(self, model: Any, processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Encoded:
        rows, places = [], []
        for prompt, pictures in zip(prompts, images, strict=True):
            pieces, own = [], []
            for index, text in enumerate(prompt.split("<image>")):
                if index:
                    patches = nn.functional.unfold(pixels(pictures[index - 1])[None], PATCH, stride=PATCH)[0].T
                    start = sum(len(piece) for piece in pieces)
                    own.append(torch.arange(start, start + len(patches)))
                    pieces.append(model.see(patches))
                if text.strip():
                    pieces.append(model.embed(torch.tensor(processor.tokenizer(text, add_special_tokens=False).input_ids)))
            rows.append(torch.cat(pieces))
            places.append(own)
        length = max(len(row) for row in rows)
        pads = [length - len(row) for row in rows]
        embeds = torch.stack([nn.functional.pad(row, (0, 0, pad, 0)) for row, pad in zip(rows, pads, strict=True)])
        mask = torch.stack([(torch.arange(length) >= pad).long() for pad in pads])
        moved = [[place + pad for place in own] for own, pad in zip(places, pads, strict=True)]
        return Encoded({"inputs_embeds": embeds.detach(), "attention_mask": mask}, moved, None)

    def brightness(self, model: Any, processor: Any, picture: Image.Image) -> torch.Tensor | None:
        return patch_means(pixels(picture)[None], PATCH).flatten()


@pytest.fixture
def lookalike(tiny: SimpleNamespace) -> Iterator[SimpleNamespace]:
    torch.manual_seed(0)
    model = Lookalike(LookalikeConfig()).eval()
    for attention in model.attentions:
        nn.init.normal_(attention.wqkv.weight, std=0.5)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    register_adapter("composer_lookalike", LookalikeAdapter())
    yield SimpleNamespace(model=model, processor=SimpleNamespace(tokenizer=tiny.tokenizer([])))
    del FAMILIES["composer_lookalike"]


def mixed(tiny: SimpleNamespace) -> list[Sample]:
    return [
        tiny.sequence("s2", ["a.png", "b.png"], 1),
        tiny.pic_in_pic("p"),
        tiny.sequence("s3", ["a.png", "c.png", "b.png"], 0),
    ]


SETTINGS = ScoreSettings(max_new_tokens=4, disturb=False, batch_size=2)


def test_scores_follow_the_models_own_weights(tiny: SimpleNamespace, lookalike: SimpleNamespace) -> None:
    sample = mixed(tiny)[0]
    scored = next(score([sample], lookalike.model, lookalike.processor, SETTINGS, open_image=tiny.open_image))
    encoded = LookalikeAdapter().encode(
        lookalike.model, lookalike.processor, [sample.prompt], [[tiny.open_image(name) for name in sample.images]]
    )
    module = lookalike.model.attentions[1]
    rows = torch.cat([weights[:, :, : encoded.prompt_length] for weights in module.weights[1:]], 1)[0].mean(0)
    masses = [float(rows[place].sum()) for place in encoded.image_tokens[0]]
    assert scored.attention.layer == 1
    assert scored.attention.image_mass == pytest.approx(masses, abs=1e-6)
    # a.png is 100 x 60 px: 2 x 3 tokens, b.png 70 x 130: 2 x 1
    means = [masses[0] / 6, masses[1] / 2]
    assert scored.attention.ratio == pytest.approx(means[1] / sum(means), abs=1e-6)


@pytest.mark.parametrize("layer", ["middle", "rollout"])
def test_batches_with_padding_equal_single_samples(tiny: SimpleNamespace, lookalike: SimpleNamespace, layer: Any) -> None:
    settings = SETTINGS.model_copy(update={"layer": layer})
    runs = [
        list(
            score(
                mixed(tiny),
                lookalike.model,
                lookalike.processor,
                settings.model_copy(update={"batch_size": size}),
                open_image=tiny.open_image,
            )
        )
        for size in (1, 3)
    ]
    for one, many in zip(*runs, strict=True):
        assert one.attention.ratio is not None
        assert many.attention.ratio == pytest.approx(one.attention.ratio, abs=1e-5)
        assert many.response == one.response


def test_boxes_are_mapped_by_the_adapter(tiny: SimpleNamespace, lookalike: SimpleNamespace) -> None:
    scored = list(score(mixed(tiny), lookalike.model, lookalike.processor, SETTINGS, open_image=tiny.open_image))
    # 120 x 90 px become 2 x 3 tokens of 40 x 45 px; the inner box is 18..102 x 14..77
    assert scored[1].attention.region_tokens == pytest.approx([6, (84 * 63) / (40 * 45)], rel=0.02)


def test_answers_without_attention_and_clean_hooks(tiny: SimpleNamespace, lookalike: SimpleNamespace) -> None:
    plain = list(respond(mixed(tiny), lookalike.model, lookalike.processor, open_image=tiny.open_image, max_new_tokens=4))
    scored = score(mixed(tiny), lookalike.model, lookalike.processor, SETTINGS, open_image=tiny.open_image)
    assert [item.response for item in scored] == [response.text for response in plain]
    assert all(not attention._forward_hooks for attention in lookalike.model.attentions)


def test_question_rows_need_an_adapter_that_knows_the_question(tiny: SimpleNamespace, lookalike: SimpleNamespace) -> None:
    settings = SETTINGS.model_copy(update={"rows": "question"})
    with pytest.raises(ModelError, match="does not say where the question stands"):
        list(score(mixed(tiny), lookalike.model, lookalike.processor, settings, open_image=tiny.open_image))


def test_without_an_adapter_the_model_is_refused_with_a_hint(lookalike: SimpleNamespace) -> None:
    kept = FAMILIES.pop("composer_lookalike")
    with pytest.raises(ModelError, match="register_adapter"), capture_attention(lookalike.model, [0]):
        pass
    FAMILIES["composer_lookalike"] = kept
