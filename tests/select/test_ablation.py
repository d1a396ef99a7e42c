from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mia_augment.errors import DataError
from mia_augment.files import Manifest, image_folders, read_jsonl, write_jsonl, write_manifest
from mia_augment.records import PreferencePair, ScoredSample
from mia_select import SelectSettings
from mia_select.ablation import VARIANTS, Arm, arms
from mia_select.ablation_stage import write_arms
from mia_select.comparison import compare, effect
from mia_select.evaluation import Prediction

MakeScored = Callable[..., ScoredSample]
COLORS = ["red", "blue", "green", "white", "black", "grey", "pink"]


@pytest.fixture
def scored(make_scored: MakeScored) -> list[ScoredSample]:
    """120 sequences and 60 pic-in-pics; every third one is answered while looking at the target, every fourth right."""
    samples = []
    for i in range(180):
        answer = f"The color is {COLORS[i % 7]}."
        response = answer if i % 4 == 0 else f"The color is {COLORS[(i + 1 + i % 3) % 7]}."
        samples.append(
            make_scored(
                f"s{i}",
                format="sequence" if i < 120 else "pic_in_pic",
                ratio=0.9 if i % 3 == 0 else 0.4,
                answer=answer,
                response=response,
                perplexity=1.05 if i % 10 == 1 else 1.5,
                confusions=[None, f"The color is {COLORS[(i + 5) % 7]}."],
            )
        )
    return samples


def by_name(found: list[Arm]) -> dict[str, Arm]:
    return {arm.variant.name: arm for arm in found}


def test_every_variant_gets_as_many_pairs_or_a_reason(scored: list[ScoredSample]) -> None:
    found = by_name(arms(scored, least=20))
    assert set(found) == {variant.name for variant in VARIANTS}
    sizes = {len(arm.pairs) for arm in found.values() if arm.left_out is None}
    assert len(sizes) == 1
    (size,) = sizes
    assert size == min(arm.available for arm in found.values() if arm.available >= 20) == found["pic_in_pic_only"].available
    assert found["grid_only"].left_out == f"its selection gives 0 pairs, {size} are needed (dropped: format 180)"
    assert found["grid_only"].pairs == []


def test_variants_do_what_they_say(scored: list[ScoredSample]) -> None:
    found = by_name(arms(scored, least=20))
    texts = {s.id: s for s in scored}
    assert all(p.scores.ratio == 0.4 and p.scores.perplexity == 1.5 for p in found["full"].pairs)
    assert any(p.scores.ratio == 0.9 for p in found["no_attention"].pairs)
    assert any(p.scores.perplexity == 1.05 for p in found["no_post_selection"].pairs)
    assert {p.format for p in found["sequence_only"].pairs} == {"sequence"}
    assert {p.format for p in found["pic_in_pic_only"].pairs} == {"pic_in_pic"}
    assert all(p.id.endswith("~Image2") for p in found["confusion"].pairs)
    assert found["nll_only"].pairs == found["full"].pairs
    assert found["nll_only"].variant.train["dpo_alpha"] == 0
    assert [p.id for p in found["random_rejected"].pairs] == [p.id for p in found["full"].pairs]
    for pair in found["random_rejected"].pairs:
        assert pair.rejected not in (texts[pair.id].answer, texts[pair.id].response)
        assert pair.rejected in {s.response for s in scored if s.format == pair.format}


def test_a_wanted_number_of_pairs_leaves_smaller_variants_out(scored: list[ScoredSample]) -> None:
    found = by_name(arms(scored, pairs=50))
    assert len(found["full"].pairs) == 50
    assert found["pic_in_pic_only"].left_out is not None


def test_the_draw_depends_on_the_seed_alone(scored: list[ScoredSample]) -> None:
    first, again, other = (
        by_name(arms(samples, pairs=30, seed=seed)) for samples, seed in [(scored, 1), (scored, 1), (scored, 2)]
    )
    assert first["full"].pairs == again["full"].pairs
    assert first["random_rejected"].pairs == again["random_rejected"].pairs
    assert first["full"].pairs != other["full"].pairs


def test_settings_are_the_common_start(scored: list[ScoredSample]) -> None:
    found = by_name(arms(scored, SelectSettings(min_perplexity=1.0, max_pairs=3), pairs=30))
    assert any(p.scores.perplexity == 1.05 for p in found["full"].pairs)
    assert len(found["full"].pairs) == 30


