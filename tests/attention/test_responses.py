"""Greedy answers without attention."""

from __future__ import annotations

import copy
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from mia_attention import delimiters_scaled, respond
from mia_attention.answering.generate import answer_lengths
from mia_attention.answering.responses import try_respond
from mia_augment.errors import DataError
from mia_augment.prompting.end_tokens import end_tokens, stop_ids, turn_end


def test_answers_keep_order_and_equal_plain_generation(tiny: SimpleNamespace) -> None:
    build = tiny.build("qwen2_vl")
    samples = [
        tiny.single("x"),
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0),
        tiny.sequence("s2", ["b.png", "c.png"], 0),
    ]
    together = list(respond(samples, build.model, build.processor, open_image=tiny.open_image, batch_size=3, max_new_tokens=5))
    for sample, got in zip(samples, together, strict=True):
        text = build.processor.apply_chat_template([{"role": "user", "content": parts(sample.prompt)}])
        images = [tiny.open_image(name) for name in sample.images]
        inputs = build.processor(images=images, text=[text], return_tensors="pt")
        tokens = build.model.generate(**inputs, max_new_tokens=5, do_sample=False, repetition_penalty=1.0)
        tokens = tokens[0, inputs["input_ids"].shape[1] :]
        assert got.tokens == tuple(tokens.tolist())
        assert got.text == build.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert got.perplexity == pytest.approx(math.exp(-got.mean_logp))


def test_answers_can_be_given_within_a_change_of_the_model_that_single_pictures_do_not_feel(tiny: SimpleNamespace) -> None:
    build = tiny.build("qwen2_5_vl", strong=True)
    samples = [tiny.single("x"), tiny.sequence("s2", ["b.png", "c.png"], 0)]
    options = {"open_image": tiny.open_image, "batch_size": 2, "max_new_tokens": 4}
    plain = list(try_respond(samples, build.model, build.processor, **options))
    scaled = list(try_respond(samples, build.model, build.processor, **options, within=partial(delimiters_scaled, scale=8.0)))
    assert scaled[0].mean_logp == pytest.approx(plain[0].mean_logp, abs=1e-5)
    assert abs(scaled[1].mean_logp - plain[1].mean_logp) > 1e-3
    assert list(try_respond(samples, build.model, build.processor, **options)) == plain


def parts(prompt: str) -> list[dict[str, str]]:
    """The content of the message as the family's own format has it: no line break between a first picture and its question."""
    texts = prompt.split("<image>")
    if not texts[0]:
        texts[1] = texts[1].lstrip()
    content: list[dict[str, str]] = [{"type": "text", "text": texts[0]}] if texts[0] else []
    for text in texts[1:]:
        content += [{"type": "image"}, {"type": "text", "text": text}]
    return content


SETTINGS_OF_CHECKPOINTS: dict[str, Any] = {
    "do_sample": True, "temperature": 3.0, "num_beams": 3, "num_return_sequences": 2, "repetition_penalty": 5.0,
    "encoder_repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "encoder_no_repeat_ngram_size": 1, "min_length": 500,
    "min_new_tokens": 7, "max_length": 3, "max_time": 1e-9, "forced_bos_token_id": 9, "forced_eos_token_id": 2,
    "begin_suppress_tokens": [9], "guidance_scale": 3.0, "remove_invalid_values": True,
    "exponential_decay_length_penalty": (1, 9.0),
    "watermarking_config": {"bias": 9.0, "hashing_key": 15485863, "seeding_scheme": "lefthash", "context_width": 1},
    "stop_strings": ["a", "cat"], "prompt_lookup_num_tokens": 3, "cache_implementation": "quantized", "use_cache": False,
    "return_dict_in_generate": True, "output_attentions": True, "output_scores": True, "token_healing": True,
    "dola_layers": "low", "penalty_alpha": 0.6, "constraints": ["a"], "a_setting_of_tomorrow": 1,
}  # fmt: skip


def barring(tokens: list[int]) -> dict[str, Any]:
    """Settings that would take these tokens away from an answer."""
    return {
        "bad_words_ids": [[token] for token in tokens],
        "suppress_tokens": tokens,
        "sequence_bias": [[[token], -100.0] for token in tokens],
    }


def test_no_generation_setting_of_a_checkpoint_changes_greedy_answers(tiny: SimpleNamespace, caplog: Any) -> None:
    build = tiny.build("llava")
    samples = [tiny.single("x"), tiny.sequence("s2", ["b.png", "c.png"], 0)]

    def run() -> Any:
        return list(respond(samples, build.model, build.processor, open_image=tiny.open_image, max_new_tokens=8))

    plain, kept = run(), build.model.generation_config
    for name, value in {**SETTINGS_OF_CHECKPOINTS, **barring(sorted(set(plain[0].tokens)))}.items():
        build.model.generation_config = changed = copy.deepcopy(kept)
        setattr(changed, name, value)
        try:
            assert run() == plain, name
            assert build.model.generation_config is changed, f"{name}: the model's own settings are to be as before"
        finally:
            build.model.generation_config = kept


