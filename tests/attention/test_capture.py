"""Capturing leaves a model as it was, on every path, and refuses what it cannot do right."""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from flash_stand_in import flash_stand_in
from mia_attention import capture_attention, capture_rollout
from mia_attention.models.decoder import decoder_layers, middle_layer
from mia_augment.errors import ModelError

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
IDS = torch.arange(24).view(2, 12) + 5


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**TINY)).eval()


def is_untouched(model: Any) -> bool:
    modules = decoder_layers(model).values()
    return all(module.config is model.config and "_mia_attention_probe" not in module.__dict__ for module in modules)


def test_everything_is_restored_when_the_body_raises(llama: Any) -> None:
    with pytest.raises(ZeroDivisionError), capture_attention(llama, [0, 2]):
        raise ZeroDivisionError
    assert is_untouched(llama)


def test_everything_is_restored_when_a_later_layer_is_wrong(llama: Any) -> None:
    with pytest.raises(ModelError, match="layer 9"), capture_attention(llama, [0, 9]):
        pass
    assert is_untouched(llama)


def test_nested_captures_see_their_own_layers_and_one_layer_twice_is_refused(llama: Any) -> None:
    with capture_attention(llama, [0], rows="all") as outer, capture_attention(llama, [1], rows="all") as inner:
        llama(IDS)
        with pytest.raises(ModelError, match="layer 1 is being captured already"), capture_attention(llama, [2, 1]):
            pass
    with capture_attention(llama, [0, 1], rows="all") as together:
        llama(IDS)
    assert torch.equal(outer.attention(0), together.attention(0))
    assert torch.equal(inner.attention(1), together.attention(1))
    assert torch.equal(together.attention(), (together.attention(0) + together.attention(1)) / 2)
    assert is_untouched(llama)


def test_another_thread_is_refused(llama: Any) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            llama(IDS)
        except ModelError as error:
            errors.append(error)

    with capture_attention(llama, [0]):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert "another thread" in str(errors[0])


def test_stopping_ends_the_pass_after_the_last_chosen_layer(llama: Any) -> None:
    reached: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *_, layer=layer: reached.append(layer))
        for layer, module in decoder_layers(llama).items()
    ]
    with capture_attention(llama, [0, 1], rows="all", stop=True) as captured:
        llama(IDS)
    for hook in hooks:
        hook.remove()
    assert reached == [0]  # layer 1 is left in the middle of its attention
    llama.set_attn_implementation("eager")
    expected = llama(IDS, output_attentions=True).attentions[1].mean(1)
    llama.set_attn_implementation("sdpa")
    torch.testing.assert_close(captured.attention(1), expected, atol=1e-6, rtol=0)
    assert is_untouched(llama)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_chosen_rows_of_padded_prompts_on_sdpa_and_eager(llama: Any, implementation: str) -> None:
    mask = torch.ones_like(IDS)
    mask[0, :5] = 0
    llama.set_attn_implementation("eager")
    expected = llama(IDS, attention_mask=mask, output_attentions=True).attentions[2].mean(1)
    llama.set_attn_implementation(implementation)
    with capture_attention(llama, [2], rows=(6, 9)) as captured:
        llama(IDS, attention_mask=mask)
    llama.set_attn_implementation("sdpa")
    torch.testing.assert_close(captured.attention(2), expected[:, 6:9], atol=1e-6, rtol=0)
    assert (captured.first, captured.rows, captured.length) == (6, 3, 12)


def test_static_cache_gives_the_same_rows_as_a_growing_one(llama: Any) -> None:
    greedy: dict[str, Any] = {
        "max_new_tokens": 4,
        "min_new_tokens": 4,
        "do_sample": False,
        "pad_token_id": 0,
        "disable_compile": True,
    }
    rows = []
    for cache in ("dynamic", "static"):
        with capture_attention(llama, [3]) as captured:
            llama.generate(IDS, cache_implementation=cache, **greedy)
        rows.append(captured.attention(3))
    torch.testing.assert_close(rows[0], rows[1], atol=1e-6, rtol=0)


