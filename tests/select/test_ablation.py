from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mia_augment.errors import DataError
from mia_augment.records import PreferencePair, ScoredSample
from mia_augment.statistics import crossed_bootstrap
from mia_augment.storage.files import Manifest, image_folders, read_jsonl, write_jsonl, write_manifest
from mia_select import SelectSettings
from mia_select.ablation.arm_folders import ArmSummary, read_pool, write_arms
from mia_select.ablation.variants import VARIANTS, Arm, Pool, Variant, arms, common_size, needed, pool
from mia_select.evaluation.accuracy import Prediction
from mia_select.evaluation.comparison import Outcome, compare, outcomes

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
                own=f"It is {COLORS[i % 7]}.",
                own_ids=[i % 7],
            )
        )
    return samples


def measured(scored: list[ScoredSample], variant: Variant) -> list[ScoredSample]:
    """What the variant's readout makes of the samples: a large ratio is a large share, a small one a share far below chance."""
    readout = variant.readout
    if readout is None:
        return scored
    shares = {0.9: 0.9, 0.4: 0.2}
    read = [{"layer": readout, "ratio": shares[one.attention.ratio]} for one in scored]
    return [
        one.model_copy(update={"attention": one.attention.model_copy(update=new)})
        for one, new in zip(scored, read, strict=True)
    ]


def of(scored: list[ScoredSample], settings: SelectSettings | None = None) -> list[Pool]:
    """The pools of all variants."""
    return [pool(measured(scored, variant), settings or SelectSettings(), variant) for variant in VARIANTS]


def by_name(found: list[Arm]) -> dict[str, Arm]:
    return {arm.variant.name: arm for arm in found}


def test_variants_get_as_many_pairs_or_a_control_or_a_reason(scored: list[ScoredSample]) -> None:
    pools = of(scored)
    found = by_name(arms(pools, 50, least=20))
    assert set(found) == {variant.name for variant in VARIANTS} | {"full_26", "full_39"}
    sizes = {name: len(arm.pairs) for name, arm in found.items() if arm.left_out is None}
    small = {"pic_in_pic_only": 26, "full_26": 26, "reversed_attention": 39, "full_39": 39}
    assert sizes == {**dict.fromkeys(sizes, 50), **small}
    assert found["pic_in_pic_only"].compared_with == "full_26"
    assert found["sequence_only"].compared_with == found["full_26"].compared_with == "full"
    assert found["full"].compared_with is None
    assert {p.id for p in found["full_26"].pairs} < {p.id for p in found["full"].pairs}
    assert found["grid_only"].left_out == "its selection gives 0 pairs, 20 are needed (dropped: format 180)"
    assert found["grid_only"].pairs == []


def test_variants_do_what_they_say(scored: list[ScoredSample]) -> None:
    found = by_name(arms(of(scored), 20, least=20))
    texts = {s.id: s for s in scored}
    assert all(p.scores.ratio == 0.4 and p.scores.perplexity == 1.5 for p in found["full"].pairs)
    assert {p.scores.ratio for p in found["no_attention"].pairs} == {0.4, 0.9}
    assert {p.scores.ratio for p in found["reversed_attention"].pairs} == {0.9}
    assert any(p.scores.perplexity == 1.05 for p in found["no_post_selection"].pairs)
    assert {p.format for p in found["sequence_only"].pairs} == {"sequence"}
    assert {p.format for p in found["pic_in_pic_only"].pairs} == {"pic_in_pic"}
    assert all(p.id.endswith("~Image2") for p in found["confusion"].pairs)
    assert {p.id.endswith("~Image2") for p in found["own_and_confusion"].pairs} == {True, False}
    assert found["nll_only"].pairs == found["full"].pairs
    assert found["nll_only"].variant.train["dpo_alpha"] == 0
    assert found["nll_only"].same_as is None  # trained otherwise
    assert [p.id for p in found["random_rejected"].pairs] == [p.id for p in found["full"].pairs]
    for pair in found["random_rejected"].pairs:
        assert pair.rejected not in (texts[pair.id].answer, texts[pair.id].response)
        assert pair.rejected in {s.response for s in scored if s.format == pair.format}


def test_label_free_variants_look_at_no_ground_truth(scored: list[ScoredSample]) -> None:
    """Ground truths go round by one, or are gone: the same pairs come, whose chosen side is the model's own answer."""
    turned = [
        one.model_copy(update={"answer": other.answer}) for one, other in zip(scored, [*scored[1:], scored[0]], strict=True)
    ]
    gone = [one.model_copy(update={"answer": ""}) for one in scored]
    free = [variant for variant in VARIANTS if variant.name.startswith("label_free")]
    assert [variant.name for variant in free] == ["label_free", "label_free_attention", "label_free_no_rule"]
    assert all("rejected" not in variant.select for variant in free)
    own = {one.id: one.own_answer for one in scored}
    for settings in (SelectSettings(), SelectSettings(rejected="both", calibrate="auto", min_perplexity=1.0)):
        for variant in free:
            pairs, *others = [pool(measured(samples, variant), settings, variant).pairs for samples in (scored, turned, gone)]
            assert len(pairs) >= 50
            assert all(pair.chosen == own[pair.id.split("~")[0]] and pair.chosen_ids for pair in pairs)
            assert all(other == pairs for other in others), variant.name
    first, second = [pool(samples, SelectSettings(), VARIANTS[0]).pairs for samples in (scored, turned)]
    assert first != second  # the whole method does look at them


