"""`look`: what it shows of an answer equals what eager attention, autograd and the model itself say."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from eager_passes import eager_pass
from mia_attention import AnswerView, ScoreSettings, encode_prompts, knockout, look, respond, score
from mia_attention.looking.answer_words import answer_pieces
from mia_attention.looking.asked import ask_about, bare_question
from mia_attention.looking.view_page import brightness, view_page
from mia_attention.looking.word_readings import WordReading
from mia_attention.models.inputs import encode
from mia_augment.errors import ConfigError, DataError, MiaError, ModelError
from mia_augment.prompting import render_prompt
from PIL import Image

FAMILIES = [
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "gemma3",
    "mistral3",
]  # fmt: skip
QUESTION = "In Image2, what is on the left ?"
PROMPT = f"Image1:<image>\nImage2:<image>\n{QUESTION}"


def two(tiny: SimpleNamespace) -> list[Image.Image]:
    return [tiny.picture(100, 60, 1), tiny.picture(70, 130, 2)]


def seen(tiny: SimpleNamespace, name: str = "llava", **options: Any) -> AnswerView:
    build = tiny.build(name)
    return look(build.model, build.processor, two(tiny), QUESTION, **{"max_new_tokens": 4, **options})


def eagerly(build: Any, pictures: list[Any], answer: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[Any]]:
    """Of eager attention: each layer's head-mean weights and relu(A dL/dA), both (layers, tokens, keys) of the rows that
    predict the answer; the log-probs of its tokens; where each picture's tokens are."""
    found = eager_pass(build, render_prompt(build.processor, PROMPT), pictures, answer)
    length, attentions = found.encoded.prompt_length, found.weights
    rows = slice(length - 1, length + len(answer) - 1)
    weights = torch.stack([a[0, :, rows].mean(0) for a in attentions]).detach()
    came = torch.stack([(a * g).clamp_min(0)[0, :, rows].sum(0) for a, g in zip(attentions, found.gradients, strict=True)])
    return weights, came.detach(), found.logps, found.encoded.image_tokens[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_word_equals_eager_attention_and_autograd(tiny: SimpleNamespace, name: str) -> None:
    build, view = tiny.build(name), seen(tiny, name, layer=[1, 3], alone=False)
    weights, came, logps, places = eagerly(build, two(tiny), list(view.token_ids))
    expected = weights[[1, 3]].mean(0)
    for index, positions in enumerate(places):
        np.testing.assert_allclose(view.attention.masses[:, index], expected[:, positions].sum(1).numpy(), atol=2e-6)
        assert view.gradient is not None
        by_hand = came.sum(0)[:, positions].sum(1).numpy()
        np.testing.assert_allclose(view.gradient.masses[:, index], by_hand, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(view.logps, logps.numpy(), atol=1e-5)
    assert view.attention.visual_tokens == [len(positions) for positions in places]


def test_the_answer_is_the_models_own(tiny: SimpleNamespace) -> None:
    build, view = tiny.build("llava"), seen(tiny)
    sample = tiny.sequence("s", ["a.png", "b.png"], 1)
    [response] = respond(
        [sample.model_copy(update={"prompt": PROMPT})],
        build.model,
        build.processor,
        open_image=tiny.open_image,
        max_new_tokens=4,
    )
    assert (view.answer, view.token_ids) == (response.text, response.tokens)
    assert view.logp / len(view.token_ids) == pytest.approx(response.mean_logp, abs=1e-6)
    assert "".join(view.tokens).strip() == view.answer


@pytest.mark.parametrize("layer", [2, "gradient"])
def test_the_share_is_the_ratio_that_score_measures(tiny: SimpleNamespace, layer: Any) -> None:
    build, view = tiny.build("qwen2_5_vl"), seen(tiny, "qwen2_5_vl", layer=2)
    sample = tiny.sequence("s", ["a.png", "b.png"], 1).model_copy(update={"prompt": PROMPT})
    settings = ScoreSettings(layer=layer, rows="predicting", max_new_tokens=4)
    [scored] = score([sample], build.model, build.processor, settings, open_image=tiny.open_image)
    reading = view.gradient if layer == "gradient" else view.attention
    assert reading is not None
    assert reading.share is not None
    assert reading.share[1] == pytest.approx(scored.attention.ratio, abs=1e-5)
    assert sum(reading.share) == pytest.approx(1)
    assert view.share == (view.gradient or view.attention).share


def test_a_given_answer_is_read_as_the_same_answer_generated(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    given = seen(tiny, answer="cat on left")
    own = list(given.token_ids)
    weights, _, logps, places = eagerly(build, two(tiny), own)
    assert given.given
    assert given.answer == "cat on left"
    assert given.tokens == ("cat", " on", " left", "")
    np.testing.assert_allclose(given.logps, logps.numpy(), atol=1e-5)
    np.testing.assert_allclose(given.attention.masses[:, 1], weights[2][:, places[1]].sum(1).numpy(), atol=2e-6)


def test_alone_is_the_likelihood_with_the_bare_question(tiny: SimpleNamespace) -> None:
    build, view = tiny.build("llava"), seen(tiny)
    expected = []
    for picture in two(tiny):
        text = render_prompt(build.processor, "<image>\nWhat is on the left ?")
        inputs = dict(encode(build.model, build.processor, [text], [[picture]]).inputs)
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([view.token_ids])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = build.model(**inputs).logits[0, length - 1 : -1]
        expected.append(float(logits.log_softmax(-1)[range(len(view.token_ids)), view.token_ids].sum()))
    assert view.alone == pytest.approx(expected, abs=1e-4)
    likely = np.exp(np.array(expected))
    assert view.alone_share == pytest.approx(likely / likely.sum(), abs=1e-4)


def test_knockout_is_what_is_lost_without_each_picture(tiny: SimpleNamespace) -> None:
    build, view = tiny.build("llava"), seen(tiny, gradient=False, alone=False)
    encoded = encode_prompts(build.model, build.processor, [PROMPT], [two(tiny)])
    [found] = knockout(build.model, encoded, [list(view.token_ids)])
    assert view.knockout == pytest.approx([found.loss[0], found.loss[1]], abs=1e-6)
    assert all(abs(loss) > 1e-4 for loss in found.loss.values())
    assert found.logp == pytest.approx(view.logp, abs=1e-4)


def test_shares_are_means_per_visual_token() -> None:
    """(0.2 / 10) : (0.3 / 30) = 2 : 1; and for the second token (0.1 / 10) : (0.9 / 30) = 1 : 3; together 0.03 : 0.04."""
    reading = WordReading("attention", np.array([[0.2, 0.3], [0.1, 0.9]]), [10, 30], None)
    assert reading.shares[0] == pytest.approx([2 / 3, 1 / 3])
    assert reading.shares[1] == pytest.approx([1 / 4, 3 / 4])
    assert reading.share == pytest.approx([3 / 7, 4 / 7])
    assert WordReading("attention", np.zeros((1, 2)), [10, 30], None).share is None


def test_the_maps_hold_what_fell_on_tokens_that_see_pixels(tiny: SimpleNamespace) -> None:
    view = seen(tiny)
    assert view.attention.maps is not None
    for index, maps in enumerate(view.attention.maps):  # LLaVA's every token sees pixels
        np.testing.assert_allclose(maps.sum((1, 2)), view.attention.masses[:, index], atol=1e-6)
    assert [maps.shape[1:] for maps in view.attention.maps] == [(10, 16), (16, 9)]


def test_a_picture_of_three_times_the_size_is_as_bright() -> None:
    """The same attention on half of a picture, in 4 x 4 cells and in 12 x 12: as bright; half of it: half as bright."""
    small, large, weaker = np.zeros((1, 4, 4)), np.zeros((1, 12, 12)), np.zeros((1, 4, 4))
    small[0, :2], large[0, :6], weaker[0, :2] = 0.4 / 8, 0.4 / 72, 0.2 / 8
    cells = brightness(WordReading("attention", np.array([[0.4, 0.4, 0.2]]), [16, 144, 16], [small, large, weaker]))
    assert cells is not None
    assert [one.max() for one in cells] == [255, 255, 128]
    assert all(np.array_equal(one[0], one[1]) for one in cells)  # one token: the whole answer is that token


def test_without_gradient_and_alone_nothing_is_noted(tiny: SimpleNamespace) -> None:
    view = seen(tiny, gradient=False, alone=False, knockout=False)
    assert view.gradient is None
    assert view.alone is None
    assert view.knockout is None
    assert view.alone_share is None
    assert view.share == view.attention.share
    assert not any("not measured" in note for note in view.notes)


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("gemma3", "layer 1", "layers 0, 2 see at most 12 tokens back (sliding window)"),
        ("qwen3_5", "layer 3", "layers 0-2 are left out: they have no attention (linear attention or convolution)"),
        ("molmo2", "layer 2", "cannot be mapped to pixels, so there are shares but no maps"),
        ("llava", "layer 2", None),
    ],
)
def test_layers_that_are_left_out_are_told(tiny: SimpleNamespace, name: str, layer: str, expected: str | None) -> None:
    view = seen(tiny, name, gradient=False, alone=False, max_new_tokens=2)
    told = [note for note in view.notes if "cut off" not in note]
    assert view.attention.reads == f"attention of {layer}"
    assert told == [] if expected is None else any(expected in note for note in told)
    assert (view.attention.maps is None) == any("cannot be mapped" in note for note in told)
    assert view_page(view)


def test_in_bfloat16_shares_agree_to_a_hundredth(tiny: SimpleNamespace) -> None:
    import tiny_models

    exact = seen(tiny, answer="cat on left")
    rounded = tiny_models.build("llava")
    view = look(rounded.model.to(torch.bfloat16), rounded.processor, two(tiny), QUESTION, answer="cat on left")
    assert view.attention.share == pytest.approx(exact.attention.share, abs=0.01)
    assert view.gradient is not None
    assert exact.gradient is not None
    assert view.gradient.share == pytest.approx(exact.gradient.share, abs=0.01)
    assert view.alone == pytest.approx(exact.alone, abs=0.15)
    assert view.logp == pytest.approx(exact.logp, abs=0.15)


def test_one_picture_and_several_named_ones(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    options: dict[str, Any] = {"max_new_tokens": 2, "gradient": False}
    one = look(build.model, build.processor, two(tiny)[:1], "what is it ?", **options)
    assert one.share == [1.0]
    assert one.prompt == "<image>\nwhat is it ?"
    assert one.alone is None
    assert any("a single picture: nothing to compare with" in note for note in one.notes)
    both = look(build.model, build.processor, two(tiny), "Is Image1 as red as Image2 ?", **options)
    assert both.alone is None
    assert both.about is None
    assert any("the question names 2 images" in note for note in both.notes)
    own = look(build.model, build.processor, two(tiny), "a <image> b <image> In Image7, what ?", **options)
    assert own.prompt == "a <image> b <image> In Image7, what ?"


@pytest.mark.parametrize(
    ("question", "bare"),
    [
        ("In Image2, what animal is it?", "What animal is it?"),
        ("In the image 2 what animal is it?", "What animal is it?"),
        ("what animal does picture #2 show?", "What animal does the image show?"),
        ("What is left of the Image2?", "What is left of the image?"),
        ("What animal is it?", "What animal is it?"),
    ],
)
def test_the_bare_question_names_no_image(question: str, bare: str) -> None:
    assert bare_question(question) == bare


def test_files_are_opened_and_named(tiny: SimpleNamespace, tmp_path: Any) -> None:
    tiny.picture(30, 20).save(tmp_path / "street.png")
    asked = ask_about([str(tmp_path / "street.png"), tmp_path / "street.png", tiny.picture(8, 8)], "In image 3, what?")
    assert asked.names == ["street.png", "street.png", "Image3"]
    assert asked.prompt == "Image1:<image>\nImage2:<image>\nImage3:<image>\nIn image 3, what?"
    assert (asked.about, asked.alone) == (2, "<image>\nWhat?")
    assert asked.pictures[0].size == (30, 20)


PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("pictures", "question", "message"),
    [
        ([], "what?", "expected at least one, got none"),
        ("a.png", "what?", "expected a list of files or pictures, got one str"),
        ([PICTURE], " ", "question: expected a text"),
        ([PICTURE], None, "question: expected a text"),
        ([PICTURE, PICTURE], "In Image3, what?", "names image 3, but 2 pictures are given, Image1 to Image2"),
        ([PICTURE], "In picture 2, what?", "names image 2, but only one picture is given, Image1"),
        ([PICTURE, PICTURE], "In Image0, what?", "names image 0"),
        ([PICTURE, PICTURE], "<image> what?", "holds <image> 1 times for 2 pictures"),
        ([PICTURE, "nowhere/a.png"], "what?", "picture 2: missing file: nowhere/a.png"),
        ([PICTURE, __file__], "what?", "picture 2: broken picture"),
        ([PICTURE, 3], "what?", "picture 2: expected a file or a PIL picture, got a int"),
    ],
)
def test_what_cannot_be_asked(pictures: Any, question: Any, message: str) -> None:
    with pytest.raises(MiaError, match=re.escape(message)):
        ask_about(pictures, question)


def test_what_cannot_be_looked_at(tiny: SimpleNamespace) -> None:
    build, pictures = tiny.build("llava"), two(tiny)
    model, processor = build.model, build.processor
    with pytest.raises(ModelError, match="layer 4: expected one of the attention layers 0-3"):
        look(model, processor, pictures, QUESTION, layer=4)
    with pytest.raises(ConfigError, match="layer: expected a number"):
        look(model, processor, pictures, QUESTION, layer="last")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the wrong way round"):
        look(processor, model, pictures, QUESTION)
    with pytest.raises(ConfigError, match="expected one with a tokenizer and an image processor"):
        look(model, processor.tokenizer, pictures, QUESTION)
    with pytest.raises(ConfigError, match="look_at"):
        look(tiny.sequence("s", ["a.png", "b.png"], 1), model, pictures, QUESTION)
    with pytest.raises(DataError, match="stands for pictures"):
        look(model, processor, pictures, QUESTION, answer="a <image> b")
    with pytest.raises(ConfigError, match="max_new_tokens"):
        look(model, processor, pictures, QUESTION, max_new_tokens=0)
    model.train()
    try:
        with pytest.raises(ModelError, match="training mode"):
            look(model, processor, pictures, QUESTION)
    finally:
        model.eval()


def test_a_gradient_that_cannot_be_measured_is_noted(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mia_attention.looking.word_readings.gradient_each_row", full)
    view = seen(tiny, alone=False)
    assert view.gradient is None
    assert view.share == view.attention.share
    assert any("out of memory" in note for note in view.notes)


class Bytes:
    """A tokenizer of single bytes."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_of_several_tokens_is_told_by_its_last() -> None:
    assert answer_pieces(Bytes(), list("aé ☃".encode())) == ["a", "", "é", " ", "", "", "☃"]
    assert "".join(answer_pieces(Bytes(), list("né".encode())[:-1])) == "n\ufffd"


EVIL = "</script><img src=x onerror=alert(1)> In Image2, {{data}} what ?"


def test_the_page_runs_nothing_of_what_was_asked_and_fetches_nothing(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    view = look(
        build.model, build.processor, two(tiny), EVIL, max_new_tokens=2, gradient=False, alone=False, names=["<i id=evil>", "b"]
    )
    page = view_page(view)
    assert "<img src=x" not in page
    assert "<i id=evil>" not in page
    assert "&lt;i id=evil&gt;" in page
    assert "{{data}} what" in page
    assert not re.findall(r"https?://", page)
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["ways"]["attention"]["shares"][0] == pytest.approx(view.attention.share, abs=1e-4)
    assert page.count('<button type="button"') >= len(view.tokens)


def test_a_notebook_shows_the_page_and_a_file_holds_it(tiny: SimpleNamespace, tmp_path: Any) -> None:
    view = seen(tiny, gradient=False, alone=False)
    assert view.save(tmp_path / "where.html").read_text("utf-8") == view_page(view)
    shown = view._repr_html_()
    assert shown.startswith("<iframe")
    assert shown.count("<") == 2
    assert str(view).splitlines()[0] == f"{QUESTION} -> {view.answer or '(nothing)'}"
    assert json.dumps(view.summary())
