"""The shapes in which data sets give question and answer of a row."""

from __future__ import annotations

import json
import math

import pytest
from mia_augment.records import Skipped
from mia_augment.rows.row import parse_row

ASKED = (("What is it?", "A dog."),)
TALK = [{"role": "user", "content": "<image>\nWhat is it?"}, {"role": "assistant", "content": "A dog."}]
FLAT = {"image": "a.jpg", "question": "What is it?"}


def parts(*shown, text="What is it?"):
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}, TALK[1]]


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.jpg", "conversation": TALK},
        {"images": ["a.jpg"], "conversations": json.dumps(TALK)},
        {"images": [{"bytes": None, "path": "a.jpg"}], "messages": TALK},
        {"messages": parts({"type": "image", "image": "a.jpg"})},
        {"messages": parts({"type": "image_url", "image_url": {"url": "a.jpg"}})},
        {"messages": parts({"type": "image_url", "image_url": "a.jpg"})},
        {"messages": parts({"type": "input_image", "image_url": "a.jpg"})},
        {"messages": parts({"type": "image", "url": "file:a.jpg"})},
        {"messages": parts({"image": "a.jpg"})},
        {"messages": parts({"type": "image", "image": "a.jpg"}), "images": ["a.jpg"]},
        {"messages": parts({"type": "image", "text": None, "index": 0}), "images": ["a.jpg"]},
        {
            "messages": [{"role": "User", "content": [{"text": "What is it?"}]}, {"role": "Assistant", "content": ["A dog."]}],
            "image": "a.jpg",
        },
        {"prompt": parts({"type": "image"})[:1], "completion": [TALK[1]], "image": "a.jpg"},
        {"image": "a.jpg", "texts": [{"user": "What is it?", "assistant": "A dog."}]},
        {"image": "a.jpg", "questions": ["What is it?"], "answers": ["A dog."]},
        {"image": "a.jpg", "conversations": str(TALK)},
        {
            "image": "a.jpg",
            "messages": [{"role": "user", "content": json.dumps(parts({"type": "image"})[0]["content"])}, TALK[1]],
        },
        {**FLAT, "answers": "['A dog.', 'a cat', 'A dog.']"},
        {**FLAT, "answers": '["A dog.", "a cat", "A dog."]'},
        {"json": {"question": "What is it?", "answer": "A dog."}, "jpg": "a.jpg", "__key__": "7"},
        {
            "image": None,
            "images": [],
            "image_path": "a.jpg",
            "answer": None,
            "output": "A dog.",
            "instruction": "What is it?",
            "input": "",
        },
        {**FLAT, "answers": ["A dog.", "a cat", "a dog"]},
        {**FLAT, "answers": [{"answer": "a cat"}, {"answer": "A dog."}, {"answer": "A dog."}]},
        {**FLAT, "multiple_choice_answer": "A dog.", "answers": [{"answer": "a cat"}]},
        {**FLAT, "answer": ["A dog.", "dog"]},
        {**FLAT, "answer": math.nan, "caption": "A dog."},
        {**FLAT, "direct_answers": ["a cat", "A dog.", "A dog."]},
    ],
)
def test_one_question_is_understood_in_many_shapes(row):
    found = parse_row(row, 1)
    assert found.turns == ASKED
    assert found.image == "a.jpg"


@pytest.mark.parametrize(
    ("row", "row_id"),
    [
        ({"id": 0}, "0"),
        ({"sample_id": "s", "idx": 3}, "s"),
        ({"id": None, "question_id": 8}, "8"),
        ({"id": "", "index": 2}, "2"),
        ({"id": math.nan}, "row-5"),
        ({"uid": "u"}, "u"),
    ],
)
def test_ids_have_many_names(row, row_id):
    assert parse_row({**FLAT, "answer": "A dog.", **row}, 5).id == row_id


