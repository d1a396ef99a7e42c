"""The lens of visual tokens: words by hand, and places by the pixels that change a token."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mia_attention import image_words
from mia_attention.models.inputs import encode
from mia_attention.plots import plot_words
from mia_attention.states.image_words import _span
from mia_augment.errors import ConfigError, DataError, ModelError
from mia_augment.prompting import render_prompt


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_words_are_those_of_the_head_behind_the_norm(tiny: SimpleNamespace, name: str) -> None:
    build, pictures = tiny.build(name), [tiny.picture(100, 60, 1), tiny.picture(70, 130, 2)]
    found = image_words(build.model, build.processor, pictures, "what is it ?", layers=[2, 4], top=2)
    text = render_prompt(build.processor, "Image1:<image>\nImage2:<image>\nwhat is it ?")
    encoded = encode(build.model, build.processor, [text], [pictures])
    with torch.no_grad():
        output = build.model(**encoded.inputs, output_hidden_states=True)
        state = output.hidden_states[2][0, encoded.image_tokens[0][1]]
        chances = build.model.lm_head(build.model.get_decoder().norm(state)).softmax(-1)
        last = output.logits[0, encoded.image_tokens[0][0]].softmax(-1)
    second, first = found.tokens[2][1], found.tokens[4][0]
    assert [token.chances for token in second] == [pytest.approx(row) for row in chances.topk(2).values.tolist()]
    words = [build.processor.tokenizer.decode([token]).strip() for token in chances.argmax(-1).tolist()]
    assert [token.words[0] for token in second] == words
    assert [token.chances[0] for token in first] == pytest.approx(last.max(-1).values.tolist(), abs=1e-5)


def test_tokens_lie_where_they_see_pixels(tiny: SimpleNamespace) -> None:
    """LLaVA's 4 x 4 tokens of a square picture: each a sixteenth of it, row by row."""
    build = tiny.build("llava")
    found = image_words(build.model, build.processor, [tiny.picture(96, 96)], "what ?", layers=[1])
    places = np.array([token.place for token in found.tokens[1][0]])
    expected = [[24 * column, 24 * row, 24 * column + 24, 24 * row + 24] for row in range(4) for column in range(4)]
    np.testing.assert_allclose(places, expected, atol=2.5)


def test_a_span_is_as_wide_as_what_is_seen() -> None:
    assert _span(np.array([0, 0.5, 0.5, 0]), 40) == pytest.approx((10, 30))
    assert _span(np.array([0, 0, 1, 0]), 40) == pytest.approx((20, 30))
    assert _span(np.zeros(4), 40) is None


def test_words_are_drawn_over_the_picture(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    found = image_words(build.model, build.processor, [tiny.picture(96, 96), tiny.picture(50, 90)], "what ?", layers=[1])
    figure = plot_words(found, 1, least=0.0)
    drawn = [text for axis in figure.axes for text in axis.texts]
    assert len(drawn) == sum(token.place is not None for tokens in found.tokens[1] for token in tokens) > 20
    assert len(plot_words(found, 1, least=1.1).axes[0].texts) == 0


def test_what_has_no_words(tiny: SimpleNamespace) -> None:
    build, picture = tiny.build("llava"), tiny.picture(20, 20)
    with pytest.raises(ModelError, match="layer 9: expected one of 0-4"):
        image_words(build.model, build.processor, [picture], "what ?", layers=[9])
    with pytest.raises(ConfigError, match="top"):
        image_words(build.model, build.processor, [picture], "what ?", top=0)
    with pytest.raises(DataError, match="names image 2"):
        image_words(build.model, build.processor, [picture], "In Image2, what ?")
