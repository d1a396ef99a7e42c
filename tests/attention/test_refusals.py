"""A picture or prompt that cannot be used costs its own record; errors of the model or the machine are not put down to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import likelihoods, try_likelihoods, try_respond
from mia_attention.answering.part_answers import ask_parts
from mia_attention.answering.usable import Usable, encode_usable
from mia_attention.scoring.scorer import score
from mia_attention.settings import ScoreSettings
from mia_augment.errors import ConfigError, DataError, ModelError
from mia_augment.prompting.refusals import refusal
from mia_augment.records import Skipped
from PIL import Image

REASON = "the model's processor refuses it: "


def encode(items: Any) -> str:
    for item in items:
        if isinstance(item, Exception):
            raise item
    return "".join(items)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too thin"),
        ZeroDivisionError("division by zero"),
        IndexError("list index out of range"),
        KeyError("size"),
        RuntimeError("Input and output sizes should be greater than 0"),
        AssertionError("height"),
        StopIteration(),
        OSError("image file is truncated"),
        OverflowError("too large"),
    ],
)
def test_whatever_a_processor_raises_costs_one_record(error: Exception) -> None:
    usable = encode_usable(["a", error, "b", DataError("no such file")], list("abcd"), encode)
    assert (usable.encoded, usable.kept) == ("ab", [0, 2])
    refused = {1: Skipped(id="b", reason=REASON + (str(error) or "StopIteration")), 3: Skipped(id="d", reason="no such file")}
    assert usable.refused == refused
    assert usable.in_order(["A", "B"]) == ["A", refused[1], "B", refused[3]]
    assert encode_usable([error], ["a"], encode).encoded is None
    both = {index: Skipped(id=name, reason=str(refusal(error))) for index, name in enumerate("ab")}
    assert encode_usable([error, error], ["a", "b"], encode) == Usable(None, [], both)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("no chat template"),
        ConfigError("unknown layer"),
        TypeError("unexpected keyword"),
        AttributeError("no such attribute"),
        NotImplementedError(),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
    ],
)
def test_errors_that_are_no_records_fault_end_the_run(error: Exception) -> None:
    with pytest.raises(type(error)):
        encode_usable(["a", error], ["a", "b"], encode)


def test_a_batch_that_fails_only_as_a_whole_is_an_error() -> None:
    def one_by_one(items: Any) -> str:
        if len(items) > 1:
            raise ValueError("shapes differ")
        return str(items[0])

    with pytest.raises(ModelError, match=r"only one by one: .*shapes differ"):
        encode_usable(["a", "b"], ["a", "b"], one_by_one)


def test_a_long_message_is_cut() -> None:
    reason = refusal(ValueError("x\n" * 5000))
    assert reason is not None
    assert len(reason) < 400


def odd_samples(tiny: SimpleNamespace, token: str) -> tuple[list[Any], Any]:
    """Sound samples, between them one with a picture too thin for Qwen, one without its file, one with the model's token."""
    sound = [tiny.single(name) for name in ("a", "b", "c")]
    thin, lost = (tiny.single(name).model_copy(update={"images": [f"{name}.png"]}) for name in ("thin", "lost"))
    token_in_it = tiny.single("token").model_copy(update={"prompt": f"<image>\nwhat is {token} ?"})

    def open_image(name: str) -> Image.Image:
        if name == "lost.png":
            raise DataError("image 'lost.png': no such file")
        picture: Image.Image = tiny.picture(600, 1) if name == "thin.png" else tiny.open_image(name)
        return picture

    return [sound[0], thin, sound[1], lost, token_in_it, sound[2]], open_image


def check(results: list[Any], token: str, expected: list[Any]) -> None:
    assert [result.id for result in results if isinstance(result, Skipped)] == ["thin", "lost", "token"]
    reasons = [result.reason for result in results if isinstance(result, Skipped)]
    assert reasons[0].startswith(REASON + "absolute aspect ratio")
    assert reasons[1] == "image 'lost.png': no such file"
    assert reasons[2].startswith(f"the question holds '{token}', which stands for a picture")
    assert [result for result in results if not isinstance(result, Skipped)] == expected


@pytest.mark.parametrize("batch_size", [1, 6])
def test_answering_goes_on_without_them(tiny: SimpleNamespace, batch_size: int) -> None:
    qwen = tiny.build("qwen2_vl")
    samples, open_image = odd_samples(tiny, "<|image_pad|>")
    options = {"open_image": open_image, "batch_size": batch_size, "max_new_tokens": 3}
    found = list(try_respond(samples, qwen.model, qwen.processor, **options))
    sound = list(try_respond([samples[index] for index in (0, 2, 5)], qwen.model, qwen.processor, **options))
    check(found, "<|image_pad|>", sound)


def test_judging_options_goes_on_without_them(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")
    samples, open_image = odd_samples(tiny, "<|video_pad|>")
    said = [["red", "blue dog"]] * len(samples)
    found = list(try_likelihoods(samples, said, qwen.model, qwen.processor, open_image=open_image))
    sound = [samples[index] for index in (0, 2, 5)]
    check(found, "<|video_pad|>", list(likelihoods(sound, said[:3], qwen.model, qwen.processor, open_image=open_image)))
    with pytest.raises(DataError, match="sample thin: the model's processor refuses it"):
        list(likelihoods(samples, said, qwen.model, qwen.processor, open_image=open_image))


def test_scoring_goes_on_without_them(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")
    samples, open_image = odd_samples(tiny, "<|image_pad|>")
    skipped: list[Skipped] = []
    settings = ScoreSettings(max_new_tokens=3, batch_size=6, disturb=False)
    scored = list(score(samples, qwen.model, qwen.processor, settings, open_image=open_image, on_skip=skipped.append))
    check([*scored, *skipped], "<|image_pad|>", scored)
    assert [sample.id for sample in scored] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("family", "token"), [("gemma3", "<image_soft_token>"), ("internvl", "<IMG_CONTEXT>"), ("mistral3", "[IMG]")]
)
def test_a_models_own_token_in_a_question_costs_the_question(tiny: SimpleNamespace, family: str, token: str) -> None:
    build = tiny.build(family)
    odd = tiny.single("odd").model_copy(update={"prompt": f"<image>\nwhat is {token} ?"})
    found = list(
        try_respond([tiny.single("a"), odd], build.model, build.processor, open_image=tiny.open_image, max_new_tokens=2)
    )
    assert isinstance(found[1], Skipped)
    assert token in found[1].reason
    assert not isinstance(found[0], Skipped)


def test_a_companion_that_is_refused_has_no_answer(tiny: SimpleNamespace) -> None:
    qwen = tiny.build("qwen2_vl")
    sample = tiny.sequence("s3", ["a.png", "b.png", "c.png"], 1)
    thin = sample.source.paths[(sample.target + 1) % 3]

    def open_image(name: str) -> Image.Image:
        picture: Image.Image = tiny.picture(600, 1) if name == thin else tiny.open_image(name)
        return picture

    found = ask_parts([sample], qwen.model, qwen.processor, open_image=open_image, batch_size=4, max_new_tokens=2)["s3"]
    assert [answer is None for answer in found] == [path == thin for path in sample.source.paths]


def test_an_id_that_comes_again_much_later_is_refused(tiny: SimpleNamespace) -> None:
    llava = tiny.build("llava")
    stream = (tiny.single("again" if number in (0, 130) else str(number)) for number in range(131))
    with pytest.raises(DataError, match="sample again: expected unique ids"):
        list(
            score(
                stream, llava.model, llava.processor, ScoreSettings(max_new_tokens=1, batch_size=1), open_image=tiny.open_image
            )
        )
