"""Samples packed into files of many: what other loaders find in them is what the folder holds."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import ConfigError, DataError
from mia_augment.packed import pack_samples
from mia_augment.records import Sample
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image

SETTINGS = AugmentSettings.model_validate({"grid": {"cell": 48, "gap": 12, "label": 10}})


@pytest.fixture
def folder(data, tmp_path):
    augment_dataset(data.source, data.root, tmp_path / "samples", SETTINGS)
    return tmp_path / "samples"


def samples_of(folder: Path) -> list[Sample]:
    return list(read_jsonl(folder / "samples.jsonl", Sample))


def pictures_of(folder: Path, sample: Sample) -> list[bytes]:
    return [resolve_image(name, image_folders(folder)).read_bytes() for name in sample.images]


def test_a_tar_holds_each_sample_under_one_name(folder, tmp_path):
    files = pack_samples(folder, "webdataset", tmp_path / "out", per_file=5)
    assert [file.name for file in files] == ["samples-00000.tar", "samples-00001.tar", "samples-00002.tar"]
    found = []
    for file in files:
        with tarfile.open(file) as tar:
            held: dict[str, list[bytes]] = {}
            for member in tar:
                held.setdefault(member.name.split(".")[0], []).append(tar.extractfile(member).read())
        found += [(Sample.model_validate_json(record), pictures) for *pictures, record in held.values()]
    assert found == [(sample, pictures_of(folder, sample)) for sample in samples_of(folder)]
    note = json.loads((tmp_path / "out/samples.json").read_text())
    assert note["files"] == {"samples-00000.tar": 5, "samples-00001.tar": 5, "samples-00002.tar": 2}


def test_datasets_streams_the_tar_of_samples_that_are_alike(data, tmp_path):
    """It wants the same kinds of files in every sample, unlike WebDataset."""
    import datasets

    settings = AugmentSettings.model_validate({"formats": ["sequence"], "sequence": {"counts": [2]}})
    augment_dataset(data.source, data.root, tmp_path / "samples", settings)
    files = pack_samples(tmp_path / "samples", "webdataset", tmp_path / "out", per_file=6)
    rows = list(datasets.load_dataset("webdataset", data_files=[str(f) for f in files], split="train", streaming=True))
    wanted = samples_of(tmp_path / "samples")
    assert [row["json"]["id"] for row in rows] == [sample.id for sample in wanted]
    assert all(row["0.png"].size == (48, 32) for row in rows)


def test_datasets_opens_the_parquet_with_its_pictures(folder, tmp_path):
    import datasets

    files = pack_samples(folder, "parquet", tmp_path / "out", per_file=7)
    rows = datasets.load_dataset(
        "parquet", data_files=[str(f) for f in files], split="train", cache_dir=str(tmp_path / "cache")
    )
    raw = rows.cast_column("images", datasets.List(datasets.Image(decode=False)))
    wanted = samples_of(folder)
    assert [Sample.model_validate_json(row["sample"]) for row in raw] == wanted
    assert [[picture["bytes"] for picture in row["images"]] for row in raw] == [pictures_of(folder, s) for s in wanted]
    assert rows[0]["images"][0].size[0] > 0  # decoded by itself
    assert [(row["prompt"], row["target"]) for row in raw] == [(sample.prompt, sample.target) for sample in wanted]


def test_lines_name_the_pictures_where_they_lie(folder, tmp_path):
    [file] = pack_samples(folder, "jsonl", tmp_path / "out")
    found = list(read_jsonl(file, Sample))
    assert [sample.id for sample in found] == [sample.id for sample in samples_of(folder)]
    for packed, sample in zip(found, samples_of(folder), strict=True):
        assert [Path(name).read_bytes() for name in packed.images] == pictures_of(folder, sample)


def test_it_goes_on_with_the_files_that_are_missing(folder, tmp_path):
    out = tmp_path / "out"
    files = pack_samples(folder, "webdataset", out, per_file=5)
    bytes_of, stamp = {file: file.read_bytes() for file in files}, files[0].stat().st_mtime_ns
    files[1].unlink()
    assert pack_samples(folder, "webdataset", out, per_file=5) == files
    assert {file: file.read_bytes() for file in files} == bytes_of
    assert files[0].stat().st_mtime_ns == stamp


def test_files_of_other_samples_or_another_kind_do_not_stay(folder, tmp_path):
    out = tmp_path / "out"
    pack_samples(folder, "webdataset", out, per_file=1)
    pack_samples(folder, "jsonl", out, per_file=6)
    assert sorted(path.name for path in out.iterdir()) == ["samples-00000.jsonl", "samples-00001.jsonl", "samples.json"]


def test_all_shards_may_be_packed_into_one_folder(data, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        augment_dataset(data.source, data.root, tmp_path / "samples", SETTINGS, shard=f"{number}/2")
        pack_samples(tmp_path / f"samples/shards/0000{number}-of-00002", "jsonl", out)
    augment_dataset(data.source, data.root, tmp_path / "one", SETTINGS)
    files = sorted(out.glob("*.jsonl"))
    assert [file.name for file in files] == ["samples-00001-of-00002-00000.jsonl", "samples-00002-of-00002-00000.jsonl"]
    packed = [sample.id for file in files for sample in read_jsonl(file, Sample)]
    assert packed == [sample.id for sample in samples_of(tmp_path / "one")]


def test_what_cannot_be_packed_is_said(folder, tmp_path):
    with pytest.raises(ConfigError, match="expected one of webdataset, parquet, jsonl"):
        pack_samples(folder, "zip", tmp_path / "out")
    [composed, *_] = (folder / "images").rglob("*.*")
    composed.unlink()
    with pytest.raises(DataError, match="no such file in"):
        pack_samples(folder, "webdataset", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))
