"""Rows whose questions have no answer: taken where that is asked for, told where it is not."""

from __future__ import annotations

import json

import pytest
from mia_augment import AugmentSettings, augment, augment_dataset
from mia_augment.errors import DataError
from mia_augment.records import Sample, Skipped
from mia_augment.rows.row import Row, parse_row

ASKED = (("What is it?", ""),)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What is it?"},
        {"question": "What is it?", "answer": ""},
        {"question": "What is it?", "answers": []},
        {"questions": ["What is it?"]},
        {"conversations": [{"from": "human", "value": "<image>\nWhat is it?"}]},
        {"conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": " "}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]},
    ],
)
def test_a_question_without_an_answer_is_taken_where_that_is_asked_for(row):
    found = parse_row({"image": "a.jpg", **row}, 1, unlabelled=True)
    assert isinstance(found, Row), found
    assert found.turns == ASKED
    refused = parse_row({"image": "a.jpg", **row}, 1)
    assert isinstance(refused, Skipped)


def test_answers_that_are_there_are_kept_and_questions_are_still_needed():
    talk = [{"from": "human", "value": "One?"}, {"from": "human", "value": "Two?"}, {"from": "gpt", "value": "2"}]
    assert parse_row({"image": "a", "conversations": talk}, 1, unlabelled=True).turns == (("One?", ""), ("Two?", "2"))
    labelled = {"image": "a", "question": "One?", "answer": "1"}
    assert parse_row(labelled, 1, unlabelled=True) == parse_row(labelled, 1)
    for talk in ([{"from": "gpt", "value": "2"}], [{"from": "human", "value": "<image>"}]):
        assert isinstance(parse_row({"image": "a", "conversations": talk}, 1, unlabelled=True), Skipped)


def test_unlabelled_rows_with_one_question_are_companions_of_each_other(data):
    rows = [{"id": str(i), "image": row["image"], "question": "What is it?"} for i, row in enumerate(data.rows)]
    settings = AugmentSettings.model_validate({"formats": ["sequence"], "sequence": {"counts": [3]}, "unlabelled": True})
    samples = [made for made in augment(rows, data.root, settings) if isinstance(made, Sample)]
    assert len(samples) == len(rows)
    for sample in samples:
        assert (sample.answer, sample.source.answers) == ("", [None] * 3)


def test_rows_without_answers_are_told_with_the_way_out(data, tmp_path):
    source = tmp_path / "rows.json"
    source.write_text(json.dumps([{"image": row["image"], "question": "What is it?"} for row in data.rows]))
    with pytest.raises(DataError, match=r"no answer.*`augment\.unlabelled: true` \(`--unlabelled`\)"):
        augment_dataset(source, data.root, tmp_path / "out")
    manifest = augment_dataset(source, data.root, tmp_path / "out", AugmentSettings(unlabelled=True))
    assert manifest.counts["samples"] == len(data.rows)
