from __future__ import annotations

from collections.abc import Callable

import pytest
from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_select import Selector, SelectSettings, select
from mia_select.rules import RULES, edit_distance, length_ratio
from mia_select.selection import one_sided
from mia_select.selection.one_sided import AnswerCounts

MakeScored = Callable[..., ScoredSample]


def outcome(sample: ScoredSample, **settings: object) -> PreferencePair | Dropped:
    (result,) = select([sample], SelectSettings.model_validate(settings))
    return result


def rule(sample: ScoredSample, **settings: object) -> tuple[str, float | str | None] | None:
    result = outcome(sample, **settings)
    return (result.rule, result.value) if isinstance(result, Dropped) else None


def test_a_wrong_answer_given_while_looking_elsewhere_becomes_the_rejected_side(make_scored: MakeScored) -> None:
    pair = outcome(make_scored(ratio=0.8))
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.rejected) == ("The color is red.", "The color is blue.")
    assert (pair.id, pair.scores.ratio, pair.scores.perplexity) == ("a", 0.8, 1.5)
    assert pair.scores.length_ratio == pytest.approx(18 / 17)
    assert pair.scores.edit_distance == pytest.approx(4 / 18)


def test_pairs_at_the_threshold_behave_as_in_the_paper(make_scored: MakeScored) -> None:
    assert rule(make_scored(ratio=0.8)) is None
    assert rule(make_scored(ratio=0.81)) == ("attention", 0.81)
    assert rule(make_scored(format="grid", parts=4, ratio=0.5)) == ("attention", 0.5)
    assert rule(make_scored(format="grid", parts=4, ratio=0.49)) is None
    assert rule(make_scored(format="pic_in_pic", ratio=0.8)) == ("attention", 0.8)


def test_the_attention_rule_can_be_turned_off(make_scored: MakeScored) -> None:
    assert rule(make_scored(ratio=0.99), attention=False) is None
    assert rule(make_scored(ratio=None), attention=False) is None


def test_what_could_not_be_measured_is_dropped_with_its_reason(make_scored: MakeScored) -> None:
    assert rule(make_scored(ratio=None)) == ("unmeasured", "no generated row")
    assert rule(make_scored(perplexity=None)) == ("unmeasured", "no perplexity")


def test_answers_equal_but_for_case_punctuation_and_articles_are_right(make_scored: MakeScored) -> None:
    assert rule(make_scored(response="the colour is red", answer="The colour is the Red!")) == ("correct", "the colour is red")


def test_perplexity_keeps_only_above_its_limit(make_scored: MakeScored) -> None:
    assert rule(make_scored(perplexity=1.1)) == ("perplexity", 1.1)
    assert rule(make_scored(perplexity=1.101)) is None
    assert rule(make_scored(perplexity=1.0), min_perplexity=None) is None


def test_ground_truths_of_512_characters_are_too_long(make_scored: MakeScored) -> None:
    words = " ".join(f"word{i}" for i in range(100))
    assert rule(make_scored(answer=words[:512])) == ("answer_too_long", 512.0)
    assert rule(make_scored(answer=words[:511]), max_length_ratio=None) is None


def test_length_ratio_ignores_short_answers_and_drops_disparity(make_scored: MakeScored) -> None:
    assert length_ratio("Two", "The color is red") == 1.0
    assert length_ratio("x" * 64, "Two") == length_ratio("Two", "x" * 64) == 4.0
    words = " ".join(f"word{i}" for i in range(11))
    assert len(words) == 66
    assert rule(make_scored(answer="Yes.", response=words)) == ("length_ratio", 66 / 16)
    assert rule(make_scored(answer="Yes.", response="No, it is parked at the other side of the road.")) is None


