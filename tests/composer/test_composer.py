"""The example for InternLM-XComposer2.5 scores, maps boxes and trains, on a model with the interfaces of its code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from composer_lookalike import LAYERS, PART, PATCH, OwnModel
from mia_attention import ScoreSettings, score
from mia_augment import PreferencePair, Region, Sample, Scores, Source
from mia_augment.prompting import answer_ids, process, render_prompt
from mia_dpo_train import TrainSettings, train
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import plain_logps
from mia_dpo_train.models.facts import model_facts
from PIL import Image
from safetensors.torch import load_file

FILE = Path(__file__).parents[2] / "examples" / "composer" / "composer.py"
SIZES = {"a.png": (100, 60), "b.png": (50, 130), "c.png": (56, 56)}


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("composer_example", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def composer(example: Any) -> tuple[Any, Any, OwnModel]:
    tokenizer = tiny_models.tokenizer([])
    processor = example.ComposerProcessor(tokenizer, PART, PATCH)
    torch.manual_seed(0)
    own = OwnModel(len(tokenizer) - 1).eval()  # no row for the picture's token, which the real one has not either
    for parameter in own.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.3)
    return example.Composer(own, tokenizer).eval(), processor, own


def open_picture(name: str) -> Image.Image:
    return Image.effect_noise(SIZES[name], 90).convert("RGB") if name != "c.png" else Image.new("RGB", SIZES[name], "red")


PICTURES = {name: open_picture(name) for name in SIZES}


def sample(name: str, images: list[str], target: int) -> Sample:
    lines = "".join(f"Image{index + 1}:<image>\n" for index in range(len(images)))
    regions = [Region(image=index, label=f"Image{index + 1}") for index in range(len(images))]
    source = Source(ids=[name], paths=images, question="what is on the left ?")
    return Sample(
        id=name, format="sequence", images=images, prompt=f"{lines}In Image{target + 1} , what is on the left ?", answer="cat",
        regions=regions, target=target, source=source,
    )  # fmt: skip


SETTINGS = ScoreSettings(max_new_tokens=4, disturb=False, batch_size=1)


@torch.no_grad()
def test_logits_are_those_of_its_own_wrapping(composer: Any) -> None:
    model, processor, own = composer
    asked = sample("s", ["a.png", "b.png"], 1)
    pictures = [PICTURES[name] for name in asked.images]
    text = render_prompt(processor, asked.prompt)
    assert text.startswith("[UNUSED_TOKEN_146]user\nImage1:<ImageHere>\nImage2:<ImageHere>\nIn Image2")
    assert text.endswith("[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n")
    inputs = process(processor, [text], [pictures])
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    views = [(processor.pixels(each, several=True) - mean[:, None, None]) / std[:, None, None] for each in pictures]
    assert [tuple(view.shape[1:]) for view in views] == [(112, 112), (168, 112)]
    embeds, places = own.wrapped(processor.tokenizer, text, [view[None] for view in views])
    assert inputs["input_ids"].shape == places.shape
    ones = torch.ones(places.shape)
    wanted = own.output(own.model(embeds, ones, torch.arange(places.shape[1])[None], places).last_hidden_state)
    assert torch.allclose(model(**inputs).logits, wanted, atol=1e-5)
    assert (inputs["input_ids"] == processor.image_token_id).equal(places)


def test_scores_follow_its_own_weights(composer: Any) -> None:
    model, processor, own = composer
    asked = sample("s", ["a.png", "b.png"], 1)
    [scored] = score([asked], model, processor, SETTINGS, open_image=PICTURES.__getitem__)
    rows = own.model.layers[LAYERS // 2].attention.weights
    steps = [weights[0, -1] for weights in rows if weights.shape[1] == 1]
    # whole: 2 x 3, one between, parts: 4 x 5 and 6 x 5
    inputs = process(processor, [render_prompt(processor, asked.prompt)], [[PICTURES[name] for name in asked.images]])
    seen = (inputs["input_ids"][0] == processor.image_token_id).nonzero()[:, 0]
    assert len(seen) == (6 + 1 + 20) + (6 + 1 + 30)
    first, second = seen[:27], seen[27:]
    masses = torch.stack([torch.stack([row[first].sum(), row[second].sum()]) for row in steps]).mean(0)
    assert scored.attention.image_mass == pytest.approx(masses.tolist(), abs=1e-5)
    assert scored.response_tokens == len(scored.response_ids or [])


def test_batches_with_padding_equal_single_samples(composer: Any) -> None:
    model, processor, _ = composer
    asked = [sample("s", ["a.png", "b.png"], 1), sample("t", ["c.png", "a.png", "b.png"], 0)]
    runs = [
        list(score(asked, model, processor, SETTINGS.model_copy(update={"batch_size": size}), open_image=PICTURES.__getitem__))
        for size in (1, 2)
    ]
    for one, many in zip(*runs, strict=True):
        assert many.response == one.response
        assert many.attention.ratio == pytest.approx(one.attention.ratio, abs=1e-4)


def test_a_box_sees_its_tokens(composer: Any, example: Any) -> None:
    _, processor, _ = composer
    picture = Image.new("RGB", (112, 112))
    picture.paste("white", (56, 0, 112, 56))
    seen = example.ComposerAdapter().brightness(None, processor, picture)
    whole, parts = seen[:6].view(2, 3), seen[7:].view(4, 5)
    assert whole.round(decimals=1).clamp(0, 1).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert parts[:, :4].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not parts[:, 4].any()


def pair(name: str, images: list[str]) -> PreferencePair:
    made = sample(name, images, 0)
    fields = {key: getattr(made, key) for key in ("id", "format", "images", "prompt", "target", "regions")}
    return PreferencePair(**fields, chosen="cat on the left", rejected="two dog", scores=Scores())


def test_it_trains(composer: Any, example: Any, tmp_path: Path) -> None:
    model, processor, own = composer
    pairs = [pair("p", ["a.png", "b.png"]), pair("q", ["b.png", "c.png"])]
    end = processor.tokenizer.convert_tokens_to_ids("[UNUSED_TOKEN_145]")
    assert answer_ids(processor, pairs[0].prompt, "cat", stops=[end])[-1] == end
    encoder = PairEncoder(processor, PICTURES.__getitem__, [end])
    batch = collate([encoder(each) for each in pairs])
    with torch.no_grad():
        together = plain_logps(model, model_facts(model), batch)
        alone = torch.cat([plain_logps(model, model_facts(model), collate([encoder(each)])) for each in pairs], 1)
    assert torch.allclose(together, alone, atol=1e-4)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    settings = TrainSettings(**{**example.TRAINING, "lora": {"targets": ["wqkv", "wo"], "r": 4, "alpha": 8}}, epochs=3,
                             per_device_batch_size=1, accumulation=1, learning_rate=1e-2, trackers=[])  # fmt: skip
    result = train(pairs, model, processor, settings, tmp_path, open_image=PICTURES.__getitem__, model_id="lookalike")
    assert result.steps == 6
    assert (result.folder / "adapter_model.safetensors").is_file()
    after = {name.replace("base_layer.", ""): value for name, value in own.state_dict().items() if ".lora_" not in name}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    trained = load_file(result.folder / "adapter_model.safetensors")
    assert {name.rsplit(".", 3)[1] for name in trained} == {"wqkv", "wo"}
    assert all(bool(value.abs().max() > 0) for name, value in trained.items() if "lora_B" in name)
