"""The quickstart's own data and settings."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from mia_augment.read.dataset import read_rows
from mia_augment.storage.files import content_hash
from mia_cli.config.schema import load_config
from mia_cli.drawn import drawing
from mia_cli.drawn.drawn_data import write_rows
from mia_cli.drawn.quickstart import prepare
from PIL import Image


class Silent:
    def say(self, *_):
        pass

    def progress(self, _):
        import contextlib

        return contextlib.nullcontext(lambda done, total: None)


OPTIONS = {"pictures": 3, "test_pictures": 2, "per_bucket": 5, "seed": 0, "model": "embedded"}


def test_every_attribute_of_a_picture_is_asked(tmp_path):
    assert write_rows(tmp_path, "train", 4).counts == {"pictures": 4, "rows": 20}
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert Counter(row["image"] for row in rows) == dict.fromkeys((f"pictures/train-0000{i}.png" for i in range(4)), 5)
    assert len({row["id"] for row in rows}) == 20
    first = rows[0]["conversations"]
    assert first[0] == {"from": "human", "value": "<image>\nWhat color are the shapes?"}
    assert first[1]["value"] in {f"The color is {color}." for color in drawing.COLORS}
    with Image.open(tmp_path / rows[0]["image"]) as picture:
        assert picture.size == (drawing.SIZE, drawing.SIZE)


def test_the_rows_can_be_read_back(tmp_path):
    write_rows(tmp_path, "train", 3, questions="one")
    rows = list(read_rows(tmp_path / "rows.json"))
    assert len(rows) == 3
    assert all(row.turns[0][0] in drawing.QUESTIONS.values() for row in rows)


def test_equal_seeds_give_equal_files(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_rows(tmp_path / name, "test", 3, seed=seed)
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b") != content_hash(tmp_path / "c")


def test_what_is_there_is_kept_and_other_data_is_made_anew(tmp_path):
    write_rows(tmp_path, "train", 2)
    (tmp_path / "pictures" / "train-00000.png").write_bytes(b"mine")
    write_rows(tmp_path, "train", 2)
    assert (tmp_path / "pictures" / "train-00000.png").read_bytes() == b"mine"
    write_rows(tmp_path, "train", 3)
    assert (tmp_path / "pictures" / "train-00000.png").read_bytes() != b"mine"


def test_training_and_test_pictures_never_show_the_same_things():
    both = [{tuple(scene.values()) for scene in drawing.scenes(split)} for split in ("train", "test")]
    assert both[0] & both[1] == set()


def test_the_quickstart_writes_settings_that_load(tmp_path):
    config = load_config(prepare(tmp_path, Silent(), **OPTIONS))
    assert config.data.source == tmp_path / "data" / "train" / "rows.json"
    assert config.evaluate.source == tmp_path / "data" / "test" / "rows.json"
    assert config.evaluate.per_bucket == 5
    assert config.data.source.is_file()
    assert config.evaluate.source.is_file()


def test_without_a_recipe_the_quickstart_takes_the_best_settings_known_and_no_ground_truth(tmp_path):
    best = load_config(prepare(tmp_path, Silent(), **OPTIONS))
    assert (best.score.layer, best.score.confusions, best.score.own_answer) == ("alone", True, True)
    assert (best.select.chosen, best.select.correct, best.select.rejected, best.select.max_pairs) == (
        "own",
        "likely",
        "both",
        1000,
    )
    assert (best.train.beta, best.train.learning_rate, best.train.gamma, best.train.epochs) == (1.0, 1e-4, 1.0, 3)


def test_the_paper_s_recipe_is_one_word_away(tmp_path):
    paper = load_config(prepare(tmp_path, Silent(), **OPTIONS, recipe="paper"))
    assert (paper.score.layer, paper.score.confusions) == (3, False)
    assert (paper.select.chosen, paper.select.rejected, paper.select.attention) == ("ground_truth", "own", True)
    assert (paper.select.max_pairs, paper.select.calibrate, paper.select.min_perplexity) == (None, "auto", 1.0)
    assert (paper.train.beta, paper.train.learning_rate, paper.train.gamma, paper.train.epochs) == (0.1, 5e-5, 1.0, 3)


@pytest.mark.parametrize(("recipe", "number"), [(None, 400), ("paper", 800)])
def test_as_many_pictures_are_drawn_as_the_settings_need(tmp_path, monkeypatch, recipe, number):
    drawn = []

    def noted(folder, split, number, **rest):
        drawn.append(number)
        return write_rows(folder, split, 10, **rest)

    monkeypatch.setattr("mia_cli.drawn.quickstart.write_rows", noted)
    prepare(tmp_path, Silent(), **{**OPTIONS, "pictures": None}, recipe=recipe)
    assert drawn == [number, OPTIONS["test_pictures"]]


def test_edited_settings_are_kept_and_untouched_ones_follow_the_options(tmp_path):
    path = prepare(tmp_path, Silent(), **OPTIONS)
    prepare(tmp_path, Silent(), **{**OPTIONS, "per_bucket": 7})
    assert load_config(path).evaluate.per_bucket == 7
    path.write_text(path.read_text().replace("per_bucket: 7", "per_bucket: 9"))
    prepare(tmp_path, Silent(), **{**OPTIONS, "per_bucket": 8})
    assert load_config(path).evaluate.per_bucket == 9
