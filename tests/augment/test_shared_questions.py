"""Questions about several pictures, made of one that their rows share, and the wrong answers built of them: values by hand."""

from __future__ import annotations

import json
import random

import pytest
from mia_augment import FORMATS, AugmentSettings, augment, augment_dataset, built_answers
from mia_augment.compose.questions import asks_for_caption
from mia_augment.compose.shared_questions import (
    Built,
    SharedParts,
    ask_captions,
    ask_comparison,
    ask_search,
    others_answers,
    shortened,
    wrong_captions,
    wrong_comparisons,
    wrong_searches,
)
from mia_augment.errors import DataError
from mia_augment.records import Sample, Skipped

from .conftest import QUESTION, llava_row

LABELS = ("Image1", "Image2", "Image3")
COLORS = SharedParts("What color is it?", LABELS, ("Red.", "Blue.", "Green."), (0, 2), 2)
CAPTIONS = SharedParts(
    "Describe the image.", LABELS, ("A red bus.", "A dog. It runs.", "Two men on a boat at sea."), (0, 1, 2), 1
)
NEW = [name for name, row in FORMATS.items() if row.shared]


def rng():
    return random.Random(0)


def test_a_comparison_names_two_pictures_and_is_answered_for_both_in_their_order():
    assert ask_comparison(COLORS) == ("Compare Image1 and Image3: what color is it?", "Image1: Red.\nImage3: Green.")


def test_a_wrong_comparison_is_swapped_or_says_of_one_what_is_true_of_a_picture_not_named():
    swapped, other = wrong_comparisons(COLORS, rng())
    assert swapped == Built("swapped", "Image1: Green.\nImage3: Red.")
    assert other.kind == "Image2"
    assert other.text in ("Image1: Blue.\nImage3: Green.", "Image1: Red.\nImage3: Blue.")
    alone = COLORS._replace(labels=LABELS[:2], answers=("Red.", "Blue."), named=(0, 1), target=0)
    assert list(wrong_comparisons(alone, rng())) == [Built("swapped", "Image1: Blue.\nImage2: Red.")]


def test_a_search_is_answered_by_the_picture_s_name_and_wrongly_by_any_other():
    asked = "Which image fits this question and answer? What color is it? Green."
    assert ask_search(COLORS._replace(named=(0, 1, 2))) == (asked, "Image3")
    assert ask_search(CAPTIONS) == ("Which image shows this? A dog. It runs.", "Image2")
    assert list(wrong_searches(CAPTIONS, rng())) == [Built("Image1", "Image1"), Built("Image3", "Image3")]


def test_captions_are_asked_in_order_or_the_question_is_put_to_every_picture():
    said = "Image1: A red bus.\nImage2: A dog. It runs.\nImage3: Two men on a boat at sea."
    assert ask_captions(CAPTIONS) == ("Describe every image in order.", said)
    asked, said = ask_captions(COLORS._replace(named=(0, 1, 2)))
    assert asked == "For every image in order: what color is it?"
    assert said == "Image1: Red.\nImage2: Blue.\nImage3: Green."


def test_wrong_captions_are_swapped_dropped_and_shortened():
    found = {built.kind: built.text.split("\n") for built in wrong_captions(CAPTIONS, rng())}
    right = ask_captions(CAPTIONS)[1].split("\n")
    assert list(found) == ["swapped", "dropped", "shortened"]
    differing = [i for i in range(3) if found["swapped"][i] != right[i]]
    first, second = differing
    assert found["swapped"][first] == f"Image{first + 1}: {CAPTIONS.answers[second]}"
    assert found["swapped"][second] == f"Image{second + 1}: {CAPTIONS.answers[first]}"
    assert len(found["dropped"]) == 2
    assert set(found["dropped"]) < set(right)
    assert found["shortened"] == ["Image1: A.", "Image2: A dog.", "Image3: Two men on."]


