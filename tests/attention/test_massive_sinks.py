"""Attention sinks by massive activation, with values worked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mia_attention import (
    ScoreSettings,
    attend,
    capture_attention,
    encode_prompts,
    massive_sinks,
    score,
    sink_dimensions,
    sink_threshold,
)
from mia_attention.measure.masses import measure
from mia_attention.measure.massive_sinks import massive_prompts
from mia_attention.models.inputs import encode
from mia_attention.scoring.scorer import Scorer
from mia_augment.records import Sample
from pydantic import ValidationError


def test_tokens_massive_in_a_dimension_of_the_first_token_are_sinks() -> None:
    states = torch.ones(1, 4, 16)
    states[0, 1, 3] = 30.0  # the first real token: |30| / sqrt((15 + 900) / 16) = 3.97
    states[0, 2, 3] = -5.0  # 5 / sqrt((15 + 25) / 16) = 3.16
    states[0, 3, 7] = 30.0  # massive in a dimension that is none of the first token's
    dimensions = sink_dimensions(states, torch.tensor([1]), 3.5)
    assert dimensions.tolist() == [3]
    assert massive_sinks(states, dimensions, 3.5).tolist() == [[False, True, False, False]]
    assert massive_sinks(states, dimensions, 3.1).tolist() == [[False, True, True, False]]
    assert massive_sinks(states, dimensions, 3.2).tolist() == [[False, True, False, False]]


def test_the_threshold_is_the_published_one_at_its_width_and_can_be_reached_below() -> None:
    assert sink_threshold(4096) == 20.0
    assert sink_threshold(64) == pytest.approx(2.5)
    states = torch.zeros(1, 2, 64)
    states[0, :, 5] = 1.0  # all of it in one dimension: sqrt(64) = 8
    assert sink_dimensions(states, torch.tensor([0])).tolist() == [5]
    assert sink_dimensions(states, torch.tensor([0]), 20.0).tolist() == []


def test_without_a_massive_first_token_there_are_none() -> None:
    states = torch.ones(2, 3, 16)
    assert not massive_sinks(states, sink_dimensions(states, torch.tensor([0, 1]))).any()


def by_hand(tiny: SimpleNamespace, build: Any, sample: Sample, layer: int) -> tuple[float, float, int]:
    """The ratio at a layer with and without its sinks, and their number, from transformers' own hidden states."""
    encoded = encode_prompts(build.model, build.processor, [sample.prompt], [[tiny.open_image(name) for name in sample.images]])
    with torch.no_grad():
        states = build.model(**encoded.inputs, output_hidden_states=True).hidden_states[layer][0].numpy()
    with capture_attention(build.model, [layer], rows="generated") as captured:
        build.model.generate(**encoded.inputs, max_new_tokens=5, do_sample=False, pad_token_id=0)
    spread = captured.attention(layer)[0].mean(0).numpy()
    relative = np.abs(states) / np.sqrt((states**2).mean(-1, keepdims=True))
    limit = 20 * np.sqrt(states.shape[-1] / 4096)
    sinks = (relative[:, relative[0] >= limit] >= limit).any(1)
    means = []
    for places in encoded.image_tokens[0]:
        kept = places.numpy()[~sinks[places.numpy()]]
        means.append((spread[places.numpy()].mean(), spread[kept].mean()))
    ratios = [means[sample.target][way] / (means[0][way] + means[1][way]) for way in (0, 1)]
    return ratios[0], ratios[1], int(sinks[torch.cat(list(encoded.image_tokens[0])).numpy()].sum())


