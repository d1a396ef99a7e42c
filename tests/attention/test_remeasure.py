"""The same answers measured by another readout: nothing is asked again, and the readout's own values come."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mia_attention import ScoreSettings, remeasure_stage, score_samples
from mia_attention.scoring.teacher_forced import attend
from mia_augment.records import ScoredSample
from mia_augment.storage import run_stage, standing
from mia_augment.storage.files import Manifest, image_folders, read_jsonl, write_jsonl, write_manifest

FIRST = ScoreSettings(layer=1, batch_size=2, max_new_tokens=4, own_answer=True)


@pytest.fixture
def scored(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    """Five samples scored by layer 1, whose answers were then replaced: only these may be measured."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png", "c.png", "grid.png", "pip.png"):
        tiny.open_image(name).save(pictures / name)
    samples = [
        tiny.sequence("s2", ["a.png", "b.png"], 1),
        tiny.grid("g"),
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0),
        tiny.single("x"),
        tiny.pic_in_pic("p"),
    ]
    made, out = tmp_path / "augmented", tmp_path / "scored"
    write_jsonl(made / "samples.jsonl", samples)
    write_manifest(made, Manifest(stage="augment", version="0", settings={}, inputs={}, image_folders=["../pictures"]))
    build = tiny.build("llava")
    score_samples(made, build.model, build.processor, out, FIRST, model_id="tiny")
    given = [
        sample.model_copy(update={"response": "given", "response_ids": [7 + number, 5, 9], "response_tokens": 3})
        for number, sample in enumerate(read_jsonl(out / "scored.jsonl", ScoredSample))
    ]
    silent = given[4].model_copy(update={"response": "", "response_ids": [], "response_tokens": 0})
    write_jsonl(out / "scored.jsonl", [*given[:4], silent])
    return out


@pytest.mark.parametrize("layer", ["alone", 0])
def test_answers_are_kept_and_measured_by_the_other_readout(
    scored: Path, tmp_path: Path, tiny: SimpleNamespace, layer: str | int
) -> None:
    build, out = tiny.build("llava"), tmp_path / "again"
    settings = FIRST.model_copy(update={"layer": layer})
    stage = remeasure_stage(scored, out, settings, "tiny", lambda: (build.model, build.processor))
    manifest = run_stage(stage).manifest
    before, after = (list(read_jsonl(folder / "scored.jsonl", ScoredSample)) for folder in (scored, out))
    assert [one.model_copy(update={"attention": None}) for one in after] == [
        one.model_copy(update={"attention": None}) for one in before
    ]
    assert {one.attention.layer for one in after} == {layer}
    for one in after[:3]:
        (alone,) = attend([one], [one.response_ids or []], build.model, build.processor, settings, open_image=tiny.open_image)
        assert one.attention.ratio == pytest.approx(alone.ratio, abs=1e-5)
    assert after[4].attention.ratio is None  # it says nothing
    assert after[4].attention.reason
    assert manifest.counts["samples"] == manifest.counts["scored"] == 5
    assert manifest.counts["without_ratio"] == sum(one.attention.ratio is None for one in after)
    assert (tmp_path / "pictures").resolve() in [folder.resolve() for folder in image_folders(out)]
    assert standing(stage).finished == manifest
    assert not (out / ".journal").exists()


def test_a_killed_call_goes_on_after_its_last_batch(scored: Path, tmp_path: Path, tiny: SimpleNamespace) -> None:
    build, out = tiny.build("llava"), tmp_path / "again"
    stage = remeasure_stage(scored, out, FIRST, "tiny", lambda: (build.model, build.processor))

    def kill(done: int, _: int | None) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, kill)
    told: list[int] = []
    run_stage(stage, lambda done, _: told.append(done))
    assert told == [5]
    assert [one.id for one in read_jsonl(out / "scored.jsonl", ScoredSample)] == ["s2", "g", "s3", "x", "p"]