def test_edit_distance_keeps_one_word_differences_and_drops_near_identical_texts(make_scored: MakeScored) -> None:
    assert edit_distance("The color is red.", "the color is RED.") == 0.0
    assert edit_distance("kitten", "sitting") == pytest.approx(3 / 7)
    assert rule(make_scored(answer="The letter is A.", response="The letter is B.")) is None
    long = "The man in the picture wears a grey coat, holds an umbrella and waits at the bus stop"
    assert rule(make_scored(answer=long, response=long + "s")) == ("edit_distance", pytest.approx(1 / 86))


@pytest.mark.parametrize(
    ("response", "value"),
    [("", "empty"), ("It is <image> red", "image token <image>"), ("the car " * 10, "repetition loop")],
)
def test_degenerate_responses_have_their_own_rule(make_scored: MakeScored, response: str, value: str) -> None:
    assert rule(make_scored(response=response)) == ("degenerate", value)


def test_a_ground_truth_with_an_image_token_is_refused(make_scored: MakeScored) -> None:
    assert rule(make_scored(answer="It is <image>")) == ("degenerate", "ground truth: image token <image>")


def test_values_at_the_limits_of_post_selection_are_kept(make_scored: MakeScored) -> None:
    sample = make_scored(answer="abcdefghij" * 2, response="klmnopqrst" + "uvwxyzabcd" + "efghijklmn" + "opqrstuvwx")
    assert rule(sample, max_length_ratio=2.0) is None
    assert rule(sample, max_length_ratio=1.99) == ("length_ratio", 2.0)
    near = make_scored(answer="abcdefghijklmnopqrst", response="abcdefghijklmnopqrsu")
    assert rule(near, min_edit_distance=0.05) is None
    assert rule(near, min_edit_distance=0.051) == ("edit_distance", 0.05)


def test_only_the_wanted_formats_are_taken(make_scored: MakeScored) -> None:
    assert rule(make_scored(format="grid", parts=4), formats=["sequence"]) == ("format", "grid")
    assert rule(make_scored(format="single", parts=1)) == ("format", "single")


def test_duplicates_are_dropped_once_seen(make_scored: MakeScored) -> None:
    first, again = make_scored("a"), make_scored("a")
    renamed = first.model_copy(update={"id": "b"})
    results = list(select([first, again, renamed, make_scored("c")]))
    assert [getattr(r, "value", "pair") for r in results] == ["pair", "id", "content", "pair"]


def test_a_cap_per_source_image_takes_the_first(make_scored: MakeScored) -> None:
    samples = [make_scored(name, path="coco/same.jpg") for name in "abc"] + [make_scored("d")]
    results = list(select(samples, SelectSettings(per_image=2)))
    assert [r.rule if isinstance(r, Dropped) else r.id for r in results] == ["a", "b", "per_image", "d"]
    asked = [make_scored(name, target=1, path=f"coco/{name}.jpg") for name in "xyz"]
    companions = [
        sample.model_copy(
            update={"source": sample.source.model_copy(update={"paths": ["coco/same.jpg", sample.source.paths[1]]})}
        )
        for sample in asked
    ]
    assert all(isinstance(r, PreferencePair) for r in select(companions, SelectSettings(per_image=1))), "companions don't count"


def test_balance_cuts_every_group_to_the_smallest(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}") for i in range(30)] + [make_scored(f"g{i}", format="grid") for i in range(7)]
    settings = SelectSettings(balance=["format"])
    kept = [r for r in select(samples, settings) if isinstance(r, PreferencePair)]
    assert sorted(p.format for p in kept) == ["grid"] * 7 + ["sequence"] * 7
    assert [p.id for p in kept if p.format == "sequence"] != [f"s{i}" for i in range(7)], "a random draw, not the first"
    again = [r for r in select(reversed(samples), settings) if isinstance(r, PreferencePair)]
    assert {p.id for p in again} == {p.id for p in kept}, "the draw does not depend on the order"
    other = [r for r in select(samples, SelectSettings(balance=["format"], seed=1)) if isinstance(r, PreferencePair)]
    assert {p.id for p in other} != {p.id for p in kept}
    assert sorted(p.format for p in other) == ["grid"] * 7 + ["sequence"] * 7


