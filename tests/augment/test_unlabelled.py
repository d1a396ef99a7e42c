"""Rows whose questions have no answer: taken where that is asked for, told where it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, augment, augment_dataset
from mia_augment.errors import ConfigError, DataError
from mia_augment.read.dataset import rows_from
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


def test_pictures_without_words_are_asked_general_questions_one_row_each():
    rows = [{"id": "a", "image": "a.jpg"}, {"image": "b.jpg"}, {"id": "c", "image": "c.jpg", "question": "What is it?"}]
    found = list(rows_from(rows, unlabelled=True, questions=["What?", "Where?"]))
    assert [(row.id, row.image, row.turns) for row in found] == [
        ("a-q1", "a.jpg", (("What?", ""),)),
        ("a-q2", "a.jpg", (("Where?", ""),)),
        ("row-2-q1", "b.jpg", (("What?", ""),)),
        ("row-2-q2", "b.jpg", (("Where?", ""),)),
        ("c", "c.jpg", (("What is it?", ""),)),
    ]
    assert [type(row) for row in rows_from(rows, unlabelled=True)] == [Skipped, Skipped, Row]  # no questions to ask
    assert AugmentSettings(unlabelled=True).asked_of_pictures
    assert AugmentSettings().asked_of_pictures == ()


def test_a_folder_of_pictures_is_rows_enough(data, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "photos" / "made"
    (folder / "more").mkdir(parents=True)
    names = sorted({row["image"] for row in data.rows})[:6]
    for number, name in enumerate(names):
        shutil.copy(data.root / name, folder / ("more" if number % 2 else ".") / f"{number}{Path(name).suffix}")
    (folder / ".hidden.png").write_bytes((data.root / names[0]).read_bytes())
    (folder / "notes.txt").write_text("no picture")
    settings = AugmentSettings.model_validate(
        {"unlabelled": True, "questions": ["What?", "Where?"], "companions": "any", "formats": ["sequence", "grid"]}
        | {"sequence": {"counts": [2]}, "grid": {"counts": [2]}}
    )
    with pytest.raises(DataError, match=r"pictures alone, without rows, are taken with `augment\.unlabelled: true`"):
        augment_dataset(folder, folder, out)
    manifest = augment_dataset(folder, folder, out, settings)
    assert (manifest.counts["rows"], manifest.counts["samples"], manifest.counts["skipped"]) == (12, 12, 0)
    samples = [Sample.model_validate_json(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {sample.source.question for sample in samples} == {"What?", "Where?"}
    assert {sample.source.paths[sample.target] for sample in samples} == {
        f"{'more/' if number % 2 else ''}{number}{Path(name).suffix}" for number, name in enumerate(names)
    }
    again = augment_dataset(folder, folder, out, settings)  # the pictures that were composed there are none of its input
    assert again == manifest
    (folder / "new.png").write_bytes((data.root / names[0]).read_bytes())
    assert augment_dataset(folder, folder, out, settings).counts["rows"] == 14
    with pytest.raises(ConfigError, match="expected it to be the image root too"):
        augment_dataset(folder, data.root, tmp_path / "elsewhere", settings)


def test_questions_that_cannot_be_asked_are_refused():
    for questions in (["What?", "What?"], [" "], ["<image> What?"]):
        with pytest.raises(ValueError, match="expected different questions"):
            AugmentSettings(questions=questions)