def test_scoring_leaves_massive_tokens_out_whatever_else_is_in_the_batch(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    longer = tiny.sequence("long", ["a.png", "b.png"], 1)
    samples = [longer.model_copy(update={"id": "short", "prompt": "<image><image>what ?"}), longer]
    settings = ScoreSettings(layer=2, sinks=True, sink_rule="massive", max_new_tokens=5, batch_size=2, disturb=False)
    together = list(score(samples, build.model, build.processor, settings, open_image=tiny.open_image))
    for sample, scored in zip(samples, together, strict=True):
        ratio, without, count = by_hand(tiny, build, sample, 2)
        assert count > 0
        assert scored.attention.ratio == pytest.approx(ratio, abs=1e-5)
        assert scored.attention.ratio_without_sinks == pytest.approx(without, abs=1e-5)
        assert abs(ratio - without) > 1e-3
    ids: list[Any] = [scored.response_ids for scored in together]
    read = list(attend(samples, ids, build.model, build.processor, settings, open_image=tiny.open_image))
    assert [found.ratio_without_sinks for found in read] == pytest.approx(
        [scored.attention.ratio_without_sinks for scored in together], abs=1e-5
    )
    other = settings.model_copy(update={"sink_rule": "attention", "sink_factor": 1.1})
    beside = list(score(samples, build.model, build.processor, other, open_image=tiny.open_image))
    assert beside[1].attention.ratio_without_sinks != pytest.approx(together[1].attention.ratio_without_sinks, abs=1e-4)


def test_each_prompts_own_first_token_says_in_which_dimensions(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    texts = [f"{word} : {build.tag} what is in image ?" for word in ("user", "dog", "red", "left", "assistant", "two")]
    pictures = [[tiny.picture(60, 60, 1)]] * len(texts)
    encoded = encode(build.model, build.processor, texts, pictures)
    with torch.no_grad():
        states = build.model(**encoded.inputs, output_hidden_states=True).hidden_states[1]
    first = encoded.inputs["attention_mask"].argmax(1)
    own = [sink_dimensions(states[row : row + 1], first[row : row + 1]) for row in range(len(texts))]
    assert len({tuple(dimensions.tolist()) for dimensions in own}) > 1
    found = massive_prompts(build.model, encoded, [1])[1]
    for row, dimensions in enumerate(own):
        assert torch.equal(found[row], massive_sinks(states[row : row + 1], dimensions)[0])
    assert not torch.equal(found, massive_sinks(states, sink_dimensions(states, first)))


def test_of_several_layers_and_heads_a_token_is_a_sink_if_it_is_one_in_any(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    settings = ScoreSettings(layer=[0, 2], sinks=True, sink_rule="massive", disturb=False)
    encoded = encode_prompts(build.model, build.processor, ["<image>what ?"], [[tiny.open_image("a.png")]])
    found = massive_prompts(build.model, encoded, [0, 2])
    assert found[0].shape == found[2].shape == (1, encoded.prompt_length)
    assert (found[0] != found[2]).any()
    scorer = Scorer(build.model, build.processor, settings, tiny.open_image)
    prepared = scorer.prepare([tiny.sequence("s", ["a.png", "b.png"], 0)])
    assert prepared.massive is not None
    both = prepared.massive()
    spread = torch.ones(prepared.encoded.prompt_length)  # type: ignore[union-attr]
    for readout in ([0, 2], [(0, 1), (2, 3)]):
        told = scorer.attention(0, prepared, spread, readout).ratio_without_sinks  # type: ignore[arg-type]
        kept = prepared.columns[0].without(both[0][0] | both[2][0])
        assert told == pytest.approx(measure(prepared.samples[0], spread, kept, readout=0, rows="generated").ratio)


@pytest.mark.parametrize("layer", ["rollout", "gradient", "alone", "consistency"])
def test_massive_sinks_of_a_readout_without_layers_are_refused(layer: str) -> None:
    with pytest.raises(ValidationError, match=f"sink_rule is massive and layer is {layer}: expected layers, heads"):
        ScoreSettings(layer=layer, sinks=True, sink_rule="massive")  # type: ignore[arg-type]
    assert ScoreSettings(layer=layer, sink_rule="massive").sinks is False  # type: ignore[arg-type]
