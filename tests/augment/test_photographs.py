"""Real photographs (those that ship inside scikit-image and scikit-learn) under rows as dirty as LLaVA's."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.images.decode import open_picture
from mia_augment.records import Sample, Skipped
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image
from PIL import Image

skimage = pytest.importorskip("skimage")
sklearn_datasets = pytest.importorskip("sklearn.datasets")

PHOTOGRAPHS = {
    "coco/astronaut.png": ("What is the person wearing?", "An orange space suit."),
    "coco/chelsea.png": ("Which animal is it?", "A cat."),
    "coco/rocket.jpg": ("What stands on the pad?", "A rocket."),
    "coco/coffee.png": ("What is in the cup?", "Coffee."),
    "coco/flower.jpg": ("Which flower is it?", "A dahlia."),
    "coco/china.jpg": ("What kind of building is it?", "A palace."),
    "gray/camera.png": ("What does the man hold?", "A camera."),
    "gray/coins.png": ("What is on the table?", "Coins."),
    "gray/moon.png": ("What is shown?", "The moon."),
    "gray/page.png": ("Is it printed text?", "Yes."),
}


@pytest.fixture
def photographs(tmp_path) -> Path:
    folders = [Path(skimage.__file__).parent / "data", Path(sklearn_datasets.__file__).parent / "images"]
    for name in PHOTOGRAPHS:
        target = tmp_path / "photographs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        found = next(folder / target.name for folder in folders if (folder / target.name).is_file())
        shutil.copyfile(found, target)
    cut = (tmp_path / "photographs" / "coco" / "china.jpg").read_bytes()
    (tmp_path / "photographs" / "coco" / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    return tmp_path / "photographs"


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]


@pytest.fixture
def source(tmp_path) -> Path:
    rows: list = [
        {"id": n, "image": name, "conversations": talk(f"{question}\n<image>", answer)}
        for n, (name, (question, answer)) in enumerate(PHOTOGRAPHS.items())
    ]
    rows += [
        {"id": "text", "conversations": talk("Who wrote Faust?", "Goethe.")},
        {
            "id": 3,
            "image": "coco/coffee.png",
            "conversations": talk("<image>\nIs the cup full?", "Yes.", "Is it hot?", "I can't tell."),
        },
        {"id": "gone", "image": "coco/gone.jpg", "conversations": talk("<image>\nWhat?", "That.")},
        {"id": "cut", "image": "coco/cut.jpg", "conversations": talk("<image>\nWhat?", "That.")},
        {"id": "quiet", "image": "coco/rocket.jpg", "conversations": talk("<image>\nWhat?", "")},
        {
            "id": "face",
            "image": "coco/astronaut.png",
            "conversations": talk("<image>\nWhere is the face?", "[0.35, 0.1, 0.55, 0.4]"),
        },
    ]
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def made(photographs, source, tmp_path):
    out = tmp_path / "out"
    manifest = augment_dataset(source, photographs, out, AugmentSettings(samples_per_row=6), workers=2)
    return out, manifest, list(read_jsonl(out / "samples.jsonl", Sample))


def test_dirty_rows_are_counted_by_reason_and_the_others_give_samples(made):
    out, manifest, samples = made
    kinds = Counter(skipped.reason.split(":")[0] for skipped in read_jsonl(out / "skipped.jsonl", Skipped))
    assert kinds == {"no image": 1, "missing file": 1, "broken picture": 1, "no answer": 1} | (
        {"too few companions": kinds["too few companions"]} if "too few companions" in kinds else {}
    )
    assert manifest.counts["rows"] == 16
    # 12 good rows; only four gray pictures, so sequences of 5 and grids of 5 and more are impossible there
    assert manifest.counts["samples"] + kinds["too few companions"] == 12 * 6
    rows_with_id_3 = {s.source.ids[s.target] for s in samples if s.source.ids[s.target].startswith("3")}
    assert len(rows_with_id_3) == 2
    assert {s.format for s in samples if s.source.ids[s.target] == "face"} == {"sequence"}
    assert all(len({path.split("/")[0] for path in s.source.paths}) == 1 for s in samples)


def test_every_part_lies_in_its_box(made, photographs):
    out, _, samples = made
    composed = [sample for sample in samples if sample.format in ("grid", "pic_in_pic")]
    assert len(composed) > 15
    for sample in composed:
        picture = open_picture(resolve_image(sample.images[0], image_folders(out)))
        for index, (region, path) in enumerate(zip(sample.regions, sample.source.paths, strict=True)):
            if sample.format == "pic_in_pic" and index == 0:
                continue
            part = picture.crop(region.box)
            original = open_picture(photographs / path).resize(part.size, Image.Resampling.BICUBIC, reducing_gap=3)
            difference = np.abs(np.asarray(part, dtype=float) - np.asarray(original, dtype=float)).mean()
            assert difference < 5, (sample.id, path)
            others = [open_picture(photographs / other).resize(part.size) for other in sample.source.paths if other != path]
            assert all(np.abs(np.asarray(part, dtype=float) - np.asarray(other, dtype=float)).mean() > 15 for other in others)


def test_the_answer_belongs_to_the_target(made):
    _, _, samples = made
    for sample in samples:
        question, answer = PHOTOGRAPHS[sample.source.paths[sample.target]]
        assert (sample.source.question, sample.answer) in [
            (question, answer),
            ("Is the cup full?", "Yes."),
            ("Where is the face?", "[0.35, 0.1, 0.55, 0.4]"),
        ]
        if sample.source.question == "Is the cup full?":
            assert len(sample.followups) == 1
            assert sample.followups[0].prompt.endswith("is it hot?")
            assert sample.followups[0].answer == "I can't tell."
