"""`mia ablate` on the embedded model: equal arms, resumable, the same base answers for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from mia_augment.records import PreferencePair, Sample, ScoredSample
from mia_augment.storage.files import read_jsonl
from mia_cli.config.schema import load_config
from mia_cli.drawn.quickstart import prepare
from mia_cli.experiments.ablate import MoreFolders, _more_stages
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import stages
from mia_cli.runner import Runner
from mia_select.ablation.variants import VARIANTS
from mia_select.evaluation.accuracy import Prediction
from mia_select.evaluation.comparison import Outcome, compare

PAIRS = 6


class Silent:
    """A display that shows nothing."""

    def say(self, *_: object) -> None: ...

    def progress(self, *_: object, **__: object) -> object:
        import contextlib

        return contextlib.nullcontext(lambda done, total: None)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A small quickstart's pipeline.yaml, one epoch, with the model's answers about the targets alone."""
    options = {"pictures": 12, "test_pictures": 12, "per_bucket": 3, "seed": 0, "model": "embedded", "recipe": "paper"}
    path = prepare(tmp_path, Silent(), **options)  # type: ignore[arg-type]
    settings = yaml.safe_load(path.read_text())
    settings["train"]["epochs"] = 1
    settings["score"] |= {"layer": 3, "own_answer": True}
    path.write_text(yaml.safe_dump(settings))
    return path


def test_arms_have_equal_pairs_and_are_measured_on_the_same_samples(mia: Callable[..., Result], pipeline: Path) -> None:
    call = (
        "ablate",
        pipeline,
        "--variants",
        "no_post_selection,nll_only,label_free",
        "--pairs",
        str(PAIRS),
        "--seeds",
        "2",
        "--json",
    )
    result = mia(*call, "--jobs", "2")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    table, arms = found["comparison"], {arm["variant"]: arm for arm in found["arms"]}
    assert {row["variant"] for row in table["rows"]} == {"full", "no_post_selection", "nll_only", "label_free"}
    assert {(row["group"], row["n"]) for row in table["rows"] if row["group"] == "sequence"} == {("sequence", 12)}
    assert {len(row["per_seed"]) for row in table["rows"]} == {2}

    out = load_config(pipeline).run_dir / "ablate"
    trained = [arm for arm in arms if arms[arm]["same_as"] is None]
    assert arms["no_post_selection"]["same_as"] == "full"  # this pipeline's drops nothing
    pairs = {(arm, seed): (out / f"seed-{seed}" / arm / "pairs.jsonl").read_text() for arm in trained for seed in (0, 1)}
    assert {len(lines.splitlines()) for lines in pairs.values()} == {PAIRS}
    assert pairs["nll_only", 0] == pairs["full", 0] != pairs["full", 1]
    run, alone = (
        list(read_jsonl(folder / "scored.jsonl", ScoredSample)) for folder in (out.parent / "score", out / "measured/alone")
    )
    assert [one.response_ids for one in run] == [one.response_ids for one in alone]  # measured, not asked again
    assert ({one.attention.layer for one in run}, {one.attention.layer for one in alone}) == ({3}, {"alone"})
    own = {one.id: one.own_answer for one in run}
    free = list(read_jsonl(out / "seed-0/label_free/pairs.jsonl", PreferencePair))
    assert [pair.chosen for pair in free] == [own[pair.id] for pair in free]
    held_out = json.loads((out.parent / "held_out" / "manifest.json").read_text())
    assert held_out["counts"]["samples"] == len((out / "outcomes.jsonl").read_text().splitlines())
    assert len({path.read_bytes() for path in out.rglob("base.jsonl")}) == 1

    nll = [json.loads(line) for line in (out / "seed-0/nll_only/train/metrics.jsonl").read_text().splitlines()]
    assert nll[-1]["loss"] == pytest.approx(nll[-1]["nll"], rel=1e-6)  # no preference loss in this arm

    again = compare(
        read_jsonl(out / "outcomes.jsonl", Outcome), {name: arm["compared_with"] or "full" for name, arm in arms.items()}
    )
    assert again.model_dump(mode="json") == table  # without a model
    made = {path: path.stat().st_mtime_ns for path in out.rglob("train/manifest.json")}
    assert len(made) == 2 * len(trained)
    assert json.loads(mia(*call).stdout) == found
    assert made == {path: path.stat().st_mtime_ns for path in out.rglob("train/manifest.json")}