def test_label_free_variants_tell_wrong_answers_their_own_way(scored: list[ScoredSample]) -> None:
    pairs = {name: arm.pairs for name, arm in by_name(arms(of(scored), 50, least=20)).items()}
    ratios = {name: {pair.scores.ratio for pair in found} for name, found in pairs.items()}
    assert (ratios["label_free"], ratios["label_free_attention"]) == ({0.2}, {0.4})
    assert ratios["label_free_no_rule"] == {0.4, 0.9}
    found = by_name(arms(of(scored), 50, least=20))
    assert found["labelled"].same_as == "full"
    label_free = of(scored, SelectSettings(chosen="own"))
    assert by_name(arms(label_free, 50, least=20))["labelled"].same_as is None


def test_the_reversed_rule_keeps_what_the_rule_drops(scored: list[ScoredSample]) -> None:
    kept, reverse, both = (
        {p.id for p in pool(scored, SelectSettings(attention=rule), VARIANTS[0]).pairs} for rule in (True, "reversed", False)
    )
    assert kept
    assert reverse
    assert not kept & reverse
    assert kept | reverse == both


def test_equal_pairs_are_not_trained_twice(scored: list[ScoredSample]) -> None:
    lax = SelectSettings(min_perplexity=None, max_length_ratio=None, min_edit_distance=None)
    found = by_name(arms(of(scored, lax), 30, least=20))
    assert found["no_post_selection"].same_as == "full"
    assert found["no_post_selection"].pairs == found["full"].pairs
    assert found["no_attention"].same_as is None


def test_the_draw_depends_on_the_seed_alone(scored: list[ScoredSample]) -> None:
    pools = of(scored)
    first, again, other = (by_name(arms(entries, 30, seed=seed)) for entries, seed in [(pools, 1), (of(scored), 1), (pools, 2)])
    assert first["full"].pairs == again["full"].pairs
    assert first["random_rejected"].pairs == again["random_rejected"].pairs
    assert first["full"].pairs != other["full"].pairs


def test_settings_are_the_common_start(scored: list[ScoredSample]) -> None:
    pools = of(scored, SelectSettings(min_perplexity=1.0, max_pairs=3))
    found = by_name(arms(pools, 30))
    assert any(p.scores.perplexity == 1.05 for p in found["full"].pairs)
    assert len(found["full"].pairs) == 30


def test_a_one_shot_iterator_is_refused(scored: list[ScoredSample]) -> None:
    with pytest.raises(ValueError, match="iterated repeatedly"):
        pool(iter(scored), SelectSettings(), VARIANTS[0])


def test_the_size_leaves_every_seed_something_to_draw(scored: list[ScoredSample]) -> None:
    pools = of(scored)
    sizes = {entry.variant.name: len(entry.pairs) for entry in pools}
    assert (sizes["full"], sizes["reversed_attention"], sizes["pic_in_pic_only"]) == (78, 39, 26)
    assert common_size(pools) == 30  # three quarters of 39, which is half of 78
    assert common_size(pools[:2]) == 59
    assert common_size(pools, 78) == 78
    with pytest.raises(ValueError, match="full: its selection gives 78 pairs, 5000 are needed"):
        common_size(pools, 5000)


def test_more_samples_are_asked_for_at_the_rate_seen(scored: list[ScoredSample]) -> None:
    pools = {entry.variant.name: entry for entry in of(scored)}
    rare = pools["pic_in_pic_only"]  # 26 pairs of 60 samples
    assert needed(rare, 60, 52) == 121
    assert needed(pools["grid_only"], 0, 52) is None


