"""The start-up check finds the cheapest exact route, and catches computations that are silently wrong."""

from __future__ import annotations

import pytest
import torch
from mia_augment.errors import ModelError
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps import packing, routes
from mia_dpo_train.logps.route_check import choose_route
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.settings import TrainSettings

FREE = TrainSettings(gradient_checkpointing=False, per_device_batch_size=2)


@pytest.fixture
def choose(build, pairs, open_picture):
    def choose(family="llava", settings=FREE, dtype=torch.float32):
        model, processor = build(family)
        model.to(dtype)
        logps = PairLogps(model, model_facts(model), "plain")
        batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:3]])
        return choose_route(logps, batch, settings, logps.compute), logps

    return choose


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "gemma3"])
def test_packed_where_it_is_exact(choose, family):
    choice, logps = choose(family)
    assert choice.route == logps.route == "packed"


def test_one_pair_at_a_time_goes_through_the_cache(choose):
    assert choose(settings=TrainSettings(gradient_checkpointing=False, per_device_batch_size=1))[0].route == "kv"
    assert choose(settings=TrainSettings(gradient_checkpointing=True, per_device_batch_size=1))[0].route == "packed"


def test_packed_in_bf16(choose):
    assert choose(dtype=torch.bfloat16)[0].route == "packed"


@pytest.mark.parametrize("batch_size", [1, 2])
def test_answers_go_on_from_the_state_that_linear_attention_carries(choose, batch_size):
    settings = TrainSettings(gradient_checkpointing=False, per_device_batch_size=batch_size)
    choice, logps = choose("qwen3_5", settings)
    assert choice.route == logps.route == "kv"
    assert ("linear-attention layers" in choice.reason) == (batch_size == 2)


def test_gradients_through_the_state_of_linear_attention_are_those_of_plain(build, pairs, open_picture):
    model, processor = build("qwen3_5")
    batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:3]])
    found = []
    for route in ("kv", "plain"):
        model.zero_grad()
        logps = PairLogps(model, model_facts(model), route).compute(batch)
        (logps[0] - logps[1]).sum().backward()
        found.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
    kv, plain = found
    assert kv.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(kv[name], gradient, atol=1e-4 * gradient.abs().max().item() + 1e-7, rtol=0)


def test_linear_attention_would_be_caught_by_measuring_too(choose, monkeypatch):
    from mia_dpo_train.logps import route_check as check

    monkeypatch.setattr(check, "_static_problem", lambda *arguments: None)
    choice, _ = choose("qwen3_5")
    assert choice.route != "packed"
    assert "moved by" in choice.reason or "differ from plain" in choice.reason


def break_mask(monkeypatch):
    original = packing.prefix_mask

    def leaking(parts, block=None, window=None, place=None):
        return original(torch.where(parts == packing.CHOSEN, packing.PROMPT, parts), block, window, place)

    monkeypatch.setattr(packing, "prefix_mask", leaking)


def break_positions(monkeypatch):
    original = packing.answer_positions
    monkeypatch.setattr(packing, "answer_positions", lambda following, width, axes: original(following + 3, width, axes))


@pytest.mark.parametrize(("fault", "message"), [(break_mask, "moved by"), (break_positions, "differ from plain")])
def test_faults_of_packing_are_caught(choose, monkeypatch, fault, message):
    fault(monkeypatch)
    choice, _ = choose()
    assert choice.route == "kv"
    assert "packed ruled out: " in choice.reason
    assert message in choice.reason


@pytest.mark.parametrize(("error", "route"), [(5e-4, "packed"), (2e-3, "kv")])
def test_a_thousandth_of_a_nat_is_tolerated_in_fp32(choose, monkeypatch, error, route):
    monkeypatch.setitem(routes.ROUTES, "packed", lambda *arguments: routes.packed_logps(*arguments) + error)
    assert choose()[0].route == route


def test_a_forced_route_that_is_wrong_is_refused(choose, monkeypatch):
    break_mask(monkeypatch)
    with pytest.raises(ModelError, match=r"route packed is wrong for this model .*set route: auto"):
        choose(settings=TrainSettings(route="packed"))


def test_no_cache_under_gradient_checkpointing(choose, monkeypatch):
    break_mask(monkeypatch)
    choice, _ = choose(settings=TrainSettings(gradient_checkpointing=True))
    assert choice.route == "plain"
    assert "gradient checkpointing drops the cache" in choice.reason


@pytest.mark.parametrize(("leak", "route"), [(3e-4, "packed"), (9e-4, "kv")])
def test_a_rejected_answer_may_move_by_what_the_model_differs_from_itself(choose, monkeypatch, leak, route):
    """As on a GPU whose kernels add up in any order: here each call's results lie 1e-4 above those of the one before."""
    calls = []

    def noisy(model, facts, batch):
        calls.append(batch)
        changed = not torch.equal(batch.chosen, calls[0].chosen)
        return routes.packed_logps(model, facts, batch) + 1e-4 * len(calls) + (leak if changed else 0)

    monkeypatch.setitem(routes.ROUTES, "packed", noisy)
    assert choose()[0].route == route


def test_the_check_computes_without_tf32_and_leaves_it_as_it_was(choose, monkeypatch):
    """In which cuDNN embeds patches by another algorithm for another number of pictures."""
    kinds, during = (torch.backends.cudnn, torch.backends.cuda.matmul), []

    def noted(*arguments):
        during.extend(kind.allow_tf32 for kind in kinds)
        return routes.plain_logps(*arguments)

    monkeypatch.setitem(routes.ROUTES, "plain", noted)
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = True
        choose()
        assert all(kind.allow_tf32 for kind in kinds)
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.allow_tf32 = value
    assert during
    assert not any(during)


def test_memory_that_runs_out_in_the_check_is_no_fault_of_a_route(choose, monkeypatch):
    def full(*arguments):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    monkeypatch.setitem(routes.ROUTES, "packed", full)
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        choose()
