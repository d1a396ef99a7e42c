"""Greedy answers without attention."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import respond
from mia_attention.generate import answer_lengths
from mia_augment.errors import DataError


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


def parts(prompt: str) -> list[dict[str, str]]:
    texts = prompt.split("<image>")
    content: list[dict[str, str]] = [{"type": "text", "text": texts[0]}]
    for text in texts[1:]:
        content += [{"type": "image"}, {"type": "text", "text": text}]
    return content


def test_model_generation_settings_do_not_change_greedy_answers(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    samples = [tiny.single("x")]

    def run() -> Any:
        return list(respond(samples, build.model, build.processor, open_image=tiny.open_image, max_new_tokens=8))

    plain, config = run(), build.model.generation_config
    config.do_sample, config.repetition_penalty, config.temperature = True, 5.0, 3.0
    try:
        assert run() == plain
    finally:
        config.do_sample, config.repetition_penalty, config.temperature = None, None, None


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


def test_a_refused_picture_is_an_error_that_names_the_samples(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")  # refuses aspect ratios above 200
    with pytest.raises(DataError, match="one of the samples x: the model's processor refuses it: absolute aspect ratio"):
        list(respond([tiny.single("x")], qwen.model, qwen.processor, open_image=lambda _: tiny.picture(600, 2)))


def test_answers_end_with_their_first_end_token() -> None:
    tokens = torch.tensor([[5, 2, 0, 0], [5, 6, 7, 8], [2, 2, 0, 0], [5, 6, 7, 3]])
    assert answer_lengths(tokens, [2, 3]).tolist() == [2, 4, 1, 4]
    assert answer_lengths(tokens, []).tolist() == [4, 4, 4, 4]
