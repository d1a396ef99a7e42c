"""Answers that agree without being equal: cuts worked by hand, and what the rule `correct` makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from mia_augment.errors import ConfigError
from mia_augment.records import LogpAlone, PreferencePair, ScoredSample
from mia_augment.statistics import two_groups_cut
from mia_select import Selector, SelectSettings, select, select_pairs
from mia_select.selection.agreement import HIGHEST, agreement_cut, likely_cut

MakeScored = Callable[..., ScoredSample]

LIKELY = SelectSettings(correct="likely", attention=False)


def rules(scored: Iterable[ScoredSample], settings: SelectSettings) -> dict[str, str]:
    return {one.id: "kept" if isinstance(one, PreferencePair) else one.rule for one in select(list(scored), settings)}


def test_the_cut_parts_the_values_where_the_means_lie_farthest_apart() -> None:
    # 2 | 2: 2 * 2 * (0.05 - 0.95)^2 = 3.24; 1 | 3 and 3 | 1: 1 * 3 * (2 / 3)^2 = 1.33
    assert two_groups_cut([1.0, 0.0, 0.9, 0.1]) == 0.5
    # 4 | 1: 4 * 1 * (0.075 - 1)^2 = 3.42; 3 | 2: 3 * 2 * (0 - 0.65)^2 = 2.54
    assert two_groups_cut([0.0, 0.0, 0.0, 0.3, 1.0]) == pytest.approx(0.65)
    assert two_groups_cut([0.4, 0.4]) is None
    assert two_groups_cut([]) is None


def test_where_there_are_no_two_groups_the_cut_stays_between_chance_and_the_highest() -> None:
    assert agreement_cut([0.97, 0.99, 0.999], 4) == HIGHEST  # all right
    assert agreement_cut([0.0, 1e-4, 2e-4], 4) == 0.25  # all wrong
    assert agreement_cut([0.0, 0.0], 5) == 0.2
    assert agreement_cut([0.0, 0.1, 0.9, 1.0], 3) == 0.5


def answers(make_scored: MakeScored) -> list[ScoredSample]:
    """Paraphrases, likely under the target, and mix-ups, likely under another picture; none has the ground truth's words."""
    right = [make_scored(f"r{i}", response=f"It looks quite red, {i} times.", ratio=0.95, layer="alone") for i in range(3)]
    wrong = [make_scored(f"w{i}", response=f"It looks quite blue, {i} times.", ratio=0.05, layer="alone") for i in range(3)]
    return [*right, *wrong]


def test_a_paraphrase_is_right_and_a_mix_up_wrong(make_scored: MakeScored) -> None:
    scored = answers(make_scored)
    assert set(rules(scored, SelectSettings(attention=False)).values()) == {"kept"}  # by equality all are wrong
    assert rules(scored, LIKELY) == {one.id: "correct" if one.id.startswith("r") else "kept" for one in scored}


def test_equal_words_are_right_whatever_the_share(make_scored: MakeScored) -> None:
    same = make_scored("e", response="the color is RED", ratio=0.01, layer="alone")
    assert rules([same, *answers(make_scored)], LIKELY)["e"] == "correct"


def test_agreement_counts_in_what_the_selection_says_about_the_ratio(make_scored: MakeScored) -> None:
    selector = Selector(SelectSettings(correct="likely"))
    list(selector.run(answers(make_scored)))
    (line,) = selector.report().thresholds
    assert (line.right, line.wrong) == (3, 3)


def measured(one: ScoredSample, *per_token: float, own: float | None = -0.01) -> ScoredSample:
    """With log-probs under each picture alone, six tokens long, and that of the own answer about the target."""
    found = LogpAlone(summed=[6 * logp for logp in per_token], per_token=list(per_token))
    weights = [math.exp(6 * logp) for logp in per_token]
    attention = one.attention.model_copy(update={"logp_alone": found, "ratio": weights[one.target] / sum(weights)})
    return one.model_copy(update={"attention": attention, "own_mean_logp": own})


def test_companions_of_which_the_same_is_true_take_nothing_from_a_right_answer(make_scored: MakeScored) -> None:
    right = [
        measured(make_scored(f"r{i}", parts=3, response=f"quite red {i}", layer="alone"), -0.01, -0.01, -0.01) for i in range(9)
    ]
    wrong = [measured(make_scored(f"w{i}", parts=3, response=f"blue {i}", layer="alone"), -2.0, -0.01, -0.01) for i in range(9)]
    assert all(one.attention.ratio == pytest.approx(1 / 3) for one in right)
    assert rules([*right, *wrong], LIKELY) == {one.id: "correct" if one in right else "kept" for one in [*right, *wrong]}


def test_an_answer_about_none_of_the_pictures_is_wrong_however_large_its_share(make_scored: MakeScored) -> None:
    right = [measured(make_scored(f"r{i}", response=f"quite red {i}", layer="alone"), -0.01, -3.0) for i in range(20)]
    none = measured(make_scored("n", response="maybe green", layer="alone"), -1.5, -2.5)
    assert none.attention.ratio is not None
    assert none.attention.ratio > 0.99
    assert rules([*right, none], LIKELY)["n"] == "kept"
    selector = Selector(LIKELY)
    list(selector.run([*right, none]))
    # two groups, -0.01 and -1.5: the cut lies midway, and all own answers reach -0.01
    assert selector.report().said_of_none_below == pytest.approx(-0.755)
    unknown = [one.model_copy(update={"own_mean_logp": None}) for one in [*right, none]]
    assert rules(unknown, LIKELY)["n"] == "correct"  # nothing to tell by how likely an answer about its picture is


def test_the_cut_stays_within_what_suffices() -> None:
    assert likely_cut([0.7, 0.8, 1.0]) == 0.5  # all agree
    assert likely_cut([0.0, 0.01]) == 0.1  # none does
    assert likely_cut([0.0, 0.0, 0.6, 0.6]) == pytest.approx(0.3)
    assert likely_cut([]) == 0.5


def test_a_share_of_attention_does_not_tell_agreement(make_scored: MakeScored) -> None:
    with pytest.raises(ConfigError, match=r"scored with `score\.layer: alone`, got layer 16"):
        list(select([make_scored()], LIKELY))


def test_a_file_is_judged_as_a_list_is(make_scored: MakeScored, tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    folder.mkdir()
    scored = [measured(one, *((-0.01, -2.0) if one.id[0] == "r" else (-2.0, -0.01))) for one in answers(make_scored)]
    (folder / "scored.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in scored))
    manifest = select_pairs(folder, tmp_path / "pairs", LIKELY)
    assert (manifest.counts["pairs"], manifest.counts["dropped/correct"]) == (3, 3)


def test_thresholds_between_two_groups_need_no_ground_truth(make_scored: MakeScored) -> None:
    scored = [
        make_scored(f"s{i}", answer="", own="red", response=f"blue {i}", ratio=0.05 if i % 2 else 0.95, layer="alone")
        for i in range(30)
    ]
    settings = SelectSettings.model_validate({"chosen": "own", "calibrate": {"by": "groups"}})
    selector = Selector(settings)
    kept = [one.id for one in selector.run(scored) if isinstance(one, PreferencePair)]
    assert kept == [f"s{i}" for i in range(1, 30, 2)]
    (line,) = selector.report().thresholds
    assert (line.threshold, line.origin) == (0.5, "groups")
