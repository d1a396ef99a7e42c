"""Pairs that contrast pictures: another picture in the target's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mia_augment import pair_problem
from mia_augment.contents import pictures_digest
from mia_augment.errors import DataError
from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_augment.storage.files import write_jsonl
from mia_select import Selector, SelectSettings, select
from mia_select.export import export_pairs, trl_rows
from PIL import Image

MakeScored = Callable[..., ScoredSample]
RED, BLUE = "The color is red.", "The color is blue."


def selected(samples: list[ScoredSample], **settings: object) -> list[PreferencePair | Dropped]:
    return list(select(samples, SelectSettings.model_validate(settings)))


def test_the_chosen_answer_is_rejected_with_a_companion_in_the_targets_place(make_scored: MakeScored) -> None:
    """Whatever the model answered: also where it was right."""
    sample = make_scored(parts=3, target=1, response=RED, ratio=0.99, perplexity=1.0)
    (pair,) = selected([sample], rejected="image")
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.rejected, pair.rejected_answers) == (RED, RED, [])
    assert pair.rejected_images is not None
    assert [new == old for new, old in zip(pair.rejected_images, pair.images, strict=True)] == [True, False, True]
    assert pair.rejected_images[1] in (pair.images[0], pair.images[2])
    assert pair_problem(pair) is None
    assert (pair.scores.edit_distance, pair.scores.length_ratio) == (None, None)


def test_a_companion_that_is_known_to_have_the_same_answer_is_none(make_scored: MakeScored) -> None:
    rows = make_scored(parts=3, answers=[RED, "red", None])
    said = make_scored("b", parts=3, confusions=[None, BLUE, "the color is red"])
    first, second = selected([rows, said], rejected="image")
    assert isinstance(first, PreferencePair)
    assert isinstance(second, PreferencePair)
    assert first.rejected_images is not None
    assert second.rejected_images is not None
    assert second.rejected_images[0] == second.images[1]
    none = make_scored(parts=2, answers=[RED, "The color is RED"])
    (dropped,) = selected([none], rejected="image")
    assert isinstance(dropped, Dropped)
    assert (dropped.rule, dropped.value) == ("no_other_picture", "no companion picture with another answer")


def test_an_earlier_sample_gives_its_target(make_scored: MakeScored) -> None:
    samples = [make_scored("a"), make_scored("b"), make_scored("c", answer=BLUE, response=RED), make_scored("d", parts=3)]
    records = selected(samples, rejected="image", other_picture="sample")
    reasons = [record.value for record in records if isinstance(record, Dropped)]
    assert reasons == ["no earlier sample has another picture and another answer"] * 2  # the first, and one as red as it
    pairs = {record.id: record.rejected_images for record in records if isinstance(record, PreferencePair)}
    assert pairs["d"] == ["coco/c0.jpg", "coco/d1.jpg", "coco/d2.jpg"]
    assert pairs["c"] in (["coco/a0.jpg", "coco/c1.jpg"], ["coco/b0.jpg", "coco/c1.jpg"])
    assert selected(samples, rejected="image", other_picture="sample") == records


def test_parts_of_composed_pictures_are_counted_with_the_reason(make_scored: MakeScored) -> None:
    (dropped,) = selected([make_scored(format="grid")], rejected="image")
    assert isinstance(dropped, Dropped)
    assert (dropped.rule, dropped.value) == ("no_other_picture", "the target is a part of a composed picture")


def test_other_pictures_are_added_to_pairs_of_answers(make_scored: MakeScored) -> None:
    selector = Selector(SelectSettings(other_picture="companion"))
    sequence, grid = selector.run([make_scored("a"), make_scored("g", format="grid", ratio=0.1)])
    assert isinstance(sequence, PreferencePair)
    assert isinstance(grid, PreferencePair)
    assert (sequence.rejected, sequence.rejected_images) == (BLUE, ["coco/a1.jpg", "coco/a1.jpg"])
    assert grid.rejected_images is None
    (warning,) = selector.report().warnings
    assert warning == ("1 of 2 pairs have no other picture (of all 2 samples, the target is a part of a composed picture: 1)")


@pytest.fixture
def folder(tmp_path: Path, make_scored: MakeScored) -> Path:
    pairs = [
        *selected([make_scored("a")], other_picture="companion"),
        *selected([make_scored("b")], rejected="image"),
        *selected([make_scored("c")]),
    ]
    write_jsonl(tmp_path / "pairs" / "pairs.jsonl", pairs)
    (tmp_path / "pairs" / "coco").mkdir()
    for name in ("a0", "a1", "b0", "b1", "c0", "c1"):
        Image.new("RGB", (8, 6), (len(name), ord(name[0]), ord(name[1]))).save(tmp_path / "pairs" / "coco" / f"{name}.jpg")
    return tmp_path / "pairs"


@pytest.mark.parametrize("fmt", ["trl", "parquet", "llama-factory", "mia-dpo"])
def test_formats_without_a_place_for_them_refuse_with_counts(folder: Path, tmp_path: Path, fmt: str) -> None:
    with pytest.raises(DataError, match=rf"2 of 3 pairs contrast pictures \(rejected_images\), for which {fmt} has no place"):
        export_pairs(folder, fmt, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="pair a#2: it contrasts pictures"):
        list(trl_rows(folder))


def test_ms_swift_has_a_place_for_them(folder: Path, tmp_path: Path) -> None:
    file = export_pairs(folder, "ms-swift", tmp_path / "out", images="copy")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    contrasts = [(row["id"], row.get("rejected_response"), row.get("rejected_images")) for row in rows]
    assert contrasts == [
        ("a", BLUE, None),
        ("a#2", None, ["images/coco/a1.jpg", "images/coco/a1.jpg"]),
        ("b", None, ["images/coco/b1.jpg", "images/coco/b1.jpg"]),
        ("c", BLUE, None),
    ]
    assert (tmp_path / "out" / "images" / "coco" / "b1.jpg").is_file()


def test_a_changed_other_picture_changes_the_digest(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "pairs.jsonl").read_text("utf-8").splitlines()
    record = json.loads(lines[1])
    record["rejected_images"] = ["coco/c1.jpg", record["images"][1]]
    (folder / "pairs.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    before = pictures_digest(folder, "pairs.jsonl", tmp_path)
    Image.new("RGB", (9, 9)).save(folder / "coco" / "c1.jpg")
    assert pictures_digest(folder, "pairs.jsonl", tmp_path) != before


def test_as_many_other_pictures_as_pictures(make_scored: MakeScored) -> None:
    (pair,) = selected([make_scored()])
    record = json.loads(pair.model_dump_json())
    with pytest.raises(ValueError, match="expected 2 rejected_images, one in the place of each image, got 1"):
        PreferencePair.model_validate({**record, "rejected_images": ["x.png"]})
    same = PreferencePair.model_validate({**record, "rejected_images": record["images"]})
    assert str(pair_problem(same)).startswith("same pictures")
