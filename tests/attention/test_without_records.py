"""Nothing but what takes samples needs a record of mia_augment: pictures, texts and token ids are enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import (
    as_words,
    capture_attention,
    capture_rollout,
    capture_states,
    delimiters_scaled,
    encode_prompts,
    head_means,
    heads_ablated,
    heads_scaled,
    image_words,
    images_blocked,
    images_hidden,
    images_rebalanced,
    knockout,
    look,
    massive_sinks,
    read_answers,
    sink_dimensions,
)
from mia_augment.records import Record

GREEDY: dict[str, Any] = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0}


def test_pictures_and_texts_are_enough(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tiny.build("llava")
    model, processor = build.model, build.processor
    pictures = [tiny.picture(60, 60, 1), tiny.picture(80, 60, 2)]

    def refuse(self: Any, **_: Any) -> None:
        raise AssertionError(f"a {type(self).__name__} was made")

    monkeypatch.setattr(Record, "__init__", refuse)
    monkeypatch.setattr(Record, "model_construct", classmethod(refuse))
    view = look(model, processor, pictures, "In Image2, what ?", max_new_tokens=3)
    assert view.alone is not None
    encoded = encode_prompts(model, processor, [view.prompt], [pictures])
    assert knockout(model, encoded, [list(view.token_ids)])[0].loss
    assert read_answers(model, encoded.inputs, [list(view.token_ids)], [(1, 2)]).spread.shape == (1, encoded.prompt_length)
    means = head_means(model, encoded.inputs)
    for within in (
        capture_attention(model, [1], heads=True),
        capture_rollout(model),
        images_hidden(model, encoded, [0]),
        images_blocked(model, encoded),
        images_rebalanced(model, encoded, {1: 2.0}),
        heads_scaled(model, [(1, 1)], 2.0),
        heads_ablated(model, [(1, 1)], means),
        delimiters_scaled(model, encoded),
    ):
        with within:
            model.generate(**encoded.inputs, **GREEDY)
    with torch.no_grad(), capture_states(model, [2]) as states:
        model(**encoded.inputs)
    assert as_words(model, states.at(2)).shape[-1] == model.config.text_config.vocab_size
    assert massive_sinks(states.at(2), sink_dimensions(states.at(2), torch.tensor([0]))).shape == (1, encoded.prompt_length)
    assert image_words(model, processor, pictures, "what ?", layers=[2]).tokens[2]
