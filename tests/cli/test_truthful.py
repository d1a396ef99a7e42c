"""What is said at the end of a stage and of a run: counts that add up, and no figure where there is none to be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mia_augment.storage import Manifest, write_json, write_manifest
from mia_cli.config.recipe_files import recipe_settings
from mia_cli.layout import Folders
from mia_cli.report.collect import DROP_WORDS, funnel
from mia_cli.report.too_little import too_little
from mia_cli.terminal.counts_text import stage_counts
from mia_select.diagnosis.findings import LABEL_FREE
from mia_select.evaluation.accuracy import Accuracy, AccuracyRow, Evaluation
from mia_select.rules import RULES
from mia_select.statistics import paired_difference


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"rows": 36, "samples": 36, "skipped": 0}, "36 rows, 36 samples"),
        (
            {"rows": 36, "samples": 20, "skipped": 50, "rows_skipped": 16},
            "36 rows (16 left out, 20 used), 20 samples (34 of 54 could not be composed)",
        ),
        ({"rows": 310, "samples": 279, "skipped": 31, "rows_skipped": 31}, "310 rows (31 left out, 279 used), 279 samples"),
        (
            {"rows": 9, "samples": 9, "skipped": 0, "several_turns": 4},
            "9 rows, 9 samples, of 4 rows with several turns only the first question is asked",
        ),
        (
            {"rows": 40, "samples": 60, "skipped": 3, "rows_skipped": 3, "other_part": 7},
            "40 rows (3 left out, 7 held out, 30 used), 60 samples",
        ),
    ],
)
def test_rows_are_counted_as_rows_and_samples_as_samples(counts, said):
    assert stage_counts("augment", counts) == said


def test_other_stages_say_what_they_lost_and_of_how_many():
    assert stage_counts("score", {"samples": 9, "scored": 9, "skipped": 0, "without_ratio": 0}) == "9 samples scored"
    assert (
        stage_counts("score", {"samples": 10, "scored": 9, "skipped": 1, "without_ratio": 2})
        == "10 samples (1 left out, 9 scored, 2 of them without a ratio)"
    )
    assert stage_counts("select", {"samples": 300, "candidates": 300, "pairs": 94}) == "94 pairs of 300 samples"
    assert stage_counts("select", {"samples": 3, "candidates": 6, "pairs": 2}) == "2 pairs of 6 candidates from 3 samples"
    assert stage_counts("held_out", {"rows": 9, "samples": 2, "skipped": 0, "other_part": 7}).startswith(
        "9 rows (7 kept for tr"
    )
    assert stage_counts("another", {"things": 3}) == "3 things"


def test_the_funnel_of_the_report_adds_up_too(tmp_path):
    counts = {"rows": 36, "samples": 20, "skipped": 50, "rows_skipped": 16, "other_part": 4}
    steps = funnel({"augment": Manifest(stage="augment", version="1", settings={}, inputs={}, counts=counts)}, tmp_path)
    assert [(step.left, step.lost) for step in steps] == [(36, 0), (16, 20), (20, 34)]


def test_skipped_rows_are_counted_apart_from_samples_that_failed(tmp_path):
    from mia_augment.settings import AugmentSettings
    from mia_augment.stage import augment_dataset
    from PIL import Image

    rows = []
    for number in range(12):
        Image.new("RGB", (40, 40), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "question": "What?", "answer": f"It is {number}."})
    (tmp_path / "3.png").unlink()
    rows[4]["answer"] = "long " * 200
    talk = [("human", "<image>\nWhat?"), ("gpt", "It is 5."), ("human", "And then?"), ("gpt", "Nothing.")]
    rows[5] = {"id": "5", "image": "5.png", "conversations": [{"from": who, "value": said} for who, said in talk]}
    write_json(tmp_path / "rows.json", rows)
    settings = AugmentSettings.model_validate({"formats": ["sequence"], "samples_per_row": 3})
    counts = augment_dataset(tmp_path / "rows.json", tmp_path, tmp_path / "out", settings).counts
    assert (counts["rows_skipped"], counts["several_turns"]) == (2, 1)
    assert stage_counts("augment", counts).startswith("12 rows (2 left out, 10 used), ")


def test_every_rule_says_in_positive_words_what_it_drops():
    assert {rule.name for rule in RULES} == set(DROP_WORDS)
    for rule in RULES:
        assert rule.drops, rule.name
        assert not rule.dropped.startswith("not ")
    assert (DROP_WORDS["perplexity"], DROP_WORDS["attention"], DROP_WORDS["correct"]) == (
        *("too sure", "looked at the target", "answered rightly"),
    )


def test_what_to_do_with_free_answers_is_one_answer():
    """The advice of `mia diagnose`, the recipe `own` and the FAQ."""
    recipe = recipe_settings("own")
    for section, settings in LABEL_FREE.items():
        assert {name: recipe[section][name] for name in settings} == settings
    text = (Path(__file__).parents[2] / "docs" / "faq.md").read_text("utf-8")
    code = text.split("### My questions have long answers")[1].split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(code) == LABEL_FREE


def rated(right: int, n: int) -> Accuracy:
    return Accuracy(n=n, correct=right, rate=right / n, low=0.0, high=1.0)


def finished(folder: Path, *, pairs: int = 500, steps: int = 60, before: int, after: int, n: int) -> Folders:
    folders = Folders(folder)
    counts = {"pairs": pairs, "steps": steps}
    write_manifest(folders.trained, Manifest(stage="train", version="1", settings={}, inputs={}, counts=counts))
    difference = paired_difference([i < before for i in range(n)], [i < after for i in range(n)])
    row = AccuracyRow(
        name="multi_image", format=None, parts=None, before=rated(before, n), after=rated(after, n), difference=difference,
        mistakes_before={}, mistakes_after={},
    )  # fmt: skip
    write_json(folders.evaluated / "evaluation.json", Evaluation(n=n, rows=[row]).model_dump(mode="json"))
    return folders


def test_four_pairs_one_step_and_no_right_answer_say_that_nothing_can_be_learnt_or_measured(tmp_path):
    said = too_little(finished(tmp_path, pairs=4, steps=1, before=0, after=0, n=20))
    assert said[0].startswith("nothing can be learnt from 4 pairs in 1 optimizer step")
    assert said[1].startswith("nothing can be measured: 0 of 20 answers equal their ground truth, before and after")
    assert "docs/faq.md" in said[1]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"before": 500, "after": 600, "n": 1000}, []),
        ({"before": 5, "after": 6, "n": 10}, ["too few questions to tell: with 10"]),
        ({"before": 20, "after": 20, "n": 20}, ["nothing can be measured: 20 of 20 answers are right"]),
        (
            {"pairs": 500, "steps": 3, "before": 500, "after": 600, "n": 1000},
            ["nothing can be learnt from 500 pairs in 3"],
        ),
    ],
)
def test_it_says_so_where_it_is_so_and_only_there(tmp_path, sizes, said):
    found = too_little(finished(tmp_path, **sizes))
    assert len(found) == len(said)
    assert all(text.startswith(beginning) for text, beginning in zip(found, said, strict=True))


def test_more_pairs_are_not_asked_for_where_steps_are_missing(tmp_path):
    [said] = too_little(finished(tmp_path, pairs=500, steps=3, before=500, after=600, n=1000))
    assert "train.accumulation" in said
    assert "more rows" not in said


def test_it_stands_at_the_top_of_the_report(tmp_path):
    from mia_cli.config.schema import ReportSettings
    from mia_cli.report import write_report

    finished(tmp_path, pairs=4, steps=1, before=0, after=0, n=20)
    write_report(tmp_path, tmp_path / "page.html", ReportSettings())
    page = (tmp_path / "page.html").read_text("utf-8")
    assert 0 < page.index("Nothing can be learnt from 4 pairs") < page.index("<h2")


def test_it_stands_at_the_end_of_the_run(tmp_path):
    from mia_cli.terminal.result_tables import results, show_results
    from rich.console import Console

    finished(tmp_path, pairs=4, steps=1, before=0, after=0, n=20)
    console = Console(width=100, record=True)
    show_results(tmp_path, set(), console)
    assert "nothing can be learnt from 4 pairs in 1 optimizer step" in console.export_text().replace("\n", " ")
    assert len(results(tmp_path)["too_little"]) == 2
