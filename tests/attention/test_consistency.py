"""Sampled answers: drawn as the model's probabilities say, the same whatever the batch; and how many agree."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mia_attention import ScoreSettings, respond
from mia_attention.measure.prompt_states import last_prompt_states
from mia_attention.readouts import AnsweredBatch
from mia_attention.scoring import self_consistency
from mia_attention.scoring.self_consistency import GumbelNoise, consistencies
from mia_augment.records import Sample

SETTINGS = ScoreSettings(layer="consistency", batch_size=3, max_new_tokens=4, draws=4)


def samples_of(tiny: SimpleNamespace) -> list[Sample]:
    return [
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 2),
        tiny.grid("g"),
        tiny.sequence("s2", ["a.png", "b.png"], 0),
        tiny.pic_in_pic("p"),
    ]


def test_draws_follow_the_probabilities_at_each_temperature() -> None:
    scores = torch.tensor([0.6, 0.3, 0.1]).log()[None]
    for temperature in (1.0, 0.5):
        drawn = torch.zeros(3)
        noise = GumbelNoise([7], temperature)
        for _ in range(4000):
            drawn[int(noise(torch.empty(1, 0), scores).argmax())] += 1
        expected = (scores[0] / temperature).softmax(0)
        assert (drawn / 4000).tolist() == pytest.approx(expected.tolist(), abs=0.03)  # 3.9 standard errors at most
    barred = GumbelNoise([1])(torch.empty(1, 0), torch.tensor([[-torch.inf, 0.0]]))
    assert int(barred.argmax()) == 1


def test_a_row_draws_the_same_in_any_batch() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    whole = GumbelNoise([1, 2, 3])(torch.empty(3, 0), scores)
    alone = GumbelNoise([2])(torch.empty(1, 0), scores[1:2])
    assert torch.equal(whole[1:2], alone)
    assert not torch.equal(whole[0] - scores[0], whole[1] - scores[1])


def test_what_is_drawn_depends_on_seed_and_id_alone(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")

    def drawn(samples: list[Sample], draw: int = 0, **changes: object) -> dict[str, str]:
        settings = SETTINGS.model_copy(update=changes)
        batch = AnsweredBatch(samples, [[]] * len(samples), build.model, build.processor, settings, tiny.open_image)
        return dict(zip([sample.id for sample in samples], self_consistency._drawn(batch, draw), strict=True))

    samples = samples_of(tiny)
    first = drawn(samples)
    assert len(set(first.values())) > 1
    assert first == drawn(samples[::-1], batch_size=1)
    assert first != drawn(samples, draw=1)
    assert first != drawn(samples, seed=1)
    said = respond(samples, build.model, build.processor, open_image=tiny.open_image, max_new_tokens=4)
    greedy = dict(zip(first, (response.text for response in said), strict=True))
    assert drawn(samples, temperature=1e-4, disturb=False) == greedy


def test_agreement_is_counted_after_normalising(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tiny.build("llava")
    tokenizer = build.processor.tokenizer
    said = [["The cat!", "a dog"], ["cat", "a dog"], ["cat", "two"], ["left", "two"]]
    monkeypatch.setattr(self_consistency, "_drawn", lambda batch, draw: said[draw])
    answers = [tokenizer("a cat", add_special_tokens=False).input_ids, tokenizer("two", add_special_tokens=False).input_ids]
    batch = AnsweredBatch(samples_of(tiny)[:2], answers, build.model, build.processor, SETTINGS, tiny.open_image)
    assert [attention.ratio for attention in consistencies(batch)] == [0.75, 0.5]
    nothing = AnsweredBatch(samples_of(tiny)[:2], [[], answers[1]], build.model, build.processor, SETTINGS, tiny.open_image)
    assert [attention.ratio for attention in consistencies(nothing)] == [None, 0.5]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_states_of_the_last_prompt_token_are_those_of_one_prompt_at_a_time(tiny: SimpleNamespace, name: str) -> None:
    build = tiny.build(name)
    samples = samples_of(tiny)
    settings = ScoreSettings(batch_size=4)
    found = last_prompt_states(samples, build.model, build.processor, settings, open_image=tiny.open_image)
    single = settings.model_copy(update={"batch_size": 1})
    alone = last_prompt_states(samples, build.model, build.processor, single, open_image=tiny.open_image)
    assert found.shape[0] == 4
    assert found == pytest.approx(alone, abs=1e-4)
