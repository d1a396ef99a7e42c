"""What is told of a model without loading it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from mia_augment import check_model_folder, model_fingerprint, models, text_config
from mia_augment.errors import ModelError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "WHOLE_FILE_BYTES", 4 * 2**20)
    folder = tmp_path / "model"
    (folder / "chat").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "chat" / "template.jinja").write_text("{{ m }}")
    (folder / "model.safetensors").write_bytes(bytes(5 * 2**20))
    return folder


def change_config(folder):
    (folder / "config.json").write_text("[]")


def change_a_file_below(folder):
    (folder / "chat" / "template.jinja").write_text("{{ n }}")


def rename(folder):
    (folder / "config.json").rename(folder / "settings.json")


def add_a_file(folder):
    (folder / "README.md").write_text("")


def change_the_weights_start(folder):
    overwrite(folder, 2**20 - 1)


def change_the_weights_end(folder):
    overwrite(folder, 4 * 2**20)


def lengthen_the_weights(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")


def overwrite(folder, place):
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(place)
        file.write(b"x")


@pytest.mark.parametrize(
    "change",
    [
        change_config, change_a_file_below, rename, add_a_file, change_the_weights_start, change_the_weights_end,
        lengthen_the_weights,
    ],
)  # fmt: skip
def test_another_model_has_another_fingerprint(folder, change):
    before = model_fingerprint(folder)
    change(folder)
    assert model_fingerprint(folder) != before


def test_the_same_model_elsewhere_has_the_same_fingerprint(folder, tmp_path):
    before = model_fingerprint(folder)
    assert model_fingerprint(str(folder.rename(tmp_path / "other"))) == before
    assert len(before) == 64


def test_a_model_of_a_hub_is_known_by_its_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_fingerprint("owner/name") == "hub:owner/name"


def test_the_text_configuration_is_the_decoders_or_the_models_own():
    text = SimpleNamespace(eos_token_id=2)
    assert text_config(SimpleNamespace(config=SimpleNamespace(get_text_config=lambda decoder: text))) is text
    assert text_config(SimpleNamespace(config=text)) is text


def test_a_checkpoint_of_llavas_original_code_is_told_with_what_to_do(tmp_path: Path) -> None:
    config = {"model_type": "llava_llama", "mm_vision_tower": "openai/clip-vit-large-patch14-336", "hidden_size": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(
        ModelError, match=r"original code.*mia convert .* --vision-tower CLIP --out DIR, with CLIP .*clip-vit-large-patch14-336"
    ):
        check_model_folder(tmp_path, "llava-v1.5-7b")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}), "utf-8")
    check_model_folder(tmp_path, "converted")
