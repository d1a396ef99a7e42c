from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import ConfigError, DataError, MiaError
from mia_augment.indexing.build import Choice
from mia_augment.records import Sample, Skipped
from mia_augment.storage.files import image_folders, read_jsonl, read_manifest, resolve_image, write_manifest
from PIL import Image

SETTINGS = AugmentSettings.model_validate({"grid": {"cell": 48, "gap": 12, "label": 10}, "samples_per_row": 12})


def test_all_files_are_written_and_every_picture_is_found(data, tmp_path, make_row):
    data.write([*data.rows, make_row("bad", "plain/none.png", ("What?", "That.")), {"id": 3}])
    out = tmp_path / "out"
    manifest = augment_dataset(data.source, data.root, out, SETTINGS)
    assert sorted(path.name for path in out.iterdir()) == [
        ".pictures",
        "images",
        "manifest.json",
        "samples.jsonl",
        "skipped.jsonl",
    ]
    samples = list(read_jsonl(out / "samples.jsonl", Sample))
    skipped = list(read_jsonl(out / "skipped.jsonl", Skipped))
    assert manifest == read_manifest(out)
    assert manifest.counts["rows"] == 14
    assert manifest.counts["samples"] == len(samples) == 144
    assert manifest.counts["skipped"] == len(skipped) == 2
    assert manifest.counts["skipped/missing file"] == manifest.counts["skipped/bad row"] == 1
    for name in ("sequence/2", "grid/7", "pic_in_pic/2"):
        kind, parts = name.split("/")
        assert manifest.counts[name] == sum(s.format == kind and s.parts == int(parts) for s in samples)
    folders = image_folders(out)
    for sample in samples:
        for name in sample.images:
            with Image.open(resolve_image(name, folders)) as picture:
                picture.load()
                for region in sample.regions:
                    assert region.box is None or (region.box[2] <= picture.width and region.box[3] <= picture.height)
    made = {path.relative_to(out).as_posix() for path in (out / "images").rglob("*.*")}
    assert made == {name for sample in samples for name in sample.images if name.startswith("images/")}


def test_the_number_of_workers_changes_no_byte(data, tmp_path, tree):
    outs = [tmp_path / "one", tmp_path / "three"]
    for out, workers in zip(outs, (1, 3), strict=True):
        augment_dataset(data.source, data.root, out, SETTINGS, workers=workers)
    assert tree(outs[0]) == tree(outs[1])
    assert len(tree(outs[0])) > 50


def test_a_finished_folder_is_left_alone_and_changed_work_is_done_anew(data, tmp_path, tree):
    out = tmp_path / "out"
    first = augment_dataset(data.source, data.root, out, SETTINGS)
    stamp = (out / "samples.jsonl").stat().st_mtime_ns
    assert augment_dataset(data.source, data.root, out, SETTINGS, workers=2) == first
    assert (out / "samples.jsonl").stat().st_mtime_ns == stamp
    other = augment_dataset(data.source, data.root, out, AugmentSettings(formats={"sequence": 1}))
    assert other.counts["samples"] == 12
    assert not (out / "images").exists()
    data.write(data.rows[:8])
    assert augment_dataset(data.source, data.root, out, AugmentSettings(formats={"sequence": 1})).counts["rows"] == 8


def test_a_replaced_picture_is_noticed(data, tmp_path, tree):
    out, settings = tmp_path / "out", AugmentSettings(formats={"sequence": 1})
    first = augment_dataset(data.source, data.root, out, settings)
    data.picture("plain/red.png", (1, 2, 3))
    second = augment_dataset(data.source, data.root, out, settings)
    assert second.inputs["pictures"] != first.inputs["pictures"]  # the stages behind look at this
    assert {**second.inputs, "pictures": ""} == {**first.inputs, "pictures": ""}
    data.picture("plain/red.png", data.colors["red"])
    assert augment_dataset(data.source, data.root, out, settings).inputs == first.inputs


def test_a_replaced_picture_is_noticed_where_the_last_run_was_killed_at_its_very_end(data, tmp_path, monkeypatch):
    out, settings = tmp_path / "out", AugmentSettings(formats={"sequence": 1})
    with monkeypatch.context() as patch:
        patch.setattr("mia_augment.storage.stages.write_manifest", lambda *args: [write_manifest(*args), 1 / 0])
        with pytest.raises(ZeroDivisionError):
            augment_dataset(data.source, data.root, out, settings)
    old = read_manifest(out).inputs
    data.picture("plain/red.png", (1, 2, 3))
    assert augment_dataset(data.source, data.root, out, settings).inputs != old


