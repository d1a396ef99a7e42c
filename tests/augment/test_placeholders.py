"""Placeholders of many models mean one thing."""

from __future__ import annotations

import pytest
from mia_augment.errors import DataError
from mia_augment.rows.placeholders import foreign_placeholder, one_placeholder
from mia_augment.rows.row import Row, parse_row


@pytest.mark.parametrize(
    "placeholder",
    [
        "<image>",
        "<Image>",
        "<IMAGE>",
        "<ImageHere>",
        "<Img><ImageHere></Img>",
        "<Image><image></Image>",
        "(image 1: <Image><image></Image>)",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|vision_start|>" + "<|image_pad|>" * 300 + "<|vision_end|>",
        "Picture 1: <|vision_start|><|image_pad|><|vision_end|>",
        "Picture 1: <img>a/b.jpg</img>",
        "<|image_pad|>",
        "<img></img>",
        "<img><IMG_CONTEXT><IMG_CONTEXT></img>",
        "<IMG_CONTEXT>",
        "(<image>./</image>)",
        "<image>./</image>",
        "<image_1>",
        "<image1>",
        "<image 1>",
        "<|image_1|>",
        "<|image|>",
        "<|image_start|><|image|><|image_end|>",
        "<|begin_of_image|><|image|><|end_of_image|>",
        "[IMG]",
        "[IMG][IMG_END]",
        "<start_of_image>",
        "<start_of_image><image_soft_token><image_soft_token><end_of_image>",
        "<boi><image_soft_token><eoi>",
        "<im_start><image><im_end>",
        "<im_start><im_patch><im_patch><im_end>",
        "<image_placeholder>",
        "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        "<|img|><|imgpad|><|endofimg|>",
        "<|endoftext10|>",
        "Image 1: <image>",
    ],
)
@pytest.mark.parametrize(("before", "after"), [("", "What digit?"), ("", "\nWhat digit?"), ("What digit?\n", "")])
def test_a_placeholder_of_any_model_leaves_the_question_alone(placeholder, before, after):
    text = f"{before}{placeholder}{after}"
    assert one_placeholder(text).split() == f"{before}<image>{after}".split()
    row = parse_row({"image": "a.jpg", "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "4"}]}, 1)
    assert isinstance(row, Row), row
    assert row.turns == (("What digit?", "4"),)


@pytest.mark.parametrize(
    "text",
    [
        "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>Which?",
        "<image_1><image_2>Which?",
        "Which, <|image_1|> or <|image_2|>?",
        "<img></img><img></img>Which?",
        "[IMG][IMG]Which?",
        "<ImageHere> <ImageHere> Which?",
        "<start_of_image><start_of_image>Which?",
    ],
)
def test_several_pictures_stay_several(text):
    assert one_placeholder(text).count("<image>") == 2
    row = parse_row({"image": "a.jpg", "question": text, "answer": "4"}, 1)
    assert row.reason.startswith("several images")


@pytest.mark.parametrize(
    "placeholder",
    [
        "<video>",
        "<|video_pad|>",
        "<|vision_start|><|video_pad|><|vision_end|>",
        "<VIDEO_CONTEXT>",
        "<|audio_1|>",
        "<audio>",
        "<|AUDIO|>",
    ],
)
def test_videos_and_sounds_are_refused(placeholder):
    with pytest.raises(DataError, match="a placeholder of a video or a sound"):
        one_placeholder(f"{placeholder}\nWhat happens?")
    row = parse_row({"image": "a.jpg", "question": f"{placeholder}\nWhat happens?", "answer": "4"}, 1)
    assert row.reason.startswith("no image: ")


def test_a_numbered_placeholder_within_a_sentence_becomes_words():
    assert one_placeholder("What is shown in <image 1>?") == "What is shown in the image?"
    assert one_placeholder("<image 1>\nIs the cup of <image 1> full?") == "<image>\nIs the cup of the image full?"


@pytest.mark.parametrize("text", ["Is 3 < 4?", "<b>bold</b>", "What is <X> here?", "An <img src='a.png'> tag", "[1] and [img]"])
def test_other_signs_stay(text):
    assert one_placeholder(text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<image>What is it?", None),
        ("Is a < b and b > c in <image>?", None),
        ("<image>Then <video> and <audio>", "<video>"),
        ("<image><image_2> What?", "<image_2>"),
        ("<ImageHere>What?", "<ImageHere>"),
        ("<IMAGE>What?", "<IMAGE>"),
        ("<img>a.png</img>What?", "<img>a.png</img>"),
        ("<|vision_start|><|image_pad|><|vision_end|>What?", "<|vision_start|>"),
        ("<|image|>What?", "<|image|>"),
        ("<image>[IMG]What?", "[IMG]"),
        ("<start_of_image>What?", "<start_of_image>"),
    ],
)
def test_the_first_placeholder_that_is_not_ours_is_found(text: str, found: str | None) -> None:
    assert foreign_placeholder(text) == found