def test_arms_become_folders_that_the_trainer_reads(scored: list[ScoredSample], tmp_path: Path) -> None:
    alone = measured(scored, next(v for v in VARIANTS if v.name == "label_free"))
    folders = (("scored", "../photos", scored), ("more", "../others", scored), ("alone", "../photos", alone))
    for place, images, samples in folders:
        write_jsonl(tmp_path / place / "scored.jsonl", samples)
        manifest = Manifest(stage="score", version="0", settings={}, inputs={}, image_folders=[images])
        write_manifest(tmp_path / place, manifest)
    places = {"pic_in_pic_only": "more", "label_free": "alone"}
    sources = {v.name: tmp_path / places.get(v.name, "scored") for v in VARIANTS}
    pools = {v.name: read_pool(sources[v.name], SelectSettings(), v) for v in VARIANTS}

    def write() -> list[ArmSummary]:
        return write_arms(pools, sources, tmp_path / "arms", SelectSettings(), 30, least=10, seed=3)

    kept = {line.variant: line for line in write() if line.left_out is None and line.same_as is None}
    assert {path.parent.name for path in (tmp_path / "arms").glob("*/pairs.jsonl")} == set(kept)
    assert "grid_only" not in kept
    for name, line in kept.items():
        assert len(list(read_jsonl(tmp_path / "arms" / name / "pairs.jsonl", PreferencePair))) == line.pairs
        images = "others" if name == "pic_in_pic_only" else "photos"
        assert image_folders(tmp_path / "arms" / name)[-1] == (tmp_path / images).resolve()
    assert kept["nll_only"].train == {"loss": "sigmoid", "dpo_alpha": 0.0, "gamma": 1.0}
    before = {path: path.read_bytes() for path in (tmp_path / "arms").rglob("*.json*")}
    write()
    assert before == {path: path.read_bytes() for path in (tmp_path / "arms").rglob("*.json*")}


def test_nothing_to_compare_is_an_error_that_says_why(scored: list[ScoredSample], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scored.jsonl", scored)
    pools = {v.name: read_pool(tmp_path, SelectSettings(), v) for v in VARIANTS if v.name in ("full", "grid_only")}
    with pytest.raises(DataError, match="grid_only: its selection gives 0 pairs, 30 are needed"):
        write_arms(pools, dict.fromkeys(pools, tmp_path), tmp_path / "arms", SelectSettings(), 30)
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


def test_a_comparison_counts_by_hand(tmp_path: Path) -> None:
    before = [True, False, False, False]
    runs = {
        "full": {0: predictions([True, True, True, False], before), 1: predictions([True, True, False, False], before)},
        "nll_only": {0: predictions([True, True, False, False], before), 1: predictions([False, False, False, False], before)},
    }
    table = compare(outcomes(runs))
    full, nll = table.row("full", "sequence"), table.row("nll_only", "sequence")
    assert (full.n, table.seeds, full.before, full.after) == (4, 2, 0.25, 0.625)
    assert full.gain.mean == pytest.approx(0.375)
    assert full.per_seed == [0.5, 0.25]
    assert full.over_reference is None
    assert nll.gain.mean == pytest.approx(0.0)
    assert nll.over_reference is not None
    assert nll.over_reference.mean == pytest.approx(-0.375)
    assert table.groups == ["sequence", "multi_image"]
    assert table.row("full", "multi_image").gain == full.gain

    write_jsonl(tmp_path / "outcomes.jsonl", outcomes(runs))  # all that the table needs
    assert compare(read_jsonl(tmp_path / "outcomes.jsonl", Outcome)) == table


def test_a_smaller_arm_is_compared_with_its_control() -> None:
    before = [False] * 4
    after = {"full": [True] * 3 + [False], "full_2": [True] + [False] * 3, "grid_only": [True, True, False, False]}
    found = outcomes({name: {0: predictions(right, before)} for name, right in after.items()})
    controlled, plain = compare(found, {"grid_only": "full_2"}), compare(found)
    ours = [table.row("grid_only", "sequence").over_reference for table in (controlled, plain)]
    assert [effect.mean for effect in ours if effect] == pytest.approx([0.25, -0.25])
    with pytest.raises(ValueError, match="expected the arm 'full_9'"):
        compare(found, {"grid_only": "full_9"})


def test_different_samples_or_seeds_are_refused() -> None:
    one = predictions([True], [False])
    with pytest.raises(ValueError, match="expected the same 1 samples"):
        outcomes({"full": {0: one}, "other": {0: predictions([True], [False], "grid")}})
    with pytest.raises(ValueError, match=r"expected the seeds \[0\], got \[1\]"):
        outcomes({"full": {0: one}, "other": {1: one}})
    with pytest.raises(ValueError, match="expected the arm 'full'"):
        compare(outcomes({"other": {0: one}}))


def test_the_interval_is_the_normal_one_for_one_seed() -> None:
    values = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(1, 3000))
    half = 1.96 * values.std() / np.sqrt(3000)
    found = crossed_bootstrap(values)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_the_interval_knows_the_spread_between_seeds() -> None:
    seeds, samples = 4, 2000
    values = np.repeat(np.array([[-0.1], [0.0], [0.1], [0.2]]), samples, axis=1)
    spread = np.std([-0.1, 0.0, 0.1, 0.2], ddof=1) / np.sqrt(seeds)
    found = crossed_bootstrap(values)
    assert found.value == pytest.approx(0.05)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.12)
