"""Kinds of hallucination by causes, on a model built by hand so that it is known what each answer comes from."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import ScoreSettings, encode_prompts, find_causes, kind_by_cause, knockout_all
from mia_augment.errors import ConfigError, DataError

RED, BLUE, GREEN, TEXT = range(4)
SETTINGS = ScoreSettings(max_new_tokens=1, disturb=False, batch_size=2)


@contextlib.contextmanager
def seeing(build: Any, sample: Any, tiny: SimpleNamespace, words: dict[str, dict[int, float]]) -> Iterator[Any]:
    """A model of one layer that looks at everything alike; picture k is the unit vector k, and text another one.

    Args:
        words: by what may be said, how much each vector counts for it.
    """
    model = copy.deepcopy(build.model)
    for parameter in model.model.language_model.parameters():
        if parameter.ndim == 2:
            parameter.data.zero_()
    attention = model.model.language_model.layers[0].self_attn
    attention.v_proj.weight.data[:16, :16] = torch.eye(16)
    attention.o_proj.weight.data[:16, :16] = torch.eye(16)
    model.lm_head.weight.data.zero_()
    for word, counts in words.items():
        for vector, count in counts.items():
            model.lm_head.weight.data[build.processor.tokenizer.convert_tokens_to_ids(word), vector] = count
    encoded = encode_prompts(model, build.processor, [sample.prompt], [[tiny.open_image(name) for name in sample.images]])
    length = encoded.prompt_length
    table = torch.zeros(1, length, 64)
    table[..., TEXT] = 1
    for image, tokens in enumerate(encoded.image_tokens[0]):
        table[0, tokens] = torch.eye(64)[image]

    def seen(_: Any, args: Any, kwargs: Any) -> Any:
        states = torch.zeros_like(kwargs["inputs_embeds"])
        states[..., TEXT] = 1
        shared = min(length, states.shape[1])
        states[:, :shared] = table[:, :shared] if states.shape[1] > 1 else states
        return args, {**kwargs, "inputs_embeds": states}

    handle = model.model.language_model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        yield model
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("words", "answer", "without", "kind"),
    [
        ({"blue": {BLUE: 9.0}, "red": {RED: 4.0}}, "blue", ["blue", "red", "blue"], "sequence_confusion"),
        ({"two": {BLUE: 10.0, GREEN: 10.0}, "red": {RED: 15.0}}, "two", ["two", "red", "red"], "element_interference"),
        ({"cat": {RED: 9.0}, "dog": {TEXT: 0.01}}, "cat", ["dog", "cat", "cat"], "focused"),
        ({"dog": {TEXT: 1.0}}, "dog", ["dog", "dog", "dog"], None),
    ],
)
def test_the_kind_is_that_of_the_pictures_the_answer_comes_from(
    tiny: SimpleNamespace, words: Any, answer: str, without: list[str], kind: str | None
) -> None:
    build = tiny.build("llava")
    sample = tiny.sequence("s", ["a.png", "b.png", "c.png"], RED)
    with seeing(build, sample, tiny, words) as model:
        [found] = find_causes([sample], model, build.processor, SETTINGS, open_image=tiny.open_image)
        ids = [build.processor.tokenizer.convert_tokens_to_ids(answer)]
        [lost] = knockout_all([sample], [ids], model, build.processor, SETTINGS, open_image=tiny.open_image)
    assert (found.answer, found.without, found.kind) == (answer, dict(enumerate(without)), kind)
    assert found.changed == [image for image, other in enumerate(without) if other != answer]
    for image in found.changed:  # an answer loses most where it changes
        assert lost.loss[image] > max([lost.loss[other] for other in range(3) if other not in found.changed], default=0) + 0.01


def test_kinds_are_told_by_the_pictures_that_change_the_answer() -> None:
    assert kind_by_cause(1, [0, 1]) == "sequence_confusion"
    assert kind_by_cause(1, [0, 1, 2]) == kind_by_cause(1, [2, 0]) == "element_interference"
    assert kind_by_cause(1, [1]) == "focused"
    assert kind_by_cause(1, []) is None


def test_parts_of_composed_pictures_are_hidden_by_their_boxes(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava", strong=True)
    samples = [tiny.grid("g"), tiny.pic_in_pic("p"), tiny.sequence("s", ["a.png", "b.png"], 0)]
    settings = ScoreSettings(disturb=False, batch_size=3)
    options = {"open_image": tiny.open_image}
    found = list(knockout_all(samples, ["a cat", "a dog", "two"], build.model, build.processor, settings, **options))
    assert [sorted(one.loss) for one in found[1:]] == [[0, 1], [0, 1]]
    assert all(abs(loss) > 1e-6 for one in found[1:] for loss in one.loss.values())
    some = list(knockout_all(samples[2:], ["two"], build.model, build.processor, settings, images=[1], **options))
    assert some[0].loss == pytest.approx({1: found[2].loss[1]}, abs=1e-4)
    with pytest.raises(ConfigError, match=r"sample s: expected images from 0 to 1, got 2"):
        list(knockout_all(samples[2:], ["two"], build.model, build.processor, settings, images=[2], **options))
    with pytest.raises(DataError, match=r"expected a response for each of 3 samples, got 1"):
        list(knockout_all(samples, ["two"], build.model, build.processor, settings, **options))
    with pytest.raises(DataError, match=r"sample s: "):
        list(knockout_all(samples[2:], [""], build.model, build.processor, settings, **options))