@pytest.mark.parametrize(
    ("caption", "short"),
    [
        ("A dog runs. It is wet.", "A dog runs."),
        ("A tall man, in a coat", "A tall man"),
        ("Red", "Red"),
        ("", ""),
        ("No stop! Go.", "No stop!"),
    ],
)
def test_a_caption_is_shortened_to_its_first_sentence_or_half(caption, short):
    assert shortened(caption) == short


def test_where_all_captions_are_equal_or_of_one_word_no_text_comes_that_equals_the_true_one():
    sample = sample_of(("Red.", "Red."))
    assert [built.kind for built in built_answers(sample)] == ["dropped"]


def sample_of(answers):
    parts = SharedParts(QUESTION, LABELS[: len(answers)], answers, range(len(answers)), 0)
    prompt, answer = ask_captions(parts)
    return Sample.model_validate(
        {
            "id": "a",
            "format": "captions",
            "images": [f"{i}.png" for i in range(len(answers))],
            "prompt": FORMATS["captions"].header(len(answers)) + prompt,
            "answer": answer,
            "regions": [{"image": i, "label": label} for i, label in enumerate(parts.labels)],
            "target": 0,
            "named": list(parts.named),
            "source": {"ids": ["a"], "paths": ["0.png"], "question": QUESTION, "answers": list(answers)},
        }
    )


def test_every_other_format_s_wrong_answers_are_the_other_pictures():
    parts = SharedParts("What is it?", LABELS, ("A cat.", None, "A dog."), (0,), 0)
    assert list(others_answers(parts, rng())) == [Built("Image3", "A dog.")]
    assert all(row.wrong is others_answers for row in FORMATS.values() if not row.shared)


@pytest.mark.parametrize(
    ("question", "caption"),
    [
        ("Describe the following image.", True),
        ("Provide a brief description of the given image.", True),
        ("Share a concise interpretation of the image provided.", True),
        ("Can you describe this image in detail?", True),
        ("What is in the photo?", True),
        ("Summarize the visual content of the image.", True),
        ("Describe the dog in the image.", False),
        ("What is the man in the image wearing?", False),
        ("Describe the color of the bus in the image.", False),
        ("What color is it?", False),
    ],
)
def test_a_request_for_a_caption_is_known_in_many_words(question, caption):
    assert asks_for_caption(question) is caption


@pytest.mark.parametrize("name", NEW)
def test_every_part_of_such_a_sample_answers_the_same_question(data, name):
    found = list(augment(data.rows, data.root, AugmentSettings(formats=[name])))
    assert len(found) == len(data.rows)
    for sample in found:
        assert isinstance(sample, Sample)
        row = FORMATS[name].shared
        assert len(sample.named) == (row.named or sample.parts)
        assert sample.target in sample.named
        true = {f"plain/{color}.png": f"It is {color}." for color in data.colors}
        assert sample.source.answers == [true[path] for path in sample.images]
        wrong = built_answers(sample)
        assert wrong
        assert all(built.text != sample.answer for built in wrong)
        assert wrong == built_answers(sample)
        if name == "search":
            assert sample.answer == sample.regions[sample.target].label
            assert sample.prompt.endswith(f"{QUESTION} {true[sample.images[sample.target]]}")
        else:
            lines = [f"{sample.regions[i].label}: {sample.source.answers[i]}" for i in sample.named]
            assert sample.answer == "\n".join(lines)


def test_captions_asked_for_in_other_words_are_put_together(data):
    asked = ["Describe the image.", "Write a short caption for this picture.", "What color is it?"]
    rows = [
        llava_row(name, f"plain/{name}.png", (asked[index % 3], f"A plain picture in {name}."))
        for index, name in enumerate(data.colors)
    ]
    found = list(augment(rows, data.root, AugmentSettings(formats=["captions"], captions={"counts": {3: 1}})))
    captioned = [sample for sample in found if "Describe every image" in sample.prompt]
    assert len(captioned) == 8
    assert {len(sample.answer.split("\n")) for sample in captioned} == {3}
    assert not any("in red" in s.answer and asked[2] in s.source.question for s in found)