def test_a_one_shot_iterator_is_refused(scored: list[ScoredSample]) -> None:
    with pytest.raises(ValueError, match="iterated repeatedly"):
        arms(iter(scored))


def test_arms_become_folders_that_the_trainer_reads(scored: list[ScoredSample], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scored" / "scored.jsonl", scored)
    manifest = Manifest(stage="score", version="0", settings={}, inputs={}, image_folders=["../photos"])
    write_manifest(tmp_path / "scored", manifest)
    lines = write_arms(tmp_path / "scored", tmp_path / "arms", pairs=30, seed=3)
    kept = {line.variant: line for line in lines if line.left_out is None}
    assert {path.parent.name for path in (tmp_path / "arms").glob("*/pairs.jsonl")} == set(kept)
    assert "grid_only" not in kept
    for name in kept:
        assert len(list(read_jsonl(tmp_path / "arms" / name / "pairs.jsonl", PreferencePair))) == 30
        assert image_folders(tmp_path / "arms" / name)[-1] == (tmp_path / "photos").resolve()
    assert kept["nll_only"].train == {"dpo_alpha": 0.0, "gamma": 1.0}
    before = {path: path.read_bytes() for path in (tmp_path / "arms").rglob("*.json*")}
    write_arms(tmp_path / "scored", tmp_path / "arms", pairs=30, seed=3)
    assert before == {path: path.read_bytes() for path in (tmp_path / "arms").rglob("*.json*")}


def test_nothing_to_compare_is_an_error_that_says_why(scored: list[ScoredSample], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scored.jsonl", scored)
    with pytest.raises(DataError, match="full: its selection gives 78 pairs, 5000 are needed"):
        write_arms(tmp_path, tmp_path / "arms", pairs=5000)
    assert not (tmp_path / "arms").exists()


def predictions(after: list[bool], before: list[bool], format_: str = "sequence") -> list[Prediction]:
    return [
        Prediction.model_validate(
            {
                "id": f"{format_}{i}",
                "format": format_,
                "parts": 2,
                "answer": "x",
                "before": "y",
                "after": "y",
                "correct_before": b,
                "correct_after": a,
            }
        )
        for i, (a, b) in enumerate(zip(after, before, strict=True))
    ]


def test_a_comparison_counts_by_hand() -> None:
    before = [True, False, False, False]
    runs = {
        "full": {0: predictions([True, True, True, False], before), 1: predictions([True, True, False, False], before)},
        "nll_only": {0: predictions([True, True, False, False], before), 1: predictions([False, False, False, False], before)},
    }
    table = compare(runs)
    full, nll = table.row("full", "sequence"), table.row("nll_only", "sequence")
    assert (full.n, full.seeds, full.before, full.after) == (4, 2, 0.25, 0.625)
    assert full.gain.mean == pytest.approx(0.375)
    assert full.over_reference is None
    assert nll.gain.mean == pytest.approx(0.0)
    assert nll.over_reference is not None
    assert nll.over_reference.mean == pytest.approx(-0.375)
    assert table.groups == ["sequence", "multi_image"]
    assert table.row("full", "multi_image").gain == full.gain


def test_different_samples_or_seeds_are_refused() -> None:
    one = predictions([True], [False])
    with pytest.raises(ValueError, match="expected the same 1 samples"):
        compare({"full": {0: one}, "other": {0: predictions([True], [False], "grid")}})
    with pytest.raises(ValueError, match=r"expected the seeds \[0\], got \[1\]"):
        compare({"full": {0: one}, "other": {1: one}})
    with pytest.raises(ValueError, match="reference variant 'full'"):
        compare({"other": {0: one}})


def test_the_interval_is_the_normal_one_for_one_seed() -> None:
    values = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(1, 3000))
    half = 1.96 * values.std() / np.sqrt(3000)
    found = effect(values)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_the_interval_knows_the_spread_between_seeds() -> None:
    seeds, samples = 4, 2000
    values = np.repeat(np.array([[-0.1], [0.0], [0.1], [0.2]]), samples, axis=1)
    spread = np.std([-0.1, 0.0, 0.1, 0.2], ddof=1) / np.sqrt(seeds)
    found = effect(values)
    assert found.mean == pytest.approx(0.05)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.12)