def test_balance_by_target_position(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}", parts=3, target=min(i % 5, 2)) for i in range(50)]
    kept = [r for r in select(samples, SelectSettings(balance=["parts", "target"])) if isinstance(r, PreferencePair)]
    assert [sum(p.target == t for p in kept) for t in range(3)] == [10, 10, 10]


def test_max_pairs_draws_exactly_so_many_after_balance(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}") for i in range(40)] + [make_scored(f"g{i}", format="grid") for i in range(20)]
    selector = Selector(SelectSettings(balance=["format"], max_pairs=15))
    kept = [r for r in selector.run(iter(samples)) if isinstance(r, PreferencePair)]
    assert len(kept) == 15
    dropped = {r.rule: r.dropped for r in selector.report().rules if r.dropped}
    assert dropped == {"balance": 20, "max_pairs": 25}


def test_the_funnel_adds_up_per_rule_and_bucket(make_scored: MakeScored) -> None:
    samples = [
        make_scored("a"),
        make_scored("b", ratio=0.9),
        make_scored("c", response="the color is red"),
        make_scored("d", perplexity=1.0),
        make_scored("e", format="grid", parts=4, response=""),
        make_scored("f", format="grid", parts=4),
    ]
    selector = Selector()
    list(selector.run(samples))
    report = selector.report()
    assert (report.samples, report.candidates, report.pairs) == (6, 6, 2)
    assert [r.rule for r in report.rules] == [rule.name for rule in RULES]
    counts = {r.rule: (r.entered, r.dropped, r.kept) for r in report.rules}
    assert counts["degenerate"] == (6, 1, 5)
    assert counts["correct"] == (5, 1, 4)
    assert counts["attention"] == (4, 1, 3)
    assert counts["perplexity"] == (3, 1, 2)
    assert report.rules[-1].kept == 2
    grid, sequence = report.buckets
    assert (grid.format, grid.parts, grid.entered, grid.dropped, grid.kept) == ("grid", 4, 2, {"degenerate": 1}, 1)
    assert (sequence.entered, sequence.dropped, sequence.kept) == (4, {"correct": 1, "attention": 1, "perplexity": 1}, 1)


def test_a_rule_that_takes_nearly_everything_is_pointed_out(make_scored: MakeScored) -> None:
    selector = Selector()
    list(selector.run(make_scored(f"s{i}", perplexity=1.01 if i else 1.5) for i in range(30)))
    assert any("'perplexity' dropped 29 of the 30" in warning for warning in selector.report().warnings)


def test_a_flood_of_different_answers_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_sided, "DISTINCT", 2)
    counts = AnswerCounts()
    for number in range(40):
        counts.add(chosen=f"it is {number}", rejected="yes")
    assert counts.one_sided() == "'yes' (40 to 0)"
    for _ in range(20):  # known from the other side, so counted
        counts.add(chosen="yes", rejected="new")
        counts.add(chosen="yes", rejected="newer")
    assert counts.one_sided() == "'new' (20 to 0)"


def colours(number: int, response: str, answer: str, make_scored: MakeScored, name: str) -> list[ScoredSample]:
    return [make_scored(f"{name}{i}", response=response, answer=answer) for i in range(number)]


def test_answers_rejected_far_more_often_than_chosen_are_pointed_out(make_scored: MakeScored) -> None:
    def warnings(blue_chosen: int, **settings: object) -> list[str]:
        rejected = colours(60, "The color is blue.", "The color is red.", make_scored, "r")
        chosen = colours(blue_chosen, "The color is red.", "Color is: Blue", make_scored, "c")
        selector = Selector(SelectSettings.model_validate({"attention": False, **settings}))
        list(selector.run(rejected + chosen))
        return selector.report().warnings

    assert "'color is blue' (60 to 20)" in warnings(20)[0]
    assert warnings(21) == []  # 60 is less than three times 21
    assert warnings(0, max_pairs=19) == []  # of what is kept, too few