def test_a_picture_that_was_missing_or_broken_is_noticed_when_it_comes(data, tmp_path, make_row):
    data.write([*data.rows, make_row("late", "plain/late.png", ("What?", "That.")), make_row("cut", "a/cut.png", ("A?", "B."))])
    (data.root / "a").mkdir()
    (data.root / "a/cut.png").touch()
    out, settings = tmp_path / "out", AugmentSettings(formats={"single": 1})
    assert augment_dataset(data.source, data.root, out, settings).counts["skipped"] == 2
    data.picture("plain/late.png", (1, 2, 3))
    assert augment_dataset(data.source, data.root, out, settings).counts["skipped"] == 1
    data.picture("a/cut.png", (4, 5, 6))
    assert augment_dataset(data.source, data.root, out, settings).counts["samples"] == 14
    (data.root / "plain/red.png").unlink()
    assert augment_dataset(data.source, data.root, out, settings).counts["samples"] == 13


def test_pictures_that_were_only_touched_or_copied_change_nothing(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = augment_dataset(data.source, data.root, out, SETTINGS)
    stamps = [(out / name).stat().st_mtime_ns for name in ("samples.jsonl", "manifest.json")]
    os.utime(data.root / "plain/red.png")
    assert augment_dataset(data.source, data.root, out, SETTINGS) == first
    (out / ".pictures").unlink()
    assert augment_dataset(data.source, data.root, out, SETTINGS) == first
    assert [(out / name).stat().st_mtime_ns for name in ("samples.jsonl", "manifest.json")] == stamps
    assert not (out / ".work").exists()
    monkeypatch.delattr("mia_augment.making.work.build_index")  # now it is known by size and time alone
    assert augment_dataset(data.source, data.root, out, SETTINGS) == first


def test_killed_while_old_files_are_cleared_it_goes_on(data, tmp_path, tree, monkeypatch):
    out, sequences = tmp_path / "out", AugmentSettings(formats={"sequence": 1})
    augment_dataset(data.source, data.root, out, SETTINGS)
    for calls in range(4):
        with monkeypatch.context() as patch:
            left = iter(range(calls))
            rmtree = shutil.rmtree

            def killed(*args, left=left, rmtree=rmtree, **options):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                rmtree(*args, **options)

            patch.setattr("mia_augment.making.clearing.shutil.rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                augment_dataset(data.source, data.root, out, sequences)
    augment_dataset(data.source, data.root, out, sequences)
    augment_dataset(data.source, data.root, tmp_path / "whole", sequences)
    assert tree(out) == tree(tmp_path / "whole")


def test_only_what_the_stage_has_made_is_cleared(data, tmp_path):
    out = tmp_path / "out"
    augment_dataset(data.source, data.root, out, SETTINGS)
    (out / "images" / "holiday.jpg").touch()
    (out / "notes.txt").touch()
    augment_dataset(data.source, data.root, out, AugmentSettings(formats={"sequence": 1}))
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {"images/holiday.jpg", "notes.txt", ".pictures", "manifest.json", "samples.jsonl", "skipped.jsonl"}


def test_results_of_others_are_not_cleared(data, tmp_path):
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    (out / "images" / "holiday.jpg").touch()
    with pytest.raises(ConfigError, match="something else"):
        augment_dataset(data.source, data.root, out, SETTINGS)
    assert (out / "images" / "holiday.jpg").exists()
    (out / "images" / "holiday.jpg").unlink()
    (out / "images").rmdir()
    (out / "images").touch()
    with pytest.raises(ConfigError, match="something else"):
        augment_dataset(data.source, data.root, out, SETTINGS)
    (out / "manifest.json").write_text('{"stage": "score", "version": "1", "settings": {}, "inputs": {}}')
    with pytest.raises(ConfigError, match="'score'"):
        augment_dataset(data.source, data.root, out, SETTINGS)


SCRIPT = """
import sys
from pathlib import Path
from mia_augment import AugmentSettings, augment_dataset
settings = AugmentSettings.model_validate_json(sys.argv[4])
augment_dataset(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), settings, workers=int(sys.argv[5]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_goes_on_and_the_bytes_are_the_same(data, tmp_path, tree, workers):
    settings = SETTINGS.model_copy(update={"samples_per_row": 60})
    augment_dataset(data.source, data.root, tmp_path / "whole", settings)
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, data.source, data.root, out, settings.model_dump_json(), str(workers)]
    killed = 0
    for chunks in (0, 1, 3, 5, 8):
        process = subprocess.Popen(command)
        while process.poll() is None and len(list((out / ".work" / "chunks").glob("*.jsonl"))) < chunks:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
    assert killed >= 4
    assert not (out / "samples.jsonl").exists()
    subprocess.run(command, check=True)
    assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="needs /bin/false")
def test_a_worker_that_dies_is_told_of_and_the_next_call_goes_on(data, tmp_path, tree, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(MiaError, match=r"a worker process ended at chunk .* call again to go on"):
            augment_dataset(data.source, data.root, tmp_path / "out", SETTINGS, workers=2)
    augment_dataset(data.source, data.root, tmp_path / "out", SETTINGS, workers=2)
    augment_dataset(data.source, data.root, tmp_path / "whole", SETTINGS)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_full_disk_is_told_of_and_the_next_call_goes_on(data, tmp_path, tree, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mia_augment.workers.worker.save_picture", full)
        with pytest.raises(MiaError, match="cannot be written: No space left on device"):
            augment_dataset(data.source, data.root, tmp_path / "out", SETTINGS)
    augment_dataset(data.source, data.root, tmp_path / "out", SETTINGS)
    augment_dataset(data.source, data.root, tmp_path / "whole", SETTINGS)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_chunk_that_was_cut_off_is_made_again(data, tmp_path, tree):
    augment_dataset(data.source, data.root, tmp_path / "whole", SETTINGS)
    out = tmp_path / "out"
    progress: list[int] = []

    def stop_late(done: int, total: int | None) -> None:
        progress.append(done)
        if total is not None and done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augment_dataset(data.source, data.root, out, SETTINGS, progress=stop_late)
    chunk = sorted((out / ".work" / "chunks").glob("*.jsonl"))[0]
    os.truncate(chunk, chunk.stat().st_size // 2)
    augment_dataset(data.source, data.root, out, SETTINGS)
    assert tree(out) == tree(tmp_path / "whole")


def test_held_out_pictures_are_never_used_in_training(data, tmp_path, make_row):
    data.picture("more/copy.png", data.colors["red"])
    (data.root / "more/copy.png").write_bytes((data.root / "plain/red.png").read_bytes())
    data.write([*data.rows, make_row("copy", "more/copy.png", ("What?", "That."))])
    settings = AugmentSettings(formats={"sequence": 1}, companions="any", sequence={"counts": {2: 1}}, samples_per_row=5)
    used: dict[str, set[str]] = {}
    counts = {}
    for part in ("train", "held_out", "all"):
        out = tmp_path / part
        counts[part] = augment_dataset(data.source, data.root, out, settings, holdout=0.4, part=part).counts
        used[part] = {path for sample in read_jsonl(out / "samples.jsonl", Sample) for path in sample.images}
    assert used["train"]
    assert used["held_out"]
    assert not used["train"] & used["held_out"]
    assert used["train"] | used["held_out"] == used["all"] == {row["image"] for row in data.rows}
    assert ("plain/red.png" in used["train"]) == ("more/copy.png" in used["train"])
    assert counts["train"]["samples"] + counts["held_out"]["samples"] == counts["all"]["samples"]
    assert counts["train"]["other_part"] + counts["held_out"]["other_part"] == 13


def test_as_many_pictures_are_held_out_as_asked():
    keys = [(key * 0x9E3779B97F4A7C15) % 2**64 for key in range(1, 5001)]
    held_out, train = (Choice(holdout=0.1, part=part) for part in ("held_out", "train"))
    assert sum(map(held_out.takes, keys)) == pytest.approx(500, abs=70)
    assert all(held_out.takes(key) != train.takes(key) for key in keys)
    assert all(Choice(holdout=0.1).takes(key) for key in keys[:50])


def test_limit_takes_the_first_rows(data, tmp_path):
    counts = augment_dataset(
        data.source, data.root, tmp_path / "out", limit=6, settings=AugmentSettings(formats={"single": 1})
    ).counts
    assert (counts["rows"], counts["samples"]) == (6, 6)


def test_progress_is_told(data, tmp_path):
    told: list[tuple[int, int | None]] = []
    augment_dataset(data.source, data.root, tmp_path / "out", SETTINGS, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (144, 144)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_nothing_left_is_an_error_that_says_why(data, tmp_path, make_row):
    data.write([make_row("bad", "plain/none.png", ("What?", "That.")), {"id": 3, "question": "a", "answer": "b"}])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"not one sample could be made of 2 rows: row bad: missing file.*; row 3: no image"):
        augment_dataset(data.source, data.root, out, SETTINGS)
    assert not out.exists() or not list(out.iterdir())


def test_missing_inputs_are_refused_before_anything_is_written(data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="no such file"):
        augment_dataset(tmp_path / "none.json", data.root, out)
    with pytest.raises(DataError, match="no such folder"):
        augment_dataset(data.source, tmp_path / "none", out)
    with pytest.raises(ConfigError, match="workers"):
        augment_dataset(data.source, data.root, out, workers=0)
    with pytest.raises(ConfigError, match="holdout"):
        augment_dataset(data.source, data.root, out, part="held_out")
    assert not out.exists()


def test_the_manifest_says_where_the_pictures_are_relative_to_itself(data, tmp_path):
    manifest = augment_dataset(data.source, data.root, tmp_path / "run" / "augment")
    assert manifest.image_folders == ["../../pictures"]
    assert json.loads((tmp_path / "run" / "augment" / "manifest.json").read_text())["settings"]["seed"] == 0


def test_importing_the_package_brings_no_torch_and_no_pillow():
    code = "import sys, mia_augment; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent).returncode == 0
