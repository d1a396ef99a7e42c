"""The stage's folder: files, counts, skipping what is done, going on after a kill."""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
from mia_attention import MAPS, ScoreSettings, maps_stage, read_maps, score_samples, score_stage, under_each_picture
from mia_attention.measure.layer_choice import LayerChoice, LayerScore
from mia_attention.scoring.ranks import Ranks
from mia_augment.errors import ConfigError, DataError
from mia_augment.images import picture_opener
from mia_augment.records import LogpAlone, Sample, ScoredSample, Skipped
from mia_augment.storage import run_stage, stages, standing
from mia_augment.storage.files import Manifest, read_jsonl, write_jsonl, write_manifest

SETTINGS = ScoreSettings(batch_size=2, max_new_tokens=4)
PROFILE = importlib.import_module("mia_attention.measure.layer_profile")  # the door's name is the function
FILES = ["scored.jsonl", "skipped.jsonl"]


@pytest.fixture
def folder(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    """Seven samples, one of them with a missing picture; pictures in another folder."""
    made = tmp_path / "augmented"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png", "c.png", "grid.png", "pip.png"):
        tiny.open_image(name).save(pictures / name)
    samples = [
        tiny.sequence("s2", ["a.png", "b.png"], 1),
        tiny.grid("g"),
        tiny.sequence("gone", ["a.png", "gone.png"], 1),
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0),
        tiny.pic_in_pic("p"),
        tiny.single("x"),
        tiny.sequence("t2", ["c.png", "a.png"], 0),
    ]
    write_jsonl(made / "samples.jsonl", samples)
    write_manifest(made, Manifest(stage="augment", version="0", settings={}, inputs={}, image_folders=["../pictures"]))
    return made


def run(folder: Path, out: Path, build: Any, settings: ScoreSettings = SETTINGS, **more: Any) -> Manifest:
    return score_samples(folder, build.model, build.processor, out, settings, model_id="tiny", **more)


