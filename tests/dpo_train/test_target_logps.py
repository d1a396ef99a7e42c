"""Log-probs without all logits: equal to the plain computation, values and gradients, in a bounded memory."""

from __future__ import annotations

import inspect
import weakref
from types import SimpleNamespace

import mia_dpo_train.logps.target_logps as module
import pytest
import torch
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import ROUTES
from mia_dpo_train.logps.target_logps import summed_logps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import prepare_for_training, trainable
from mia_dpo_train.settings import LoraSettings, TrainSettings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

QWEN_WORDS = 151_936


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors that were made within and alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage.nbytes())
        return out

    def freed(self, size):
        self.now -= size


def step(states, targets, mask, weight, pieces):
    """The summed log-probs, the gradients of what the head is given and of its weight, and the peak in bytes."""
    states, weight = states.clone().requires_grad_(), weight.clone().requires_grad_()
    with PeakBytes() as memory:
        if pieces:
            logps = summed_logps(states, targets, mask, lambda some: some @ weight.T)
        else:
            logps = summed_logps(states @ weight.T, targets, mask)
        (logps * torch.arange(1, 1 + len(logps))).sum().backward()
    return logps.detach(), states.grad, weight.grad, memory.peak


@pytest.fixture
def answers():
    """Two answers of 300 and 170 tokens over a vocabulary."""

    def answers(vocabulary, width=8):
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(2, 300, width, generator=generator)
        targets = torch.randint(vocabulary, (2, 300), generator=generator)
        weight = torch.randn(vocabulary, width, generator=generator) * 0.3
        return states, targets, torch.arange(300) < torch.tensor([[300], [170]]), weight

    return answers


def test_values_and_gradients_are_those_of_all_logits_at_once(answers, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOGITS", 64 * 50)  # eight pieces, the last one smaller
    states, targets, mask, weight = answers(50)
    exact = torch.log_softmax((states.double() @ weight.double().T), -1).gather(2, targets[..., None])[..., 0]
    found, plain = (step(states, targets, mask, weight, pieces) for pieces in (True, False))
    assert ((exact * mask).sum(1) - found[0]).abs().max() < 1e-6 * exact.abs().sum()
    for ours, theirs in zip(found[:3], plain[:3], strict=True):
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_memory_is_bounded_whatever_the_length_of_the_answers(answers, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOGITS", 32 * QWEN_WORDS)
    states, targets, mask, weight = answers(QWEN_WORDS, width=2)
    found, plain = (step(states, targets, mask, weight, pieces) for pieces in (True, False))
    one = 4 * QWEN_WORDS  # bytes of one token's logits
    assert plain[3] > 3 * 600 * one  # logits, their logsumexp-normalised copy, and the gradient, of all positions
    assert found[3] < 4.5 * 32 * one + 20 * weight.numel()  # of one piece, and what the weight's gradient takes
    assert found[3] < plain[3] / 8


def test_where_no_token_counts_the_sum_is_zero_and_has_a_gradient(answers):
    states, targets, mask, weight = answers(50)
    logps, gradient, _, _ = step(states, targets, mask & False, weight, True)
    assert logps.tolist() == [0.0, 0.0]
    assert not gradient.any()


@pytest.fixture
def routed(build, pairs, open_picture, monkeypatch):
    """Log-probs and gradients of adapters by a route, with so many logits at once."""

    def routed(family, route, most):
        monkeypatch.setattr(module, "MOST_LOGITS", most)
        model, processor = build(family)
        model = prepare_for_training(
            model, TrainSettings(lora=LoraSettings(r=4, alpha=8), gradient_checkpointing=False), "tiny"
        )
        generator = torch.Generator().manual_seed(3)
        for parameter in trainable(model).values():
            parameter.data.normal_(0, 0.02, generator=generator)
        sizes = []
        model.get_base_model().get_output_embeddings().register_forward_hook(lambda m, i, out: sizes.append(out.numel()))
        batch = collate([PairEncoder(processor, open_picture)(pair) for pair in pairs[1:4]])
        logps = ROUTES[route](model.eval(), model_facts(model), batch)
        logps.sum().backward()
        return logps.detach(), {name: value.grad for name, value in trainable(model).items()}, sizes

    return routed


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "idefics3"])
@pytest.mark.parametrize("route", ["packed", "kv", "plain"])
def test_every_route_agrees_with_itself_in_pieces(family, route, routed):
    whole, gradients, _ = routed(family, route, 2**25)
    pieces, others, sizes = routed(family, route, 1024)
    assert max(sizes[-8:]) <= 1024  # the first calls give states, as many as there are
    assert (whole - pieces).abs().max() < 1e-5
    for name, gradient in gradients.items():
        assert (gradient - others[name]).abs().max() <= 1e-6 * max(1.0, gradient.abs().max().item()), name


def test_a_model_that_caps_its_logits_is_left_alone(routed, monkeypatch):
    """What comes behind the head would act on other numbers."""
    import transformers

    inner = transformers.LlavaForConditionalGeneration.forward

    def capped(self, *args, **kwargs):
        out = inner(self, *args, **kwargs)
        out["logits"] = 3 * torch.tanh(out.logits / 3)
        return out

    capped.__signature__ = inspect.signature(inner)
    for route in ("packed", "kv", "plain"):
        monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "forward", capped)
        whole = routed("llava", route, 2**25)[0]
        pieces = routed("llava", route, 1024)[0]
        monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "forward", inner)
        plain = routed("llava", route, 2**25)[0]
        assert torch.equal(whole, pieces)
        assert (whole - plain).abs().max() > 1


@pytest.mark.parametrize(("kind", "apart"), [("T5", True), ("Bart", False)])
def test_answers_of_a_decoder_behind_an_encoder_agree_in_pieces(kind, apart, monkeypatch):
    """Bart adds a bias behind its head, which stays in it."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0, encoder_layers=1,
        decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_attention_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    model.get_output_embeddings().weight.data.normal_()
    if not apart:
        model.final_logits_bias.normal_(0, 3)
    prompt, answers = torch.randint(3, 50, (2, 7)), torch.randint(3, 50, (2, 6))
    real = torch.arange(6) < torch.tensor([[6], [4]])
    ones = torch.ones_like(prompt, dtype=torch.bool)
    batch = SimpleNamespace(prompt=prompt, prompt_mask=ones, vision={}, types={}, answers=[(answers, real)])
    facts, sizes = SimpleNamespace(encodes=True, takes={"input_ids"}), []
    whole = ROUTES["plain"](model, facts, batch)
    monkeypatch.setattr(module, "MOST_LOGITS", 150)
    model.get_output_embeddings().register_forward_hook(lambda m, i, out: sizes.append(out.numel()))
    assert (ROUTES["plain"](model, facts, batch) - whole).abs().max() < 1e-5
    assert (max(sizes) <= 150) == apart


@pytest.mark.parametrize("route", ["packed", "kv", "plain"])
def test_a_model_that_bars_tokens_in_place_is_left_alone(route, routed, monkeypatch):
    """What comes out is then the very tensor that the head gave, with other numbers in it."""
    import transformers

    inner = transformers.LlavaForConditionalGeneration.forward

    def barring(self, *args, **kwargs):
        out = inner(self, *args, **kwargs)
        out.logits[..., :4] = -1e4
        return out

    barring.__signature__ = inspect.signature(inner)
    monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "forward", barring)
    assert torch.equal(routed("llava", route, 2**25)[0], routed("llava", route, 1024)[0])
