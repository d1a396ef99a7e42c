"""What the example task gives to lmms-eval."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from mia_augment.storage.files import Manifest, write_manifest
from PIL import Image

UTILS = Path(__file__).parents[2] / "examples" / "harnesses" / "lmms_eval" / "utils.py"


@pytest.fixture(scope="module")
def utils() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mia_lmms_eval_utils", UTILS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_come_in_the_order_of_the_placeholders(
    utils: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, name in enumerate(["a.png", "b.png"]):
        Image.new("RGB", (3 + index, 3)).save(tmp_path / name)
    (tmp_path / "samples").mkdir()
    manifest = Manifest(stage="augment", version="0", settings={}, inputs={}, image_folders=[".."])
    write_manifest(tmp_path / "samples", manifest)
    monkeypatch.chdir(tmp_path / "samples")
    doc = {"images": ["b.png", "a.png"], "prompt": "Image1:<image>\nImage2:<image>\nIn Image1, what is it?"}
    assert [picture.size for picture in utils.pictures(doc)] == [(4, 3), (3, 3)]
    assert utils.prompt(doc).count("<image>") == 2


def test_an_answer_counts_for_its_own_format(utils: ModuleType) -> None:
    found = utils.scores({"answer": "The color is red.", "format": "grid"}, ["the color is red"])
    assert found == {"accuracy": 1.0, "sequence": None, "grid": 1.0, "pic_in_pic": None, "single": None}
    assert utils.mean_of_known([None, 1.0, 0.0]) == 0.5
    assert utils.mean_of_known([None]) is None