def test_every_sample_is_scored_or_listed(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    out = tmp_path / "scored"
    done: list[tuple[int, int | None]] = []
    manifest = run(folder, out, tiny.build("llava"), progress=lambda count, total: done.append((count, total)))
    scored = list(read_jsonl(out / "scored.jsonl", ScoredSample))
    skipped = list(read_jsonl(out / "skipped.jsonl", Skipped))
    assert [item.id for item in scored] == ["s2", "g", "s3", "p", "x", "t2"]
    assert [item.id for item in skipped] == ["gone"]
    assert "gone.png" in skipped[0].reason
    assert manifest.counts == {
        "samples": 7,
        "scored": 6,
        "skipped": 1,
        "without_ratio": 1,
        "sequence/2": 2,
        "sequence/3": 1,
        "grid/2": 1,
        "pic_in_pic/2": 1,
        "single/1": 1,
    }
    assert manifest.notes["attention"].startswith("while answering: the rows pass by anyway")
    assert done[0] == (0, 7)
    assert done[-1] == (7, 7)
    assert (out / manifest.image_folders[-1]).resolve() == tmp_path / "pictures"
    assert sorted(path.name for path in out.iterdir()) == [".seen", "manifest.json", "scored.jsonl", "skipped.jsonl"]


def test_second_run_does_nothing_and_changed_settings_do_it_again(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    out, build = tmp_path / "scored", tiny.build("llava")
    first = run(folder, out, build)
    times = [(out / name).stat().st_mtime_ns for name in FILES]
    assert run(folder, out, build) == first
    assert [(out / name).stat().st_mtime_ns for name in FILES] == times
    again = run(folder, out, build, SETTINGS.model_copy(update={"layer": 1}))
    assert not again.same_work(first)
    assert json.loads((out / "scored.jsonl").read_text().splitlines()[0])["attention"]["layer"] == 1


def test_a_replaced_picture_is_noticed_and_a_touched_one_is_not(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    out, build, picture = tmp_path / "scored", tiny.build("llava"), tmp_path / "pictures" / "a.png"
    first = run(folder, out, build)
    before = (out / "scored.jsonl").read_bytes()
    os.utime(picture, ns=(1, 1))
    assert run(folder, out, build) == first
    tiny.picture(100, 60, seed=77).save(picture)
    again = run(folder, out, build)
    assert not again.same_work(first)
    assert (out / "scored.jsonl").read_bytes() != before
    fresh = tmp_path / "fresh"
    run(folder, fresh, build)
    assert (out / "scored.jsonl").read_bytes() == (fresh / "scored.jsonl").read_bytes()


def test_a_picture_that_comes_or_goes_is_noticed(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    out, build = tmp_path / "scored", tiny.build("llava")
    assert run(folder, out, build).counts["scored"] == 6
    tiny.open_image("b.png").save(tmp_path / "pictures" / "gone.png")
    assert run(folder, out, build).counts["scored"] == 7
    (tmp_path / "pictures" / "gone.png").unlink()
    assert run(folder, out, build).counts["scored"] == 6


def test_pictures_of_the_parts_count_where_they_are_asked_about(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    write_jsonl(folder / "samples.jsonl", [tiny.grid("g")])  # shows grid.png; its parts are a.png and b.png
    plain, confusions = tmp_path / "plain", tmp_path / "confusions"
    build, asked = tiny.build("llava"), SETTINGS.model_copy(update={"confusions": True})
    first = run(folder, plain, build), run(folder, confusions, build, asked)
    tiny.picture(100, 60, seed=77).save(tmp_path / "pictures" / "a.png")
    assert run(folder, plain, build) == first[0]
    assert not run(folder, confusions, build, asked).same_work(first[1])


@pytest.mark.parametrize("file", FILES)
def test_files_that_lost_records_are_made_anew(folder: Path, tmp_path: Path, tiny: SimpleNamespace, file: str) -> None:
    out, build = tmp_path / "scored", tiny.build("llava")
    run(folder, out, build)
    whole = (out / file).read_bytes()
    (out / file).write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    run(folder, out, build)
    assert (out / file).read_bytes() == whole


def test_samples_that_are_fewer_than_were_made_are_refused(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    made = Manifest(stage="augment", version="0", settings={}, inputs={}, image_folders=["../pictures"], counts={"samples": 8})
    write_manifest(folder, made)
    with pytest.raises(DataError, match=r"samples.jsonl: expected 8 records, as manifest.json counts them, found 7"):
        run(folder, tmp_path / "scored", tiny.build("llava"))


def test_a_second_process_in_the_folder_is_refused_and_changes_nothing(
    folder: Path, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    out, build = tmp_path / "scored", tiny.build("llava")
    refused: list[str] = []

    def second(count: int, total: int | None) -> None:
        if count == 2:
            held = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
            with pytest.raises(ConfigError) as error:
                run(folder, out, build, SETTINGS.model_copy(update={"layer": 1}))
            assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == held
            refused.append(str(error.value))

    assert run(folder, out, build, progress=second).settings["layer"] == "middle"
    assert len(refused) == 1
    assert f"another process is writing here (process {os.getpid()} on" in refused[0]
    assert "must not be deleted" in refused[0]


@pytest.mark.parametrize("step", ["before the manifest", "after the manifest", "in the midst of clearing up"])
def test_the_layer_that_was_chosen_outlives_a_kill_at_the_end(
    folder: Path, tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out, build, asked = tmp_path / "scored", tiny.build("llava"), SETTINGS.model_copy(update={"layer": "auto"})
    scores = (LayerScore(1, 0.75, 0.5, 0.9, 7), LayerScore(2, 0.5, 0.4, 0.6, 7))
    monkeypatch.setattr(PROFILE, "find_layer", lambda *_, **__: LayerChoice(1, scores))

    def killed(*arguments: Any, **_: object) -> None:
        if step == "after the manifest":
            write_manifest(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((stages.shutil, "rmtree") if "clearing" in step else (stages, "write_manifest")), killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, out, build, asked)
    monkeypatch.setattr(PROFILE, "find_layer", None)  # it is not to be looked for again
    run(folder, out, build, asked)
    kept = json.loads((out / "layer.json").read_text())
    assert (kept["layer"], [score["auroc"] for score in kept["scores"]]) == (1, [0.75, 0.5])
    assert not (out / ".journal").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import tiny_models
from mia_attention import ScoreSettings, score_samples

build = tiny_models.build("llava")

def progress(count, total):
    if count >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

settings = ScoreSettings(batch_size=2, max_new_tokens=4)
score_samples(Path(sys.argv[1]), build.model, build.processor, Path(sys.argv[2]), settings, model_id="tiny", progress=progress)
"""


def test_killed_run_goes_on_and_gives_the_same_bytes(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "PYTHONPATH": tiny_models.FOLDER}
    process = subprocess.run(
        [sys.executable, "-c", KILLED, folder, killed], check=False, capture_output=True, text=True, env=environment
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not (killed / "scored.jsonl").exists()
    journal = killed / ".journal" / "0.jsonl"
    with journal.open("a") as file:
        file.write('{"batch": 3, "lines": [[0, "sco')  # as if killed while writing
    resumed: list[int] = []
    run(folder, killed, tiny.build("llava"), progress=lambda count, _: resumed.append(count))
    assert resumed[0] == 4
    run(folder, whole, tiny.build("llava"))
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_journal_of_other_settings_is_not_used(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    out = tmp_path / "scored"
    (out / ".journal").mkdir(parents=True)
    lines = [[index, "scored.jsonl", "{}"] for index in range(7)]
    (out / ".journal" / "0.jsonl").write_text('{"work": "another"}\n' + json.dumps({"batch": 0, "lines": lines}) + "\n")
    assert run(folder, out, tiny.build("llava")).counts["scored"] == 6


def test_processes_share_the_batches_and_give_the_same_file(
    folder: Path, tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    build = tiny.build("llava")
    run(folder, alone, build)
    main = threading.get_ident()
    monkeypatch.setattr(Ranks, "from_environment", lambda: Ranks(int(threading.get_ident() != main), 2))
    other = SimpleNamespace(model=copy.deepcopy(build.model), processor=build.processor)
    second = threading.Thread(target=run, args=(folder, shared, other))
    second.start()
    run(folder, shared, build)
    second.join(30)
    for name in FILES:
        assert (alone / name).read_bytes() == (shared / name).read_bytes()


def test_rank_and_number_of_processes_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ranks.from_environment() == Ranks(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert [number for number in range(7) if Ranks.from_environment().owns(number)] == [2, 5]


def test_missing_or_empty_samples_are_refused(tmp_path: Path, tiny: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path, tmp_path / "out", tiny.build("llava"))
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(DataError, match="at least one sample"):
        run(tmp_path, tmp_path / "out", tiny.build("llava"))


def test_nothing_scored_is_an_error_with_the_first_reason(tmp_path: Path, tiny: SimpleNamespace) -> None:
    write_jsonl(tmp_path / "samples.jsonl", [tiny.sequence("s", ["no.png", "none.png"], 0)])
    with pytest.raises(DataError, match=r"none of 1 samples could be scored; the first, s: image 'no\.png'"):
        run(tmp_path, tmp_path / "out", tiny.build("llava"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_stage_tells_how_it_stands_without_loading_a_model(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    build, loaded = tiny.build("llava"), []

    def load() -> tuple[Any, Any]:
        loaded.append(1)
        return build.model, build.processor

    made = score_stage(folder, tmp_path / "scored", SETTINGS, "tiny", load)
    assert (standing(made).reason, loaded) == ("started", [])
    assert run_stage(made).made
    again = run_stage(made)
    assert (again.made, again.manifest.counts["scored"], loaded) == (False, 6, [1])
    changed = score_stage(folder, tmp_path / "scored", SETTINGS.model_copy(update={"layer": 1}), "tiny", load)
    assert standing(changed).reason == "redone: settings.layer: middle -> 1"
    assert loaded == [1]


def test_attention_maps_of_chosen_samples_are_a_stage(folder: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    """Samples without rows to read (a one-token answer) or without their picture have none, and are counted."""
    build, scored, out = tiny.build("llava"), tmp_path / "scored", tmp_path / "attention"
    run(folder, scored, build)
    samples = list(read_jsonl(scored / "scored.jsonl", ScoredSample))
    (tmp_path / "pictures" / "c.png").unlink()
    loaded: list[int] = []

    def load() -> tuple[Any, Any]:
        loaded.append(1)
        return build.model, build.processor

    made = maps_stage(scored, out, SETTINGS, "tiny", load, lambda: samples[:4], lambda: "four")
    assert run_stage(made).manifest.counts == {"maps": 3, "without": 1}
    assert not run_stage(made).made
    maps = read_maps(out / MAPS)
    assert list(maps) == ["s2", "g", "p"]
    assert max(cell for picture in maps["s2"].maps for row in picture for cell in row) == 1
    assert (len(maps["g"].maps), len(maps["s2"].maps)) == (1, 2)
    fewer = maps_stage(scored, out, SETTINGS, "tiny", load, lambda: pytest.fail("read to be planned"), lambda: "two")
    assert standing(fewer).reason == "redone: inputs.chosen changed"
    assert loaded == [1]


def test_maps_come_with_each_pictures_share_of_the_answers_likelihood(
    folder: Path, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    """As `under_each_picture` has it, exp of its sums over their total; a sample scored by `alone` is not asked again."""
    build, scored, out = tiny.build("llava"), tmp_path / "scored", tmp_path / "attention"
    run(folder, scored, build)
    sample = next(s for s in read_jsonl(scored / "scored.jsonl", ScoredSample) if s.id == "s2")
    known = LogpAlone(summed=[0.0, math.log(3)], per_token=[0.0, 0.0])
    asked = sample.model_copy(update={"attention": sample.attention.model_copy(update={"logp_alone": known}), "id": "known"})
    chosen, load = [sample, asked], lambda: (build.model, build.processor)
    made = maps_stage(scored, out, SETTINGS, "tiny", load, lambda: chosen, lambda: "two", alone=True)
    run_stage(made)
    maps = read_maps(out / MAPS)
    open_image = picture_opener(scored)
    [logps] = under_each_picture([sample], [sample.response_ids], *load(), open_image=open_image)
    each = [math.exp(logp) for logp in logps.summed]
    assert maps["s2"].alone == pytest.approx([value / sum(each) for value in each])
    assert maps["known"].alone == pytest.approx([0.25, 0.75])
    without = maps_stage(scored, out, SETTINGS, "tiny", load, lambda: chosen, lambda: "two")
    assert standing(without).reason == "redone: inputs.chosen changed"
    run_stage(without)
    assert "alone" not in (out / MAPS).read_text("utf-8")


def test_without_asking_no_model_is_loaded_and_samples_pass_with_the_reason(folder: Path, tmp_path: Path) -> None:
    def load() -> Any:
        raise AssertionError("the model was loaded")

    samples = list(read_jsonl(folder / "samples.jsonl", Sample))
    manifest = run_stage(score_stage(folder, tmp_path / "out", ScoreSettings(ask=False), "any", load)).manifest
    scored = list(read_jsonl(tmp_path / "out" / "scored.jsonl", ScoredSample))
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text("utf-8").splitlines()
    assert len(scored) + len(skipped) == len(samples) == manifest.counts["samples"]
    assert {(s.response, s.perplexity, s.attention.ratio, s.attention.reason) for s in scored} == {
        ("", None, None, "the model was not asked (score.ask: false)")
    }
    assert manifest.counts["skipped"] == len(skipped) > 0  # a picture is missing
