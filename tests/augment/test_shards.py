"""Shards of one data set: together they are what one process makes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import ConfigError
from mia_augment.making.shards import Shard
from mia_augment.records import Sample
from mia_augment.storage.files import image_folders, read_jsonl, read_manifest, resolve_image
from mia_augment.storage.lock import only_writer

SETTINGS = AugmentSettings.model_validate({"grid": {"cell": 48, "gap": 12, "label": 10}, "samples_per_row": 12})


@pytest.fixture
def odd(data, make_row):
    """Rows some of which give no sample, for three different reasons; one of them comes twice."""
    data.write([*data.rows, data.rows[0], make_row("bad", "plain/none.png", ("What?", "That.")), {"id": 3}, *data.rows[3:5]])
    return data


def shard_folders(out: Path) -> list[Path]:
    return sorted((out / "shards").iterdir())


@pytest.mark.parametrize("shards", [2, 3, 60])
def test_the_joined_shards_are_the_bytes_of_one_call(odd, tmp_path, tree, shards):
    one, out = tmp_path / "one", tmp_path / "out"
    whole = augment_dataset(odd.source, odd.root, one, SETTINGS)
    order = sorted(range(1, shards + 1), key=lambda number: -number)  # whichever comes first reads the rows
    counts = Counter()
    for number in order:
        counts.update(augment_dataset(odd.source, odd.root, out, SETTINGS, shard=f"{number}/{shards}").counts)
    assert counts == Counter(whole.counts)  # every row is counted once
    for name in ("samples.jsonl", "skipped.jsonl"):
        joined = b"".join((folder / name).read_bytes() for folder in shard_folders(out))  # as `cat` does
        assert joined == (one / name).read_bytes()
    assert augment_dataset(odd.source, odd.root, out, SETTINGS).counts == whole.counts
    assert tree(out) == tree(one)
    assert not (out / "shards").exists()


def test_a_shard_is_a_folder_of_samples_by_itself(odd, tmp_path):
    augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS, shard="2/3")
    folder = tmp_path / "out/shards/00002-of-00003"
    samples, folders = list(read_jsonl(folder / "samples.jsonl", Sample)), image_folders(folder)
    assert samples
    assert all(resolve_image(name, folders).is_file() for sample in samples for name in sample.images)
    assert len({path for sample in samples for path in sample.source.paths}) > 4  # companions come from all rows


def test_a_shard_reads_no_row_again(odd, tmp_path, monkeypatch):
    augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS, shard="2/3")
    monkeypatch.setattr("mia_augment.making.work.build_index", lambda *_: pytest.fail("read again"))
    augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS, shard="1/3")
    augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS)


def test_shards_of_machines_without_a_common_folder_are_copied_together_and_joined(odd, tmp_path, tree):
    augment_dataset(odd.source, odd.root, tmp_path / "one", SETTINGS)
    for number in (1, 2):
        augment_dataset(odd.source, odd.root, tmp_path / f"machine-{number}", SETTINGS, shard=f"{number}/2")
    shutil.copytree(tmp_path / "machine-2", tmp_path / "machine-1", dirs_exist_ok=True)
    chunks = len(list((tmp_path / "machine-1/.work/chunks").iterdir()))
    augment_dataset(odd.source, odd.root, tmp_path / "machine-1", SETTINGS)
    assert chunks == 36  # nothing was left to make: 144 samples, 4 in each
    assert tree(tmp_path / "machine-1") == tree(tmp_path / "one")


def test_a_finished_shard_is_left_alone_and_a_changed_one_made_anew(odd, tmp_path):
    out = tmp_path / "out"
    first = augment_dataset(odd.source, odd.root, out, SETTINGS, shard="1/2")
    file = out / "shards/00001-of-00002/samples.jsonl"
    stamp = file.stat().st_mtime_ns
    assert augment_dataset(odd.source, odd.root, out, SETTINGS, shard="1/2") == first
    assert file.stat().st_mtime_ns == stamp
    other = augment_dataset(odd.source, odd.root, out, AugmentSettings(formats={"sequence": 1}), shard="1/2")
    assert other.counts != first.counts
    assert not (out / "images").exists()


def test_a_missing_shard_is_made_when_they_are_joined(odd, tmp_path, tree):
    augment_dataset(odd.source, odd.root, tmp_path / "one", SETTINGS)
    augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS, shard="2/3")
    augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS)
    assert tree(tmp_path / "out") == tree(tmp_path / "one")


def test_a_shard_of_what_is_joined_already_is_not_made_again(odd, tmp_path, tree):
    whole = augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS)
    before = tree(tmp_path / "out")
    assert augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS, shard="1/2") == whole
    assert tree(tmp_path / "out") == before


def test_nothing_is_joined_or_cleared_while_a_shard_is_made(odd, tmp_path):
    out = tmp_path / "out"
    augment_dataset(odd.source, odd.root, out, SETTINGS, shard="1/2")
    with only_writer(out, part=1):
        with pytest.raises(ConfigError, match=r"shards are being made there .number 1.*join them when they have ended"):
            augment_dataset(odd.source, odd.root, out, SETTINGS)
        with pytest.raises(ConfigError, match="shards of other rows or settings"):
            augment_dataset(odd.source, odd.root, out, AugmentSettings(formats={"sequence": 1}), shard="2/2")
    assert augment_dataset(odd.source, odd.root, out, SETTINGS, shard="2/2").counts["samples"] > 0


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(odd, tmp_path, text):
    with pytest.raises(ConfigError, match="expected i/n with i from 1 to n"):
        augment_dataset(odd.source, odd.root, tmp_path / "out", SETTINGS, shard=text)


def test_an_exact_number_of_samples_cannot_be_shared_out(odd, tmp_path):
    settings = SETTINGS.model_copy(update={"per_bucket": 2})
    with pytest.raises(ConfigError, match="per_bucket"):
        augment_dataset(odd.source, odd.root, tmp_path / "out", settings, shard="1/2")


def test_shares_are_neighbours_and_cover_all_once():
    for of in (1, 2, 3, 7):
        for total in range(12):
            shares = [list(Shard(number, of).share(total)) for number in range(1, of + 1)]
            assert [place for share in shares for place in share] == list(range(total))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


SCRIPT = """
import sys
from pathlib import Path
from mia_augment import AugmentSettings, augment_dataset
source, root, out, settings, shard = sys.argv[1:]
augment_dataset(Path(source), Path(root), Path(out), AugmentSettings.model_validate_json(settings), shard=shard or None)
"""


def start(data, out: Path, shard: str, settings: AugmentSettings = SETTINGS) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, data.source, data.root, out, settings.model_dump_json(), shard]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_shards_at_the_same_time_killed_now_and_then_make_the_same(odd, tmp_path, tree):
    settings = SETTINGS.model_copy(update={"samples_per_row": 60})
    augment_dataset(odd.source, odd.root, tmp_path / "one", settings)
    out, killed = tmp_path / "out", 0
    for pause in (0.6, 0.9, 1.2):
        both = [start(odd, out, f"{number}/2", settings) for number in (1, 2)]
        time.sleep(pause)
        os.kill(both[0].pid, signal.SIGKILL)
        killed += both[0].wait() == -signal.SIGKILL
        assert both[1].wait() == 0, both[1].stderr.read()
        [process.stderr.close() for process in both]
    assert killed >= 1
    for number in (1, 2):
        augment_dataset(odd.source, odd.root, out, settings, shard=f"{number}/2")
    augment_dataset(odd.source, odd.root, out, settings)
    assert tree(out) == tree(tmp_path / "one")
    assert json.loads((out / "manifest.json").read_text())["counts"] == read_manifest(tmp_path / "one").counts