def test_the_turn_that_others_share_is_asked(data):
    rows = [
        llava_row(name, f"plain/{name}.png", (f"Is this {name}?", "Yes."), (QUESTION, f"It is {name}.")) for name in data.colors
    ]
    found = list(augment(rows, data.root, AugmentSettings(formats=["comparison"])))
    assert {sample.source.question for sample in found} == {QUESTION}
    named = list(augment(rows, data.root, AugmentSettings(formats=["sequence"], companions="same_question")))
    assert {sample.source.question for sample in named} == {QUESTION}
    assert all(None not in sample.source.answers and not sample.followups for sample in named)


def test_a_sample_about_one_picture_is_written_as_before(data):
    sample = next(iter(augment(data.rows, data.root, AugmentSettings(formats=["sequence"]))))
    assert "named" not in json.loads(sample.model_dump_json())


def test_what_is_made_does_not_depend_on_the_order_of_the_rows_or_the_workers(data, tmp_path):
    settings = AugmentSettings(formats=NEW, companions="same_question")
    one = {s.id: s for s in augment(data.rows, data.root, settings, seed=3)}
    other = {s.id: s for s in augment(data.rows[::-1], data.root, settings, seed=3)}
    assert one == other
    augment_dataset(data.source, data.root, tmp_path / "out", settings, seed=3, workers=2)
    lines = (tmp_path / "out" / "samples.jsonl").read_text("utf-8").splitlines()
    assert [Sample.model_validate_json(line) for line in lines] == list(one.values())


@pytest.mark.parametrize("name", NEW)
def test_data_without_a_question_in_common_is_told_with_counts_before_anything_is_made(data, tmp_path, name):
    data.write([llava_row(c, f"plain/{c}.png", (f"Is this {c}?", "Yes, it is.")) for c in data.colors])
    out = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        augment_dataset(data.source, data.root, out, AugmentSettings(formats=[name, "sequence"]))
    assert f"{name} (0 of 12 rows share a question with rows of 1 other picture)" in str(caught.value)
    assert "sequence (" not in str(caught.value)
    assert not list(out.glob("**/*.jsonl"))
    with pytest.raises(DataError, match=r"sequence \(0 of 12 rows"):
        list(augment(data.rows, data.root, AugmentSettings(formats=["sequence"], companions="same_question")))


def test_where_no_row_can_be_used_at_all_their_own_reasons_are_told(data, tmp_path):
    data.write([llava_row(c, f"gone/{c}.png", (QUESTION, c)) for c in data.colors])
    with pytest.raises(DataError, match="not one sample could be made of 12 rows: row red: missing file"):
        augment_dataset(data.source, data.root, tmp_path / "out", AugmentSettings(formats=["search"]))


def test_rows_that_cannot_be_served_are_skipped_with_the_reason_and_counted(data, tmp_path):
    lonely = llava_row("lonely", "plain/teal.png", ("Is it teal?", "Yes."))
    pair = data.rows[:2]
    data.write([*pair, lonely])
    settings = AugmentSettings(formats=["captions"], captions={"counts": {2: 1}})
    manifest = augment_dataset(data.source, data.root, tmp_path / "out", settings)
    assert (manifest.counts["samples"], manifest.counts["skipped/no question in common"]) == (2, 1)
    (skipped,) = (Skipped.model_validate_json(x) for x in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert skipped.id == "lonely"
    assert "0 other pictures whose rows answer a question of this row otherwise, 1 are needed" in skipped.reason


def test_pictures_that_say_the_same_are_not_compared(data):
    said = ["It is dark."] * 11 + ["Teal."]
    rows = [llava_row(c, f"plain/{c}.png", (QUESTION, answer)) for c, answer in zip(data.colors, said, strict=True)]
    found = list(augment(rows, data.root, AugmentSettings(formats=["search"], search={"counts": {2: 1}})))
    assert len(found) == 12
    assert all(sorted(sample.source.answers) == ["It is dark.", "Teal."] for sample in found)
