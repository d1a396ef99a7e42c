"""Two runs on the same held-out questions: paired, and only questions that are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mia_augment import DataError
from mia_augment.records import Region, Sample, Source
from mia_augment.storage.files import Manifest, write_json, write_jsonl, write_manifest
from mia_cli.layout import CONFIG, Folders
from mia_cli.report.two_runs.same_questions import same_questions
from mia_cli.report.two_runs.two_runs_page import run_names
from mia_select.evaluation import predict, summarize
from PIL import Image


def run(folder: Path, right: str, *, color: str = "red", beta: float = 0.1, trained: bool = True) -> Path:
    """A run whose questions are answered rightly after training where `right` has a 1; before, none is."""
    folders = Folders(folder)
    (folders.held_out / "images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (30, 20), color if name == "b" else "blue").save(folders.held_out / "images" / f"{name}.png")
    names = ["images/a.png", "images/b.png"]
    samples = [
        Sample(
            id=f"row-{n}", format="sequence", images=names, answer="Red.", target=1,
            prompt=f"Image1:<image>\nImage2:<image>\nIn Image2, what is row {n}?",
            regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2")],
            source=Source(ids=["x", "y"], paths=names, question="What?", answers=["Blue.", "Red."]),
        )
        for n in range(len(right))
    ]  # fmt: skip
    write_jsonl(folders.held_out / "samples.jsonl", samples)
    write_manifest(folders.held_out, Manifest(stage="augment", version="1", settings={}, inputs={}))
    said = [
        predict(s, "Blue.", ("Red." if letter == "1" else "Blue.") if trained else None)
        for s, letter in zip(samples, right, strict=True)
    ]
    write_jsonl(folders.evaluated / "predictions.jsonl", said)
    write_json(folders.evaluated / "evaluation.json", summarize(said).model_dump(mode="json"))
    inputs = {"samples.jsonl": f"{color}{len(right)}", "pictures": color}
    write_manifest(folders.evaluated, Manifest(stage="evaluate", version="1", settings={}, inputs=inputs))
    write_json(folder / CONFIG, {"run_dir": str(folder), "train": {"beta": beta, "epochs": 1}})
    return folder


def test_the_difference_is_paired_and_told(mia, tmp_path):
    first = run(tmp_path / "one" / "run", "1" * 10 + "0" * 30)
    second = run(tmp_path / "two" / "run", "0" * 2 + "1" * 28 + "0" * 10, beta=1.0)
    found = same_questions(first, second).evaluation.row("sequence")
    assert (found.before.correct, found.after.correct, found.difference.better, found.difference.worse) == (10, 28, 20, 2)
    result = mia("report", first, second)
    assert result.exit_code == 0, result.stderr
    text = (first / "compared.html").read_text("utf-8")
    shown = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    low, high = (f"{100 * edge:+.1f}" for edge in (found.difference.low, found.difference.high))
    assert (
        "About several images two/run is better than one/run: 25.0 and 70.0 % right, +45.0 points for two/run "
        f"(95 %: {low} to {high})."
    ) in shown
    assert "train.beta 0.1 1.0" in shown
    assert "train.epochs" not in shown
    assert "run_dir" not in shown
    assert "Right in one/run only: 2 " in shown
    assert "Right in two/run only: 20 " in shown
    assert "In Image2, what is row 0? Red. Red. Blue. row-0" in shown


def test_only_what_is_the_same_question_is_compared(tmp_path):
    """Two of forty have another prompt, one more is not there."""
    first, second = run(tmp_path / "a", "1" * 40), run(tmp_path / "b", "0" * 40)
    file = Folders(second).held_out / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    lines[3]["prompt"] = lines[4]["prompt"] = "Image1:<image>\nImage2:<image>\nIn Image2, what else?"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluated = Folders(second).evaluated
    predictions = (evaluated / "predictions.jsonl").read_text("utf-8").splitlines(keepends=True)
    (evaluated / "predictions.jsonl").write_text("".join(predictions[1:]))
    made = Manifest(stage="evaluate", version="1", settings={}, inputs={"samples.jsonl": "else", "pictures": "red"})
    write_manifest(evaluated, made)
    found = same_questions(first, second)
    assert (found.evaluation.n, found.other, found.lone) == (37, 2, (1, 0))


def test_pictures_of_another_content_make_other_questions(tmp_path):
    """The same ids and words, as two seeds of the quickstart have them."""
    first, second = run(tmp_path / "a", "1" * 20), run(tmp_path / "b", "0" * 20, color="green")
    with pytest.raises(DataError, match=r"no held-out question in common \(20 and 20 questions, 20 of the same id"):
        same_questions(first, second)


def test_a_run_without_training_is_compared_by_its_only_answers(tmp_path):
    first, second = run(tmp_path / "a", "1" * 20, trained=False), run(tmp_path / "b", "1" * 20)
    found = same_questions(first, second).evaluation.row("sequence")
    assert (found.before.correct, found.after.correct) == (0, 20)


def test_a_run_without_evaluation_is_refused(mia, tmp_path):
    first, second = run(tmp_path / "a", "1" * 20), run(tmp_path / "b", "0" * 20)
    (Folders(second).evaluated / "evaluation.json").unlink()
    result = mia("report", first, second)
    assert result.exit_code == 2
    assert "evaluation.json: no such file; expected the folder of a finished `mia evaluate`" in result.stderr


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("try/run", "again/run", ("try/run", "again/run")),
        ("run", "run-2", ("run", "run-2")),
        ("run", "run/b", ("run", "run/b")),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(tmp_path, first, second, names):
    assert run_names(tmp_path / first, tmp_path / second) == names
