"""Log-probs of given answers against the model's own, and against one prompt at a time without padding."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mia_attention import likelihoods, respond
from mia_attention.answering import likelihood
from mia_attention.answering.model_view import encode_prompts
from mia_augment.errors import DataError

OPTIONS = ["a cat", "two dog on the left", "what"]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_own_answers_are_as_likely_as_when_they_were_given(tiny: SimpleNamespace, name: str) -> None:
    build = tiny.build(name)
    prompts = [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.grid("g"), tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0)]
    own = list(respond(prompts, build.model, build.processor, open_image=tiny.open_image, max_new_tokens=5))
    given = [[response.tokens, response.tokens[:1]] for response in own]
    found = likelihoods(prompts, given, build.model, build.processor, open_image=tiny.open_image, batch_size=2)
    for response, (whole, first) in zip(own, found, strict=True):
        assert whole.tokens == len(response.tokens)
        assert whole.logp / whole.tokens == pytest.approx(response.mean_logp, abs=1e-5)
        assert whole.logp <= first.logp < 0


def test_options_in_a_batch_equal_token_after_token_alone(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    prompts = [
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0),
        tiny.single("x"),
        tiny.sequence("s2", ["a.png", "b.png"], 1),
    ]
    wanted = [OPTIONS, OPTIONS[:1], OPTIONS[1:]]
    found = list(likelihoods(prompts, wanted, build.model, build.processor, open_image=tiny.open_image, batch_size=3))
    assert [len(answers) for answers in found] == [3, 1, 2]
    for prompt, texts, answers in zip(prompts, wanted, found, strict=True):
        images = [[tiny.open_image(image) for image in prompt.images]]
        for text, answer in zip(texts, answers, strict=True):
            inputs = dict(encode_prompts(build.model, build.processor, [prompt.prompt], images).inputs)
            total = 0.0
            for token in build.processor.tokenizer(text, add_special_tokens=False).input_ids:
                with torch.no_grad():
                    total += float(build.model(**inputs).logits[0, -1].float().log_softmax(-1)[token])
                inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
                inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            assert answer.logp == pytest.approx(total, abs=1e-4)
            assert answer.tokens == len(text.split())


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "idefics3"])
def test_a_prompt_run_once_gives_the_same_as_once_per_answer(
    tiny: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny.build(name)
    prompts = [tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0), tiny.grid("g"), tiny.sequence("s2", ["a.png", "b.png"], 1)]
    wanted = [OPTIONS, OPTIONS[:1], OPTIONS[1:]]
    pictures: list[int] = []
    build.model.register_forward_pre_hook(
        lambda _, args, kwargs: pictures.append(kwargs.get("pixel_values") is not None), with_kwargs=True
    )

    def run() -> tuple[list[list[float]], int]:
        pictures.clear()
        found = likelihoods(prompts, wanted, build.model, build.processor, open_image=tiny.open_image, batch_size=3)
        return [[likelihood.logp for likelihood in row] for row in found], sum(pictures)

    shared, times = run()
    monkeypatch.setattr("mia_attention.answering.likelihood.why_not_shared", lambda *_: "for the test")
    apart, times_apart = run()
    assert [len(row) for row in shared] == [3, 1, 2]
    for row, expected in zip(shared, apart, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert (times, times_apart) == (1, 3)


def test_answers_that_cannot_be_scored_are_refused(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    for answers in ([[""]], [["a <image> cat"]], []):
        with pytest.raises(DataError, match="expected"):
            list(likelihoods([tiny.single("x")], answers, build.model, build.processor, open_image=tiny.open_image))


def test_prompts_without_a_further_answer_are_not_run_along(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tiny.build("llava")
    prompts = [tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0), tiny.grid("g"), tiny.sequence("s2", ["a.png", "b.png"], 1)]
    rows: list[int] = []
    go_on = likelihood.go_on

    def counted(model: object, inputs: object, owners: list[int], *rest: object) -> object:
        rows.append(len(owners))
        return go_on(model, inputs, owners, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(likelihood, "go_on", counted)
    wanted = [OPTIONS, OPTIONS[:1], OPTIONS[1:]]
    list(likelihoods(prompts, wanted, build.model, build.processor, open_image=tiny.open_image, batch_size=3))
    assert rows == [3, 2, 1]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_large_vocabulary_is_normalised_for_answers_alone(
    tiny: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of different lengths predict their answers at different positions; only the rows that say something are made."""
    build = tiny.build(name)
    prompts = [tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0), tiny.single("x"), tiny.grid("g")]
    wanted, sizes = [OPTIONS[1:2], OPTIONS[:1], OPTIONS[2:]], []

    def run() -> list[float]:
        found = likelihoods(prompts, wanted, build.model, build.processor, open_image=tiny.open_image, batch_size=3)
        return [likelihood.logp for row in found for likelihood in row]

    whole = run()
    monkeypatch.setattr(likelihood, "MOST_LOGITS", 1)
    monkeypatch.setattr(likelihood, "_AT_ONCE", 3)
    hook = build.model.lm_head.register_forward_hook(lambda _, given, out: sizes.append(out.shape[:-1]))
    try:
        assert run() == pytest.approx(whole, abs=1e-5)
    finally:
        hook.remove()
    words = sum(len(text.split()) for texts in wanted for text in texts)
    assert sizes[0] == (3, 1)  # within the model, of one position a row
    assert sum(shape[0] for shape in sizes[1:]) == words
    assert max(shape[0] for shape in sizes[1:]) == 3