def test_value_weighting_multiplies_attention_by_value_lengths(llama: Any) -> None:
    values: list[torch.Tensor] = []
    module: Any = decoder_layers(llama)[0]
    hook = module.v_proj.register_forward_hook(lambda _, __, out: values.append(out))
    with capture_attention(llama, [0], rows="all", value_weighted=True) as captured:
        llama(IDS)
    hook.remove()
    lengths = values[0].view(2, 12, 2, 8).norm(dim=-1).transpose(1, 2).repeat_interleave(2, 1)
    llama.set_attn_implementation("eager")
    weighted = (llama(IDS, output_attentions=True).attentions[0] * lengths[:, :, None]).mean(1)
    llama.set_attn_implementation("sdpa")
    torch.testing.assert_close(captured.attention(0), weighted / weighted.sum(-1, keepdim=True), atol=1e-6, rtol=0)


def dense_rollout(attentions: Any, rows: torch.Tensor) -> torch.Tensor:
    """Rollout as its authors define it, with whole matrices."""
    product = torch.eye(rows.shape[1])[None]
    for attention in attentions:  # from the first layer up
        product = (0.5 * torch.eye(rows.shape[1]) + 0.5 * attention.mean(1)) @ product
    return (rows[:, None] @ product)[:, 0]


def test_rollout_equals_the_product_of_whole_matrices(llama: Any) -> None:
    mask = torch.ones_like(IDS)
    mask[1, :4] = 0
    rows = torch.zeros(2, 12)
    rows[:, 8:10] = 0.5
    llama.set_attn_implementation("eager")
    expected = dense_rollout(llama(IDS, attention_mask=mask, output_attentions=True).attentions, rows)
    llama.set_attn_implementation("sdpa")
    with capture_rollout(llama) as traced:
        llama(IDS, attention_mask=mask)
    got = traced.rollout(rows)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert got.sum(1).tolist() == pytest.approx([1, 1])


def test_rollout_while_generating_equals_one_pass_over_prompt_and_answer(tiny: SimpleNamespace) -> None:
    for name in ("llava", "gemma3"):  # gemma3: sliding layers whose cache drops keys
        model, processor, tag = (getattr(tiny.build(name), key) for key in ("model", "processor", "tag"))
        inputs = processor(images=[[tiny.picture(60, 60)]], text=[f"user : {tag} what is in image ?"], return_tensors="pt")
        prompt = inputs["input_ids"].shape[1]
        with capture_rollout(model) as traced:
            tokens = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)[:, :-1]
        rows = torch.zeros(1, prompt + 5)
        rows[:, prompt:] = 0.2
        whole = {**inputs, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if "token_type_ids" in whole:
            whole["token_type_ids"] = torch.nn.functional.pad(whole["token_type_ids"], (0, 5))
        model.set_attn_implementation("eager")
        expected = dense_rollout(model(**whole, output_attentions=True).attentions, rows)
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(traced.rollout(rows), expected, atol=1e-6, rtol=0)


def test_middle_is_half_of_the_layers_or_the_nearest_that_sees_everything(llama: Any, tiny: SimpleNamespace) -> None:
    assert middle_layer(llama) == 2
    assert middle_layer(tiny.build("gemma3").model) == 1  # 0 and 2 slide
    deep = copy.deepcopy(llama.config)
    deep.num_hidden_layers, deep.hidden_size, deep.intermediate_size = 32, 8, 8
    assert middle_layer(hf.LlamaForCausalLM(deep)) == 16


def test_a_sliding_layer_is_warned_about(tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), capture_attention(tiny.build("gemma3").model, [0, 1]):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        "layer 0 sees at most 12 tokens back: early images may be out of its sight; full layers are 1, 3"
    ]


