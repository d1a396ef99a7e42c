from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mia_augment.errors import ConfigError, DataError
from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_augment.storage.files import Manifest, image_folders, read_jsonl, read_manifest, write_jsonl, write_manifest
from mia_select import Selector, SelectSettings, select_pairs, stage
from mia_select.stage import read_selection

MakeScored = Callable[..., ScoredSample]


@pytest.fixture
def scored(tmp_path: Path, make_scored: MakeScored) -> Path:
    folder = tmp_path / "scored"
    samples = [make_scored(f"s{i}", ratio=i / 10, parts=2 + i % 3) for i in range(10)]
    write_jsonl(folder / "scored.jsonl", samples)
    write_manifest(
        folder, Manifest(stage="score", version="0", settings={}, inputs={}, image_folders=["../samples", "../photos"])
    )
    return folder


def test_a_selection_writes_pairs_drops_counts_and_where_the_images_lie(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    manifest = select_pairs(scored, out)
    pairs = list(read_jsonl(out / "pairs.jsonl", PreferencePair))
    dropped = list(read_jsonl(out / "dropped.jsonl", Dropped))
    report = read_selection(out)
    assert [p.id for p in pairs] == [f"s{i}" for i in range(8)]
    assert [(d.id, d.rule) for d in dropped] == [("s8", "attention"), ("s9", "attention")]
    assert (report.samples, report.pairs) == (10, 8)
    assert manifest == read_manifest(out)
    assert manifest.counts["pairs"] == 8
    assert manifest.counts["dropped/attention"] == 2
    assert manifest.counts["sequence/2"] == 3
    assert image_folders(out)[2:] == [(tmp_path / "samples").resolve(), (tmp_path / "photos").resolve()]


def test_a_finished_selection_is_left_alone_and_other_settings_redo_it(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    first = select_pairs(scored, out)
    (out / "pairs.jsonl").write_text("untouched\n" * 8)
    assert select_pairs(scored, out) == first
    assert (out / "pairs.jsonl").read_text() == "untouched\n" * 8
    (out / "pairs.jsonl").write_text("untouched\n" * 7)  # one is lost
    assert select_pairs(scored, out).counts == first.counts
    assert len(list(read_jsonl(out / "pairs.jsonl", PreferencePair))) == 8
    assert select_pairs(scored, out, SelectSettings(attention=False)).counts["pairs"] == 10


@pytest.mark.parametrize("lost", ["selection.json", "dropped.jsonl"])
def test_a_selection_that_lost_a_file_is_made_again(scored: Path, tmp_path: Path, lost: str) -> None:
    out = tmp_path / "pairs"
    select_pairs(scored, out)
    before = (out / lost).read_bytes()
    (out / lost).unlink()
    select_pairs(scored, out)
    assert (out / lost).read_bytes() == before


def test_a_folder_of_another_stage_is_refused(scored: Path) -> None:
    before = (scored / "scored.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="expected a folder of the stage 'select', it holds results of 'score'"):
        select_pairs(scored, scored)
    assert (scored / "scored.jsonl").read_bytes() == before


def test_a_fast_pass_over_the_file_gives_the_same_thresholds_as_reading_it(scored: Path) -> None:
    settings = SelectSettings.model_validate({"calibrate": {"keep": 0.5, "min_samples": 2}, "min_perplexity": None})
    from_file, from_list = Selector(settings), Selector(settings)
    samples = stage.Samples(scored / "scored.jsonl")
    assert list(from_file.run(samples)) == list(from_list.run(list(samples)))
    assert from_file.report() == from_list.report()
    assert {line.origin for line in from_file.report().thresholds} == {"keep"}


def test_the_same_bytes_come_again(scored: Path, tmp_path: Path) -> None:
    settings = SelectSettings(calibrate="auto", balance=["parts"], max_pairs=4)
    for name in ("one", "two"):
        select_pairs(scored, tmp_path / name, settings)
    for file in ("pairs.jsonl", "dropped.jsonl", "selection.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_no_pair_left_is_an_error_that_counts_and_writes_nothing(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 10 scored samples is left; dropped by rule: attention 2, perplexity 8"):
        select_pairs(scored, tmp_path / "pairs", SelectSettings(min_perplexity=9.0))
    assert not list((tmp_path / "pairs").glob("*"))


def test_a_failed_selection_leaves_an_older_one_whole(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    first = select_pairs(scored, out)
    with pytest.raises(DataError):
        select_pairs(scored, out, SelectSettings(min_perplexity=9.0))
    assert read_manifest(out) == first


def test_missing_and_broken_input_is_named(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; expected scored samples"):
        select_pairs(tmp_path, tmp_path / "pairs")
    lines = (scored / "scored.jsonl").read_text().splitlines()
    (scored / "scored.jsonl").write_text("\n".join([lines[0], json.dumps({"id": "x"})]))
    with pytest.raises(DataError, match="line 2: not a valid ScoredSample"):
        select_pairs(scored, tmp_path / "pairs")


@pytest.mark.parametrize("lines", [9, 11])
def test_scored_samples_that_are_not_as_many_as_were_made_are_refused(scored: Path, tmp_path: Path, lines: int) -> None:
    manifest = read_manifest(scored)
    assert manifest is not None
    write_manifest(scored, manifest.model_copy(update={"counts": {"scored": 10, "samples": 12}}))
    file = scored / "scored.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*whole, *whole][:lines]))
    with pytest.raises(DataError, match=rf"scored.jsonl: expected 10 records, as .* counts them, found {lines}; run"):
        select_pairs(scored, tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
    file.write_text("".join(whole))
    assert select_pairs(scored, tmp_path / "pairs").counts["samples"] == 10


KILLED = """
import os, signal, sys
from pathlib import Path
from mia_select import select_pairs
select_pairs(Path(sys.argv[1]), Path(sys.argv[2]), progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_selection_left_is_cleared_away_by_the_next(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    killed = subprocess.run([sys.executable, "-c", KILLED, scored, out], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(out.glob(".*.tmp"))) == 2
    (out / ".mine.tmp").touch()  # not named as ours are
    select_pairs(scored, out)
    expected = [".mine.tmp", "dropped.jsonl", "manifest.json", "pairs.jsonl", "selection.json"]
    assert sorted(path.name for path in out.iterdir()) == expected


def test_progress_ends_at_the_number_of_samples(scored: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    select_pairs(scored, tmp_path / "pairs", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)


def test_progress_counts_every_pass_and_never_goes_back(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "TOLD_EVERY", 4)
    seen: list[tuple[int, int | None]] = []
    settings = SelectSettings(calibrate="auto", balance=["format"])
    select_pairs(scored, tmp_path / "pairs", settings, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [4, 8, 10, 12, 16, 20, 20]
    assert {total for _, total in seen} == {None, 20}
