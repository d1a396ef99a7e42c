"""Knocking out, blocking and steering equal hand-built masks on eager attention, and leave the model as it was."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import (
    Encoded,
    capture_attention,
    delimiters,
    delimiters_scaled,
    encode_prompts,
    head_means,
    heads_ablated,
    heads_scaled,
    images_blocked,
    images_hidden,
    images_rebalanced,
    knockout,
)
from mia_attention.causes.prompt_places import EVERYWHERE, places_of
from mia_attention.models.decoder import decoder_layers
from mia_augment.errors import ConfigError, DataError, ModelError

PROMPTS = ["Image1:<image>\nImage2:<image>\nIn Image2 , what is on the left ?", "Image1:<image>\nImage2:<image>\nwhat ?"]
ANSWERS = [[30, 31, 32], [33, 34]]
LOWEST = torch.finfo(torch.float32).min


def encoded_of(build: Any, tiny: SimpleNamespace, second: int = 2) -> Encoded:
    pictures = [[tiny.picture(60, 60, 1), tiny.picture(60, 60, second)], [tiny.picture(60, 60, 3), tiny.picture(60, 60, 4)]]
    return encode_prompts(build.model, build.processor, PROMPTS, pictures)


def whole_inputs(encoded: Encoded) -> tuple[dict[str, Any], list[int]]:
    """Prompt 0 with its answer, alone and without padding; where its images stand."""
    pad = int((encoded.inputs["attention_mask"][0] == 0).sum())
    ids = torch.cat([encoded.inputs["input_ids"][0, pad:], torch.tensor(ANSWERS[0])])[None]
    whole = {**encoded.inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return whole, [pad]


def dense_logp(model: Any, encoded: Encoded, allowed: torch.Tensor, prompt: int) -> float:
    """log p of answer 0 by eager attention with a whole mask of my own, (length, length) bool."""
    whole, _ = whole_inputs(encoded)
    first = {"pixel_values": whole["pixel_values"][: len(whole["pixel_values"]) // 2]}
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, LOWEST)[None, None]
    model.set_attn_implementation("eager")
    try:
        logits = model(input_ids=whole["input_ids"], attention_mask=mask, **first).logits[0]
    finally:
        model.set_attn_implementation("sdpa")
    logps = logits.log_softmax(-1)
    return sum(float(logps[prompt - 1 + i, token]) for i, token in enumerate(ANSWERS[0]))


def image_spans(encoded: Encoded) -> tuple[list[torch.Tensor], int]:
    """Positions of prompt 0's images without its padding, and the prompt's length."""
    pad = int((encoded.inputs["attention_mask"][0] == 0).sum())
    return [tokens - pad for tokens in encoded.image_tokens[0]], encoded.prompt_length - pad


@torch.no_grad()
@pytest.mark.parametrize("rows", [*EVERYWHERE, EVERYWHERE])
def test_a_knockout_equals_eager_attention_with_a_mask_by_hand(tiny: SimpleNamespace, rows: Any) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    spans, prompt = image_spans(encoded)
    length = prompt + len(ANSWERS[0])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    is_image = torch.zeros(length, dtype=torch.bool)
    is_image[torch.cat(spans)] = True
    full = dense_logp(build.model, encoded, causal, prompt)
    found = knockout(build.model, encoded, ANSWERS, rows=rows)[0]
    assert found.tokens == 3
    assert found.logp == pytest.approx(full, abs=1e-4)
    wanted = (rows,) if isinstance(rows, str) else rows
    losses = []
    for image in (0, 1):
        allowed = causal.clone()
        for row in range(length):
            mine = row in spans[image].tolist()
            kind = "answer" if row >= prompt - 1 else "other images" if is_image[row] and not mine else "question"
            if not mine and kind in wanted:
                allowed[row, spans[image]] = False
        losses.append(full - dense_logp(build.model, encoded, allowed, prompt))
        assert found.loss[image] == pytest.approx(losses[-1], abs=1e-4)
    if rows == "other images":
        assert abs(losses[1]) < 1e-6  # the last image has none behind it that could see it
    else:
        assert min(map(abs, losses)) > 1e-4


@torch.no_grad()
def test_a_knockout_in_some_layers_is_neither_nothing_nor_all(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    some = knockout(build.model, encoded, ANSWERS, images=[1], layers=[0, 2])[0].loss[1]
    every = knockout(build.model, encoded, ANSWERS, images=[1])[0].loss[1]
    both = knockout(build.model, encoded, ANSWERS, images=[1], layers=[0, 1, 2, 3])[0].loss[1]
    assert every == both
    assert min(abs(some), abs(some - every)) > 1e-4


@torch.no_grad()
def test_a_picture_hidden_from_all_can_be_any_picture(tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """Every family, grouped queries and sliding windows among them: its pixels make no difference to what is answered."""
    for name in tiny.families:
        caplog.clear()
        build = tiny.build(name)
        first, other = (encoded_of(build, tiny, second) for second in (2, 9))
        without = [kn[0].logp - kn[0].loss[1] for kn in (knockout(build.model, each, ANSWERS) for each in (first, other))]
        plain = [knockout(build.model, each, ANSWERS, images=[])[0].logp for each in (first, other)]
        if name == "qwen3_5":  # linear attention passes pictures on
            assert "has layers without attention between layers [3]" in caplog.text
            continue
        assert "without attention" not in caplog.text
        assert without[0] == pytest.approx(without[1], abs=2e-5), name
        assert abs(plain[0] - plain[1]) > 1e-4, name


GREEDY: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}


@torch.no_grad()
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generating_with_a_hidden_picture_equals_one_pass(tiny: SimpleNamespace, cache: str) -> None:
    build = tiny.build("llava", strong=True)
    encoded = encoded_of(build, tiny)
    with images_hidden(build.model, encoded, [0]), capture_attention(build.model, [3], rows="predicting") as captured:
        out = build.model.generate(**encoded.inputs, cache_implementation=cache, disable_compile=True, **GREEDY)
    said = out[:, encoded.prompt_length :].tolist()
    seen = captured.attention(3)
    for row, tokens in enumerate(encoded.image_tokens):
        assert float(seen[row][:, tokens[0]].abs().max()) < 1e-30
        assert float(seen[row][:, tokens[1]].min()) > 0
    step = build.model.generate(**encoded.inputs, **GREEDY, output_logits=True, return_dict_in_generate=True)
    assert step.sequences.tolist() != out.tolist()
    for row, answer in enumerate(said):  # each token is the likeliest one in a pass over prompt and answer
        found = knockout(build.model, encoded, said, images=[0])[row]
        for position in range(len(answer)):
            changed = [list(each) for each in said]
            changed[row][position:] = [(answer[position] + 1) % 40]
            other = knockout(build.model, encoded, [each[: position + 1] for each in changed], images=[0])[row]
            same = knockout(build.model, encoded, [each[: position + 1] for each in said], images=[0])[row]
            assert same.logp - same.loss[0] > other.logp - other.loss[0]
        assert found.tokens == 5


@torch.no_grad()
def test_blocked_images_see_themselves_and_text_sees_all(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    spans, prompt = image_spans(encoded)
    length = prompt + 3
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    full = dense_logp(build.model, encoded, allowed, prompt)
    allowed[spans[1][:, None], spans[0]] = False
    expected = dense_logp(build.model, encoded, allowed, prompt)
    places = places_of(encoded).unpadded(encoded.inputs["attention_mask"].sum(1))
    with images_blocked(build.model, places):
        blocked = knockout(build.model, encoded, ANSWERS, images=[])[0].logp
    assert blocked == pytest.approx(expected, abs=1e-4)
    assert abs(blocked - full) > 1e-4
    with images_blocked(build.model, encoded), capture_attention(build.model, [1], rows="all") as captured:
        build.model(**encoded.inputs)
    seen = captured.attention(1)[0]
    one, two = encoded.image_tokens[0]
    assert float(seen[two][:, one].max()) < 1e-30
    assert float(seen[-1, one].min()) > 0


@torch.no_grad()
def test_rebalancing_multiplies_attention_and_normalises_again(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    with capture_attention(build.model, [0], rows="all", heads=True) as plain:
        build.model(**encoded.inputs)
    for heads in (None, [(0, 2)]):
        changed = images_rebalanced(build.model, encoded, {1: 3.0}, layers=None if heads else [0], heads=heads)
        with changed, capture_attention(build.model, [0], rows="all", heads=True) as steered:
            build.model(**encoded.inputs)
        expected = plain.heads(0)[0].clone()
        weights = torch.ones(encoded.prompt_length)
        weights[encoded.image_tokens[0][1]] = 3.0
        text = torch.ones(encoded.prompt_length, dtype=torch.bool)
        text[torch.cat(encoded.image_tokens[0])] = False
        mine = [0, 1, 2, 3] if heads is None else [2]
        for head in mine:
            product = expected[text][:, head] * weights
            expected[text, head] = product / product.sum(-1, keepdim=True)
        real = encoded.inputs["attention_mask"][0].bool()
        torch.testing.assert_close(steered.heads(0)[0][real], expected[real], atol=1e-6, rtol=0)


@torch.no_grad()
def test_scaled_and_ablated_heads_equal_a_changed_projection(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    module: Any = decoder_layers(build.model)[1]
    dim = module.head_dim
    plain = build.model(**encoded.inputs).logits
    outputs: list[torch.Tensor] = []
    hook = module.o_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    build.model(**encoded.inputs)
    hook.remove()
    real = encoded.inputs["attention_mask"].bool()
    mean = outputs[0][real].mean(0)
    means = head_means(build.model, encoded.inputs, [1])
    torch.testing.assert_close(means[1].flatten(), mean, atol=1e-6, rtol=0)

    def replaced(kind: str) -> torch.Tensor:
        def change(_: Any, args: Any) -> Any:
            states = args[0].clone()
            part = slice(2 * dim, 3 * dim)  # head 2
            states[..., part] = states[..., part] * 2.5 if kind == "scaled" else mean[part]
            return (states,)

        handle = module.o_proj.register_forward_pre_hook(change)
        try:
            return build.model(**encoded.inputs).logits  # type: ignore[no-any-return]
        finally:
            handle.remove()

    with heads_scaled(build.model, [(1, 2)], 2.5):
        scaled = build.model(**encoded.inputs).logits
    with heads_ablated(build.model, [(1, 2)], means):
        ablated = build.model(**encoded.inputs).logits
    torch.testing.assert_close(scaled[real], replaced("scaled")[real], atol=1e-5, rtol=0)
    torch.testing.assert_close(ablated[real], replaced("ablated")[real], atol=1e-5, rtol=0)
    assert float((scaled - plain)[real].abs().max()) > 1e-4
    assert float((ablated - plain)[real].abs().max()) > 1e-4


@torch.no_grad()
def test_scaled_delimiters_are_those_around_pictures_and_work_while_generating(tiny: SimpleNamespace) -> None:
    build = tiny.build("qwen2_5_vl", strong=True)
    encoded = encoded_of(build, tiny)
    ids = encoded.inputs["input_ids"][0][delimiters(encoded)[0]].tolist()
    assert build.processor.tokenizer.convert_ids_to_tokens(ids) == ["<|vision_start|>", "<|vision_end|>"] * 2
    blocks = [module for module in build.model.modules() if hasattr(module, "self_attn")][:2]
    states: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    for kept, within in ((plain, contextlib.nullcontext()), (states, delimiters_scaled(build.model, encoded, 8.0, layers=[0]))):
        hook = blocks[1].register_forward_pre_hook(
            lambda _, args, kwargs, kept=kept: kept.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        with within:
            build.model(**encoded.inputs)
        hook.remove()
    marked = delimiters(encoded)
    torch.testing.assert_close(states[0][marked], plain[0][marked] * 8, atol=1e-5, rtol=0)
    torch.testing.assert_close(states[0][~marked], plain[0][~marked], atol=0, rtol=0)
    with delimiters_scaled(build.model, encoded):
        build.model.generate(**encoded.inputs, **GREEDY)
    torch.testing.assert_close(build.model(**encoded.inputs).logits, build.model(**encoded.inputs).logits, atol=0, rtol=0)


def is_untouched(model: Any) -> bool:
    return all("_mia_attention_probe" not in module.__dict__ for module in decoder_layers(model).values())


@torch.no_grad()
def test_contexts_are_nested_and_restored_on_every_path(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    encoded = encoded_of(build, tiny)
    configs = [module.config for module in decoder_layers(build.model).values()]
    plain = build.model(**encoded.inputs).logits
    with images_hidden(build.model, encoded, [0]), images_hidden(build.model, encoded, [1]):
        apart = build.model(**encoded.inputs).logits
    with images_hidden(build.model, encoded, [0, 1]):
        together = build.model(**encoded.inputs).logits
    real = encoded.inputs["attention_mask"].bool()
    torch.testing.assert_close(apart[real], together[real], atol=1e-5, rtol=0)
    outer, inner = images_hidden(build.model, encoded, [0]), heads_scaled(build.model, [(1, 1)], 0.0)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # not the order in which they were entered
    assert not is_untouched(build.model)
    inner.__exit__(None, None, None)
    for within in (
        lambda: images_blocked(build.model, encoded),
        lambda: heads_scaled(build.model, [(0, 0)], 2.0),
        lambda: delimiters_scaled(build.model, encoded),
    ):
        with pytest.raises(ZeroDivisionError), within():
            raise ZeroDivisionError
    assert is_untouched(build.model)
    assert all(module.config is config for module, config in zip(decoder_layers(build.model).values(), configs, strict=True))
    torch.testing.assert_close(build.model(**encoded.inputs).logits, plain, atol=0, rtol=0)


def test_bad_input_is_one_clear_error(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    model, encoded = build.model, encoded_of(build, tiny)
    with pytest.raises(ConfigError, match=r"prompt 0: expected images from 0 to 1, got 2"):
        knockout(model, encoded, ANSWERS, images=[2])
    with pytest.raises(ConfigError, match=r"rows: expected some of answer, question, other images, got everything"):
        knockout(model, encoded, ANSWERS, rows="everything")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"layer 9: expected one of the attention layers 0-3"):
        knockout(model, encoded, ANSWERS, layers=[9])
    with pytest.raises(ModelError, match=r"layer 1: expected heads from 0 to 3, got 4"), heads_scaled(model, [(1, 4)], 0.0):
        pass
    with pytest.raises(ConfigError, match=r"different \(layer, head\), got \[\]"), heads_scaled(model, [], 0.0):
        pass
    with pytest.raises(ConfigError, match="expected one for layer 2, got layers"), heads_ablated(model, [(2, 0)], {}):
        pass
    with pytest.raises(ConfigError, match="weight of attention of 0 or more"), images_rebalanced(model, encoded, {0: -1.0}):
        pass
    with pytest.raises(DataError, match="at least one token to each of 2 prompts"):
        knockout(model, encoded, [[30], []])
    with pytest.raises(DataError, match="holds the token that stands for pictures"):
        knockout(model, encoded, [[30], [model.config.image_token_id]])
    with pytest.raises(ModelError, match="batch of 2 prompts, the model runs 3"), images_hidden(model, encoded, [0]):
        model(input_ids=torch.full((3, 4), 30))
    assert is_untouched(model)
