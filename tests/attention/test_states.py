"""Hidden states equal `output_hidden_states`, the lens equals lm_head(norm(h)), the probe the least of its loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from mia_attention import as_words, capture_states
from mia_attention.models.inputs import encode
from mia_augment.errors import ConfigError, ModelError


def inputs_of(tiny: SimpleNamespace, name: str) -> tuple[Any, dict[str, Any]]:
    build = tiny.build(name)
    texts = [f"user : {build.tag} what is in image ?", f"user : a {build.tag} b {build.tag} what ?"]
    pictures = [[tiny.picture(100, 60, 1)], [tiny.picture(70, 130, 2), tiny.picture(64, 64, 3)]]
    return build, dict(encode(build.model, build.processor, texts, pictures).inputs)


@pytest.mark.parametrize("name", list(tiny_models.BUILDERS))
def test_states_are_those_of_output_hidden_states(tiny: SimpleNamespace, name: str) -> None:
    build, inputs = inputs_of(tiny, name)
    with torch.no_grad():
        expected = build.model(**inputs, output_hidden_states=True).hidden_states
        with capture_states(build.model, range(len(expected))) as states:
            build.model(**inputs)
        with capture_states(build.model, [2, 0], positions=[-1, 3], stop=True) as some:
            build.model(**inputs)
            raise AssertionError("the pass was to end after the second layer")
    for layer, state in enumerate(expected):
        torch.testing.assert_close(states.at(layer), state, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(some.at(2), expected[2][:, [-1, 3]], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(some.at(0), expected[0][:, [-1, 3]], atol=1e-6, rtol=1e-5)


def hooks_of(decoder: Any) -> list[Any]:
    return [decoder.layers[0]._forward_pre_hooks, decoder.layers[0]._forward_hooks, decoder.norm._forward_hooks]


def test_while_generating_positions_grow_and_minus_one_ends_the_prompt(tiny: SimpleNamespace) -> None:
    build, inputs = inputs_of(tiny, "llava")
    length = inputs["input_ids"].shape[1]
    hooks = dict(build.model.get_decoder().layers[0]._forward_hooks)
    with capture_states(build.model, [1], positions=[-1, length]) as states:
        out = build.model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], 1)
    whole = {**inputs, "input_ids": out, "attention_mask": mask}
    positions = (whole["attention_mask"].cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = build.model(**whole, position_ids=positions, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(states.at(1), expected[:, [length - 1, length]], atol=1e-5, rtol=1e-4)
    assert hooks == dict(build.model.get_decoder().layers[0]._forward_hooks)
    with capture_states(build.model, [0, 1]), capture_states(build.model, [1, 4]) as inner:
        build.model(**inputs)
    decoder = build.model.get_decoder()
    before = [dict(hooks) for hooks in hooks_of(decoder)]
    with pytest.raises(ZeroDivisionError), capture_states(build.model, [0, 4]):
        raise ZeroDivisionError
    torch.testing.assert_close(inner.at(1)[:, -1], states.at(1)[:, 0], atol=1e-5, rtol=1e-4)
    assert before == [dict(hooks) for hooks in hooks_of(decoder)]


def test_what_cannot_be_captured(tiny: SimpleNamespace) -> None:
    build, inputs = inputs_of(tiny, "llava")
    with pytest.raises(ModelError, match=r"layer 5: expected one of 0-4"), capture_states(build.model, [5]):
        pass
    with pytest.raises(ConfigError, match="expected one or several"), capture_states(build.model, []):
        pass
    with capture_states(build.model, [1], positions=[10_000]) as states:
        with pytest.raises(ModelError, match="no hidden state was captured"):
            states.at(1)
        build.model(**inputs)
    with pytest.raises(ModelError, match="position 10000: expected one of the"):
        states.at(1)
    with pytest.raises(ModelError, match="layer 2 was not captured"):
        states.at(2)
    with pytest.raises(ModelError, match="expected a decoder"), capture_states(torch.nn.Linear(2, 2), [0]):
        pass


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen3_vl"])
def test_the_lens_is_the_head_behind_the_norm(tiny: SimpleNamespace, name: str) -> None:
    build, inputs = inputs_of(tiny, name)
    with torch.no_grad(), capture_states(build.model, [2, 4]) as states:
        logits = build.model(**inputs).logits
        state = states.at(2).double()
        norm, head = build.model.get_decoder().norm, build.model.get_output_embeddings()
        least = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
        scaled = state / torch.sqrt((state**2).mean(-1, keepdim=True) + least)
        weight = norm.weight.double() + (1.0 if name == "gemma3" else 0.0)
        by_hand = ((scaled * weight) @ head.weight.double().T).log_softmax(-1)
    torch.testing.assert_close(as_words(build.model, states.at(2)).double(), by_hand, atol=1e-4, rtol=1e-4)
    last = as_words(build.model, states.at(4), normed=True)
    torch.testing.assert_close(last, logits.float().log_softmax(-1), atol=1e-4, rtol=1e-4)