def test_an_error_leaves_the_models_generation_settings_as_they_were(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny.build("llava")
    kept = build.model.generation_config
    answers = respond([tiny.single("x")], build.model, build.processor, open_image=tiny.open_image, max_new_tokens=2)
    monkeypatch.setattr(build.model.lm_head, "forward", lambda _: {}["broken"])
    with pytest.raises(KeyError):
        list(answers)
    assert build.model.generation_config is kept


def test_settings_of_a_model_within_an_adapter_are_put_away_too(tiny: SimpleNamespace) -> None:
    from peft import LoraConfig, get_peft_model

    build = tiny_models.build("llava")
    samples = [tiny.single("x")]

    def run(model: Any) -> Any:
        return list(respond(samples, model, build.processor, open_image=tiny.open_image, max_new_tokens=6))

    plain = run(build.model)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])  # B is 0: the same model
    build.model.generation_config.suppress_tokens = kept = sorted(set(plain[0].tokens))
    adapted = get_peft_model(build.model, config)
    assert run(adapted) == plain
    assert adapted.generation_config.suppress_tokens == build.model.generation_config.suppress_tokens == kept


TURNS = {  # what follows an answer, and the token that ends it
    "<turn|>\n": "<turn|>",
    "\n<|user|>": "<|user|>",
    " <s>": "<s>",
    "</s>": "</s>",
    " USER :": None,
    "\n\n": None,
}


@pytest.mark.parametrize("after", TURNS)
def test_the_end_of_a_turn_is_read_from_the_chat_template(tiny: SimpleNamespace, after: str) -> None:
    tokenizer = tiny.tokenizer(["<|user|>", "<turn|>", "<turn|>x"])
    said = "{% for m in messages %}[{{ m.role }}] {{ m.content[0].text }}" + after + "{% endfor %}"
    processor = SimpleNamespace(
        tokenizer=tokenizer,
        chat_template=said,
        apply_chat_template=lambda messages, **more: tokenizer.apply_chat_template(messages, chat_template=said, **more),
    )
    token = TURNS[after]
    assert turn_end(processor) == (None if token is None else tokenizer.convert_tokens_to_ids(token))


@pytest.mark.parametrize(
    "template", [None, "{{ raise_exception('expected a system message') }}", "{{ messages[7].content }}", "x"]
)
def test_a_template_that_says_nothing_of_answers_names_no_end(tiny: SimpleNamespace, template: str | None) -> None:
    tokenizer = tiny.tokenizer([])
    processor = SimpleNamespace(
        tokenizer=tokenizer,
        chat_template=template,
        apply_chat_template=lambda messages, **more: tokenizer.apply_chat_template(messages, chat_template=template, **more),
    )
    assert turn_end(processor) is None


@pytest.mark.parametrize("where", ["generation settings", "tokenizer", "chat template"])
def test_answers_stop_at_an_end_token_whoever_names_it(tiny: SimpleNamespace, where: str) -> None:
    build = tiny_models.build("llava")
    tokenizer, head = build.processor.tokenizer, build.model.lm_head.weight
    head.data[len(tokenizer) :] = head.data[5]  # the model has more tokens than the tokenizer; of equal ones it says the first

    def run() -> Any:
        (found,) = respond([tiny.single("x")], build.model, build.processor, open_image=tiny.open_image, max_new_tokens=8)
        return found

    plain = run()
    token = plain.tokens[1]
    assert len(plain.tokens) == 8
    word = tokenizer.convert_ids_to_tokens(token)
    if where == "generation settings":
        build.model.generation_config.eos_token_id = [2, token]
    elif where == "tokenizer":
        tokenizer.eos_token = word
    else:
        tokenizer.add_tokens([word])  # an ordinary word to the tokenizer, no special one
        template = tiny_models.TEMPLATE.replace("IMAGE_TOKENS", "<image>")
        build.processor.chat_template = template.replace("{% endfor %}{% endfor %}", "{% endfor %}" + word + "{% endfor %}")
        assert turn_end(build.processor) == token
    stop = run()
    assert stop.tokens[-1] == token
    assert token not in stop.tokens[:-1]
    assert word not in stop.text.split()


def test_the_decoders_configuration_names_the_end_only_where_nothing_else_does(tiny: SimpleNamespace) -> None:
    model = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=None),
        config=SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(eos_token_id=17)),
    )
    silent = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=None))
    assert end_tokens(model, silent) == [17]
    known = SimpleNamespace(tokenizer=tiny.tokenizer([]))
    assert end_tokens(model, known) == [2]
    assert (stop_ids(model, silent), stop_ids(model, known)) == ([17], [2])


def test_an_answer_never_holds_a_visual_token(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    token = build.model.config.image_token_id
    head = build.model.lm_head.weight
    kept = head.detach().clone()
    signs = torch.sign(torch.randn(head.shape[1], generator=torch.Generator().manual_seed(0)))
    head.data[token] = head.data.mean(0) + signs  # its logit is 13 here, all others are below 1
    try:
        sample = tiny.single("x")
        answers = [*respond([sample], build.model, build.processor, open_image=tiny.open_image, max_new_tokens=8)]
        assert token not in answers[0].tokens
    finally:
        head.data.copy_(kept)


def test_a_refused_picture_is_an_error_that_names_the_sample(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")  # refuses aspect ratios above 200
    with pytest.raises(DataError, match="sample x: the model's processor refuses it: absolute aspect ratio"):
        list(respond([tiny.single("x")], qwen.model, qwen.processor, open_image=lambda _: tiny.picture(600, 2)))


def test_answers_end_with_their_first_end_token() -> None:
    tokens = torch.tensor([[5, 2, 0, 0], [5, 6, 7, 8], [2, 2, 0, 0], [5, 6, 7, 3]])
    assert answer_lengths(tokens, [2, 3]).tolist() == [2, 4, 1, 4]
    assert answer_lengths(tokens, []).tolist() == [4, 4, 4, 4]
