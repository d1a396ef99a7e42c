from __future__ import annotations

import random

import pytest
from mia_augment import FORMATS
from mia_augment.compose.questions import (
    lower_first,
    name_target,
    normal,
    speaks_of_several_images,
    without_placeholder,
)
from mia_augment.rows.coordinates import holds_coordinates
from mia_augment.settings import TemplateSettings

DEFAULT = TemplateSettings()
GRID = FORMATS["grid"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What color is it?", "what color is it?"),
        ("What's this?", "what's this?"),
        ("Is the man tall?", "is the man tall?"),
        ("A man is standing. Why?", "a man is standing. Why?"),
        ("Describe the scene.", "describe the scene."),
        ("The Eiffel Tower is where?", "the Eiffel Tower is where?"),
        ("Will it rain?", "will it rain?"),
        ("Can I see a dog?", "can I see a dog?"),
        ("I see a dog, right?", "I see a dog, right?"),
        ("I'm lost.", "I'm lost."),
        ("USA or UK?", "USA or UK?"),
        ("IS IT RED?", "IS IT RED?"),
        ("Paris or London?", "Paris or London?"),
        ("John is left of whom?", "John is left of whom?"),
        ("Will Smith is where?", "Will Smith is where?"),
        ("Mark Twain wrote what?", "Mark Twain wrote what?"),
        ("Mark the odd one.", "mark the odd one."),
        ("T-shirt or coat?", "T-shirt or coat?"),
        ("In-between, what is it?", "In-between, what is it?"),
        ("A. cat B. dog?", "A. cat B. dog?"),
        ("3 dogs?", "3 dogs?"),
        ("Élan?", "Élan?"),
        ("你好吗", "你好吗"),
        ("what now?", "what now?"),
        ("", ""),
    ],
)
def test_the_first_letter_is_lowered_only_where_english_would(question, expected):
    assert lower_first(question) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[0.12, 0.4, 0.55, 0.91]",
        "Where is [12, 40, 330, 200]?",
        "The dog is at (0.31, 0.77).",
        "(120,34),(300,400)",
        "<loc0123><loc0456>",
        "{<25><30><55><90>}",
        "[12 34 56 78]",
        '{"point_2d": [120, 340]}',
        "x1=12, y1=30, x2=50, y2=60",
        "from (12, 34) at the top left to (56, 78)",
        "<box>12 34 56 78</box>",
        "Please provide the bounding box coordinate of the region this sentence describes: man.",
        "Give the coordinates of the cup.",
        "At x=34, y=60",
        "x: 0.34 and y: 0.6",
        '{"x": 120, "y": 30}',
        "The object is at 0.12 0.30 0.56 0.78",
        "0.12, 0.30, 0.56, 0.78",
        "120 340 560 780",
        "12, 30, 56, 78.",
        "(120, 340)",
        "What is in the region 12, 40, 330, 200?",
        "The cup is at (120, 340).",
        "Click [34, 60].",
        "(34%, 60%)",
        "(34.5 px, 60 px)",
        "It is 34% from the left and 60% from the top.",
        "120 pixels from its top",
        "left: 12%; top: 40%",
        "cup (0.1, 0.2, 0.3, 0.4)",
        "<|box_start|>(12,30),(56,78)<|box_end|>",
        "<ref>cup</ref><box>[[12,30,560,780]]</box>",
        '<point x="10.5" y="20.1" alt="cup">cup</point>',
        "<phrase>a cup</phrase><object><patch_index_0044><patch_index_0863></object>",
        '[{"box_2d": [10, 20, 300, 400], "label": "cup"}]',
        "<quad>(1,2)</quad>",
        "xmin: 3",
        "What is the bbox of the cup?",
        "Draw a bounding-box.",
        "请给出杯子的坐标。",
    ],
)
def test_places_given_by_numbers_are_found(text):
    assert holds_coordinates(text)


