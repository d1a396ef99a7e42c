"""The stage: folders in and out, skipping, splitting, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_models
from mia_augment.errors import ConfigError, DataError
from mia_augment.storage import Manifest, read_manifest, run_stage, standing, write_manifest
from mia_augment.storage.lock import only_writer
from mia_dpo_train import TrainSettings, split_pairs, train_pairs, train_stage
from mia_dpo_train.stage import contents_in

SETTINGS = {
    "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
    "epochs": 2,
    "per_device_batch_size": 1,
    "accumulation": 2,
    "gradient_checkpointing": False,
    "checkpoint_every": 2,
    "trackers": [],
}

RUNNER = """
import json, sys
from pathlib import Path
import tiny_models
from mia_dpo_train import TrainSettings, train_pairs
tiny = tiny_models.build("llava", strong=True)
settings = TrainSettings.model_validate(json.loads(sys.argv[3]))
train_pairs(Path(sys.argv[1]), tiny.model, tiny.processor, Path(sys.argv[2]), settings, model_id="tiny")
"""


def adapter_bytes(out):
    return {path.name: path.read_bytes() for path in (out / "adapter").iterdir()}


def no_model():
    raise AssertionError("a model was loaded to see how the stage stands")


def why(folder_in, out, settings, model_id):
    """Why the stage has to be made; "" where it is finished."""
    return standing(train_stage(folder_in, out, settings, model_id, no_model)).reason


@pytest.fixture
def stage(build, pairs_folder, tmp_path):
    def stage(out="out", **changes):
        model, processor = build("llava")
        settings = TrainSettings.model_validate({**SETTINGS, **changes})
        return train_pairs(pairs_folder, model, processor, tmp_path / out, settings, model_id="tiny")

    return stage


def test_counts_and_image_folders(stage, tmp_path, pairs_folder):
    manifest = stage()
    assert manifest == read_manifest(tmp_path / "out")
    assert manifest.stage == "train"
    assert manifest.counts["pairs"] == 9
    assert manifest.counts["steps"] == 10
    assert manifest.counts["route/kv"] == 1
    assert [(tmp_path / "out" / name).resolve() for name in manifest.image_folders] == [pairs_folder.resolve()]


def test_a_finished_stage_is_left_alone_until_something_changes(stage, tmp_path, pairs_folder):
    first = stage()
    settings = TrainSettings.model_validate(SETTINGS)
    assert why(pairs_folder, tmp_path / "out", settings, "tiny") == ""
    written = (tmp_path / "out" / "metrics.jsonl").stat().st_mtime_ns
    assert stage() == first
    assert (tmp_path / "out" / "metrics.jsonl").stat().st_mtime_ns == written
    assert why(pairs_folder, tmp_path / "out", settings, "other") == "redone: inputs.model: hub:tiny -> hub:other"
    before = read_manifest(pairs_folder)
    write_manifest(pairs_folder, before.model_copy(update={"inputs": {"scored": "other"}}))
    assert why(pairs_folder, tmp_path / "out", settings, "tiny") == "redone: inputs.pairs_made_from changed"
    assert stage(beta=0.2).settings["beta"] == 0.2


def test_a_second_training_in_the_folder_is_refused(stage, tmp_path):
    with only_writer(tmp_path / "out"), pytest.raises(ConfigError, match="another process is writing here"):
        stage()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_replaced_picture_or_a_lost_adapter_is_noticed(pairs_folder, tmp_path):
    settings, out = TrainSettings.model_validate(SETTINGS), tmp_path / "out"
    write_manifest(out, train_stage(pairs_folder, out, settings, "tiny", no_model).plan())
    assert "expected adapter/ or model/" in why(pairs_folder, out, settings, "tiny")
    (out / "adapter").mkdir()
    assert why(pairs_folder, out, settings, "tiny") == ""
    picture = next(pairs_folder.rglob("*.png"))
    os.utime(picture, ns=(1, 1))
    assert why(pairs_folder, out, settings, "tiny") == ""
    picture.write_bytes(picture.read_bytes() + b"more")
    assert why(pairs_folder, out, settings, "tiny") == "redone: inputs.pictures changed"


def test_pairs_that_are_fewer_than_were_selected_are_refused(stage, pairs_folder):
    before = read_manifest(pairs_folder)
    write_manifest(pairs_folder, before.model_copy(update={"stage": "select", "counts": {"pairs": 10}}))
    with pytest.raises(DataError, match=r"pairs.jsonl: expected 10 records, as manifest.json counts them, found 9"):
        stage()


def test_killed_in_the_middle_it_ends_with_the_same_bytes(stage, tmp_path, pairs_folder):
    stage("whole")
    out = tmp_path / "killed"
    settings = TrainSettings.model_validate({**SETTINGS, "workers": 1}).model_dump_json()
    command = [sys.executable, "-c", RUNNER, str(pairs_folder), str(out), settings]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": tiny_models.FOLDER}, stderr=subprocess.DEVNULL)
    checkpoint = out / "checkpoints" / "step-00000004"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    assert not (out / "manifest.json").exists()
    stage("killed")
    assert adapter_bytes(out) == adapter_bytes(tmp_path / "whole")


def test_killed_while_the_reference_is_computed(stage, tmp_path, monkeypatch):
    from mia_dpo_train.logps.reference import ReferenceSource

    stage("whole")
    compute, batches = ReferenceSource.compute, []

    def dying(self, batch):
        batches.append(batch.ids)
        if len(batches) == 3:
            with next((tmp_path / "killed").glob(".reference.journal/*")).open("ab") as file:
                file.write(b'{"batch": 2')  # a line that was cut off
            raise KeyboardInterrupt
        return compute(self, batch)

    monkeypatch.setattr(ReferenceSource, "compute", dying)
    with pytest.raises(KeyboardInterrupt):
        stage("killed")
    stage("killed")
    assert batches[2] == batches[3]
    assert len(batches) == 6  # 9 pairs in batches of 2: the two finished batches were not computed again
    first, second = ((tmp_path / name / "reference.json").read_bytes() for name in ("whole", "killed"))
    assert first == second
    assert adapter_bytes(tmp_path / "killed") == adapter_bytes(tmp_path / "whole")
    assert not (tmp_path / "killed" / ".reference.journal").exists()


def test_pairs_of_one_picture_are_held_out_together(make_pair):
    pairs = [make_pair(n, 1 + n % 3) for n in range(60)]
    training, held_out = split_pairs(pairs, 0.3, seed=0)
    assert len(training) + len(held_out) == 60
    assert {pair.images[0] for pair in training}.isdisjoint(pair.images[0] for pair in held_out)
    assert held_out
    assert split_pairs(pairs, 0.0, seed=0) == (pairs, [])


def test_a_picture_under_two_names_is_held_out_under_both(pairs, pairs_folder):
    folder = pairs_folder
    copies = []
    for pair in pairs:
        copy = f"copy-of-{pair.images[0]}"
        (folder / copy).write_bytes((folder / pair.images[0]).read_bytes())
        copies.append(pair.model_copy(update={"id": f"{pair.id}-copy", "images": [copy, *pair.images[1:]]}))
    training, held_out = split_pairs([*pairs, *copies], 0.4, 0, contents_in(folder))
    for side in (training, held_out):
        names = {pair.id for pair in side}
        assert side
        assert names == {name for each in names for name in (each.removesuffix("-copy"), each.removesuffix("-copy") + "-copy")}
    by_name = {pair.id for pair in split_pairs([*pairs, *copies], 0.4, 0)[1]}
    assert any((name + "-copy" in by_name) != (name in by_name) for name in (pair.id for pair in pairs))
    gone = pairs[0].model_copy(update={"images": ["gone.png", *pairs[0].images[1:]]})
    assert sum(map(len, split_pairs([gone], 0.4, 0, contents_in(folder)))) == 1


def test_missing_and_empty_pairs(stage, tmp_path, pairs_folder):
    (pairs_folder / "pairs.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no pair"):
        stage()
    (pairs_folder / "pairs.jsonl").unlink()
    with pytest.raises(DataError, match="no such file"):
        stage()


def test_a_folder_of_another_stage_is_refused(stage, tmp_path):
    write_manifest(tmp_path / "out", Manifest(stage="select", version="0.1.0", settings={}, inputs={}))
    with pytest.raises(ConfigError, match="expected a folder of the stage 'train', it holds results of 'select'"):
        stage()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_the_model_is_loaded_only_to_be_trained(build, pairs_folder, tmp_path):
    loads = []

    def load():
        loads.append(build("llava"))
        return loads[-1]

    stage = train_stage(pairs_folder, tmp_path / "out", TrainSettings.model_validate(SETTINGS), "tiny", load)
    assert [run_stage(stage).made for _ in range(2)] == [True, False]
    assert len(loads) == 1
