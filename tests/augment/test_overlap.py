"""Held-out samples whose pictures training saw, by content, whatever the files are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from mia_augment.contents.overlap import seen_in_training, training_folders
from mia_augment.records import PreferencePair, Region, Sample, Scores, Source
from mia_augment.storage.files import Manifest, write_jsonl, write_manifest
from PIL import Image

SCORES = Scores()


def grid(name: str, paths: list[str]) -> Sample:
    regions = [Region(image=0, box=(10 * i, 0, 10 * i + 10, 10), label=f"Image{i + 1}") for i in range(len(paths))]
    source = Source(ids=paths, paths=paths, question="What?")
    return Sample(id=name, format="grid", images=[f"{name}.png"], prompt="<image>\nWhat?", answer="a", regions=regions,
                  target=0, source=source)  # fmt: skip


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(path)


def stage(folder: Path, samples: list[Sample], root: str) -> Path:
    write_jsonl(folder / "samples.jsonl", samples)
    write_manifest(folder, Manifest(stage="augment", version="1", settings={}, inputs={}, image_folders=[root]))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three training pictures; two held-out samples: one shares a companion under another name, one shares nothing."""
    for number in range(3):
        picture(tmp_path / "train_pictures" / f"{number}.png", 10 * number)
    picture(tmp_path / "own" / "same_as_2.png", 20)
    picture(tmp_path / "own" / "0.png", 200)  # a name that training has too, for another picture
    picture(tmp_path / "own" / "1.png", 210)
    training = stage(tmp_path / "augment", [grid("t", ["0.png", "1.png", "2.png"])], "../train_pictures")
    samples = [grid("shared", ["0.png", "same_as_2.png"]), grid("apart", ["0.png", "1.png"]), grid("gone", ["7.png", "1.png"])]
    return stage(tmp_path / "held_out", samples, "../own"), training


def test_a_picture_counts_by_its_content_and_not_by_its_name(folders):
    held_out, training = folders
    assert seen_in_training(held_out, [training]) == ["shared"]
    assert seen_in_training(held_out, []) == []
    assert seen_in_training(training, [training]) == ["t"]


def test_pictures_of_another_size_in_bytes_are_not_read(folders, tmp_path, monkeypatch):
    held_out, training = folders
    (tmp_path / "train_pictures" / "0.png").write_bytes(b"x" * 5000)
    read = []
    monkeypatch.setattr("mia_augment.contents.overlap.hash_of", lambda path, *_: read.append(path.name) or path.read_bytes())
    assert seen_in_training(held_out, [training]) == ["shared"]
    assert sorted(read).count("0.png") == 1  # the held-out one


def test_what_a_training_goes_back_to_is_found_through_its_folders(folders, tmp_path):
    _, training = folders
    assert training_folders(tmp_path / "trained") == []
    (tmp_path / "empty").mkdir()
    made = Manifest(stage="train", version="1", settings={}, inputs={}, image_folders=["../empty", "../augment", "../gone"])
    write_manifest(tmp_path / "trained", made)
    assert training_folders(tmp_path / "trained") == [training]


def test_pairs_without_samples_count_by_their_own_pictures(folders, tmp_path):
    held_out, _ = folders
    picture(tmp_path / "imported" / "p.png", 20)
    pair = PreferencePair(id="p", format="single", images=["p.png"], prompt="<image>\nWhat?", chosen="a", rejected="b",
                          target=0, regions=[Region(image=0, label="Image1")], scores=SCORES)  # fmt: skip
    write_jsonl(tmp_path / "imported" / "pairs.jsonl", [pair])
    assert seen_in_training(held_out, [tmp_path / "imported"]) == ["shared"]