def test_conversations_of_several_questions_keep_their_order():
    several = (("One?", "1"), ("Two?", "2"))
    assert parse_row({"image": "a", "questions": ["One?", "Two?"], "answers": ["1", "2"]}, 1).turns == several
    assert parse_row({"image": "a", "query": "Two?", "response": "2", "history": [["One?", "1"]]}, 1).turns == several
    assert parse_row({"image": "a", "instruction": "Say", "input": "what.", "output": "x"}, 1).turns == (("Say\nwhat.", "x"),)


@pytest.mark.parametrize(
    ("row", "turn"),
    [
        ({"choices": ["cat", "dog"], "answer": 1}, ("What is it?\nA. cat\nB. dog", "B")),
        ({"options": ["cat", "dog"], "answer": "B"}, ("What is it?\nA. cat\nB. dog", "B")),
        ({"options": ["cat", "dog"], "answer": "(A)"}, ("What is it?\nA. cat\nB. dog", "A")),
        ({"A": "cat", "B": "dog", "C": None, "answer": "B"}, ("What is it?\nA. cat\nB. dog", "B")),
        ({"choices": "['cat', 'dog']", "answer": "A"}, ("What is it?\nA. cat\nB. dog", "A")),
        ({"choices": ["cat", "dog"], "correct_choice_idx": 0}, ("What is it?\nA. cat\nB. dog", "A")),
        ({"choices": ["cat", "dog"], "answer": "dog"}, ("What is it?", "dog")),
        ({"choices": ["1", "2"], "answer": "2"}, ("What is it?", "2")),
        (
            {"question": "Cat or dog?\n(A) cat (B) dog", "choices": ["cat", "dog"], "answer": "A"},
            ("Cat or dog?\n(A) cat (B) dog", "A"),
        ),
        ({"choices": [], "answer": 3}, ("What is it?", "3")),
    ],
)
def test_an_answer_that_names_an_option_gets_the_options_to_the_question(row, turn):
    assert parse_row({**FLAT, **row}, 1).turns == (turn,)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**FLAT, "choices": ["cat", "dog"], "answer": 2}, "bad row: expected the place of an option, 0 to 1"),
        (
            {**FLAT, "choices": ["0", "1", "2"], "answer": 1},
            "bad row: answer 1 may be the place of an option or the option itself",
        ),
        ({**FLAT, "choices": ["cat", "dog"], "answer": "E"}, "bad row: expected one of the letters AB"),
        ({**FLAT, "answers": []}, "no answer"),
        ({**FLAT, "answers": "['A dog.' 'a cat']"}, "bad row: expected a list as answers"),
        ({**FLAT, "conversations": "[array" + "(" * 10_000 + "]"}, "bad row: expected a list of turns"),
        ({**FLAT, "answers": [None, ""]}, "no answer"),
        ({"image": "a", "questions": ["One?", "Two?"], "answers": ["1"]}, "bad row: expected an answer to each question"),
        ({"image_id": 17, "question": "What?", "answer": "x"}, "no image: expected a picture under one of image, images"),
        ({"video": "a.mp4", "messages": TALK}, "no image: expected a picture under one of"),
        ({"messages": TALK}, "no image: the row has text only"),
        (
            {"messages": parts({"type": "image", "image": "a"}, {"type": "image", "image": "b"})},
            "several images: <image> stands 2 times",
        ),
        ({"messages": parts({"type": "image", "image": "a"}), "image": "b"}, "several images: the row has one in its column"),
        ({"messages": parts({"type": "video", "video": "a.mp4"}), "image": "b"}, "bad row: expected texts and images as parts"),
        ({**FLAT, "image": "https://example.com/a.jpg", "answer": "x"}, "picture on the web"),
        ({**FLAT, "image": "iVBORw0KGgo" + "A" * 100_002, "answer": "x"}, "broken picture: 100013 characters of base64"),
    ],
)
def test_reasons_are_true_and_short(row, reason):
    skipped = parse_row(row, 1, lambda picture: "kept")
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith(reason)
    assert len(skipped.reason) < 300
