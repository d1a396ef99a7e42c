"""Rows of a data set on the hub: how it is named, what is read, and what is said without a network."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import ConfigError, DataError
from mia_augment.read.dataset import picture_folder
from mia_augment.read.hub_rows import HubSet, hub_set, hub_values
from PIL import Image


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("hf://owner/name", HubSet("owner/name", None, None, "train")),
        ("hf://datasets/owner/name", HubSet("owner/name", None, None, "train")),
        ("hf://owner/na.me-2:test[:10%]", HubSet("owner/na.me-2", None, None, "test[:10%]")),
        ("hf://owner/name@v1.0/vqa:validation", HubSet("owner/name", "v1.0", "vqa", "validation")),
    ],
)
def test_how_a_data_set_is_named(written, meant):
    assert hub_set(Path(written)) == meant


@pytest.mark.parametrize("written", ["hf://owner", "hf://a/b/c/d", "hf://", "hf://a/b c"])
def test_what_is_no_name_is_refused(written, tmp_path):
    with pytest.raises(ConfigError, match="expected a data set of the hub as hf://OWNER/NAME"):
        augment_dataset(Path(written), tmp_path, tmp_path / "out")


def test_without_a_network_it_is_said_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"hf://owner/name:train: cannot be read .*`hf download owner/name --repo-type dataset"):
        augment_dataset(Path("hf://owner/name"), tmp_path, tmp_path / "out")


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """A parquet file with pictures inside takes the place of the hub; what it is asked is noted."""
    import datasets

    rows = []
    for number, color in enumerate(["red", "green", "blue", "black"]):
        stream = io.BytesIO()
        Image.new("RGB", (24, 16), color).save(stream, "PNG")
        rows.append(
            {
                "id": str(number),
                "image": {"bytes": stream.getvalue(), "path": None},
                "question": "What color is it?",
                "answer": color,
            }
        )
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.to_parquet(tmp_path / "hub.parquet")
    asked, load = [], datasets.load_dataset

    def from_file(name, configuration, *, split, revision, streaming):
        asked.append((name, configuration, split, revision))
        return load(
            "parquet", data_files=str(tmp_path / "hub.parquet"), split=split, streaming=streaming, cache_dir=tmp_path / "cache"
        )

    monkeypatch.setattr(datasets, "load_dataset", from_file)
    return asked


def test_rows_and_their_pictures_are_read_as_a_stream(tmp_path, on_the_hub):
    source, out = Path(f"hf://owner/name@{'0' * 40}"), tmp_path / "out"
    settings = AugmentSettings.model_validate({"formats": ["sequence"], "sequence": {"counts": [2]}})
    manifest = augment_dataset(source, picture_folder(source, out), out, settings)
    assert manifest.counts["samples"] == 4
    assert on_the_hub == [("owner/name", None, "train", "0" * 40)]
    assert len(list((out / "embedded").rglob("*.png"))) == 4
    assert augment_dataset(source, picture_folder(source, out), out, settings) == manifest  # and is not asked again
    assert len(on_the_hub) == 1


def test_pictures_come_as_the_bytes_they_are(tmp_path, on_the_hub):
    [first, *_] = hub_values(Path("hf://owner/name"))
    assert first["image"]["bytes"].startswith(b"\x89PNG")


def test_an_unknown_split_is_told(tmp_path, on_the_hub):
    with pytest.raises(DataError, match=r"cannot be read from the Hugging Face hub: .*nosuch"):
        list(hub_values(Path("hf://owner/name:nosuch")))