@pytest.mark.parametrize(("number", "made"), [(20, 21), (100, 120)])
def test_more_samples_of_a_rare_format_come_from_the_training_rows(pipeline: Path, number: int, made: int) -> None:
    """20 fit into 60 rows: 7 for each number of cells; 100 take every row twice."""
    config = load_config(pipeline)
    shared = SharedModel(config.model)
    runner = Runner(config.run_dir, Silent())  # type: ignore[arg-type]
    runner.run(next(stages(config, shared)))
    folders = MoreFolders(config.run_dir, "grid_only")
    (grid_only,) = (variant for variant in VARIANTS if variant.name == "grid_only")
    runner.run(next(_more_stages(config, folders, shared, grid_only, number)))
    found = list(read_jsonl(folders.samples / "samples.jsonl", Sample))
    assert (len(found), {sample.format for sample in found}) == (made, {"grid"})
    assert {Path(path).name.split("-")[0] for sample in found for path in sample.source.paths} == {"train"}


def test_an_unknown_variant_is_named(mia: Callable[..., Result], pipeline: Path) -> None:
    result = mia("ablate", pipeline, "--variants", "no_atention")
    assert result.exit_code == 2
    assert "no_atention" in result.stderr
    assert "no_attention" in result.stderr


def test_recipes_are_compared_on_the_same_samples_with_as_many_pairs(mia: Callable[..., Result], pipeline: Path) -> None:
    call = ("ablate", pipeline, "--recipes", "paper,s2h,ccdpo", "--pairs", str(PAIRS), "--seeds", "1", "--json")
    result = mia(*call)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    arms = {arm["variant"]: arm for arm in found["arms"]}
    assert list(arms) == ["full", "paper", "s2h", "ccdpo", "nll_only", "delimiters"]
    assert {name: arm["pairs"] for name, arm in arms.items()} == dict.fromkeys(arms, PAIRS) | {"delimiters": 0}
    assert arms["paper"]["same_as"] == "full"  # the quickstart's settings are the paper's
    assert arms["paper"]["train"] == {}
    out = load_config(pipeline).run_dir / "ablate"
    formats = {
        name: {json.loads(line)["format"] for line in (out / "seed-0" / name / "pairs.jsonl").read_text().splitlines()}
        for name in ("s2h", "ccdpo")
    }
    assert formats["s2h"] <= {"sequence", "comparison", "search"}
    assert formats["ccdpo"] == {"captions"}
    rows = [row for row in found["comparison"]["rows"] if row["group"] == "sequence"]
    assert {row["variant"] for row in rows} == set(arms)
    assert {row["n"] for row in rows} == {12}
    steered = list(read_jsonl(out / "seed-0/delimiters/evaluate/predictions.jsonl", Prediction))
    assert all(one.before == one.after for one in steered if one.format == "single")  # single pictures are left as they are
    assert all("base" not in path.parts for path in (out / "recipes").rglob("score"))


def test_a_recipe_that_the_data_cannot_serve_is_told_before_a_model_is_asked(
    mia: Callable[..., Result], pipeline: Path
) -> None:
    config = load_config(pipeline)
    rows = json.loads(config.data.source.read_text())
    for number, row in enumerate(rows):
        row["conversations"][0]["value"] = f"<image>\nIs this number {number}?"
    config.data.source.write_text(json.dumps(rows))
    result = mia("ablate", pipeline, "--recipes", "s2h", "--pairs", str(PAIRS), "--seeds", "1")
    assert result.exit_code == 2
    assert "recipe s2h: " in result.stderr
    assert "search (0 of 60 rows share a question with rows of 1 other picture)" in " ".join(result.stderr.split())
    assert not (config.run_dir / "score").exists()