@pytest.mark.parametrize(
    "text",
    [
        "There are 3, maybe 4 dogs.",
        "It was 1,000.50 in (1987).",
        "f(2, 3) = 5",
        "On the left.",
        "[1]",
        "The table is 34 x 60 cm.",
        "2, 3 or 4 dogs",
        "There are 2, 3, 4 or 5 dogs at the gate.",
        "It shows (3, 4) as the score pair",
        "In 1990, 1995, 2000 and 2005 it rose by 12%, 30% and 56%.",
        "The values are 12%, 30%, 56% and 78%.",
        "Call 555 123 4567 89 now",
        "A box with 4 apples, 3 pears, 2 plums and 1 fig",
        "It is 5 minutes from the station, at 10:30.",
        "Top left",
        "max is 5",
        "3",
        "The score is 21-25, 25-20, 15-12.",
        "Is the 3 left of the 4?",
        "5 m from the left",
        "A <b>bold</b> word, 3 of them",
    ],
)
def test_other_numbers_are_no_coordinates(text):
    assert not holds_coordinates(text)


@pytest.mark.parametrize(
    "question",
    [
        "What do these two images share?",
        "Compare both pictures.",
        "What is different in the second image?",
        "What is in Image 2?",
        "What is in image1?",
        "Which of the photos is older?",
        "What differs between the images?",
        "Compare the images.",
        "Which image is brighter?",
    ],
)
def test_questions_about_several_images_are_found(question):
    assert speaks_of_several_images(question)


@pytest.mark.parametrize(
    "question", ["What is in the image?", "Is this picture old?", "Are there two dogs in the image?", "Images?"]
)
def test_questions_about_one_image_are_not(question):
    assert not speaks_of_several_images(question)


def test_sequences_and_grids_name_the_target_by_its_label():
    rng = random.Random(0)
    assert name_target("What is it?", FORMATS["sequence"], "Image2", DEFAULT, rng) == "In Image2, what is it?"
    assert name_target("Paris?", GRID, "Image9", DEFAULT, rng) == "In Image9, Paris?"


def test_a_single_image_keeps_its_question():
    assert name_target("What is it?", FORMATS["single"], "Image1", DEFAULT, random.Random(0)) == "What is it?"


def test_pic_in_pic_varies_its_words():
    rng = random.Random(0)
    asked = {name_target("What is it?", FORMATS["pic_in_pic"], "inner", DEFAULT, rng) for _ in range(300)}
    assert len(asked) == 12
    assert "In the central image, what is it?" in asked
    assert all(text.endswith(", what is it?") for text in asked)


def test_templates_of_the_user_are_taken_literally():
    templates = TemplateSettings(named=("{question} (I mean {label}; not {other} or {0})",), pic_in_pic=("Inset: {question}",))
    rng = random.Random(0)
    assert name_target("What is it?", GRID, "Image3", templates, rng) == "What is it? (I mean Image3; not {other} or {0})"
    assert name_target("What is it?", FORMATS["pic_in_pic"], "inner", templates, rng) == "Inset: What is it?"


def test_braces_in_a_question_do_no_harm():
    assert (
        name_target("What is {label}?", FORMATS["sequence"], "Image1", DEFAULT, random.Random(0))
        == "In Image1, what is {label}?"
    )


def test_the_placeholder_is_removed_wherever_it_stands():
    assert without_placeholder("<image>\nWhat is it?") == "What is it?"
    assert without_placeholder("What is it?\n<image>") == "What is it?"
    assert without_placeholder("Look: <image> What is it?") == "Look:\nWhat is it?"
    assert without_placeholder(" What is it? ") == "What is it?"
    assert without_placeholder("<image>") == ""


def test_same_questions_are_equal_in_any_case_and_spacing():
    assert normal("What  color is it?") == normal(" what color\nis it ?")
    assert normal("What color is it?") != normal("What colour is it?")


@pytest.mark.parametrize("unit", ["1", " ", "[", "[1,", "(1 , ", "the two ", "image ", "A", "a", "\n", "<loc", "1."])
def test_no_text_makes_looking_at_it_slow(unit):
    text = "[" + unit * (200_000 // len(unit)) + "<image>" + unit * 1000
    without_placeholder(text)
    holds_coordinates(text)
    speaks_of_several_images(text)
    lower_first(text)
    normal(text)
