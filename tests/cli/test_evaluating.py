"""The evaluation's folder: one process at a time, and asked anew when a held-out picture was replaced."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mia_augment.errors import ConfigError, DataError
from mia_augment.records import LogpAlone, Region, Sample, Source
from mia_augment.storage.files import Manifest, read_jsonl, write_jsonl, write_manifest
from mia_augment.storage.lock import only_writer
from mia_augment.storage.stages import run_stage
from mia_cli.config.schema import EvaluateSettings, ReportSettings
from mia_cli.evaluate import evaluate_stage
from mia_cli.layout import Folders
from mia_cli.report import write_report
from mia_cli.terminal.result_tables import accuracy_table, speaking_table
from mia_select.evaluation import Evaluation, read_evaluation
from PIL import Image
from rich.console import Console


def respond(prompts, model, processor, *, open_image, batch_size, max_new_tokens, within=None) -> Iterator[SimpleNamespace]:
    """Answers with the colour of the picture."""
    return iter([SimpleNamespace(text=str(open_image(p.images[0]).getpixel((0, 0))[0]), perplexity=1.5) for p in prompts])


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    importlib.import_module("mia_attention.answering.part_answers")  # first imported now it would keep the fake one
    monkeypatch.setattr("mia_attention.answering.responses.try_respond", respond)
    folder = tmp_path / "held_out"
    records = [
        Sample(
            id=str(number), format="single", images=[f"{number}.png"], prompt="<image>\nWhat?", answer="10", target=0,
            regions=[Region(image=0, label="Image1")], source=Source(ids=["a"], paths=[f"{number}.png"], question="What?"),
        )
        for number in range(2)
    ]  # fmt: skip
    write_jsonl(folder / "samples.jsonl", records)
    for number in range(2):
        Image.new("RGB", (4, 4), (10, 0, 0)).save(folder / f"{number}.png")
    write_manifest(folder, Manifest(stage="augment", version="1", settings={}, inputs={}, counts={"samples": 2}))
    return folder


def evaluate(samples: Path, out: Path, **settings: object) -> list[str]:
    shared = SimpleNamespace(id="m", get=lambda: (None, None), settings=None)
    run_stage(evaluate_stage(samples, out, EvaluateSettings.model_validate(settings), shared, lambda: None))  # type: ignore[arg-type]
    return (out / "predictions.jsonl").read_text().splitlines()


def test_a_replaced_picture_is_asked_about_again(samples, tmp_path):
    first = evaluate(samples, tmp_path / "out")
    assert evaluate(samples, tmp_path / "out") == first
    Image.new("RGB", (4, 4), (20, 0, 0)).save(samples / "1.png")
    again = evaluate(samples, tmp_path / "out")
    assert again[0] == first[0]
    assert '"before":"20"' in again[1]


def test_without_training_the_second_answers_are_given_with_delimiters_scaled(samples, tmp_path, monkeypatch):
    asked: list[object] = []

    def noted(*args, within=None, **kwargs):
        asked.append(within and within.keywords)
        return respond(*args, **kwargs)

    monkeypatch.setattr("mia_attention.answering.responses.try_respond", noted)
    found = evaluate(samples, tmp_path / "out", delimiter_scale=8)
    assert asked == [None, {"scale": 8.0}]
    assert all('"after":"10"' in line for line in found)
    assert evaluate(samples, tmp_path / "out", delimiter_scale=4) == found
    assert asked[2:] == [{"scale": 4.0}]  # what the model says without it stays


def test_a_server_cannot_scale_delimiters(mia, tmp_path):
    with pytest.raises(ValueError, match="delimiter_scale: expected answers of the loaded model, got a server or file"):
        EvaluateSettings.model_validate({"delimiter_scale": 8, "answers": {"url": "http://127.0.0.1:1/v1"}})


def test_samples_with_pictures_of_training_are_counted_wherever_the_figures_are_shown(samples, tmp_path):
    run_dir = tmp_path / "run"
    trained, out = Folders(run_dir).trained, Folders(run_dir).evaluated
    made = Manifest(stage="train", version="1", settings={}, inputs={}, image_folders=["../augment"])
    write_manifest(trained, made)
    (trained / "model").mkdir()
    (trained / "model" / "config.json").write_text("{}")
    train_samples = Folders(run_dir).samples
    write_jsonl(train_samples / "samples.jsonl", list(read_jsonl(samples / "samples.jsonl", Sample))[:1])
    Image.new("RGB", (4, 4), (77, 0, 0)).save(samples / "1.png")
    (train_samples / "0.png").write_bytes((samples / "0.png").read_bytes())

    def asked() -> Evaluation:
        shared = SimpleNamespace(id="m", get=lambda: (None, None), release=lambda: None, settings=None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mia_cli.evaluate.load_trained", lambda *_: shared.get())
            run_stage(evaluate_stage(samples, out, EvaluateSettings(), shared, lambda: trained / "model"))
        return read_evaluation(out)

    found = asked()
    assert (found.n, found.seen_in_training) == (2, 1)
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(accuracy_table(found))
    shown = console.export_text()
    assert "not held out: 1 of 2 samples show pictures that are among the training data" in shown
    assert "Held-out samples" not in shown
    write_report(run_dir, run_dir / "report.html", ReportSettings())
    page = (run_dir / "report.html").read_text()
    assert "not held out: 1 of 2 samples" in page
    assert "pictures that training never saw" not in page
    assert page.count(", not held out") == 1  # on the card of single images
    Image.new("RGB", (4, 4), (78, 0, 0)).save(samples / "0.png")
    found = asked()
    assert (found.seen_in_training, found.flattered) == (0, None)
    console.print(accuracy_table(found))
    assert "Held-out samples" in console.export_text()


def test_without_a_share_of_pictures_nothing_is_held_out_and_that_is_refused(mia, tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    file = tmp_path / "pipeline.yaml"
    for command in ("run", "ablate"):
        file.write_text("data: {source: rows.json}\nevaluate: {holdout: 0}\n")
        result = mia(command, file)
        assert result.exit_code == 2
        assert "evaluate.holdout: expected a share of the pictures above 0, got 0" in result.stderr
    file.write_text("data: {source: rows.json}\nevaluate: {holdout: 0, per_bucket: 0}\n")
    assert "holdout" not in mia("run", file).stderr


def test_predictions_that_were_cut_are_made_again(samples, tmp_path):
    first = evaluate(samples, tmp_path / "out")
    (tmp_path / "out" / "predictions.jsonl").write_text(first[0] + "\n")
    assert evaluate(samples, tmp_path / "out") == first


def test_held_out_samples_that_were_cut_are_refused(samples, tmp_path):
    lines = (samples / "samples.jsonl").read_text().splitlines()
    (samples / "samples.jsonl").write_text(lines[0] + "\n")
    with pytest.raises(DataError, match=r"expected 2 records, as manifest.json counts them, found 1"):
        evaluate(samples, tmp_path / "out")


def test_a_second_evaluation_in_the_folder_is_refused(samples, tmp_path):
    with only_writer(tmp_path / "out"), pytest.raises(ConfigError, match="another process is writing here"):
        evaluate(samples, tmp_path / "out")
    assert len(evaluate(samples, tmp_path / "out")) == 2


def test_rows_without_ground_truths_are_measured_by_agreement_and_named_so(samples, tmp_path, monkeypatch):
    records = list(read_jsonl(samples / "samples.jsonl", Sample))
    Image.new("RGB", (4, 4), (20, 0, 0)).save(samples / "other.png")
    first = records[0].model_copy(
        update={
            "answer": "",
            "format": "sequence",
            "images": ["other.png", "0.png"],
            "prompt": "Image1:<image>\nImage2:<image>\nIn Image2, what?",
            "regions": [Region(image=0, label="Image1"), Region(image=1, label="Image2")],
            "target": 1,
            "source": Source(ids=["b", "a"], paths=["other.png", "0.png"], question="What?"),
        }
    )
    write_jsonl(samples / "samples.jsonl", [first, records[1].model_copy(update={"answer": "the row's own words"})])

    def weigh(asked, said, model, processor, *, open_image, batch_size) -> list[LogpAlone]:
        """An answer is likely where it is the picture's colour."""
        colours = [[str(open_image(name).getpixel((0, 0))[0]) for name in sample.source.paths] for sample in asked]
        logps = [[0.0 if text == colour else -4.0 for colour in row] for row, text in zip(colours, said, strict=True)]
        return [LogpAlone(summed=row, per_token=row) for row in logps]

    monkeypatch.setattr("mia_attention.answering.under_each_picture.under_each_picture", weigh)
    evaluate(samples, tmp_path / "out")
    found = read_evaluation(tmp_path / "out")
    # the sequence is answered by its first picture (20), the target alone by 10; the single one agrees with itself
    assert {row.name: row.before.rate for row in found.rows} == {"sequence": 0, "sequence/2": 0, "multi_image": 0, "single": 1}
    assert found.agreement
    speaking = found.row("sequence").speaking
    assert speaking is not None
    assert (speaking.n, speaking.before, speaking.after) == (1, 0, None)  # it speaks of the first picture
    assert speaking.share_before == pytest.approx(1 / (1 + math.exp(4)))
    assert found.row("sequence").mistakes_before["other_image"] == 1
    assert found.row("single").speaking is None
    table = speaking_table(found)
    assert table is not None
    assert "no accuracy" in str(table.title)
    said = Console(width=400, record=True, file=io.StringIO())
    said.print(accuracy_table(found))
    text = said.export_text()
    assert "agree with the model's own about the target alone" in text
    assert "agreement, not accuracy" in text
    assert "right answers" not in text


def test_with_ground_truths_there_is_accuracy(samples, tmp_path):
    evaluate(samples, tmp_path / "out")
    found = read_evaluation(tmp_path / "out")
    assert (found.agreement, found.flattered) == (False, None)
    assert not (tmp_path / "out" / "alone.jsonl").exists()
    assert speaking_table(found) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "select: {chosen: own}",
            "select.chosen: own needs the model's answers about the targets alone; set score.own_answer: true",
        ),
        ("select: {rejected: blocked}", "with attention between pictures blocked; set score.blocked_answer: true"),
        ("select: {correct: likely}", "needs likelihoods under pictures alone, got layer middle; set score.layer: alone"),
    ],
)
def test_a_selection_that_scoring_does_not_serve_is_refused_before_anything_runs(mia, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text("[]")
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"data: {{source: rows.json}}\n{settings}\n")
    result = mia("run", file)
    assert result.exit_code == 2
    assert message in result.stderr
