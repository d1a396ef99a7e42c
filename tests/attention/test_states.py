"""Hidden states equal `output_hidden_states`, the lens equals lm_head(norm(h)), the probe the least of its loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from mia_attention import as_words, capture_states, fit_probe, held_out_probabilities
from mia_attention.models.inputs import encode
from mia_augment.errors import ConfigError, DataError, ModelError


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


def some_states(rows: int, hidden: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(rows, hidden))
    return states, states[:, 0] + 0.7 * rng.normal(size=rows) > 0


@pytest.mark.parametrize(("rows", "hidden"), [(60, 5), (30, 200)])
def test_the_probe_is_where_its_loss_has_no_slope(rows: int, hidden: int) -> None:
    """The loss written out for all dimensions, its slope by torch's autograd; and no other optimizer finds less."""
    states, labels = some_states(rows, hidden)
    probe = fit_probe(states, labels, penalty=0.5)
    inputs = torch.tensor((states - states.mean(0)) / states.std(0))
    weights = torch.tensor(probe.weights, requires_grad=True)
    bias = torch.tensor(probe.bias, dtype=torch.float64, requires_grad=True)
    signs = torch.tensor(np.where(labels, 1.0, -1.0))
    loss = torch.nn.functional.softplus(-signs * (inputs @ weights + bias)).sum() + 0.25 * (weights**2).sum()
    slopes = torch.autograd.grad(loss, [weights, bias])
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-7
    np.testing.assert_allclose(probe(states), torch.sigmoid(inputs @ weights + bias).detach().numpy(), atol=1e-12)


def test_a_probe_worked_by_hand() -> None:
    """States -1 and 1 with labels no and yes: no bias, and w with 2 / (1 + exp(w)) = penalty w; w = 1: penalty 2 / (1 + e)."""
    probe = fit_probe([[-1.0], [1.0]], [False, True], penalty=2 / (1 + np.e))
    assert probe.bias == pytest.approx(0, abs=1e-9)
    assert probe.weights == pytest.approx([1.0])
    assert probe([[1.0]])[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_held_out_rows_are_judged_by_probes_without_them() -> None:
    noise = np.random.default_rng(1).normal(size=(40, 300))
    labels = [index % 2 == 0 for index in range(40)]
    assert ((fit_probe(noise, labels)(noise) > 0.5) == labels).all()  # more dimensions than rows: all can be learnt by heart
    assert 0.2 < ((held_out_probabilities(noise, labels) > 0.5) == labels).mean() < 0.8
    states, real = some_states(200, 5)
    assert ((held_out_probabilities(states, real) > 0.5) == real).mean() > 0.7
    np.testing.assert_array_equal(held_out_probabilities(states, real), held_out_probabilities(states, real))


def test_what_cannot_be_probed() -> None:
    with pytest.raises(DataError, match="both kinds"):
        fit_probe([[1.0], [2.0]], [True, True])
    with pytest.raises(DataError, match="finite"):
        fit_probe([[1.0], [float("nan")]], [True, False])
    with pytest.raises(DataError, match="one row for each of 3 labels"):
        fit_probe([[1.0], [2.0]], [True, False, True])
    with pytest.raises(DataError, match="at least two rows of each kind, got 1"):
        held_out_probabilities([[1.0], [2.0], [3.0]], [True, False, False])
    with pytest.raises(ConfigError, match="penalty"):
        fit_probe([[1.0], [2.0]], [True, False], penalty=0)