def test_what_a_sink_in_the_softmax_takes_is_missing_from_the_row() -> None:
    config = hf.GptOssConfig(
        **TINY, head_dim=8, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"] * 4, pad_token_id=0
    )
    torch.manual_seed(0)
    model = hf.GptOssForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    torch.nn.init.normal_(model.model.layers[1].self_attn.sinks)
    ids = torch.randint(5, TINY["vocab_size"], (2, 7))
    with capture_attention(model, [1], rows="all") as captured, torch.no_grad():
        model(ids)
    with capture_attention(model, [1], rows="all", heads=True) as of_heads, torch.no_grad():
        expected = model(ids, output_attentions=True).attentions[1]
    torch.testing.assert_close(captured.attention(1), expected.mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(of_heads.heads(1), expected.transpose(1, 2), atol=1e-6, rtol=0)
    assert (expected.sum(-1) < 0.99).any()


def test_images_outside_self_attention_are_refused() -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type="mllama", cross_attention_layers=[3]))
    with pytest.raises(ModelError, match=r"mllama: .*cross-attention"):
        decoder_layers(model)


def test_flex_attention_is_refused(llama: Any) -> None:
    with capture_attention(llama, [0]):
        module: Any = decoder_layers(llama)[0]
        from mia_attention.capture.hook import _Given, _observe

        state = module.__dict__["_mia_attention_probe"]
        with pytest.raises(ModelError, match="cannot be read"):
            _observe(state, _Given(module, *[torch.zeros(1, 4, 2, 8)] * 3, mask=object(), kwargs={}))


def test_nothing_captured_is_an_error(llama: Any) -> None:
    with capture_attention(llama, [0]) as captured:
        llama(IDS)  # a prompt only: no generated row
    assert captured.rows == 0
    with pytest.raises(ModelError, match="no attention row"):
        captured.attention(0)
    with pytest.raises(ModelError, match="at least one layer"), capture_attention(llama, []):
        pass


@torch.no_grad()
def test_rows_on_a_filled_cache_equal_those_of_one_pass(llama: Any) -> None:
    with capture_attention(llama, [2], rows=(6, None)) as whole:
        llama(IDS)
    cache = hf.DynamicCache(config=llama.config)
    llama(IDS[:, :5], past_key_values=cache)
    with pytest.raises(ModelError, match=r"more than 0 positions .* past=cache.get_seq_length"), capture_attention(llama, [2]):
        llama(IDS[:, 5:], past_key_values=copy.deepcopy(cache))
    with pytest.raises(ModelError, match="rollout needs all positions"), capture_rollout(llama):
        llama(IDS[:, 5:], past_key_values=copy.deepcopy(cache))
    with pytest.raises(ModelError, match="expected a cache of 6 positions, got 5"), capture_attention(llama, [2], past=6):
        llama(IDS[:, 5:], past_key_values=copy.deepcopy(cache))
    with capture_attention(llama, [2], rows=(6, None), past=5) as captured:
        llama(IDS[:, 5:9], past_key_values=cache)
        llama(IDS[:, 9:], past_key_values=cache)
    torch.testing.assert_close(captured.attention(2), whole.attention(2), atol=1e-6, rtol=0)
    assert (captured.first, captured.rows, captured.length) == (6, 6, 12)


@pytest.mark.parametrize("capture", [lambda model: capture_attention(model, [0]), capture_rollout])
def test_a_second_sequence_or_a_missing_cache_is_refused(llama: Any, capture: Any) -> None:
    with pytest.raises(ModelError, match="a second sequence began"), capture(llama):
        [llama(IDS) for _ in range(2)]
    with pytest.raises(ModelError, match="runs without a cache"), capture(llama):
        llama.generate(IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False, use_cache=False, pad_token_id=0)
    assert is_untouched(llama)


def test_rows_beside_a_flash_kernel_that_gets_masks_of_its_own_kind(llama: Any) -> None:
    mask = torch.ones_like(IDS)
    mask[0, :5] = 0
    greedy: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    rows = []
    for padding in (mask, torch.ones_like(IDS)):
        for beside in (flash_stand_in(llama.config), contextlib.nullcontext()):
            with beside, capture_attention(llama, [2], rows="predicting") as captured:
                llama.generate(IDS, attention_mask=padding, **greedy)
            rows.append(captured.attention(2))
    torch.testing.assert_close(rows[0], rows[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[2], rows[3], atol=1e-6, rtol=0)
